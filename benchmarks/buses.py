"""Kafka and core NATS as a publisher and a subscriber use them who care for single messages."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Any, Final

import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword.spi import Channel
from watchword_adapters.kafka import SigningProducer, VerifyingConsumer
from watchword_adapters.nats import WatchwordClient, connect

from . import cast
from .core import BATCH, SIZE
from .pair import Hear, Talker
from .stages import EQUAL, is_ours
from .topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from watchword.message import Header

ROOM: Final[Mapping[str, Any]] = {"pending_msgs_limit": 1 << 20, "pending_bytes_limit": 1 << 30}
"""What a subscription may hold: nothing is to be dropped as of a slow consumer."""

_BACK: Final = 300.0


async def headers_on_kafka(kind: str, topic: str, *, batch: int) -> Iterator[list[Header]]:
    """Return the headers that one message has after the other, as this kind of client is given them."""
    if kind != EQUAL:
        return repeat(list(cast.HEADERS))
    return cycle(await cast.with_lookalikes(Channel("kafka", cast.REALM, topic), SIZE, batch=batch))


async def headers_on_nats(kind: str, subject: str, *, batch: int) -> Iterator[dict[str, str]]:
    """Do as ``headers_on_kafka`` does."""
    own: list[Sequence[Header]] = [cast.HEADERS]
    if kind == EQUAL:
        own = [*await cast.with_lookalikes(Channel("nats", cast.REALM, subject), SIZE, batch=batch)]
    return cycle([{name: (value or b"").decode() for name, value in headers} for headers in own])


@dataclass(frozen=True, slots=True)
class Nats:
    """Core NATS, for clients of a kind; ``batch`` is how many messages of ours get signed together."""

    address: str
    kind: str
    batch: int
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def subject(self) -> str:
        """Where they meet."""
        return f"watchword-bench.{self.run}"

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Talker]:
        """See ``Bus``."""
        headers = await headers_on_nats(self.kind, self.subject, batch=self.batch)
        async with self._client(time.time) as client:

            async def send(value: bytes) -> None:
                await client.publish(self.subject, value, headers=next(headers))

            yield Talker(send, client.flush)

    @asynccontextmanager
    async def listening(self, hear: Hear) -> AsyncIterator[None]:
        """See ``Bus``."""
        clock = Clock()
        async with self._client(clock) as client:
            await client.subscribe(self.subject, cb=_callback(hear), **ROOM)
            await client.flush()
            if isinstance(client, WatchwordClient):
                await client.ready()
            clock.right()
            yield

    @asynccontextmanager
    async def _client(self, clock: Callable[[], float]) -> AsyncIterator[Client]:
        if is_ours(self.kind):
            client: Client = await connect(self.address, watchword=cast.agent(batch=BATCH, clock=clock))
        else:
            client = await nats.connect(self.address)
        try:
            yield client
        finally:
            await client.close()


class Clock:
    """A clock that stands minutes back until it is put right.

    A subscription on core NATS takes nothing that was issued before it began, and up to the clocks' skew after that:
    what is issued by the true clock is far behind that.
    """

    def __init__(self) -> None:
        self._back = _BACK

    def right(self) -> None:
        """Put it right."""
        self._back = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return time.time() - self._back


def _callback(hear: Hear) -> Any:
    async def callback(msg: Msg) -> None:
        hear(msg.data)

    return callback


@dataclass(frozen=True, slots=True)
class Kafka:
    """Kafka, one topic of one partition, for clients of a kind; ``batch`` as for ``Nats``."""

    address: str
    kind: str
    batch: int
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def topic(self) -> str:
        """Where they meet."""
        return f"watchword-bench-{self.run}"

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Talker]:
        """See ``Bus``."""
        headers = await headers_on_kafka(self.kind, self.topic, batch=self.batch)
        async with self._producer() as producer:

            async def send(value: bytes) -> None:
                await producer.send(self.topic, value, key=b"job", partition=0, headers=next(headers))

            yield Talker(send, producer.flush)

    def _producer(self) -> AIOKafkaProducer:
        own: dict[str, Any] = {"bootstrap_servers": self.address, "enable_idempotence": True}
        if is_ours(self.kind):
            return SigningProducer(watchword=cast.agent(batch=BATCH), **own)
        return AIOKafkaProducer(**own)

    @asynccontextmanager
    async def listening(self, hear: Hear) -> AsyncIterator[None]:
        """See ``Bus``."""
        async with Topics(self.address, self.topic), self._consumer() as consumer:
            task = asyncio.create_task(_iterate(consumer, hear))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _consumer(self) -> AIOKafkaConsumer:
        own: dict[str, Any] = {"bootstrap_servers": self.address, "auto_offset_reset": "earliest"}
        if is_ours(self.kind):
            return VerifyingConsumer(self.topic, watchword=cast.agent(batch=BATCH), **own)
        return AIOKafkaConsumer(self.topic, **own)


async def _iterate(consumer: AIOKafkaConsumer, hear: Hear) -> None:
    async for record in consumer:
        hear(record.value)
