"""The Kafka interceptors under the contract of all buses, against a real broker."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.brokers.plugin import MakeTopic
from watchword import Unavailable, Watchword
from watchword_adapters.contract.bus import BusContract, BusHarness, Received, Wire
from watchword_adapters.kafka import ObservedRecord, SigningProducer, VerifyingConsumer


class Tap:
    """A plain consumer."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer

    async def next(self) -> Wire:
        """See ``Tap``."""
        record = await self._consumer.getone()
        return Wire(value=record.value, key=record.key, headers=tuple(record.headers), partition=record.partition)


class Intake:
    """A verifying consumer."""

    def __init__(self, consumer: VerifyingConsumer) -> None:
        self._consumer = consumer

    async def next(self) -> Received:
        """See ``Intake``."""
        while True:
            try:
                record = await self._consumer.getone()
            except Unavailable:
                continue
            verdict = record.verdict if isinstance(record, ObservedRecord) else record.verified
            return Received(value=record.value, headers=tuple(record.headers), verdict=verdict)


class KafkaHarness(BusHarness):
    """One broker; channels are topics of one partition."""

    scheme = "kafka"
    tombstones = True
    redelivers = True

    def __init__(self, bootstrap: str, make_topic: MakeTopic) -> None:
        self._bootstrap = bootstrap
        self._make_topic = make_topic

    async def new_channel(self) -> str:
        """See ``BusHarness``."""
        return await self._make_topic()

    async def publish(self, watchword: Watchword, channel: str, message: Wire) -> None:
        """See ``BusHarness``."""
        async with SigningProducer(
            bootstrap_servers=self._bootstrap, enable_idempotence=True, watchword=watchword
        ) as producer:
            await producer.send_and_wait(channel, message.value, message.key, 0, headers=list(message.headers))

    async def publish_raw(self, channel: str, message: Wire) -> None:
        """See ``BusHarness``."""
        async with AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer:
            await producer.send_and_wait(channel, message.value, message.key, 0, headers=list(message.headers))

    @asynccontextmanager
    async def tap(self, channel: str) -> AsyncIterator[Tap]:
        """See ``BusHarness``."""
        async with AIOKafkaConsumer(channel, bootstrap_servers=self._bootstrap) as consumer:
            await consumer.seek_to_end()
            yield Tap(consumer)

    @asynccontextmanager
    async def intake(
        self, watchword: Watchword, channel: str, *, deserializer: Callable[[bytes | None], object] | None = None
    ) -> AsyncIterator[Intake]:
        """See ``BusHarness``."""
        options: dict[str, Any] = {"bootstrap_servers": self._bootstrap, "value_deserializer": deserializer}
        async with VerifyingConsumer(channel, watchword=watchword, **options) as consumer:
            await consumer.seek_to_end()
            yield Intake(consumer)


class TestKafka(BusContract):
    """Kafka keeps the contract."""

    @pytest.fixture
    def harness(self, kafka_bootstrap: str, make_topic: MakeTopic) -> BusHarness:
        """Give the Kafka of this run."""
        return KafkaHarness(kafka_bootstrap, make_topic)
