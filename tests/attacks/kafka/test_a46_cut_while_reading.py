"""A39, A46: what is read again goes away meanwhile, or is committed meanwhile; copies of what passed stay out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, read, values
from tests.support.broker_tools import alter_topic, commit_for, committed_by, delete_before
from tests.support.clocks import passed
from tests.support.patience import PATIENCE
from tests.support.readers import END, judged, until
from watchword import Watchword
from watchword.spi import Message

kinds = pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
SENT = [b"%d" % number for number in range(40)]
BY_HAND: dict[str, Any] = {"enable_auto_commit": False}
SECOND = 2.1
"""Times of issue are whole seconds: a message that is issued this much later is newer by at least one second."""


async def delivered_and_committed(world: World, topic: str, group: str) -> TopicPartition:
    """Send messages, let a reader have them, and commit."""
    await world.say(topic, *SENT)
    async with world.consumer(world.reader(), topic, group_id=group, **BY_HAND) as consumer:
        assert values(await read(consumer, len(SENT))) == SENT
        await consumer.commit()
    return TopicPartition(topic, 0)


def once_recalled(reader: Watchword, then: Callable[[], Awaitable[None]]) -> None:
    """Do something as soon as the first records are read again, before they are remembered."""
    recall_many, done = reader.verifier.recall_many, list[None]()

    async def recalled(messages: Sequence[Message], **options: Any) -> int:
        if not done:
            done.append(None)
            await then()
        return await recall_many(messages, **options)

    reader.verifier.recall_many = recalled  # type: ignore[method-assign] # a tap


@kinds
async def test_a46_retention_takes_what_is_being_read_again(world: World, kind: TimestampType) -> None:
    """The reader begins again behind the cut, so copies of what it could not remember are stale."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await delivered_and_committed(world, topic, group)
    captured = await world.capture(topic, len(SENT))
    await passed(SECOND)
    await world.inject(topic, captured)
    await world.say(topic, END)
    reader = world.reader()
    once_recalled(reader, lambda: delete_before(world.bootstrap, topic, len(SENT)))
    async with world.consumer(reader, topic, group_id=group, **BY_HAND) as consumer:
        assert await until(consumer) == [END]


@kinds
async def test_a46_a_commit_while_the_log_is_cut_says_no_less(world: World, kind: TimestampType) -> None:
    """Who commits while retention takes what it reads again, and leaves, tells its successor of the cut."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await delivered_and_committed(world, topic, group)
    captured = await world.capture(topic, len(SENT))
    await passed(SECOND)
    await world.inject(topic, captured)
    await world.say(topic, END)
    reader, cut = world.reader(), asyncio.Event()

    async def retention() -> None:
        await delete_before(world.bootstrap, topic, len(SENT))
        cut.set()

    once_recalled(reader, retention)
    async with world.consumer(reader, topic, group_id=group, **BY_HAND) as consumer, asyncio.timeout(PATIENCE):
        while not cut.is_set():
            assert await consumer.getmany(timeout_ms=10, max_records=1) == {}
            await consumer.commit()
    async with world.consumer(world.reader(), topic, group_id=group, **BY_HAND) as consumer:
        assert await until(consumer) == [END]


@kinds
@pytest.mark.parametrize("told", [True, False])
async def test_a46_a_look_up_into_a_deleted_segment(world: World, kind: TimestampType, *, told: bool) -> None:
    """Where the broker finds no record at a time, for the segment is being deleted, nothing counts as remembered."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await alter_topic(world.bootstrap, topic, segment_ms="1000")
    tp = await delivered_and_committed(world, topic, group)
    if not told:  # by another client, say
        await commit_for(world.bootstrap, group, tp, len(SENT))
    captured = await world.capture(topic, len(SENT))
    await passed(SECOND)
    await world.say(topic, b"later")  # in a segment of its own
    await world.inject(topic, captured)
    await delete_before(world.bootstrap, topic, len(SENT))
    reader = world.reader(max_age=20.0, max_skew=1.0)
    async with world.consumer(reader, topic, group_id=group, **BY_HAND) as consumer:
        if told:
            found = await until(consumer, b"later")
        else:  # it may be what is gone, for all the reader knows
            found = []
            assert await consumer.getmany(timeout_ms=1_000) == {}
        await passed(2 * SECOND)
        await world.say(topic, END)
        assert found + await until(consumer) == [b"later"] * told + [END]
    assert judged(reader)["replayed"] + judged(reader)["stale"] >= len(SENT)


@kinds
async def test_a46_retention_overtakes_a_reader_that_was_stopped(world: World, kind: TimestampType) -> None:
    """A reader that stops says so in its last commit: nothing was handed over later, so what was sent later passes."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    clocks: dict[str, Any] = {"max_age": 60.0, "max_skew": 1.0}
    await world.say(topic, b"0", b"1")
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(**clocks), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
    await passed(2 * SECOND)
    await world.say(topic, b"gone", b"2")
    await world.inject(topic, captured)
    await world.say(topic, END)
    await delete_before(world.bootstrap, topic, 3)
    reader = world.reader(**clocks)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [b"2", END]
    assert judged(reader)["stale"] == 2


@kinds
async def test_a14_a_commit_before_the_reader_knows_anything(world: World, kind: TimestampType) -> None:
    """Commits between the assignment and the first verdict leave what the group's commit says as it is."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    tp = await delivered_and_committed(world, topic, group)
    before = await committed_by(world.bootstrap, group, tp)
    assert before is not None
    assert before.metadata
    async with world.consumer(world.reader(), topic, group_id=group, **BY_HAND) as consumer:
        assert await consumer.position(tp) == len(SENT)
        for _ in range(3):
            await consumer.getmany(timeout_ms=0)
            await consumer.commit()
            after = await committed_by(world.bootstrap, group, tp)
            assert after is not None
            assert (after.offset, bool(after.metadata)) == (len(SENT), True)


@kinds
async def test_a17_back_by_one_after_a_commit_at_the_beginning(world: World, kind: TimestampType) -> None:
    """A successor that commits where it begins, and the next one goes back by one: what was delivered stays known."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    tp = await delivered_and_committed(world, topic, group)
    async with world.consumer(world.reader(), topic, group_id=group, **BY_HAND) as consumer:
        assert await consumer.getmany(timeout_ms=1_000) == {}
        await consumer.commit()
    await world.inject(topic, await world.capture(topic, len(SENT)))
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, **BY_HAND) as consumer:
        await consumer.position(tp)
        consumer.seek(tp, len(SENT) - 1)
        assert await until(consumer) == [SENT[-1], END]
    assert judged(reader)["replayed"] + judged(reader)["stale"] == len(SENT)
