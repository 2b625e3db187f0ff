"""A42: the offset that a record shows is its publisher's word; only the range of its batch is the broker's.

The broker stores uncompressed batches whose records claim any offset. A record outside [base, base + range), or not
behind the record before it, is `malformed`, and moves nothing: no position, no commit, no end of a rebuild.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import Captured, World, eventually, observe, read, values
from tests.support.broker_tools import commit_for, committed_by, delete_before, ends_of
from tests.support.kafka_api import VerifyingConsumer
from tests.support.patience import PATIENCE
from tests.support.raw_kafka import GZIP, TRANSACTIONAL_BIT, Batch, Raw, RawClient
from tests.support.readers import END, Places, judged, nothing_more, raw_of, signed_batch, until
from watchword import Mode, Watchword

pytestmark = pytest.mark.needs_kafka("raw_batches")

FAR = 1_000_000
SHAPES: dict[str, tuple[int, ...]] = {
    "alone": (FAR,),
    "first": (FAR, 1, 2),
    "middle": (0, FAR, 2),
    "last": (0, 1, FAR),
    "every one": (FAR, FAR + 1, FAR + 2),
    "on the next message": (1,),
    "behind the next message": (2, 3),
    "back": (-2,),
    "back in the middle": (0, -1, 2),
    "out of order": (1, 0, 2),
    "twice": (0, 0, 2),
    "greatest": (2**31 - 1, 1),
    "least": (-(2**31), 1),
}


def malformed(deltas: Sequence[int]) -> int:
    """Count the records that do not ascend strictly within the range of their batch."""
    count, last = 0, -1
    for delta in deltas:
        if last < delta < len(deltas):
            last = delta
        else:
            count += 1
    return count


def crafted(deltas: Sequence[int], **fields: int) -> Batch:
    """Return a batch of unsigned records at these offsets from its base."""
    return Batch(records=[Raw(value=b"forged", delta=delta) for delta in deltas], **fields)


async def send(world: World, topic: str, *batches: Batch) -> list[int]:
    """Send batches as they are; return their base offsets."""
    async with RawClient(world.bootstrap) as raw:
        return [await raw.send(topic, batch) for batch in batches]


async def within_the_log(world: World, consumer: VerifyingConsumer, tp: TopicPartition) -> None:
    """See that the position does not lie behind the log's end."""
    _, end = await ends_of(world.bootstrap, tp)
    assert await consumer.position(tp) <= end


@pytest.mark.parametrize("way", ["getone", "getmany", "one of many"])
async def test_a42_nothing_is_swallowed(world: World, way: str) -> None:
    """Each message between crafted batches is delivered, once and in order, and each crafted record is counted."""
    topic, honest, bad, crafted_ones = await world.make_topic(), [b"first"], 0, 0
    await world.say(topic, b"first")
    for name, deltas in SHAPES.items():
        await send(world, topic, crafted(deltas), crafted(deltas))
        await world.say(topic, name.encode(), b"and on")
        honest += [name.encode(), b"and on"]
        bad, crafted_ones = bad + 2 * malformed(deltas), crafted_ones + 2 * len(deltas)
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert await until(consumer, way=way) == [*honest, END]
        await within_the_log(world, consumer, TopicPartition(topic, 0))
    assert judged(reader) == Counter(delivered=len(honest) + 1, malformed=bad, unsigned=crafted_ones - bad)


