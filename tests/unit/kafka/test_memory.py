"""A14, A17, A39: whatever happened before, no copy is delivered for new, and no honest message is called a replay.

The memory of a partition is rebuilt from its log, here with the real guard. Which steps that takes, and what may come
between them, is in tests/unit/core/test_partition.py.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from aiokafka.structs import OffsetAndMetadata

from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import OTHER, P0, P1, REALM, SENDER, FakeKafka, Keys, alone, numbers, raw, record, tree
from watchword import Allow, Mode, Rate, Rejected, Unavailable
from watchword.spi import MemoryReplayStore, Message


def replay(kafka: FakeKafka, offset: int) -> None:
    """Append a copy of a record to its log, with the broker's stamp of today."""
    records = kafka.logs[P0].records
    (original,) = (r for r in records if r.offset == offset)
    copy = replace(original, offset=kafka.logs[P0].high_watermark(), timestamp=int(time.time() * 1000))
    records.append(copy)


def commit(kafka: FakeKafka, offset: int, metadata: str = "") -> None:
    """Let the group have committed an offset before."""
    kafka.coordinator.committed[P0] = OffsetAndMetadata(offset, metadata)


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the fetcher, which tells nobody
            await asyncio.sleep(0)


def is_reading(kafka: FakeKafka) -> bool:
    """Return True if all partitions have their memory."""
    return all(reader.is_reading for reader in kafka.verified._readers.values())


async def test_what_stands_before_the_position_is_a_replay_behind_it(read: Read) -> None:
    """A14: records before the position are remembered, not delivered, and their copies are dropped."""
    agent = alone()
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    replay(kafka, 0)
    await kafka.fill(b"3")
    commit(kafka, 2)
    assert await kafka.values(1) == [b"3"]
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}
    assert kafka.verified.judged() == {P0: 4}


async def test_until_the_log_is_read_again_the_position_stays(read: Read) -> None:
    """Records that are only remembered change neither the committed offset nor the position that callers see."""
    keys = Keys()
    kafka = read(alone(keys), P0, enable_auto_commit=True)
    await kafka.fill(b"0", b"1", b"2")
    commit(kafka, 2)
    keys.gate.clear()
    call = asyncio.create_task(kafka.values(1))
    await keys.question.wait()
    assert kafka.state(P0).position != 2
    await kafka.verified.commit_handled()
    await kafka.consumer.commit()
    assert set(kafka.commits()) <= {2}
    assert await kafka.consumer.position(P0) == 2
    keys.gate.set()
    assert await call == [b"2"]


async def test_older_records_than_the_window_are_not_read_again(read: Read) -> None:
    """The rebuild begins at the window before the next record, by the broker's own time."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    await kafka.fill(b"old", age=1000.0)
    await kafka.fill(b"recent", b"next")
    commit(kafka, 2)
    assert await kafka.values(1) == [b"next"]
    assert keys.asked == 2


async def test_an_empty_log_is_guarded_at_once_and_its_end_waited_for(read: Read) -> None:
    """Where nothing can be read yet the local time stands for the next record's: nobody waits for a record."""
    kafka = read(alone(), P0, P1)
    call = asyncio.create_task(kafka.values(1))
    await until(lambda: kafka.verified._readers and is_reading(kafka))
    await kafka.fill(b"0")
    assert await call == [b"0"]


async def test_a_record_that_is_on_its_way_is_waited_for(read: Read) -> None:
    """A49: behind a stranger's open transaction the anchor is the first record that can be read, not our own time."""
    agent = alone()
    kafka = read(agent, P0)
    await kafka.fill(b"0", age=3600.0)
    kafka.logs[P0].stable = 0
    call = asyncio.create_task(kafka.values(1))
    await asyncio.sleep(0.05)
    assert not is_reading(kafka)
    kafka.logs[P0].stable = None
    await until(lambda: agent.audit.counts == {"from_future": 1})  # issued now, and judged by the broker's old stamp
    await kafka.fill(b"1")
    assert await call == [b"1"]


