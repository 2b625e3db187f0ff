"""Core NATS: one subject, one queue group that all workers share, ids in a store; no positions, no acks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from nats.aio.client import Client
from nats.errors import Error

from chaos.bus import Captured, Handed
from chaos.evidence import ARRIVED, ORIGINAL, Writer
from chaos.nats_clients import connected, settled, speakers
from watchword import SigningError, Unavailable
from watchword_adapters.nats import VerifiedMsg, WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nats.aio.msg import Msg

    from chaos.bus import Handler
    from chaos.cast import Worker
    from chaos.plan import Plan

_QUEUE: Final = "workers"
_WITNESS_SECONDS: Final = 2.0
"""What a witness with a connection may take to say that it saw a copy."""

_LANES: Final = 8
"""Subscriptions that a worker has in the group: each of them judges one message after another."""


class QueueGroup:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._subject = f"{plan.channel}.tasks"

    async def prepare(self) -> None:
        """See ``Bus``; subjects need no preparation."""

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[_Speaking]:
        """See ``Bus``."""
        async with speakers(self._plan) as clients:
            yield _Speaking(self._subject, clients)

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[_Attacking]:
        """See ``Bus``."""
        async with connected(Client(), self._plan.address) as client:
            seen: asyncio.Queue[Msg] = asyncio.Queue()
            await client.subscribe(self._subject, cb=seen.put)
            yield _Attacking(client, seen)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``."""

        async def take(msg: Msg) -> None:
            if isinstance(msg, VerifiedMsg):
                await handle([Handed(msg.verified, msg.verified.issued_at)])

        arrivals = Writer(self._plan.directory, f"{ARRIVED}{worker.name}")
        async with connected(_Tapped(await worker.watchword(), self._subject, arrivals), self._plan.address) as client:
            for _ in range(_LANES):
                await client.subscribe(self._subject, queue=_QUEUE, cb=take)
            await client.flush()
            ready()
            await stop.wait()
            await client.drain()

    async def lag(self) -> int:
        """See ``Bus``."""
        return 0

    def log(self, end: asyncio.Event) -> None:
        """See ``Bus``."""


class _Tapped(WatchwordClient):
    """Writes down what the server hands over, before anything becomes of it."""

    def __init__(self, watchword: Any, subject: str, arrivals: Writer) -> None:
        super().__init__(watchword=watchword)
        self._tapped = subject.encode()
        self._arrivals = arrivals

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if subject == self._tapped:
            self._arrivals.write((data.decode(), reply.decode() or ORIGINAL))
        await super()._process_msg(sid, subject, reply, data, headers)


class _Speaking:
    def __init__(self, subject: str, clients: Sequence[WatchwordClient]) -> None:
        self._subject = subject
        self._clients = cycle(clients)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """Acknowledged is what lies before a PONG on a connection that did not break in between."""
        client = next(self._clients)
        before = client.stats["reconnects"]
        try:
            for name in names:
                await client.publish(self._subject, name.encode())
            await settled(client)
        except (Error, SigningError, Unavailable, TimeoutError):
            return {}
        return dict.fromkeys(names, ORIGINAL) if client.stats["reconnects"] == before else {}


class _Attacking:
    def __init__(self, client: Client, seen: asyncio.Queue[Msg]) -> None:
        self._client = client
        self._seen = seen

    async def captures(self) -> AsyncIterator[Captured]:
        while True:
            msg = await self._seen.get()
            yield Captured(msg.data.decode(), msg)

    async def replay(self, captured: Captured) -> bool:
        """Mark the copy by a reply subject, which was not signed and so reaches no handler; the witness answers."""
        raw = captured.raw
        try:
            await self._client.request(raw.subject, raw.data, timeout=_WITNESS_SECONDS, headers=raw.headers)
        except (Error, TimeoutError):  # the server, or the witness's connection, was away
            return False
        return True
