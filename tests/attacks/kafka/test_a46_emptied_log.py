"""A46: retention that empties a log costs no honest message, and lets none in a second time."""

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, read, values
from tests.support.broker_tools import delete_before, ends_of
from tests.support.clocks import passed
from tests.support.readers import END, judged, until

kinds = pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
SECOND = 2.1
"""Times of issue are whole seconds: a message that is issued this much later is newer by at least one second."""


@kinds
@pytest.mark.parametrize("sent", ["before the restart", "after the restart"])
async def test_a46_emptied_and_restarted(world: World, kind: TimestampType, sent: str) -> None:
    """The same group continues with what is sent next; copies of what it had are dropped, with the originals gone."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0", b"1")
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
    await delete_before(world.bootstrap, topic, -1)
    await passed(SECOND)
    reader = world.reader()
    if sent == "before the restart":
        await world.say(topic, b"2")
        await world.inject(topic, captured)
        await world.say(topic, b"3", END)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        if sent == "after the restart":
            assert await consumer.getmany(timeout_ms=500) == {}
            await world.say(topic, b"2")
            await world.inject(topic, captured)
            await world.say(topic, b"3", END)
        assert await until(consumer) == [b"2", b"3", END]
    counts = judged(reader)
    assert (counts["delivered"], counts["stale"] + counts["replayed"]) == (3, 2)


@kinds
async def test_a46_partly_emptied(world: World, kind: TimestampType) -> None:
    """Retention that took half of what was read costs nothing of what is sent next."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0", b"1", b"2", b"3")
    captured = await world.capture(topic, 4)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert len(await read(consumer, 4)) == 4
    await delete_before(world.bootstrap, topic, 2)
    await passed(SECOND)
    await world.inject(topic, captured)
    await world.say(topic, b"4")
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer, b"4") == [b"4"]
        await world.inject(topic, captured)
        await world.say(topic, END)
        assert await until(consumer) == [END]
    assert judged(reader)["delivered"] == 2


@kinds
async def test_a46_a_floor_outlives_two_restarts(world: World, kind: TimestampType) -> None:
    """K8: what was below the cut at the first restart is so at the second, when nothing in the log shows it."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0", b"1")
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert len(await read(consumer, 2)) == 2
    await delete_before(world.bootstrap, topic, -1)
    await passed(SECOND)
    await world.say(topic, b"2")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer, b"2") == [b"2"]
    for number in (b"3", b"4"):
        await world.inject(topic, captured)
        await world.say(topic, number)
        async with world.consumer(world.reader(), topic, group_id=group) as consumer:
            assert await until(consumer, number) == [number]
    await delete_before(world.bootstrap, topic, -1)
    await passed(SECOND)
    await world.inject(topic, captured)
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer) == [END]
    assert (await ends_of(world.bootstrap, TopicPartition(topic, 0)))[0] > 2
