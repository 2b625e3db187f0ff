"""Agents on a real Kafka: who speaks, who reads, and what an attacker does with captured records."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.brokers.plugin import MakeTopic
from tests.support.patience import PATIENCE
from watchword import Mode, Policy, SigningKey, Unavailable, Watchword
from watchword.message import Header
from watchword.spi import Channel, Message
from watchword.testing import KeyDirectory, SharedMemoryStore
from watchword_adapters.kafka import ObservedRecord, SigningProducer, VerifiedRecord, VerifyingConsumer

REALM = "test"
PLANNER = "agent://acme/planner"
INTERN = "agent://acme/intern"
CONTROLLER = "agent://acme/controller"


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A record as an attacker has it."""

    value: bytes | None
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    partition: int = 0
    timestamp_ms: int | None = None


class World:
    """One broker, a planner and an intern who hold keys, and readers who know them."""

    def __init__(self, bootstrap: str, make_topic: MakeTopic, unique: Callable[[str], str]) -> None:
        self.bootstrap = bootstrap
        self.make_topic = make_topic
        self.unique = unique
        self.signing = {PLANNER: SigningKey.generate(), INTERN: SigningKey.generate()}
        self.keys = KeyDirectory(key.verification_key(principal) for principal, key in self.signing.items())

    def speaker(self, principal: str = PLANNER, *, clock: Callable[[], float] = time.time) -> Watchword:
        """Return an agent that signs."""
        key, policy = self.signing[principal], Policy(max_skew=30.0)
        return Watchword(realm=REALM, principal=principal, key=key, keys=self.keys, policy=policy, clock=clock)

    def reader(
        self,
        *,
        principal: str = CONTROLLER,
        mode: Mode = Mode.ENFORCE,
        max_age: float = 300.0,
        max_skew: float = 30.0,
        max_hold: float = 30.0,
        clock: Callable[[], float] = time.time,
        realm: str = REALM,
        shared: bool = False,
    ) -> Watchword:
        """Return an agent that verifies."""
        policy = Policy(mode=mode, max_age=max_age, max_skew=max_skew, max_hold=max_hold)
        store = SharedMemoryStore(policy=policy, clock=clock, open_to_all=True) if shared else None
        return Watchword(realm=realm, principal=principal, keys=self.keys, policy=policy, replay=store, clock=clock)

    @asynccontextmanager
    async def producer(self, watchword: Watchword | None = None, **options: Any) -> AsyncIterator[SigningProducer]:
        """Open a signing producer."""
        options = {"enable_idempotence": True} | options
        async with SigningProducer(
            bootstrap_servers=self.bootstrap, watchword=watchword or self.speaker(), **options
        ) as producer:
            yield producer

    @asynccontextmanager
    async def consumer(self, watchword: Watchword, *topics: str, **options: Any) -> AsyncIterator[VerifyingConsumer]:
        """Open a verifying consumer that begins at the first record."""
        options = {"auto_offset_reset": "earliest"} | options
        async with VerifyingConsumer(
            *topics, bootstrap_servers=self.bootstrap, watchword=watchword, **options
        ) as consumer:
            yield consumer

    async def say(self, topic: str, *values: bytes, principal: str = PLANNER, **options: Any) -> None:
        """Send signed values to partition 0."""
        async with self.producer(self.speaker(principal)) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, partition=0, **options)

    async def capture(self, topic: str, count: int = 1) -> list[Captured]:
        """Read the first records of partition 0 as a client that knows nothing of Watchword."""
        async with AIOKafkaConsumer(bootstrap_servers=self.bootstrap) as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            records = [await asyncio.wait_for(consumer.getone(), PATIENCE) for _ in range(count)]
        return [Captured(value=r.value, key=r.key, headers=tuple(r.headers), timestamp_ms=r.timestamp) for r in records]

    async def inject(self, topic: str, records: Iterable[Captured]) -> None:
        """Send records as they are, as an attacker does."""
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap) as producer:
            for r in records:
                await producer.send_and_wait(
                    topic, r.value, r.key, r.partition, timestamp_ms=r.timestamp_ms, headers=list(r.headers)
                )

    async def sign(
        self, topic: str, value: bytes | None, *, clock: Callable[[], float] = time.time, partition: int | None = 0
    ) -> Captured:
        """Sign a record without sending it."""
        message = Message(channel=Channel("kafka", REALM, topic), value=value, partition=partition)
        signed = await self.speaker(clock=clock).signer.sign(message)
        return Captured(value=value, headers=(signed.header,))


async def read(consumer: VerifyingConsumer, count: int) -> list[VerifiedRecord]:
    """Return the next verified records; ask again when something is unavailable."""
    found: list[VerifiedRecord] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            try:
                record = await consumer.getone()
            except Unavailable:
                continue
            assert isinstance(record, VerifiedRecord)
            found.append(record)
    return found


async def observe(consumer: VerifyingConsumer, count: int) -> list[ObservedRecord]:
    """Return the next records in observe mode."""
    found: list[ObservedRecord] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            record = await consumer.getone()
            assert isinstance(record, ObservedRecord)
            found.append(record)
    return found


async def eventually(probe: Callable[[], Awaitable[bool]]) -> None:
    """Wait until ``probe`` says so."""
    async with asyncio.timeout(PATIENCE):
        while not await probe():  # noqa: ASYNC110 - a broker sets no event
            await asyncio.sleep(0.01)


async def committed(consumer: Any, tp: TopicPartition, offset: int | None) -> None:
    """Wait until this offset is committed."""

    async def probe() -> bool:
        return bool(await consumer.committed(tp) == offset)

    await eventually(probe)


def values(records: Iterable[Any]) -> list[Any]:
    """Return what the records hold."""
    return [record.value for record in records]


def without_envelope(record: Captured) -> Captured:
    """Strip the signature."""
    return replace(record, headers=tuple(h for h in record.headers if h[0] != "watchword"))