async def test_a_log_that_ends_in_what_is_no_record_is_rebuilt(read: Read) -> None:
    """Markers of transactions, or records that were compacted away, do not keep the guard waiting."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0", b"1")
    kafka.logs[P0].records.pop()
    kafka.logs[P0].end = 2
    commit(kafka, 1)
    call = asyncio.create_task(kafka.values(1))
    await until(lambda: kafka.verified._readers and is_reading(kafka))
    assert kafka.verified.judged() == {P0: 2}
    await kafka.fill(b"2")
    assert await call == [b"2"]


async def test_a_guard_is_kept_for_a_partition_that_comes_back_to_its_position(read: Read) -> None:
    """After a rebalance that changes nothing nothing is read again; one that moved on is, and a lost one forgotten."""
    keys = Keys()
    agent = alone(keys)
    store = agent.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    kafka = read(agent, P0, P1)
    await kafka.fill(b"0", b"1")
    assert await kafka.values(2) == [b"0", b"1"]
    for position, looked_up in ((2, 0), (1, 1)):
        kafka.looked_up.clear()
        commit(kafka, position)
        kafka.assign(P0)
        await kafka.fill(b"next")
        replay(kafka, 0)
        assert (await kafka.values(3 - position))[-1] == b"next"
        assert len(kafka.looked_up) == looked_up
        kafka.logs[P0].records = kafka.logs[P0].records[:2]
    kafka.assign(P1)
    assert kafka.verified.judged().keys() <= {P1}
    assert len(store) == 0


async def test_what_is_judged_of_a_lost_partition_is_forgotten(read: Read) -> None:
    """A14: verdicts that come after a partition was lost leave nothing behind in a memory that may live on."""
    keys = Keys()
    agent = alone(keys)
    store = agent.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    kafka = read(agent, P0, P1)
    await kafka.fill(b"0")
    keys.gate.clear()
    call = asyncio.create_task(kafka.one())
    await keys.question.wait()
    kafka.assign(P1)
    kafka.verified.judged()
    keys.gate.set()
    await until(lambda: not kafka.verified._tasks)
    assert len(store) == 0
    await kafka.fill(b"1", tp=P1)
    assert (await call).value == b"1"


async def test_closing_frees_the_memory(read: Read) -> None:
    """A process that reads on rebuilds what must be known, so nothing is kept, not of partitions lost before either."""
    keys = Keys()
    agent = alone(keys)
    store = agent.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    kafka = read(agent, P0, P1)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    assert len(store) == 1
    await kafka.fill(b"1")
    keys.gate.clear()
    call = asyncio.create_task(kafka.many())
    await asyncio.sleep(0.01)
    kafka.assign(P1)
    assert kafka.verified.judged().keys() <= {P1}
    stop = asyncio.create_task(kafka.consumer.stop())
    keys.gate.set()
    await stop
    await call
    assert len(store) == 0


async def test_a_log_that_cannot_be_read_again_delivers_nothing(read: Read) -> None:
    """A broker that does not answer is Unavailable, tried again; one that forbids is the client's own error."""
    kafka = read(alone(), P0)
    kafka.lookup_errors = [KafkaTimeoutError(), TopicAuthorizationFailedError()]
    with pytest.raises(Unavailable, match="replay unavailable: the log cannot be reread: KafkaTimeoutError"):
        await kafka.one()
    with pytest.raises(TopicAuthorizationFailedError):
        await kafka.one()
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]


async def test_a_seek_while_the_memory_is_placed_wins(read: Read) -> None:
    """A guard begins where the partition is read from, not where it was when the question was asked."""
    agent = alone()
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    look_up, asked, gate = kafka.fetcher.get_offsets_by_times, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        asked.set()
        await gate.wait()
        return await look_up(*arguments)

    kafka.fetcher.get_offsets_by_times = slow  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(kafka.values(1))
    await asked.wait()
    kafka.consumer.seek(P0, 1)
    gate.set()
    assert await call == [b"1"]
    replay(kafka, 0)
    await kafka.fill(b"3")
    assert await kafka.values(1) == [b"3"]
    assert agent.audit.counts == {"delivered": 2, "replayed": 1}


