"""The timestamps of signed records on `CreateTime`: milliseconds, as any producer writes them."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.kafka.world import World, read, values
from watchword import SigningError


async def test_a_look_up_by_time_finds_the_very_record(world: World) -> None:
    """Records some milliseconds apart are found by their own timestamps, which tell when they were sent."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    tp = TopicPartition(topic, 0)
    sent: list[tuple[int, int]] = []
    async with world.producer() as producer:
        for number in range(4):
            begun = int(time.time() * 1000)
            await producer.send_and_wait(topic, b"%d" % number, partition=0)
            sent.append((begun, int(time.time() * 1000)))
            await asyncio.sleep(0.02)
    async with world.consumer(world.reader(), topic) as consumer:
        records = await read(consumer, 4)
    assert values(records) == [b"0", b"1", b"2", b"3"]
    assert all(begun <= record.timestamp <= done for record, (begun, done) in zip(records, sent, strict=True))
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap) as plain:
        for record in records:
            assert (await plain.offsets_for_times({tp: record.timestamp}))[tp].offset == record.offset


async def test_a_callers_own_timestamp(world: World) -> None:
    """One within the skew is kept to the millisecond and verifies; one far off is refused at the call."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    near = int(time.time() * 1000) - 1_234
    async with world.producer() as producer:
        await producer.send_and_wait(topic, b"0", partition=0, timestamp_ms=near)
        for far in (near - 3_600_000, near + 3_600_000):
            try:
                await producer.send_and_wait(topic, b"1", partition=0, timestamp_ms=far)
            except SigningError:
                continue
            raise AssertionError(f"sent with {far}")
    async with world.consumer(world.reader(), topic) as consumer:
        (record,) = await read(consumer, 1)
    assert record.timestamp == near
