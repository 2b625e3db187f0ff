"""A43: what a reader has forgotten stays too old for its successors, whatever was committed, configured or deleted."""

import asyncio
import time

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import INTERN, World, read, values
from tests.support.broker_tools import delete_before
from tests.support.clocks import HOUR, earlier, issued, key_of, passed
from tests.support.kafka_api import VerifiedRecord, VerifyingConsumer
from tests.support.patience import PATIENCE
from tests.support.readers import END, judged, nothing_more, until
from watchword import VerificationKey, Watchword

kinds = pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])


@kinds
async def test_a43_k5_a_longer_window_at_the_next_start(world: World, kind: TimestampType) -> None:
    """Ids that a reader with a small max_age has forgotten are not accepted by one with a greater max_age."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0", b"1")
    captured = await world.capture(topic, 2)
    small = world.reader(max_age=1.0, max_skew=1.0)
    async with world.consumer(small, topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        await passed(4.0)
        await world.say(topic, b"2")
        assert values(await read(consumer, 1)) == [b"2"]  # what it forgot is below its floor now
    await world.inject(topic, captured)
    for number in (b"3", b"4"):
        await world.inject(topic, captured)
        await world.say(topic, number)
        async with world.consumer(world.reader(max_age=3_600.0), topic, group_id=group) as consumer:
            assert await until(consumer, number) == [number]


async def test_a43_k6_a_commit_in_the_past(world: World) -> None:
    """Who commits an older offset than it has read gets what lies between again, though dated over hours."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    clock = earlier(12 * HOUR)
    honest = [b"%d" % number for number in range(10)]
    backlog = await issued(world, topic, clock.at, *honest, apart=HOUR)
    async with world.consumer(world.reader(clock=clock), topic, group_id=group, enable_auto_commit=False) as consumer:
        for message, value in zip(backlog, honest, strict=True):
            await world.inject(topic, [message])
            assert values(await read(consumer, 1)) == [value]
            clock.at += HOUR
        await consumer.commit({TopicPartition(topic, 0): 3})
    reader = world.reader(clock=clock)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 7)) == honest[3:]
        await world.inject(topic, [*backlog, *await issued(world, topic, clock.at, END)])
        assert await until(consumer) == [END]
    assert judged(reader)["delivered"] == 8


async def passed_by(consumer: VerifyingConsumer, reader: Watchword, count: int) -> None:
    """Read until so many messages are judged, whatever the verdicts."""
    async with asyncio.timeout(PATIENCE):
        while judged(reader).total() < count:
            await consumer.getmany(timeout_ms=100)


@kinds
async def test_a43_k7_a_clock_that_was_ahead_once(world: World, kind: TimestampType) -> None:
    """A reader whose clock was an hour ahead may lose by it; what it committed costs its successors nothing."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    await world.say(topic, b"0")
    ahead = world.reader(clock=lambda: time.time() + HOUR)
    async with world.consumer(ahead, topic, group_id=group) as consumer:
        await passed_by(consumer, ahead, 1)
        await world.say(topic, b"0 again")  # an hour old by that clock, where the broker does not stamp
        await passed_by(consumer, ahead, 2)
        await consumer.commit()
    await world.say(topic, b"1", b"2")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer, b"2") == [b"1", b"2"]
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer) == [END]


@kinds
@pytest.mark.parametrize("committed", ["too little", "nothing"])
async def test_a43_k9_retention_overtakes_the_commit(world: World, kind: TimestampType, committed: str) -> None:
    """What was handed over after the last commit, or before any, and is gone from the log, is not handed over again."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    skew = 1.0
    await world.say(topic, b"0", b"1", b"2", b"3")
    captured = await world.capture(topic, 4)
    crashed = world.reader(max_skew=skew)
    async with world.consumer(crashed, topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values(await read(consumer, 4)) == [b"0", b"1", b"2", b"3"]
        if committed == "too little":
            await consumer.commit({TopicPartition(topic, 0): 1})
    await delete_before(world.bootstrap, topic, 4)
    await world.inject(topic, captured)
    reader = world.reader(max_skew=skew)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        await nothing_more(consumer, 1.0)
        await world.inject(topic, captured)
        await passed(skew + 2)
        await world.say(topic, b"4", END)
        assert await until(consumer) == [b"4", END]
    assert judged(reader)["delivered"] == 2


@kinds
async def test_a43_k11_an_expired_key_signs_back_dated_messages(world: World, kind: TimestampType) -> None:
    """A key whose time is over makes nothing that a running reader believes, whatever date it writes."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    now = int(time.time())
    valid = key_of(world, INTERN)
    expired = VerificationKey.from_public_key(valid.public, principal=INTERN, key_id=valid.key_id, not_after=now - HOUR)
    world.keys.replace(*(key_of(world, principal) for principal in world.signing if principal != INTERN), expired)
    reader = world.reader(max_age=600.0)
    await world.say(topic, b"0")
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"0"]
        await nothing_more(consumer)
        for back in (2 * HOUR, HOUR + 1, 10):
            await world.inject(topic, await issued(world, topic, now - back, b"back-dated", principal=INTERN))
        await world.say(topic, END)
        assert await until(consumer) == [END]
    assert judged(reader)["delivered"] == 2


async def test_a43_k13_from_the_future_stays_so(world: World) -> None:
    """A message dated ahead is refused where it stands, and what is sent again of it when its time has come, too.

    Where the broker stamps, each place has one verdict forever, and nothing needs to be remembered.
    """
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    clock = earlier(HOUR)
    (dated,) = await issued(world, topic, clock.at + 60, b"dated ahead")
    await world.inject(topic, [dated, *await issued(world, topic, clock.at, b"0")])
    reader = world.reader(max_skew=1.0, clock=clock)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer, b"0") == [b"0"]
        assert judged(reader)["from_future"] == 1
        clock.at += 60
        await world.inject(topic, [dated, *await issued(world, topic, clock.at, b"1")])
        assert await until(consumer, b"1") == [b"1"]
        await consumer.seek_to_beginning()
        await world.inject(topic, await issued(world, topic, clock.at, b"2"))
        seen = [(record.offset, record.value) for record in await _records_until(consumer, b"2")]
    await world.inject(topic, [dated, *await issued(world, topic, clock.at, END)])
    async with world.consumer(world.reader(max_skew=1.0, clock=clock), topic, group_id=group) as consumer:
        seen += [(record.offset, record.value) for record in await _records_until(consumer, END)]
    assert [value for _, value in seen if value != b"dated ahead"] == [b"0", b"1", b"2", END]
    assert {offset for offset, value in seen if value == b"dated ahead"} <= {0}  # the copies never


async def _records_until(consumer: VerifyingConsumer, last: bytes) -> list[VerifiedRecord]:
    found = await read(consumer, 1)
    while found[-1].value != last:
        found += await read(consumer, 1)
    return found
