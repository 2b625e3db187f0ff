"""What a consumer with a quarantine does, step by step: it judges, and puts what does not verify."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.kafka.world import REALM, World, observe
from tests.support.patience import PATIENCE
from watchword import Mode, Rejected, Unavailable
from watchword.spi import Channel, Message, Position, QuarantineLimits
from watchword_adapters.kafka import ObservedRecord
from watchword_adapters.kafka.quarantine import KafkaQuarantine
from watchword_adapters.kafka.redrive import copies
from watchword_adapters.redriving import Stored


@asynccontextmanager
async def quarantine_in(
    world: World, topic: str, *, limits: QuarantineLimits | None = None, **options: Any
) -> AsyncIterator[KafkaQuarantine]:
    """Open a quarantine that connects as a consumer of this world does."""
    quarantine = KafkaQuarantine(topic, watchword=world.reader(), limits=limits, **({"timeout": 20} | options))
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap) as consumer:
        quarantine.attach(consumer)
        yield quarantine
        await quarantine.close()


async def pass_through(world: World, topic: str, count: int, quarantine: KafkaQuarantine) -> list[bool]:
    """Judge the first records of a topic, and put what does not verify; return what the quarantine said."""
    async with world.consumer(world.reader(mode=Mode.OBSERVE), topic) as consumer:
        return [
            await quarantine.put(judged(record), record.verdict)
            for record in await observe(consumer, count)
            if isinstance(record.verdict, Rejected | Unavailable)
        ]


def judged(record: ObservedRecord) -> Message:
    """Return the message that was judged."""
    return Message(
        channel=Channel("kafka", REALM, record.topic),
        value=record.value,
        key=record.key,
        headers=record.message.headers,
        partition=record.partition,
        position=Position(f"{record.topic}/{record.partition}", record.offset),
        appended_at=record.timestamp / 1000,
        reader="controllers",
    )


async def held(world: World, topic: str) -> list[Stored]:
    """Return what a quarantine topic holds, committed."""
    return await copies(topic, watchword=world.reader(), bootstrap_servers=world.bootstrap)


async def settled(world: World, topic: str, count: int) -> list[Stored]:
    """Return what a quarantine topic holds once it is so many: a broker ends a transaction after it has said so."""
    async with asyncio.timeout(PATIENCE):
        while len(found := await held(world, topic)) < count:
            pass
    return found


async def length(world: World, topic: str) -> int:
    """Return the number of records in partition 0."""
    tp = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap) as consumer:
        end: int = (await consumer.end_offsets([tp]))[tp]
        return end
