"""JetStream: one stream with limits, one durable pull consumer that all workers share, ids in a SQLite file."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

from chaos.bus import Captured, Handed
from chaos.evidence import place
from chaos.nats_clients import connected, speakers
from watchword import Position, SigningError, Unavailable
from watchword.message import NATS_ID_HEADER
from watchword_adapters.nats import VerifiedMsg, WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from nats.aio.msg import Msg
    from nats.js import JetStreamContext

    from chaos.bus import Handler
    from chaos.cast import Worker
    from chaos.plan import Plan
    from watchword_adapters.nats import VerifyingJetStream

_DURABLE: Final = "workers"
_ACK_WAIT: Final = 4.0
_LANES: Final = 16
"""Fetches that a worker has under way at a time."""

_BATCH: Final = 20
_PATIENCE: Final = 5.0
"""Seconds after which no answer of the server's is waited for."""

_NAMED: Final = 0.1
"""Share of the copies that keep the id by which the stream itself drops repeats."""


class Durable:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._stream = plan.channel
        self._subject = f"{plan.channel}.tasks"

    async def prepare(self) -> None:
        """See ``Bus``."""
        async with self._plain() as js:
            await js.add_stream(
                StreamConfig(name=self._stream, subjects=[self._subject], duplicate_window=self._plan.policy.window)
            )
            await js.add_consumer(
                self._stream,
                ConsumerConfig(
                    durable_name=_DURABLE,
                    ack_policy=AckPolicy.EXPLICIT,
                    ack_wait=_ACK_WAIT,
                    max_ack_pending=self._plan.workers * _LANES * _BATCH,
                ),
            )

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[_Speaking]:
        """See ``Bus``."""
        async with speakers(self._plan) as clients:
            yield _Speaking(self._stream, self._subject, [client.jetstream() for client in clients])

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[_Attacking]:
        """See ``Bus``."""
        async with connected(Client(), self._plan.address) as client:
            seen: asyncio.Queue[Msg] = asyncio.Queue()
            await client.subscribe(self._subject, cb=seen.put)
            yield _Attacking(client.jetstream(), seen, self._plan)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``."""
        async with connected(WatchwordClient(watchword=await worker.watchword()), self._plan.address) as client:
            js = client.jetstream()
            lanes = [asyncio.create_task(self._lane(js, handle, stop)) for _ in range(_LANES)]
            ready()
            await asyncio.gather(*lanes)

    async def lag(self) -> int:
        """See ``Bus``."""
        async with self._plain() as js:
            info = await js.consumer_info(self._stream, _DURABLE)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def log(self, end: asyncio.Event) -> AsyncIterator[tuple[str, str]]:
        """See ``Bus``."""
        await end.wait()
        async with self._plain() as js:
            left = (await js.stream_info(self._stream)).state.messages
            config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
            reading = await js.pull_subscribe(self._subject, stream=self._stream, config=config)
            while left > 0:
                for msg in await reading.fetch(min(left, 1000), timeout=_PATIENCE):
                    left -= 1
                    yield msg.data.decode(), place(Position(self._stream, msg.metadata.sequence.stream), None)

    @asynccontextmanager
    async def _plain(self) -> AsyncIterator[JetStreamContext]:
        async with connected(Client(), self._plan.address) as client:
            yield client.jetstream()

    async def _lane(self, js: VerifyingJetStream, handle: Handler, stop: asyncio.Event) -> None:
        reading: Any = None
        while not stop.is_set():
            try:
                reading = reading or await js.pull_subscribe_bind(_DURABLE, self._stream)
                found = await reading.fetch(_BATCH, timeout=1)
                await handle(
                    [
                        Handed(msg.verified, msg.metadata.timestamp.timestamp())
                        for msg in found
                        if isinstance(msg, VerifiedMsg)
                    ]
                )
                for msg in found:
                    await msg.ack()
            except TimeoutError:  # nothing there
                continue
            except Error:  # the server is away
                await asyncio.sleep(0.1)


class _Speaking:
    def __init__(self, stream: str, subject: str, contexts: Sequence[VerifyingJetStream]) -> None:
        self._stream = stream
        self._subject = subject
        self._contexts = cycle(contexts)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        acked: dict[str, str] = {}

        async def one(js: VerifyingJetStream, name: str) -> None:
            try:
                async with asyncio.timeout(_PATIENCE):
                    told = await (await js.publish_async(self._subject, name.encode()))
            except (Error, SigningError, Unavailable, TimeoutError):
                return
            acked[name] = place(Position(self._stream, told.seq), None)

        await asyncio.gather(*(one(next(self._contexts), name) for name in names))
        return acked


class _Attacking:
    def __init__(self, js: JetStreamContext, seen: asyncio.Queue[Msg], plan: Plan) -> None:
        self._js = js
        self._seen = seen
        self._chance = plan.random("named")

    async def captures(self) -> AsyncIterator[Captured]:
        while True:
            msg = await self._seen.get()
            yield Captured(msg.data.decode(), msg)

    async def replay(self, captured: Captured) -> bool:
        headers = dict(captured.raw.headers)
        if self._chance.random() >= _NAMED:
            headers.pop(NATS_ID_HEADER, None)
        try:
            async with asyncio.timeout(_PATIENCE):
                sent = await self._js.publish_async(captured.raw.subject, captured.raw.data, headers=headers)
                return not (await sent).duplicate
        except (Error, TimeoutError):
            return False
