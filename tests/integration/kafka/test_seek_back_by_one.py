"""A seek back by one record, as a framework does it for a nack, reads that record again and not the whole window."""

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, read, values
from tests.support.fetched import Fetched
from tests.support.kafka_api import VerifyingConsumer
from tests.support.readers import END, judged, until

MANY, SEEKS = 4_000, 5
SIZE, LARGEST = 500, 2_000
"""Bytes of a value, and at most of a record with its envelope."""

A_FEW = 1_000
"""Records between two checkpoints of one process, at most."""

kinds = pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])


async def filled(world: World, kind: TimestampType) -> str:
    """Make a topic whose whole content lies within the window."""
    topic = await world.make_topic(timestamp_type=kind)
    async with world.producer() as producer:
        for number in range(MANY):
            await producer.send(topic, b"%d " % number + b"x" * SIZE, partition=0)
        await producer.flush()
    return topic


@kinds
@pytest.mark.parametrize("way", ["getone", "getmany"])
async def test_a_seek_back_by_one(world: World, monkeypatch: pytest.MonkeyPatch, kind: TimestampType, way: str) -> None:
    """Seeks back by one fetch and recall little, deliver that record again, and let no copy in."""
    topic = await filled(world, kind)
    tp, fetched = TopicPartition(topic, 0), Fetched()
    fetched.install(monkeypatch)
    reader, recalled = world.reader(), list[int]()
    reader.audit.note = lambda _, **fields: recalled.append(int(fields.get("recalled") or 0))  # type: ignore[method-assign] # a tap
    async with world.consumer(reader, topic) as consumer:
        last = (await read_on(consumer, MANY, way))[-1]
        captured = await world.capture(topic, 2)
        for _ in range(SEEKS):
            recalled.clear()
            fetched.reset()
            consumer.seek(tp, MANY - 1)
            (record,) = await read_on(consumer, 1, way)
            assert record == last
            assert sum(recalled) <= A_FEW
            assert fetched.bytes < LARGEST * (A_FEW + 1)
        await world.inject(topic, captured)
        await world.say(topic, END)
        assert await until(consumer) == [END]
    assert judged(reader)["delivered"] == MANY + SEEKS + 1


async def read_on(consumer: VerifyingConsumer, count: int, way: str) -> list[object]:
    """Return the values of so many records."""
    if way == "getone":
        return values(await read(consumer, count))
    found: list[object] = []
    while len(found) < count:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=count - len(found))).values():
            found += values(records)
    return found


@kinds
async def test_a_partition_that_comes_back_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: TimestampType
) -> None:
    """A rebalance that leaves a partition where it was reads little again, and nothing is handed over twice."""
    topic, group = await filled(world, kind), world.unique("group")
    fetched = Fetched()
    fetched.install(monkeypatch)
    async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
        assert len(await read(consumer, MANY)) == MANY
        for number in range(3):
            await consumer.commit()
            fetched.reset()
            consumer.subscribe([topic])
            await world.say(topic, b"%d" % number)
            assert await until(consumer, b"%d" % number) == [b"%d" % number]
            assert fetched.bytes < LARGEST * (A_FEW + 1)
