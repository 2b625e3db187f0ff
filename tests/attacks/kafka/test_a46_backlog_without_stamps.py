"""A46, A43: a topic that the broker does not stamp (`CreateTime`, the default), and a reader that was down for long.

Nobody can tell when a message of the backlog was appended, between two looks at the log's end. All that is honest is
delivered all the same, and nothing twice, whatever was sent again meanwhile.
"""

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import INTERN, World, read, values
from tests.support.clocks import DAY, HOUR, Clock, earlier, issued, key_of
from tests.support.readers import END, judged, until
from watchword import SigningKey

MINUTE = 60
THIRD = "agent://acme/third"


@pytest.mark.parametrize("max_age", [10.0, 300.0])
@pytest.mark.parametrize("down", [HOUR, 2 * DAY])
async def test_a46_all_that_was_sent_while_nobody_read(world: World, max_age: float, down: int) -> None:
    """A reader that was down for longer than max_age delivers every honest message and drops every copy."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    clock = Clock()
    before = clock.at - down
    read_before = await issued(world, topic, before, b"a", b"b", b"c")
    await world.inject(topic, read_before)
    first = world.reader(max_age=max_age, max_skew=5.0, clock=Clock(before))
    async with world.consumer(first, topic, group_id=group) as consumer:
        assert values(await read(consumer, 3)) == [b"a", b"b", b"c"]
    honest = [b"%d" % number for number in range(99)]
    backlog = await issued(world, topic, before + 1, *honest, apart=(down - 2) / len(honest))
    await world.inject(topic, [*read_before, *backlog[:50], *backlog[:10], *read_before, *backlog[50:], *backlog])
    await world.inject(topic, await issued(world, topic, clock.at, END))
    second = world.reader(max_age=max_age, max_skew=5.0, clock=clock)
    async with world.consumer(second, topic, group_id=group) as consumer:
        assert await until(consumer) == [*honest, END]
    counts = judged(second)
    assert (counts["delivered"], counts["replayed"] + counts["stale"]) == (100, 3 + 10 + 3 + 99)


async def test_a46_a_backlog_read_in_several_lives(world: World) -> None:
    """A reader that is restarted in the middle of its backlog, again and again, loses nothing and repeats nothing."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    clock = Clock()
    first_read = await issued(world, topic, clock.at - DAY, b"first")
    await world.inject(topic, first_read)
    async with world.consumer(world.reader(clock=Clock(clock.at - DAY)), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"first"]
    honest = [b"%d" % number for number in range(40)]
    backlog = await issued(world, topic, clock.at - DAY + 1, *honest, apart=DAY / 41)
    for at in range(0, 40, 10):
        await world.inject(topic, [*backlog[at : at + 10], *first_read, *backlog[: at + 10]])
    got: list[object] = []
    for _ in range(4):
        reader = world.reader(clock=clock)
        async with world.consumer(reader, topic, group_id=group) as consumer:
            got += values(await read(consumer, 10))
        clock.at += 30
    assert got == honest
    await world.inject(topic, [*first_read, *backlog, *await issued(world, topic, clock.at, END)])
    async with world.consumer(world.reader(clock=clock), topic, group_id=group) as consumer:
        assert await until(consumer) == [END]


async def test_a46_a_new_group_on_an_old_log(world: World) -> None:
    """A group that begins at the beginning gets what stands in the log, each message once."""
    topic, clock = await world.make_topic(timestamp_type="CreateTime"), Clock()
    honest = [b"%d" % number for number in range(30)]
    backlog = await issued(world, topic, clock.at - 2 * DAY, *honest, apart=HOUR)
    await world.inject(topic, [*backlog, *backlog[:10], *await issued(world, topic, clock.at, END)])
    reader = world.reader(clock=clock)
    async with world.consumer(reader, topic, group_id=world.unique("group")) as consumer:
        assert await until(consumer) == [*honest, END]
    assert judged(reader)["delivered"] == 31


