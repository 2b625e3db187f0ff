"""Kafka and core NATS as a publisher and a subscriber use them who care for single messages."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword_adapters.kafka import SigningProducer, VerifyingConsumer
from watchword_adapters.nats import WatchwordClient, connect

from . import cast
from .core import BATCH
from .pair import KINDS, Hear, Talker
from .topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg

ROOM: Final[Mapping[str, Any]] = {"pending_msgs_limit": 1 << 20, "pending_bytes_limit": 1 << 30}
"""What a subscription may hold: nothing is to be dropped as of a slow consumer."""

HEADERS: Final = {name: value.decode() for name, value in cast.HEADERS}
_BACK: Final = 300.0


@dataclass(frozen=True, slots=True)
class Nats:
    """Core NATS, one subject for each kind."""

    address: str
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def subject(self, kind: str) -> str:
        """Name a kind's subject."""
        return f"watchword-bench.{kind}.{self.run}"

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Mapping[str, Talker]]:
        """See ``Bus``."""
        async with AsyncExitStack() as stack:
            yield {kind: self._talker(kind, await self._client(stack, kind, time.time)) for kind in KINDS}

    def _talker(self, kind: str, client: Client) -> Talker:
        subject = self.subject(kind)

        async def send(value: bytes) -> None:
            await client.publish(subject, value, headers=HEADERS)

        return Talker(send, client.flush)

    @asynccontextmanager
    async def listening(self, hear: Hear) -> AsyncIterator[None]:
        """See ``Bus``."""
        clock = Clock()
        async with AsyncExitStack() as stack:
            for kind in KINDS:
                client = await self._client(stack, kind, clock)
                await client.subscribe(self.subject(kind), cb=_callback(kind, hear), **ROOM)
                await client.flush()
                if isinstance(client, WatchwordClient):
                    await client.ready()
            clock.right()
            yield

    async def _client(self, stack: AsyncExitStack, kind: str, clock: Any) -> Client:
        watchword = cast.agent(batch=BATCH, clock=clock)
        client = await (nats.connect(self.address) if kind == "plain" else connect(self.address, watchword=watchword))
        stack.push_async_callback(client.close)
        return client


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


def _callback(kind: str, hear: Hear) -> Any:
    async def callback(msg: Msg) -> None:
        hear(kind, msg.data)

    return callback


@dataclass(frozen=True, slots=True)
class Kafka:
    """Kafka, one topic of one partition for each kind."""

    address: str
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    def topic(self, kind: str) -> str:
        """Name a kind's topic."""
        return f"watchword-bench-{kind}-{self.run}"

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[Mapping[str, Talker]]:
        """See ``Bus``."""
        async with AsyncExitStack() as stack:
            yield {kind: self._talker(kind, await self._producer(stack, kind)) for kind in KINDS}

    def _talker(self, kind: str, producer: AIOKafkaProducer) -> Talker:
        topic, headers = self.topic(kind), list(cast.HEADERS)

        async def send(value: bytes) -> None:
            await producer.send(topic, value, key=b"job", partition=0, headers=headers)

        return Talker(send, producer.flush)

    async def _producer(self, stack: AsyncExitStack, kind: str) -> AIOKafkaProducer:
        own: dict[str, Any] = {"bootstrap_servers": self.address, "enable_idempotence": True}
        producer = (
            AIOKafkaProducer(**own) if kind == "plain" else SigningProducer(watchword=cast.agent(batch=BATCH), **own)
        )
        await stack.enter_async_context(producer)
        return producer

    @asynccontextmanager
    async def listening(self, hear: Hear) -> AsyncIterator[None]:
        """See ``Bus``."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Topics(self.address, *map(self.topic, KINDS)))
            tasks = [asyncio.create_task(_iterate(await self._consumer(stack, kind), kind, hear)) for kind in KINDS]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _consumer(self, stack: AsyncExitStack, kind: str) -> AIOKafkaConsumer:
        own: dict[str, Any] = {"bootstrap_servers": self.address, "auto_offset_reset": "earliest"}
        topic = self.topic(kind)
        consumer = (
            AIOKafkaConsumer(topic, **own)
            if kind == "plain"
            else VerifyingConsumer(topic, watchword=cast.agent(batch=BATCH), **own)
        )
        await stack.enter_async_context(consumer)
        return consumer


async def _iterate(consumer: AIOKafkaConsumer, kind: str, hear: Hear) -> None:
    async for record in consumer:
        hear(kind, record.value)
