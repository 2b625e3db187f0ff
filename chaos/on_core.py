"""Core NATS: one subject, and maybe an alias's; no positions, no acks. Workers read it in one of several ways.

They share a queue group, whose ids are in a store; or each is a reader of its own: by a name under which a store has
its ids, or plainly, with a journal.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from nats.errors import ConnectionReconnectingError, Error, SlowConsumerError

from chaos.bus import Handed
from chaos.cast import HAND
from chaos.evidence import ARRIVED, COPY, HERE, ORIGINAL, PRESENT, Writer
from chaos.nats_attack import eavesdropping
from chaos.nats_clients import connected, quarantine, settled, speakers
from chaos.stores import initialise
from watchword import SigningError, Unavailable
from watchword_adapters.nats import VerifiedMsg, WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nats.aio.msg import Msg

    from chaos.bus import Captured, Handler
    from chaos.cast import Worker
    from chaos.nats_attack import Eavesdropper
    from chaos.plan import Plan

QUEUE: Final = "workers"
WITNESS_SECONDS: Final = 2.0
"""What a witness with a connection may take to say that it saw a copy."""

_LANES: Final = 8
"""Subscriptions that a worker has in the group: each of them judges one message after another."""

_TICK: Final = 0.05


class CoreSubject:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    async def prepare(self) -> None:
        """See ``Bus``."""
        subject = self.plan.subjects[0]
        names = [f"name:{name_of(number)}:{subject}" for number in range(self.plan.workers)]
        await initialise(self.plan, f"queue:{QUEUE}:{subject}", *names)

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[Any]:
        """See ``Bus``."""
        async with speakers(self.plan) as clients:
            yield _Speaking(self.plan.subjects[0], clients)

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[Attacking]:
        """See ``Bus``."""
        async with eavesdropping(self.plan) as ears:
            yield Attacking(ears)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``."""
        shape = self.plan.scene.shape

        async def take(msg: Msg) -> None:
            if isinstance(msg, VerifiedMsg):
                await handle([Handed(msg.verified, msg.verified.issued_at)])
                await self.done(msg)

        watchword = await worker.watchword()
        async with quarantine(self.plan, watchword) as kept:
            client = Tapped(worker, watchword, reader=name_of(worker.number) if shape == "named" else None, kept=kept)
            async with connected(client, self.plan.address):
                subscriptions = await self._subscribe(client, take)
                ready()
                while not stop.is_set():
                    while worker.wishes:
                        worker.wishes.popleft()
                        client.says("subscribing again")
                        for subscription in subscriptions:
                            await subscription.drain()  # else what waits in it is gone
                        subscriptions = await self._subscribe(client, take)
                    await asyncio.sleep(_TICK)
                client.says("stopped")
                with suppress(ConnectionReconnectingError):  # the server is away: nothing waits there to be drained
                    await client.drain()

    async def done(self, msg: VerifiedMsg) -> None:
        """Do what is to be done about a message that was handled."""

    async def lag(self) -> int:
        """See ``Bus``."""
        return 0

    def log(self, end: asyncio.Event) -> None:
        """See ``Bus``."""

    async def _subscribe(self, client: Tapped, take: Any) -> list[Any]:
        queue, lanes = ("", 1) if self.plan.scene.is_apart else (QUEUE, _LANES)
        subscriptions = []
        for number in range(lanes):
            for subject in self.plan.subjects:
                HAND.set(f"{client.worker.name}/{number}/{subject}")  # a callback's task begins with what is set now
                subscriptions.append(await client.subscribe(subject, queue=queue, cb=take))
        await settled(client)
        client.says(HERE)
        return subscriptions


class Tapped(WatchwordClient):
    """Writes down what the server hands over, before anything becomes of it, and whether it hands over anything."""

    def __init__(self, worker: Worker, watchword: Any, *, reader: str | None, kept: Any) -> None:
        super().__init__(watchword=watchword, reader=reader, quarantine=kept)
        self.worker = worker
        self._subjects = {subject.encode() for subject in worker.plan.subjects}
        self._arrivals = Writer(worker.plan.directory, f"{ARRIVED}{worker.name}")
        self._presence = Writer(worker.plan.directory, f"{PRESENT}{worker.name}")
        self._has_replies = worker.plan.scene.shape == "requests"
        self.is_there = False

    def says(self, what: str) -> None:
        """Write down whether the worker is given messages, or why not."""
        self.is_there = what == HERE
        self._presence.tell((what,))

    async def heard(self, error: Exception) -> None:
        """Write down that messages were dropped because the worker is slow."""
        if isinstance(error, SlowConsumerError):
            self.says("slow consumer")
            self.says(HERE)

    async def lost(self) -> None:
        """Write down that the connection is gone."""
        if self.is_there:
            self.says("connection lost")

    async def found(self) -> None:
        """Write down that the server knows our subscriptions again."""
        try:
            await settled(self)
        except (Error, TimeoutError):  # gone again
            return
        self.says(HERE)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        if subject in self._subjects:
            self._arrivals.write((data.decode(errors="replace"), self._mark(reply, headers or b"")))
        await super()._process_msg(sid, subject, reply, data, headers)

    def _mark(self, reply: bytes, headers: bytes) -> str:
        """Return what tells a copy from its original."""
        if not self._has_replies:
            return reply.decode() or ORIGINAL
        return headers.partition(f"{COPY}: ".encode())[2].partition(b"\r")[0].decode() or ORIGINAL


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


class Attacking:
    """See ``Attacking`` of a bus."""

    def __init__(self, ears: Eavesdropper) -> None:
        self._ears = ears
        self.captures = ears.captures

    async def replay(self, captured: Captured) -> bool:
        """Mark the copy by a reply subject, which was not signed and so reaches no handler; the witness answers."""
        raw = captured.raw
        try:
            await self._ears.client.request(
                self._ears.elsewhere(), raw.data, timeout=WITNESS_SECONDS, headers=raw.headers
            )
        except (Error, TimeoutError):  # the server, or the witness's connection, was away
            return False
        return True


def name_of(number: int) -> str:
    """Return the name under which a worker reads."""
    return f"worker-{number}"
