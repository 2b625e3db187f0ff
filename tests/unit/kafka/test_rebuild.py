import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from tests.integration.kafka.world import Kept
from tests.unit.kafka.fakes import P0, P1, FakeConsumer, Keys, intake, record, watchword
from watchword import MemoryReplayStore, Unavailable, Watchword
from watchword_adapters.kafka.intake import Intake


async def fill(consumer: FakeConsumer, *values: bytes, age: float = 0.0) -> None:
    """Append signed records to the log of P0."""
    for value in values:
        consumer.logs[P0].append(await record(P0, len(consumer.logs[P0]), value, age=age))


def replay(consumer: FakeConsumer, offset: int) -> None:
    """Append a copy of a record to its log, with the broker's stamp of today."""
    copy = replace(consumer.logs[P0][offset], offset=len(consumer.logs[P0]), timestamp=int(time.time() * 1000))
    consumer.logs[P0].append(copy)


async def values(what: Intake, count: int) -> list[Any]:
    """Return the values of the next records."""
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            for records in (await what.next((), deadline=None, most=None, one=False)).values():
                found += [r.value for r in records]
    return found


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the intake, which tells nobody
            await asyncio.sleep(0)


def alone(keys: Keys | None = None, **options: Any) -> Watchword:
    """Return an agent whose logs are its memory."""
    return watchword(keys or Keys(), shared=False, **options)


async def test_what_stands_before_the_position_is_a_replay_behind_it() -> None:
    """A14: records before the position are remembered, not delivered, and their copies are dropped."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", b"1")
    replay(consumer, 0)
    await fill(consumer, b"3")
    consumer.seek(P0, 2)
    what = intake(consumer, agent)
    assert await values(what, 1) == [b"3"]
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}
    assert what.judged() == {P0: 4}


async def test_until_the_log_is_read_again_the_position_stays() -> None:
    """Nothing is committed, and no position told, of records that are only remembered."""
    consumer, keys = FakeConsumer(P0), Keys()
    await fill(consumer, b"0", b"1", b"2")
    consumer.seek(P0, 2)
    what = intake(consumer, alone(keys))
    keys.gate.clear()
    call = asyncio.create_task(values(what, 1))
    await keys.question.wait()
    assert consumer.state(P0).position != 2
    assert (what.judged(), what.to_commit()) == ({P0: 2}, {P0: 2})
    keys.gate.set()
    assert await call == [b"2"]


async def test_older_records_than_the_window_are_not_read_again() -> None:
    """The rebuild begins at the window before the next record, by the broker's own time."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"old", age=1000.0)
    await fill(consumer, b"recent", b"next")
    consumer.seek(P0, 2)
    keys = Keys()
    what = intake(consumer, alone(keys))
    assert await values(what, 1) == [b"next"]
    assert keys.asked == 2


async def test_an_empty_log_is_guarded_at_once_and_its_end_waited_for() -> None:
    """Where nothing can be read yet the local time stands for the next record's."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, alone())
    call = asyncio.create_task(values(what, 1))
    await until(lambda: all(part.is_guarded() for part in what.partitions().values()))
    await fill(consumer, b"0")
    assert await call == [b"0"]


async def test_a_record_that_is_on_its_way_is_waited_for() -> None:
    """Where there are records, the anchor is the next one's time and not ours: an honest backlog is not stale."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0", age=3600.0)
    agent = alone()
    what = intake(consumer, agent)
    backlog, consumer.logs[P0], consumer.unreadable = consumer.logs[P0], [], 1
    call = asyncio.create_task(values(what, 1))
    await until(lambda: what.partitions()[P0].anchoring is not None)
    assert not what.partitions()[P0].anchored
    consumer.logs[P0], consumer.unreadable = backlog, 0
    await until(lambda: agent.audit.counts == {"from_future": 1})  # issued now, and judged by the broker's old stamp
    await fill(consumer, b"1")
    assert await call == [b"1"]


async def test_a_log_that_ends_in_what_is_no_record_is_rebuilt() -> None:
    """Markers of transactions, or records that were compacted away, do not keep the guard waiting."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0", b"1")
    consumer.seek(P0, 1)
    what = intake(consumer, alone())
    gone = consumer.logs[P0].pop()
    consumer.state(P0).position = 2
    consumer.unreadable = 1
    take = consumer.take

    async def over_the_marker(*tps: Any, **options: Any) -> Any:
        found = await take(*tps, **options)
        if consumer.state(P0).position == 1:
            consumer.state(P0).position = 2
        return found

    what._take_from_client = over_the_marker
    call = asyncio.create_task(values(what, 1))
    await until(what.partitions()[P0].is_guarded)
    assert what.judged() == {P0: 2}
    consumer.logs[P0].append(replace(gone, offset=2))
    assert await call == [b"1"]


async def test_a_guard_is_kept_for_a_partition_that_comes_back_to_its_position() -> None:
    """After a rebalance that changes nothing nothing is read again; one that moved on is, and a lost one forgotten."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    store = agent.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    what = intake(consumer, agent)
    await fill(consumer, b"0", b"1")
    assert await values(what, 2) == [b"0", b"1"]
    for position, asked in ((2, 1), (1, 2)):  # once for all that is new; and once for what is read again
        consumer.assign(P0)
        consumer.seek(P0, position)
        before = keys.asked
        await fill(consumer, b"next")
        replay(consumer, 0)
        assert (await values(what, 3 - position))[-1] == b"next"
        await until(lambda before=before, asked=asked: keys.asked - before == asked)  # type: ignore[misc]
        consumer.logs[P0] = consumer.logs[P0][:2]
    consumer.assign(P1)
    assert what.partitions().keys() == {P1}
    assert len(store) == 0


