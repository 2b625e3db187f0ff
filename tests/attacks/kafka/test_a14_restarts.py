"""A14, A38, A39 on a real broker: the window is rebuilt from the log, whatever happened to the process that read it."""

import asyncio
import time
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import INTERN, World, eventually, read, values
from tests.support.broker_tools import delete_before
from tests.support.kept import Kept
from watchword import Unavailable
from watchword_adapters.kafka import VerifyingConsumer


async def passed(seconds: float) -> None:
    """Wait until the broker's clock has gone on by so much."""
    end = time.time() + seconds

    async def probe() -> bool:
        return time.time() > end

    await eventually(probe)


async def test_a14_replay_after_a_restart(world: World) -> None:
    """What a reader delivered before it ended is a replay to the reader that starts after it."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    await world.inject(topic, await world.capture(topic, 2))
    await world.say(topic, b"3")
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"3"]
    assert reader.audit.counts == {"replayed": 2, "delivered": 1}


async def test_a14_replay_sent_while_nobody_reads_from_the_end(world: World) -> None:
    """A reader without a group that begins at the end knows what stands in the log before it."""
    topic = await world.make_topic()
    await world.say(topic, b"1")
    captured = await world.capture(topic)
    reader = world.reader()
    async with world.consumer(reader, topic, auto_offset_reset="latest") as consumer:
        assert await consumer.getmany(timeout_ms=100) == {}
        await eventually(lambda: _is_guarded(consumer))
        await world.inject(topic, captured)
        await world.say(topic, b"2")
        assert values(await read(consumer, 1)) == [b"2"]
    assert reader.audit.counts == {"replayed": 1, "delivered": 1}


async def _is_guarded(consumer: VerifyingConsumer) -> bool:
    await consumer.getmany(timeout_ms=10)
    readers = consumer._verified._readers.values()
    return bool(readers) and all(reader.is_reading for reader in readers)


async def test_a14_replay_after_a_seek(world: World) -> None:
    """Going forward over the original, or back behind it, does not let its replay in."""
    topic = await world.make_topic()
    await world.say(topic, b"0", b"1")
    await world.inject(topic, (await world.capture(topic, 2))[1:])
    await world.say(topic, b"3")
    tp = TopicPartition(topic, 0)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 3)) == [b"0", b"1", b"3"]
        consumer.seek(tp, 2)
        assert await consumer.position(tp) == 2
        assert values(await read(consumer, 1)) == [b"3"]
        consumer.seek(tp, 1)
        assert values(await read(consumer, 2)) == [b"1", b"3"]
    assert reader.audit.counts == {"delivered": 6, "replayed": 3}


async def test_a14_replay_to_the_member_that_takes_over(world: World) -> None:
    """A partition that moves to another member of the group takes its memory along, for the log is the memory."""
    topic, group = await world.make_topic(2), world.unique("group")
    tps = [TopicPartition(topic, number) for number in range(2)]
    async with world.producer() as producer:
        for tp in tps:
            await producer.send_and_wait(topic, b"%d" % tp.partition, partition=tp.partition)
    captured = await world.capture(topic)
    second = world.reader()
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert sorted(values(await read(consumer, 2))) == [b"0", b"1"]
        await consumer.commit()
    async with world.consumer(second, topic, group_id=group) as consumer:
        await eventually(lambda: _is_guarded(consumer))
        await world.inject(topic, captured)
        await world.say(topic, b"end")
        assert values(await read(consumer, 1)) == [b"end"]
    assert second.audit.counts == {"replayed": 1, "delivered": 1}


async def test_a14_on_a_create_time_topic(world: World) -> None:
    """Where producers set the time the rebuild looks them up by it; a record dated ahead only makes it read more."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    now = int(time.time() * 1000)
    ahead = replace(await world.sign(topic, b"ahead"), timestamp_ms=now + 1_800_000)
    await world.inject(topic, [ahead])
    await world.say(topic, b"1")
    captured = (await world.capture(topic, 2))[1]
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"1"]
    await world.inject(topic, [captured, replace(captured, timestamp_ms=now)])
    await world.say(topic, b"2")
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"2"]
    assert reader.audit.counts == {"replayed": 2, "delivered": 1}