async def test_a42_no_step_leads_out_of_the_log(world: World) -> None:
    """Record by record position and commit go forward within the log; what is appended next is read from there."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    reader = world.reader()
    passed = stood_at = 0
    async with world.consumer(reader, topic, group_id=group) as consumer:
        for name, deltas in SHAPES.items():
            await world.say(topic, name.encode())
            assert await until(consumer, name.encode()) == [name.encode()]
            await send(world, topic, crafted(deltas))
            _, end = await ends_of(world.bootstrap, tp)
            passed += 1
            for _ in deltas:
                passed += 1
                await passed_exactly(consumer, reader, passed)
                position = await consumer.position(tp)
                assert (name, stood_at <= position <= end) == (name, True)
                await consumer.commit()
                assert (name, await consumer.committed(tp)) == (name, position)
                stood_at = position
            assert (name, stood_at) == (name, end)
    assert judged(reader)["delivered"] == len(SHAPES)


async def passed_exactly(consumer: VerifyingConsumer, reader: Watchword, count: int) -> None:
    """Ask for one record at a time, and never wait for one, until the reader has counted so many."""
    async with asyncio.timeout(PATIENCE):
        while sum(reader.audit.counts.values()) < count:
            assert await consumer.getmany(timeout_ms=0, max_records=1) == {}
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("moment", ["by hand", "at the interval", "at the end", "at a revocation"])
async def test_a42_no_commit_goes_beyond_the_log(world: World, moment: str) -> None:
    """Whenever the reader commits, it is at most the log's end: the next start loses and repeats nothing."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    options = {"group_id": group, "enable_auto_commit": moment != "by hand", "auto_commit_interval_ms": 50}
    await world.say(topic, b"0")
    await send(world, topic, crafted([FAR]))
    reader = world.reader()
    async with world.consumer(reader, topic, heartbeat_interval_ms=100, **options) as consumer:
        assert values(await read(consumer, 1)) == [b"0"]
        await passed_exactly(consumer, reader, 2)
        match moment:
            case "by hand":
                await consumer.commit()
            case "at the interval":
                await asyncio.wait_for(_committed(world, group, tp), PATIENCE)
            case "at a revocation":
                async with world.consumer(world.reader(), topic, group_id=group) as second:
                    await eventually(lambda: _shared(consumer, second))
    found = await committed_by(world.bootstrap, group, tp)
    assert found is not None
    assert found.offset == 2
    await world.say(topic, b"1", END)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await until(consumer) == [b"1", END]


async def _committed(world: World, group: str, tp: TopicPartition) -> None:
    while (found := await committed_by(world.bootstrap, group, tp)) is None or found.offset < 2:  # noqa: ASYNC110 - a broker sets no event
        await asyncio.sleep(0.05)


async def _shared(*consumers: VerifyingConsumer) -> bool:
    return sum(len(consumer.assignment()) for consumer in consumers) == 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_a42_rolling_restarts_deliver_each_message_once(world: World, seed: int) -> None:
    """Readers that commit what they got and make way for the next one deliver everything, and nothing twice."""
    chance = random.Random(seed)  # noqa: S311 - so that a failure can be repeated
    topic, group = await world.make_topic(), world.unique("group")
    honest = [b"%d" % number for number in range(60)]
    for value in honest:
        await world.inject(topic, [await world.sign(topic, value)])
        if chance.random() < 0.5:
            await send(world, topic, crafted(chance.choice([(FAR,), (2, 3), (0, FAR, 2), (1,)])))
    got: list[Any] = []
    async with asyncio.timeout(2 * PATIENCE):
        while len(got) < len(honest):
            by_itself = chance.random() < 0.5
            async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=by_itself) as consumer:
                records: list[Any] = []
                share = chance.randint(1, min(12, len(honest) - len(got)))
                while len(records) < share:
                    if chance.random() < 0.5:
                        records.append(await consumer.getone())
                    else:
                        found = await consumer.getmany(timeout_ms=50, max_records=chance.randint(1, share))
                        records += found.get(TopicPartition(topic, 0), [])
                if not by_itself:
                    await consumer.commit()
            got += records
            assert values(got) == honest[: len(got)]
    assert not any(record.verified.redelivered for record in got)