async def test_closing_frees_the_memory() -> None:
    """Whoever reads on rebuilds what must be known, so nothing is kept."""
    consumer, agent = FakeConsumer(P0), alone()
    store = agent.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    what = intake(consumer, agent)
    await fill(consumer, b"0")
    assert await values(what, 1) == [b"0"]
    assert len(store) == 1
    await what.close()
    assert len(store) == 0


async def test_a_log_that_cannot_be_read_again_delivers_nothing() -> None:
    """A broker that does not answer is Unavailable, tried again; one that forbids is the client's own error."""
    consumer, agent = FakeConsumer(P0), alone()
    what = intake(consumer, agent)
    consumer.lookup_errors = [KafkaTimeoutError(), TopicAuthorizationFailedError()]
    with pytest.raises(Unavailable, match="replay unavailable: the log cannot be read again: KafkaTimeoutError"):
        await values(what, 1)
    with pytest.raises(TopicAuthorizationFailedError):
        await values(what, 1)
    await fill(consumer, b"0")
    assert await values(what, 1) == [b"0"]


async def test_a_seek_while_the_anchor_is_looked_for_wins() -> None:
    """A guard is anchored where the partition is read from, not where it was when the question was asked."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0", b"1")
    what = intake(consumer, alone())
    look_up, asked = consumer.offsets_for_times, asyncio.Event()

    async def slow(times: Any) -> Any:
        asked.set()
        await asyncio.sleep(0.01)
        return await look_up(times)

    consumer.offsets_for_times = slow  # type: ignore[method-assign]
    call = asyncio.create_task(values(what, 1))
    await asked.wait()
    what.put_back([P0])
    consumer.seek(P0, 1)
    assert await call == [b"1"]


async def test_a_position_that_moves_while_the_anchor_is_looked_for_is_looked_for_again() -> None:
    """A log that was cut under the question is anchored at what is left."""
    consumer = FakeConsumer(P0)
    await fill(consumer, b"0", b"1")
    what = intake(consumer, alone())
    look_up = consumer.offsets_for_times

    looked = []

    async def cut(times: Any) -> Any:
        looked.append(times)
        if len(looked) == 1:
            what.partitions()[P0].pending.clear()
        return await look_up(times)

    consumer.offsets_for_times = cut  # type: ignore[method-assign]
    assert await values(what, 1) == [b"1"]
    assert len(looked) == 2


async def test_a_key_source_that_is_down_holds_the_rebuild_once() -> None:
    """For max_hold nothing is delivered; then what has no verdict is remembered by its claims, and time goes on."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys, max_hold=0.05)
    await fill(consumer, b"0", b"1")
    consumer.seek(P0, 1)
    keys.failures = 1
    what = intake(consumer, agent)
    with pytest.raises(Unavailable):
        await values(what, 1)
    keys.failures = 1
    await asyncio.sleep(0.06)
    what.partitions()[P0].retry_at = 0.0
    assert await values(what, 1) == [b"1"]
    replay(consumer, 0)
    await fill(consumer, b"3")
    assert await values(what, 1) == [b"3"]
    assert agent.audit.counts == {"delivered": 2, "replayed": 1}


async def test_a_short_outage_in_the_rebuild_changes_nothing() -> None:
    """A record that could be judged after all is remembered as what it is."""
    consumer, keys = FakeConsumer(P0), Keys()
    await fill(consumer, b"0", b"1")
    consumer.seek(P0, 1)
    keys.failures = 1
    what = intake(consumer, alone(keys))
    with pytest.raises(Unavailable):
        await values(what, 1)
    assert await values(what, 1) == [b"1"]


async def test_what_is_rejected_or_undetermined_goes_into_quarantine() -> None:
    """After max_hold an outage holds nothing up where quarantine has room; where it cannot be written it does."""
    consumer, keys, kept = FakeConsumer(P0), Keys(), Kept()
    agent = alone(keys, max_hold=0.0)
    await fill(consumer, b"0")
    consumer.logs[P0].append(await record(P0, 1, b"forged", signed=False))
    await fill(consumer, b"2")
    keys.failures = 1
    what = intake(consumer, agent, quarantine=kept)
    assert await values(what, 1) == [b"2"]
    assert kept.copies == [(b"0", "undetermined"), (b"forged", "unsigned")]
    assert agent.audit.counts == {"unavailable": 1, "undetermined": 1, "unsigned": 1, "delivered": 1}

    async def down(*_: Any) -> bool:
        raise Unavailable("quarantine")

    kept.put = down  # type: ignore[assignment,method-assign]
    consumer.logs[P0].append(await record(P0, 3, b"forged", signed=False))
    await fill(consumer, b"4")
    keys.failures = 1
    with pytest.raises(Unavailable, match="keys"):
        await values(what, 1)
    assert await values(what, 1) == [b"4"]
