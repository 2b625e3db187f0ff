"""A49, K16: a stranger's open transaction stands in front of honest messages, which nobody can read until it ends."""

import asyncio

import pytest

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World, read, values
from tests.support.clocks import passed
from tests.support.raw_kafka import Batch, Raw, RawClient
from tests.support.readers import END, judged, until

pytestmark = pytest.mark.needs_kafka("raw_batches")

MAX_AGE, SKEW = 1.0, 1.0
LONG = MAX_AGE + 2 * SKEW + 1.5
"""Seconds after which nothing is fresh any more that was sent before."""

kinds = pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])


@kinds
@pytest.mark.parametrize(
    ("life", "ending"),
    [("it runs", "abort"), ("it restarts", "abort"), ("it restarts", "commit"), ("it is new", "abort")],
)
async def test_a49_nobody_elses_messages_become_stale(
    world: World, kind: TimestampType, life: str, ending: str
) -> None:
    """However long it was open, and whatever the reader did meanwhile: what stood behind it is delivered."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    options = {"group_id": group, "isolation_level": "read_committed"}
    await world.say(topic, b"0")
    before = await world.capture(topic)
    reader = world.reader(max_age=MAX_AGE, max_skew=SKEW)
    if life == "it restarts":
        async with world.consumer(reader, topic, **options) as consumer:
            assert values(await read(consumer, 1)) == [b"0"]
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        if life == "it runs":
            async with world.consumer(reader, topic, **options) as consumer:
                assert values(await read(consumer, 1)) == [b"0"]
                await held.send(topic, Batch(records=[Raw()]))
                await world.say(topic, b"1", b"2")
                assert await consumer.getmany(timeout_ms=int(LONG * 1000)) == {}
                await (held.commit() if ending == "commit" else held.abort())
                await world.inject(topic, before)
                await world.say(topic, END)
                assert await until(consumer) == [b"1", b"2", END]
        else:
            await held.send(topic, Batch(records=[Raw()]))
            await world.say(topic, b"1", b"2")
            await passed(LONG)
            reader = world.reader(max_age=MAX_AGE, max_skew=SKEW)
            async with world.consumer(reader, topic, **options) as consumer:
                opening = [b"0"] if life == "it is new" else []
                assert values(await read(consumer, len(opening))) == opening
                assert await consumer.getmany(timeout_ms=500) == {}
                await (held.commit() if ending == "commit" else held.abort())
                await world.inject(topic, before)
                await world.say(topic, END)
                assert await until(consumer) == [b"1", b"2", END]
    assert judged(reader)["delivered"] == 3 + (life != "it restarts")


@kinds
async def test_a49_several_strangers_one_after_the_other(world: World, kind: TimestampType) -> None:
    """Transactions that overlap hold honest messages back for long, while the reader is restarted; none is lost."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    options = {"group_id": group, "isolation_level": "read_committed"}
    got: list[object] = []

    async def lived(count: int) -> None:
        async with world.consumer(world.reader(max_age=MAX_AGE, max_skew=SKEW), topic, **options) as consumer:
            got.extend(values(await read(consumer, count)))
            assert await consumer.getmany(timeout_ms=300) == {}

    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("one"), topic) as one:
        await one.send(topic, Batch(records=[Raw()]))
        await world.say(topic, b"0")
        async with raw.transaction(world.unique("other"), topic) as other:
            await passed(LONG / 2)
            await other.send(topic, Batch(records=[Raw()]))
            await world.say(topic, b"1")
            await asyncio.gather(passed(LONG / 2), lived(0))
            await one.abort()
            await asyncio.gather(passed(LONG / 2), lived(1))
            await other.abort()
            await lived(1)
    await world.say(topic, END)
    await lived(1)
    assert got == [b"0", b"1", END]