async def test_a39_backlog_between_an_original_and_its_replay(world: World) -> None:
    """With a backlog between them the replay is stale by the broker's own stamp, however slow the reader."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    captured = await world.capture(topic)
    async with world.consumer(world.reader(max_age=1.0, max_skew=0.0), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"1"]
    await world.inject(topic, captured)  # still fresh when it is appended, and not read for long
    await passed(2.5)
    await world.inject(topic, captured)
    await world.say(topic, b"2")
    reader = world.reader(max_age=1.0, max_skew=0.0)
    async with world.consumer(reader, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"2"]
    assert reader.audit.counts["delivered"] == 1
    assert reader.audit.counts["replayed"] + reader.audit.counts["stale"] == 2


async def test_a39_retention_that_has_cut_the_window(world: World) -> None:
    """Where the original is gone from the log its replay is stale; a new group reads all that is left."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    captured = await world.capture(topic)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    await world.inject(topic, captured)
    await delete_before(world.bootstrap, topic, 1)
    skew = 2.0
    old, new = world.reader(max_skew=skew), world.reader(max_skew=skew)
    await passed(skew + 1.5)
    await world.say(topic, b"3")
    async with world.consumer(old, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"3"]
    assert old.audit.counts == {"stale": 1, "delivered": 1}
    async with world.consumer(new, topic, group_id=world.unique("group")) as consumer:
        assert values(await read(consumer, 3)) == [b"2", b"1", b"3"]
    assert new.audit.counts == {"delivered": 3}


async def test_a39_log_that_was_emptied(world: World) -> None:
    """Where nothing is left of the log, what was issued until now and the skew is stale; but not to a new group."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    captured = await world.capture(topic, 2)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    await delete_before(world.bootstrap, topic, 2)
    skew = 2.0
    old, new = world.reader(max_skew=skew), world.reader(max_skew=skew)
    async with world.consumer(old, topic, group_id=group) as consumer:
        await eventually(lambda: _is_guarded(consumer))
        await world.inject(topic, captured)
        await passed(skew + 1.5)
        await world.say(topic, b"3")
        assert values(await read(consumer, 1)) == [b"3"]
    assert old.audit.counts == {"stale": 2, "delivered": 1}
    async with world.consumer(new, topic, group_id=world.unique("group")) as consumer:
        assert values(await read(consumer, 3)) == [b"1", b"2", b"3"]
    assert new.audit.counts == {"delivered": 3}


async def test_a39_key_that_becomes_known_after_its_message_passed(world: World) -> None:
    """What passed for want of a key is a replay when it comes again under the key, live and after a restart."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"early", principal=INTERN)
    captured = await world.capture(topic)
    world.keys.unknown.add(INTERN)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        await world.say(topic, b"1")
        assert values(await read(consumer, 1)) == [b"1"]
        world.keys.unknown.clear()
        await world.inject(topic, captured)
        await world.say(topic, b"2")
        assert values(await read(consumer, 1)) == [b"2"]
    assert reader.audit.counts == {"unknown_key": 1, "delivered": 2, "replayed": 1}
    world.keys.unknown.add(INTERN)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        await eventually(lambda: _is_guarded(consumer))
        world.keys.unknown.clear()
        await world.inject(topic, captured)
        await world.say(topic, b"3")
        assert values(await read(consumer, 1)) == [b"3"]
    assert reader.audit.counts == {"delivered": 1, "replayed": 1}


@pytest.mark.parametrize("restarted", [False, True])
async def test_a38_an_outage_holds_a_partition_once(world: World, *, restarted: bool) -> None:
    """While a key source is down for one agent, honest traffic waits max_hold, once; the undetermined are kept."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0")
    if restarted:
        async with world.consumer(world.reader(), topic, group_id=group) as consumer:
            assert values(await read(consumer, 1)) == [b"0"]
    await world.say(topic, b"new key", principal=INTERN)
    captured = (await world.capture(topic, 2))[1]
    await world.say(topic, b"1")
    await world.say(topic, b"new key too", principal=INTERN)
    await world.say(topic, b"2")
    world.keys.down_for.add(INTERN)
    hold = 0.5
    reader, kept = world.reader(max_hold=hold), Kept()
    async with world.consumer(reader, topic, group_id=group, quarantine=kept) as consumer:
        assert values(await read(consumer, 2 + (not restarted)))[-2:] == [b"1", b"2"]
        assert kept.copies == [(b"new key", "undetermined"), (b"new key too", "undetermined")]
        world.keys.down_for.clear()
        await world.inject(topic, [captured])
        await world.say(topic, b"3")
        assert values(await read(consumer, 1)) == [b"3"]
        assert kept.copies[2:] == [(b"new key", "replayed")]
    assert reader.audit.counts["undetermined"] == 2


async def test_a38_without_room_in_quarantine_nothing_is_passed_over(world: World) -> None:
    """What cannot be judged and cannot be kept holds its partition until it can: nothing is lost."""
    topic = await world.make_topic()
    await world.say(topic, b"new key", principal=INTERN)
    world.keys.down_for.add(INTERN)
    reader = world.reader(max_hold=0.0)
    async with world.consumer(reader, topic, quarantine=Kept(full=True)) as consumer:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(consumer.getone(), 20)
        world.keys.down_for.clear()
        assert values(await read(consumer, 1)) == [b"new key"]