async def test_a42_pause_and_resume(world: World) -> None:
    """A partition that is paused behind a crafted record continues at the log's end when it is resumed."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 1)) == [b"0"]
        await send(world, topic, crafted([FAR]))
        await passed_exactly(consumer, reader, 2)
        consumer.pause(tp)
        assert await consumer.getmany(timeout_ms=100) == {}
        assert await consumer.position(tp) == 2
        consumer.resume(tp)
        assert await consumer.getmany(timeout_ms=300) == {}
        assert await consumer.position(tp) == 2
        await world.say(topic, b"1", END)
        assert await until(consumer) == [b"1", END]


@pytest.mark.parametrize("deltas", [(0, FAR, 2), (-2, 1, 2), (1, 0, 2)])
async def test_a42_place_in_the_quarantine(world: World, deltas: tuple[int, ...]) -> None:
    """A copy of a crafted record in the quarantine names a place in its batch, where an operator can look it up."""
    topic, places = await world.make_topic(), Places()
    await world.say(topic, b"0")
    (base,) = await send(world, topic, crafted(deltas))
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, quarantine=places) as consumer:
        assert await until(consumer) == [b"0", END]
    assert sorted(reason for _, reason in places.found) == ["malformed", "unsigned", "unsigned"]
    assert all(base <= offset < base + len(deltas) for offset, _ in places.found)


async def test_a42_what_is_honest_inside_a_crafted_batch(world: World) -> None:
    """Of signed messages in a crafted batch those in their place are delivered, at their offsets, the rest refused."""
    topic, reader = await world.make_topic(), world.reader()
    wanted: list[tuple[int, bytes]] = []
    for name, deltas in SHAPES.items():
        labels = [b"%b, %d" % (name.encode(), delta) for delta in deltas]
        records = [raw_of(await world.sign(topic, label), delta=d) for label, d in zip(labels, deltas, strict=True)]
        (base,) = await send(world, topic, Batch(records=records))
        last = -1
        for label, delta in zip(labels, deltas, strict=True):
            if last < delta < len(deltas):
                last = delta
                wanted.append((base + delta, label))
    await world.say(topic, END)
    wanted.append((base + len(deltas), END))
    async with world.consumer(reader, topic) as consumer:
        found = [(record.offset, record.value) for record in await read(consumer, len(wanted))]
    assert found == wanted
    assert judged(reader)["malformed"] == sum(map(malformed, SHAPES.values()))


async def test_a42_a_rebuild_passes_over_it(world: World) -> None:
    """What stands behind a crafted record and before the position is remembered, and its copies are replays."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    honest = [await world.sign(topic, name.encode()) for name in SHAPES]
    for original, deltas in zip(honest, SHAPES.values(), strict=True):
        await world.inject(topic, [original])
        await send(world, topic, crafted(deltas))
    await commit_for(world.bootstrap, group, tp, (await ends_of(world.bootstrap, tp))[1])
    await world.inject(topic, honest)
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert await until(consumer) == [END]
    assert judged(reader) == Counter(delivered=1, replayed=len(honest))


@pytest.mark.parametrize("deltas", [(FAR,), (0, FAR, 2), (2, 3)])
async def test_a42_a_rebuild_that_ends_at_it(world: World, deltas: tuple[int, ...]) -> None:
    """A rebuild up to a position right behind a crafted record is over there, and not where the record claims to be."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    original = await world.sign(topic, b"0")
    await world.inject(topic, [original])
    await send(world, topic, crafted(deltas))
    await commit_for(world.bootstrap, group, tp, (await ends_of(world.bootstrap, tp))[1])
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        await nothing_more(consumer)
        await world.inject(topic, [original])
        await world.say(topic, b"1", b"2", END)
        assert await until(consumer) == [b"1", b"2", END]
    assert judged(reader) == Counter(delivered=3, replayed=1)


@pytest.mark.parametrize("target", ["it", "its neighbours", "what it claims"])
async def test_a42_seeks_onto_it(world: World, target: str) -> None:
    """A seek to a crafted record continues with the next message; the offset that it claims is not in the log."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0")
    (base,) = await send(world, topic, crafted([0, FAR, 2]))
    await world.say(topic, b"1")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        places = {"it": [base + 1], "its neighbours": [base, base + 2, base - 1], "what it claims": [base + FAR]}
        for place in places[target]:
            consumer.seek(tp, place)
            await within_the_log_soon(world, consumer, tp)
            wanted = [b"0", b"1"] if place < base or place > base + 3 else [b"1"]  # beyond the end: from the beginning
            assert values(await read(consumer, len(wanted))) == wanted
            await nothing_more(consumer, 0.2)
    assert judged(reader)["replayed"] == 0