async def test_a46_a_reader_that_lags_while_it_runs(world: World) -> None:
    """A slow handler makes a reader lag by hours; what it took in good time, and what it takes late, is delivered."""
    topic, clock = await world.make_topic(timestamp_type="CreateTime"), earlier(6 * HOUR)
    honest = [b"%d" % number for number in range(30)]
    backlog = await issued(world, topic, clock.at, *honest)
    await world.inject(topic, backlog)
    reader = world.reader(clock=clock)
    async with world.consumer(reader, topic, group_id=world.unique("group")) as consumer:
        for number, value in enumerate(honest):
            (record,) = await read(consumer, 1)
            assert record.value == value
            clock.at += 10 * MINUTE
            if number == 10:
                await world.inject(topic, backlog[:20])
        await world.inject(topic, [*backlog, *await issued(world, topic, clock.at, END)])
        assert await until(consumer) == [END]
    assert judged(reader)["delivered"] == 31


async def test_a46_one_principal_dates_ahead(world: World) -> None:
    """K3: compromised agents that date their messages up to now make nobody else's backlog stale."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    clock = Clock()
    before = clock.at - 6 * HOUR
    await world.inject(topic, await issued(world, topic, before, b"first"))
    async with world.consumer(world.reader(clock=Clock(before)), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"first"]
    world.signing[THIRD] = SigningKey.generate()
    world.keys.add(key_of(world, THIRD))
    dated = [
        *await issued(world, topic, clock.at, b"intern", principal=INTERN),
        *await issued(world, topic, clock.at, b"third", principal=THIRD),
    ]
    honest = await issued(world, topic, before + 1, b"0", b"1", b"2", apart=HOUR)
    await world.inject(topic, [*dated, *honest, *await issued(world, topic, clock.at, END)])
    reader = world.reader(clock=clock)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [b"intern", b"third", b"0", b"1", b"2", END]


async def test_a46_a_month_old_capture(world: World) -> None:
    """K2: neither a new group at the end, nor one at the beginning, nor a silent partition lets a capture in."""
    topic, clock = await world.make_topic(timestamp_type="CreateTime"), earlier(6 * HOUR)
    (old,) = await issued(world, topic, clock.at - 30 * DAY, b"month-old")
    reader = world.reader(clock=clock)
    async with world.consumer(reader, topic, group_id=world.unique("group"), auto_offset_reset="latest") as consumer:
        assert await consumer.getmany(timeout_ms=500) == {}
        await world.inject(topic, [old, *await issued(world, topic, clock.at, b"0")])
        assert await until(consumer, b"0") == [b"0"]
        clock.at += 5 * HOUR
        assert await consumer.getmany(timeout_ms=1_000) == {}  # it looks at the log's end meanwhile
        await world.inject(topic, [old, *await issued(world, topic, clock.at, END)])
        assert await until(consumer) == [END]
    assert judged(reader)["stale"] + judged(reader)["replayed"] == 2
    fresh = world.reader(clock=clock)
    async with world.consumer(fresh, topic, group_id=world.unique("group")) as consumer:
        assert await until(consumer) == [b"0", END]


async def test_a46_a_busy_log_is_not_read_for_a_silent_principal(world: World) -> None:
    """K4: that an agent last spoke a month ago does not make a restart read a month again."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    tp, clock = TopicPartition(topic, 0), earlier(HOUR)
    await world.inject(topic, await issued(world, topic, clock.at - 6 * DAY, b"long ago", principal=INTERN))
    busy = await issued(world, topic, clock.at - 6 * DAY, *(b"%d" % n for n in range(300)), apart=DAY / 60)
    await world.inject(topic, busy)
    async with world.consumer(world.reader(clock=clock), topic, group_id=group) as consumer:
        assert len(await read(consumer, 301)) == 301
        await world.inject(topic, await issued(world, topic, clock.at, b"live"))
        assert values(await read(consumer, 1)) == [b"live"]
        await consumer.commit()
    clock.at += 30
    await world.inject(topic, await issued(world, topic, clock.at, b"more"))
    reader, notes = world.reader(clock=clock), list[tuple[str, dict[str, object]]]()
    reader.audit.note = lambda event, **fields: notes.append((event, fields))  # type: ignore[method-assign] # a tap
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"more"]
        assert await consumer.position(tp) == 303
    recalled = sum(int(str(fields["recalled"])) for event, fields in notes if event == "replay.rebuilt")
    assert recalled < 30
