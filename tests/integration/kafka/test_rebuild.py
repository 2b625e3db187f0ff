"""The guard is rebuilt from the partition's log however partitions are read: transactions, assignment, topics."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import REALM, World, read, values
from watchword import ConfigurationError, Unavailable, Watchword
from watchword.spi import Admission, Claim


async def recalls(world: World, topic: str, **options: Any) -> dict[str, int]:
    """Let a reader begin behind what another one committed, and return what it counted."""
    reader = world.reader()
    async with world.consumer(reader, topic, **options) as consumer:
        assert values(await read(consumer, 1)) == [b"end"]
    return dict(reader.audit.counts)


async def test_transactions_are_read_again_as_they_were(world: World) -> None:
    """With read_committed an aborted message was never delivered, so its copy is not a replay; a committed one's is."""
    topic, group = await world.make_topic(), world.unique("group")
    options = {"group_id": group, "isolation_level": "read_committed"}
    async with world.producer(transactional_id=world.unique("tx")) as producer:
        async with producer.transaction():
            await producer.send_and_wait(topic, b"committed", partition=0)
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted", partition=0)
        await producer.abort_transaction()
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(), topic, **options) as consumer:
        assert values(await read(consumer, 1)) == [b"committed"]
        await consumer.getmany(timeout_ms=500)
    await world.inject(topic, captured)
    reader = world.reader()
    async with world.consumer(reader, topic, **options) as consumer:
        assert values(await read(consumer, 1)) == [b"aborted"]
    assert reader.audit.counts == {"replayed": 1, "delivered": 1}


async def test_what_an_open_transaction_hides_is_delivered_when_it_is_committed(world: World) -> None:
    """Where the next record cannot be read yet the memory waits for it."""
    topic = await world.make_topic()
    async with world.producer(transactional_id=world.unique("tx")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"open", partition=0)
        async with world.consumer(world.reader(), topic, isolation_level="read_committed") as consumer:
            assert await consumer.getmany(timeout_ms=300) == {}
            await producer.commit_transaction()
            assert values(await read(consumer, 1)) == [b"open"]


async def test_manual_assignment_and_static_membership(world: World) -> None:
    """However a partition was assigned, what stands before its position is remembered."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    captured = await world.capture(topic)
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic, group_id=group, group_instance_id="me") as consumer:
        assert values(await read(consumer, 1)) == [b"1"]
    await world.inject(topic, captured)
    await world.say(topic, b"end")
    assert await recalls(world, topic, group_id=group, group_instance_id="me") == {"replayed": 1, "delivered": 1}
    reader = world.reader()
    async with world.consumer(reader) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 1)
        assert values(await read(consumer, 1)) == [b"end"]
    assert reader.audit.counts == {"replayed": 1, "delivered": 1}


async def test_each_topic_has_its_own_memory(world: World) -> None:
    """Several topics and partitions are rebuilt side by side, and one that waits does not hold up the others."""
    topics, group = [await world.make_topic(2) for _ in range(2)], world.unique("group")
    async with world.producer() as producer:
        for topic in topics:
            for partition in range(2):
                await producer.send_and_wait(topic, b"1", partition=partition)
    async with world.consumer(world.reader(), *topics, group_id=group) as consumer:
        assert values(await read(consumer, 4)) == [b"1"] * 4
    for topic in topics:
        await world.inject(topic, await world.capture(topic))
        await world.say(topic, b"end")
    reader = world.reader()
    async with world.consumer(reader, *topics, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"end"] * 2
    assert reader.audit.counts == {"replayed": 2, "delivered": 2}


async def test_a_log_that_ends_in_markers_is_rebuilt(world: World) -> None:
    """Where only a transaction's marker stands behind the position, there is no record to wait for."""
    topic, group = await world.make_topic(), world.unique("group")
    async with world.producer(transactional_id=world.unique("tx")) as producer, producer.transaction():
        await producer.send_and_wait(topic, b"1", partition=0)
    captured = await world.capture(topic)
    async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
        (record,) = await read(consumer, 1)
        await consumer.commit({TopicPartition(topic, 0): record.offset + 1})
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await consumer.getmany(timeout_ms=500) == {}
        await world.inject(topic, captured)
        await world.say(topic, b"2")
        assert values(await read(consumer, 1)) == [b"2"]
    assert reader.audit.counts == {"replayed": 1, "delivered": 1}


async def test_a_compacted_topic_is_warned_of(world: World) -> None:
    """Compaction within the window takes originals out of the memory, which the start says; a lag as long does not."""
    for lag, told in (("1000", True), ("360000", False)):
        topic = await world.make_topic(cleanup_policy="compact", min_compaction_lag_ms=lag)
        reader, warned = world.reader(), list[str]()
        reader.audit.warn = lambda event, *, _to=warned, **_fields: _to.append(event)  # type: ignore[method-assign] # a tap
        async with world.consumer(reader, topic) as consumer:
            await consumer.getmany(timeout_ms=10)
            await asyncio.gather(*consumer._verified._stamps._questions)
        assert ("kafka.compaction_forgets" in warned) == told


class Store:
    """A replay store that cannot be opened."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def start(self) -> None:
        """See ``OpenedStore``."""
        raise self._error

    async def claim(self, _: Claim) -> Admission:
        """See ``ReplayStore``."""
        raise self._error


@pytest.mark.parametrize(
    ("error", "expected"), [(ConfigurationError("it may forget"), ConfigurationError), (OSError("down"), Unavailable)]
)
async def test_a_store_that_cannot_be_trusted_is_refused_at_the_start(
    world: World, error: Exception, expected: type[Exception]
) -> None:
    """A consumer does not start with a store that may forget, or is down."""
    consumer = world.consumer(Watchword(realm=REALM, keys=world.keys, replay=Store(error)), "topic", group_id="group")
    with pytest.raises(expected):
        await consumer.__aenter__()


async def test_a_shared_store_stands_in_for_the_signed_partition(world: World) -> None:
    """With a store that the group shares nothing is read again, and a message needs no signed partition."""
    topic = await world.make_topic()
    reader = world.reader(shared=True)
    loose = await world.sign(topic, b"loose", partition=None)
    await world.inject(topic, [loose, loose])
    await world.say(topic, b"end")
    async with world.consumer(reader, topic, group_id=world.unique("group")) as consumer:
        assert values(await read(consumer, 2)) == [b"loose", b"end"]
    assert reader.audit.counts == {"delivered": 2, "replayed": 1}
    alone = world.reader(shared=True)
    async with world.consumer(alone, topic) as consumer:  # without a group it reads alone
        assert values(await read(consumer, 1)) == [b"end"]
    assert alone.audit.counts == {"wrong_partition": 2, "delivered": 1}