async def within_the_log_soon(world: World, consumer: VerifyingConsumer, tp: TopicPartition) -> None:
    """Wait until the broker has told the client that its position is not in the log."""
    _, end = await ends_of(world.bootstrap, tp)

    async def probe() -> bool:
        return await consumer.position(tp) <= end

    await eventually(probe)


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
@pytest.mark.parametrize("ending", ["commit", "abort"])
async def test_a42_in_a_transaction(world: World, isolation: str, ending: str) -> None:
    """Crafted batches in a stranger's transaction, committed or aborted, and the markers behind them lose nothing."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    options = {"group_id": group, "isolation_level": isolation}
    await world.say(topic, b"0")
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        await held.send(topic, crafted([0, FAR, 2]))
        await world.say(topic, b"1")
        await held.send(topic, crafted([FAR]))
        await (held.commit() if ending == "commit" else held.abort())
    reader = world.reader()
    async with world.consumer(reader, topic, **options) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
        await nothing_more(consumer)
        await consumer.commit()
        assert await consumer.committed(tp) == (await ends_of(world.bootstrap, tp))[1]
        await world.say(topic, b"2")
        assert await until(consumer, b"2") == [b"2"]
    seen = ending == "commit" or isolation == "read_uncommitted"
    assert judged(reader) == Counter(delivered=3, malformed=2 * seen, unsigned=2 * seen)
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, **options) as consumer:
        assert await until(consumer) == [END]


async def test_a42_gaps_are_no_lies(world: World) -> None:
    """Offsets that a transaction's marker or an aborted batch took away are missing, and nothing is wrong with that."""
    topic = await world.make_topic()
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        for number in range(3):
            await held.send(topic, Batch(records=[Raw(), Raw()], attributes=TRANSACTIONAL_BIT))
            await world.say(topic, b"%d" % number)
        await held.abort()
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, isolation_level="read_committed") as consumer:
        assert await until(consumer) == [b"0", b"1", b"2", END]
    assert judged(reader) == Counter(delivered=4)


@pytest.mark.parametrize("codec", [0, GZIP])
async def test_a42_positions_inside_a_batch_are_no_lies(world: World, codec: int) -> None:
    """A batch that begins before the position, or before the start of the log, is read from there on."""
    topic, reader = await world.make_topic(), world.reader()
    tp = TopicPartition(topic, 0)
    labels = [b"%d" % number for number in range(6)]
    batch = await signed_batch(world, topic, *labels)
    await send(world, topic, replace(batch, codec=codec))
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 6)) == labels
        for place in (4, 1, 5):
            consumer.seek(tp, place)
            assert values(await read(consumer, 6 - place)) == labels[place:]
    await delete_before(world.bootstrap, topic, 3)
    fresh = world.reader()
    async with world.consumer(fresh, topic) as consumer:
        assert values(await read(consumer, 3)) == labels[3:]
    assert judged(reader) == Counter(delivered=6 + 2 + 5 + 1)
    assert judged(fresh) == Counter(delivered=3)