async def test_a_key_source_that_is_down_holds_the_rebuild_once(read: Read) -> None:
    """For max_hold nothing is delivered; then what has no verdict is remembered by its claims, and time continues."""
    keys = Keys()
    agent = alone(keys, max_hold=1.0)
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    commit(kafka, 1)
    keys.failures = 1
    with pytest.raises(Unavailable):
        await kafka.values(1)
    keys.failures = 1
    kafka.late += 2
    assert await kafka.values(1) == [b"1"]
    replay(kafka, 0)
    await kafka.fill(b"3")
    assert await kafka.values(1) == [b"3"]
    assert agent.audit.counts == {"delivered": 2, "replayed": 1}


async def test_the_window_is_recalled_in_bulk(read: Read) -> None:
    """What passed before a restart is remembered many at once; what could not be is held up, and nothing forgotten."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    records = await tree(P0, numbers(10))
    records[4] = await record(P0, 4, b"other", principal=OTHER)
    kafka.logs[P0].records = [*records, replace(records[4], offset=10), *(await tree(P0, [b"new"], 11))]
    commit(kafka, 10)
    keys.down_for = {OTHER}
    with pytest.raises(Unavailable, match="before the position cannot be judged"):
        await kafka.many()
    keys.down_for.clear()
    kafka.late += 5
    assert await kafka.values(1) == [b"new"]
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}
    assert keys.asked <= 7  # one by one behind a doubt, and not more than that


async def test_what_is_rejected_or_undetermined_goes_into_quarantine(read: Read) -> None:
    """After max_hold an outage holds nothing up where quarantine has room; where it cannot be written it does."""
    keys, kept = Keys(), Kept()
    agent = alone(keys, max_hold=0.0)
    kafka = read(agent, P0, quarantine=kept)
    await kafka.fill(b"0")
    kafka.logs[P0].records.append(raw(P0, 1, b"forged"))
    await kafka.fill(b"2")
    keys.failures = 1
    assert await kafka.values(1) == [b"2"]
    assert kept.copies == [(b"0", "undetermined"), (b"forged", "unsigned")]
    assert agent.audit.counts == {"unavailable": 1, "undetermined": 1, "unsigned": 1, "delivered": 1}
    kept.full = True
    await kafka.fill(b"3")
    keys.failures = 1
    with pytest.raises(Unavailable, match="keys"):
        await kafka.values(1)
    assert await kafka.values(1) == [b"3"]


async def test_what_an_earlier_task_still_judges_leaves_no_trace_in_a_new_guard(read: Read) -> None:
    """A copy that is being judged while the partition is sought is no first sight for the guard built after that."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    replay(kafka, 0)
    await kafka.fill(b"3", b"4")
    commit(kafka, 2)
    find, begun, go_on = keys.find, asyncio.Event(), asyncio.Event()

    async def slow_for_the_copy(principal: str, key_id: bytes) -> Any:
        if is_reading(kafka) and not begun.is_set():
            begun.set()
            await go_on.wait()
        return await find(principal, key_id)

    keys.find = slow_for_the_copy  # type: ignore[method-assign]
    calls = [asyncio.create_task(kafka.one())]
    await begun.wait()
    kafka.consumer.seek(P0, 2)
    calls.append(asyncio.create_task(kafka.one()))
    await asyncio.wait(calls, timeout=0.05)
    go_on.set()
    assert sorted([(await call).value for call in calls]) == [b"3", b"4"]
    assert agent.audit.counts["delivered"] == 2
    assert agent.audit.counts["replayed"] in {1, 2}


