"""A46: a topic is switched between `CreateTime` and `LogAppendTime` while its readers are behind, or while they run."""

import pytest

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, read, values
from tests.support.broker_tools import alter_topic
from tests.support.clocks import passed
from tests.support.readers import END, judged, until

OTHER: dict[TimestampType, TimestampType] = {"CreateTime": "LogAppendTime", "LogAppendTime": "CreateTime"}
MAX_AGE, SKEW = 2.0, 1.0

froms = pytest.mark.parametrize("kind", OTHER)


@froms
async def test_a46_switched_while_nobody_reads(world: World, kind: TimestampType) -> None:
    """What was sent before and after the switch is delivered, however long ago; what was read before is not again."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0")
    captured = await world.capture(topic)
    async with world.consumer(world.reader(max_age=MAX_AGE, max_skew=SKEW), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"0"]
    await world.inject(topic, captured)
    await world.say(topic, b"1", b"2")
    await alter_topic(world.bootstrap, topic, message_timestamp_type=OTHER[kind])
    await world.say(topic, b"3", b"4")
    await world.inject(topic, captured)
    await passed(MAX_AGE + 2 * SKEW + 1)
    await world.inject(topic, captured)
    await world.say(topic, END)
    reader = world.reader(max_age=MAX_AGE, max_skew=SKEW)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [b"1", b"2", b"3", b"4", END]
    assert judged(reader)["delivered"] == 5


@froms
async def test_a46_switched_while_a_reader_runs(world: World, kind: TimestampType) -> None:
    """A reader continues over switches to and fro, and over its own restart between them."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    now = kind
    for number in range(4):
        reader = world.reader(max_age=MAX_AGE, max_skew=SKEW)
        async with world.consumer(reader, topic, group_id=group) as consumer:
            await world.say(topic, b"%d" % number)
            assert await until(consumer, b"%d" % number) == [b"%d" % number]
            now = OTHER[now]
            await alter_topic(world.bootstrap, topic, message_timestamp_type=now)
            await world.inject(topic, await world.capture(topic, number + 1))
            await world.say(topic, b"and %d" % number)
            assert await until(consumer, b"and %d" % number) == [b"and %d" % number]
        assert judged(reader)["delivered"] == 2