async def test_a42_compaction_leaves_gaps_that_are_no_lies(world: World) -> None:
    """Where compaction has taken records out of a batch the rest keep their offsets, and are delivered."""
    topic = await world.make_topic(
        cleanup_policy="compact",
        segment_ms="100",
        min_cleanable_dirty_ratio="0.01",
        max_compaction_lag_ms="100",
        delete_retention_ms="0",
    )
    keys = [b"a", b"b", b"a", b"c", b"a", b"d"]
    async with world.producer() as producer:
        batch = producer.create_batch()
        for number, key in enumerate(keys):
            batch.append(timestamp=None, key=key, value=b"%d" % number)
        await (await producer.send_batch(batch, topic, partition=0))

        async def compacted() -> bool:
            await producer.send_and_wait(topic, b"roll", key=b"roll", partition=0)  # only closed segments are compacted
            async with RawClient(world.bootstrap) as raw:
                return (await raw.fetch(topic))[0].deltas == (1, 3, 4, 5)

        await eventually(compacted)
        await producer.send_and_wait(topic, END, key=b"end", partition=0)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        found = [(r.offset, r.value) for r in await read(consumer, 4)]
        assert (await until(consumer))[-1] == END
    assert found == [(1, b"1"), (3, b"3"), (4, b"4"), (5, b"5")]
    assert set(judged(reader)) == {"delivered"}


async def test_a42_undecodable_records_are_placed_in_their_batch(world: World) -> None:
    """A record that no client can decode and that claims a far offset hides no later one from the count."""
    topic, places, reader = await world.make_topic(), Places(), world.reader()
    poison = [Raw(headers=[(b"\xff", b"")], delta=FAR), Raw(headers=[(b"\xff", b"")], delta=1)]
    await send(world, topic, Batch(records=poison))
    await world.say(topic, b"0")
    await send(world, topic, Batch(records=[Raw(headers=[(b"\xff", b"")])]))
    await world.say(topic, END)
    async with world.consumer(reader, topic, quarantine=places) as consumer:
        assert await until(consumer) == [b"0", END]
    assert judged(reader) == Counter(delivered=2, malformed=3)
    assert all(offset in {0, 1, 3} for offset, _ in places.found)


def oddities(*, sequence: int) -> list[Batch]:
    """Return batches of two in which everything else that the broker stores unchecked is odd."""
    now = int(time.time() * 1000)
    return [
        Batch(records=[Raw(), Raw()], attributes=-64),
        Batch(records=[Raw(), Raw()], producer_id=1 << 50, epoch=3, sequence=sequence),
        Batch(records=[Raw(), Raw()], first_timestamp=now - 315_360_000_000),
        Batch(records=[Raw(timestamp_delta=1), Raw(timestamp_delta=-1)], first_timestamp=now + 3_000_000),
        Batch(records=[Raw(attributes=0x7F), Raw(key=b"", value=None)], max_timestamp=1),
    ]


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
async def test_a42_other_fields_move_nothing(world: World, kind: TimestampType, isolation: str) -> None:
    """Odd attribute bits, claimed producers, timestamps of long ago and of soon: such records are refused as any."""
    topic, group = await world.make_topic(timestamp_type=kind), world.unique("group")
    captured: list[Captured] = []
    for life in range(2):
        odd = oddities(sequence=2 * life)  # in order, else the broker drops them as repeated
        reader = world.reader()
        async with world.consumer(reader, topic, group_id=group, isolation_level=isolation) as consumer:
            await world.inject(topic, captured)
            for number, batch in enumerate(odd):
                await send(world, topic, batch)
                await world.say(topic, b"%d in %d" % (number, life))
            wanted = [b"%d in %d" % (number, life) for number in range(len(odd))]
            assert await until(consumer, wanted[-1]) == wanted
        assert judged(reader) == Counter(delivered=len(odd), unsigned=2 * len(odd), replayed=len(captured))
        captured = [record for record in await world.capture(topic, 3 * len(odd)) if record.headers]


async def test_a42_in_observe_mode(world: World) -> None:
    """Observing shows the record at a place in its batch, and neither loses a message nor commits beyond the log."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0")
    await send(world, topic, crafted([FAR]))
    reader = world.reader(mode=Mode.OBSERVE)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert [record.offset for record in await observe(consumer, 2)] == [0, 1]
        await consumer.commit()
        assert await consumer.committed(TopicPartition(topic, 0)) == 2
        await world.say(topic, b"1")
        assert values(await observe(consumer, 1)) == [b"1"]
    assert judged(reader)["malformed"] == 1