@pytest.mark.parametrize("moved", [0, 1])
async def test_a_rebalance_during_a_rebuild(read: Read, moved: int) -> None:
    """A14: a partition that comes back before its guard was built is read again, be its position the same or not."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    replay(kafka, 1)
    await kafka.fill(b"3")
    commit(kafka, 2)
    keys.gate.clear()
    call = asyncio.create_task(kafka.one())
    await keys.question.wait()
    commit(kafka, 2 + moved)
    kafka.assign(P0)
    kafka.verified.judged()
    keys.gate.set()
    assert (await call).value == b"3"
    assert agent.audit.counts == ({"delivered": 1} if moved else {"replayed": 1, "delivered": 1})
    replay(kafka, 0)
    replay(kafka, 3)
    await kafka.fill(b"6")
    assert (await kafka.one()).value == b"6"
    assert agent.audit.counts["replayed"] == 3 - moved


async def test_a_call_that_is_cancelled_does_not_bring_back_what_came_too_fast(read: Read) -> None:
    """A40: who stops waiting while a copy goes into quarantine gets no second verdict on the same record."""
    agent = alone()
    rule = Allow(SENDER, (f"kafka://{REALM}/{P0.topic}",), Rate(1, 3600.0))
    agent.verifier.policy = replace(agent.verifier.policy, allow=(rule,))
    writing, go_on, kept = asyncio.Event(), asyncio.Event(), list[bytes | None]()

    class Slow:
        async def put(self, message: Message, _: Rejected | Unavailable) -> bool:
            writing.set()
            await go_on.wait()
            kept.append(message.value)
            return True

    kafka = read(agent, P0, quarantine=Slow())
    await kafka.fill(b"0", b"too fast")
    assert (await kafka.one()).value == b"0"
    call = asyncio.create_task(kafka.one())
    await writing.wait()
    call.cancel()
    await asyncio.wait({call})
    assert call.cancelled()
    go_on.set()
    assert await kafka.many(seconds=0.02) == {}
    await kafka.verified.copied()
    assert kept == [b"too fast"]
    assert agent.audit.counts == {"delivered": 1, "rate_limited": 1}


async def test_where_producers_set_the_time_the_window_is_read_again(read: Read) -> None:
    """A39: on a CreateTime topic too what stands before the position is a replay behind it, without any metadata."""
    agent = alone()
    kafka = read(agent, P0)
    await kafka.fill(b"0", b"1")
    replay(kafka, 0)
    await kafka.fill(b"3")
    kafka.logs[P0].records = [replace(r, timestamp_type=0) for r in kafka.logs[P0].records]
    commit(kafka, 2)
    assert await kafka.values(1) == [b"3"]
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}


# Retention


@pytest.mark.parametrize(
    ("first", "group", "committed", "counts"),
    [
        (0, "group", 2, {"delivered": 1}),
        (1, "group", None, {"delivered": 2}),
        (1, None, None, {"delivered": 2}),
        (1, "group", 2, {"stale": 1}),
        (1, "group", 1, {"stale": 2}),
        (1, "group", 0, {"stale": 2}),
    ],
)
async def test_retention_that_cut_the_window_raises_the_floor(
    read: Read, first: int, group: str | None, committed: int | None, counts: dict[str, int]
) -> None:
    """A39: what may have stood in the part that is gone is stale, but not for a reader that is new."""
    agent = alone(mode=Mode.OBSERVE)
    kafka = read(agent, P0, group=group)
    await kafka.fill(b"0", b"1", b"2")
    kafka.logs[P0].first = first
    if committed is not None:
        commit(kafka, committed)
    position = max(first, committed or 0)
    assert await kafka.values(3 - position) == numbers(3)[position:]
    assert agent.audit.counts == counts


async def test_a_predecessor_says_what_retention_may_have_taken(read: Read) -> None:
    """A39, A46: with a checkpoint in the commit, a log that was cut or emptied costs only what was handed over."""
    agent = alone()
    kafka = read(agent, P0, enable_auto_commit=True)
    await kafka.fill(*numbers(3))
    assert await kafka.values(3) == numbers(3)
    kafka.verified.all_handled()
    await kafka.verified.commit_handled()
    told = kafka.coordinator.committed[P0]
    await kafka.consumer.stop()
    second = alone(mode=Mode.OBSERVE)
    successor = read(second, P0)
    successor.coordinator.committed[P0] = told
    successor.logs[P0].first = successor.logs[P0].end = 3
    original = kafka.logs[P0].records[0]
    call = asyncio.create_task(successor.values(2))
    await until(lambda: successor.verified._readers and is_reading(successor))
    successor.logs[P0].records = [replace(original, offset=3)]
    later = await record(P0, 4, b"later")
    successor.logs[P0].records.append(later)
    assert await call == [b"0", b"later"]
    assert second.audit.counts["stale"] >= 1
