"""Kafka: one topic, six partitions, one consumer group, no store; the first worker is a static member."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from chaos.bus import Captured
from chaos.cast import speaker
from chaos.evidence import place
from watchword import Position, SigningError, Unavailable
from watchword_adapters.kafka import SigningProducer, VerifiedRecord, VerifyingConsumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from chaos.bus import Handler
    from chaos.cast import Worker
    from chaos.plan import Plan

PARTITIONS: Final = 6
_GROUP: Final = "workers"
_SESSION_MS: Final = 6000
"""The least that a broker allows by default: so long a killed member's partitions lie idle."""

_ELSEWHERE: Final = 0.05
"""Share of the copies that go to another partition than their original."""


class KafkaGroup:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bootstrap = plan.address
        self._topic = plan.channel
        self._partitions = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]

    async def prepare(self) -> None:
        """See ``Bus``."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            settings = {"message.timestamp.type": "LogAppendTime"}
            topic = NewTopic(self._topic, PARTITIONS, 1, topic_configs=settings)
            answer: Any = await admin.create_topics([topic])
            if any(error[1] for error in answer.topic_errors):
                raise RuntimeError(f"the topic could not be made: {answer.topic_errors}")
        finally:
            await admin.close()

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[_Speaking]:
        """See ``Bus``."""
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(
                    SigningProducer(
                        bootstrap_servers=self._bootstrap,
                        watchword=speaker(self._plan, principal),
                        enable_idempotence=True,
                    )
                )
                for principal in self._plan.speakers()
            ]
            yield _Speaking(self._topic, producers)

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[_Attacking]:
        """See ``Bus``."""
        async with (
            AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest") as consumer,
            AIOKafkaProducer(bootstrap_servers=self._bootstrap) as producer,
        ):
            consumer.assign(self._partitions)
            yield _Attacking(consumer, producer, self._plan)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``."""
        consumer = VerifyingConsumer(
            self._topic,
            watchword=await worker.watchword(),
            bootstrap_servers=self._bootstrap,
            group_id=_GROUP,
            group_instance_id="static" if worker.number == 0 else None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=500,
            max_poll_records=200,
        )
        await _started(consumer)
        try:
            ready()
            while not stop.is_set():
                try:
                    found = await consumer.getmany(timeout_ms=200)
                    records = [record for records in found.values() for record in records]
                    await handle([record.verified for record in records if isinstance(record, VerifiedRecord)])
                    await consumer.commit()
                except Unavailable:
                    continue
                except (
                    KafkaError
                ):  # not committed, for the broker is away or the partitions are another's: they come again
                    await asyncio.sleep(0.1)
        finally:
            await consumer.stop()

    async def lag(self) -> int:
        """See ``Bus``."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap) as consumer:
                ends = await consumer.end_offsets(self._partitions)
            committed = await admin.list_consumer_group_offsets(_GROUP)
        finally:
            await admin.close()
        return sum(end - max(0, committed[tp].offset if tp in committed else 0) for tp, end in ends.items())

    async def log(self) -> AsyncIterator[tuple[str, str]]:
        """See ``Bus``; over the partitions, the broker's clock tells which was first."""
        records = []
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap, auto_offset_reset="earliest") as consumer:
            consumer.assign(self._partitions)
            ends = await consumer.end_offsets(self._partitions)
            open_ones = {tp for tp, end in ends.items() if end}
            while open_ones:
                for tp, found in (await consumer.getmany(timeout_ms=1000)).items():
                    records += [(record.timestamp, record.partition, record.offset, record.value) for record in found]
                    if found[-1].offset + 1 >= ends[tp]:
                        open_ones.discard(tp)
        for _, partition, offset, value in sorted(records):
            yield value.decode(), place(Position(f"/{partition}", offset), None)


class _Speaking:
    def __init__(self, topic: str, producers: Sequence[SigningProducer]) -> None:
        self._topic = topic
        self._producers = cycle(producers)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        acked: dict[str, str] = {}

        async def one(producer: SigningProducer, name: str) -> None:
            try:
                told = await producer.send_and_wait(self._topic, name.encode(), partition=int(name) % PARTITIONS)
            except (KafkaError, SigningError, Unavailable):
                return
            acked[name] = place(Position(f"/{told.partition}", told.offset), None)

        await asyncio.gather(*(one(next(self._producers), name) for name in names))
        return acked


class _Attacking:
    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, plan: Plan) -> None:
        self._consumer = consumer
        self._producer = producer
        self._topic = plan.channel
        self._chance = plan.random("partitions")

    async def captures(self) -> AsyncIterator[Captured]:
        while True:
            try:
                async for record in self._consumer:
                    yield Captured(record.value.decode(), record)
            except KafkaError:
                await asyncio.sleep(0.1)

    async def replay(self, captured: Captured) -> bool:
        record = captured.raw
        elsewhere = self._chance.random() < _ELSEWHERE
        partition = self._chance.randrange(PARTITIONS) if elsewhere else record.partition
        try:
            await self._producer.send_and_wait(
                self._topic, record.value, record.key, partition=partition, headers=list(record.headers)
            )
        except KafkaError:
            return False
        return True


async def _started(consumer: VerifyingConsumer) -> None:
    """Start as soon as the broker lets us: it may just be restarting."""
    while True:
        try:
            await consumer.start()
        except KafkaError:
            await asyncio.sleep(0.2)
        else:
            return
