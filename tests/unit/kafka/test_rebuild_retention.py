"""A39: what retention took from the log, before the guard began or under its eyes, is stale where it may come again."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.kafka.fakes import P0, FakeConsumer, Keys, intake, record
from tests.unit.kafka.test_rebuild import alone, fill, replay, until, values
from watchword import Mode


@pytest.mark.parametrize(
    ("first", "group", "committed", "position", "counts"),
    [
        (0, "group", 2, 2, {"delivered": 1}),
        (1, "group", None, 1, {"delivered": 2}),
        (1, None, None, 1, {"delivered": 2}),
        (1, "group", 2, 2, {"stale": 1}),
        (1, "group", 1, 1, {"stale": 2}),
        (1, "group", None, 2, {"stale": 1}),
        (1, None, None, 2, {"stale": 1}),
    ],
)
async def test_retention_that_cut_the_window_raises_the_floor(
    first: int, group: str | None, committed: int | None, position: int, counts: dict[str, int]
) -> None:
    """What may have stood in the part that is gone is stale, but for who begins at the first record and is new."""
    consumer, agent = FakeConsumer(P0, group=group), alone(mode=Mode.OBSERVE)
    await fill(consumer, b"0", b"1", b"2")
    consumer.seek(P0, position)
    consumer.first, consumer.offset_committed = first, committed
    assert await values(intake(consumer, agent), 3 - position) == [b"1", b"2"][position - 1 :]
    assert agent.audit.counts == counts


@pytest.mark.parametrize(
    ("group", "committed", "position", "first", "counts"),
    [
        ("group", 2, 2, 2, {"stale": 2}),
        ("group", None, 2, 2, {"delivered": 2}),
        (None, None, 2, 2, {"delivered": 2}),
        ("group", 0, 0, 0, {"delivered": 2}),
    ],
)
async def test_a_log_that_was_emptied_raises_the_floor_to_the_present(
    group: str | None, committed: int | None, position: int, first: int, counts: dict[str, int]
) -> None:
    """A39: what is gone was issued up to now and the skew; of a log that never held anything nothing is gone."""
    consumer, agent = FakeConsumer(P0, group=group), alone(mode=Mode.OBSERVE)
    await fill(consumer, b"0", b"1")
    captured, consumer.logs[P0] = consumer.logs[P0], []
    consumer.seek(P0, position)
    consumer.first, consumer.offset_committed = first, committed
    what = intake(consumer, agent)
    call = asyncio.create_task(values(what, 2))
    await until(what.partitions()[P0].is_guarded)
    consumer.logs[P0] = [replace(r, offset=first + r.offset) for r in captured]
    assert await call == [b"0", b"1"]
    assert agent.audit.counts == counts


async def test_a_replay_that_comes_while_it_is_asked_whether_the_log_is_empty() -> None:
    """A39: a record that is appended between the questions does not pass for one that is older than the window."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", b"1")
    captured, consumer.logs[P0] = consumer.logs[P0], []
    consumer.seek(P0, 2)
    consumer.first, consumer.offset_committed = 2, 2
    look_up = consumer.offsets_for_times

    async def late(times: Any) -> Any:
        found = await look_up(times)
        consumer.logs[P0] = [replace(captured[0], offset=2)]
        return found

    consumer.offsets_for_times = late  # type: ignore[method-assign]
    call = asyncio.create_task(values(intake(consumer, agent), 1))
    await until(agent.audit.counts.total)
    call.cancel()
    assert agent.audit.counts == {"stale": 1}


async def test_a_log_that_is_cut_between_the_questions_counts_from_the_present() -> None:
    """A39: a record that is gone does not tell when what went after it was issued."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", age=100.0)
    await fill(consumer, b"1")
    what = intake(consumer, agent)
    assert await values(what, 1) == [b"1"]
    what.put_back([P0])
    consumer.seek(P0, 0)
    look_up = consumer.offsets_for_times

    async def cut(times: Any) -> Any:
        found = await look_up(times)
        consumer.first, consumer.logs[P0] = 2, [replace(consumer.logs[P0][1], offset=2)]
        return found

    consumer.offsets_for_times = cut  # type: ignore[method-assign]
    call = asyncio.create_task(values(what, 1))
    await until(lambda: agent.audit.counts.total() > 3)
    call.cancel()
    assert agent.audit.counts == {"from_future": 2, "delivered": 1, "stale": 1}


async def test_a_log_of_which_only_older_records_than_the_window_are_left_lost_nothing_within_it() -> None:
    """Records go from the front only, so where an old one is left no honest message is stale for what is gone."""
    consumer, agent = FakeConsumer(P0), alone()
    await fill(consumer, b"0", b"1", age=1000.0)
    consumer.logs[P0] = consumer.logs[P0][1:]
    consumer.seek(P0, 2)
    consumer.first, consumer.offset_committed = 1, 2
    what = intake(consumer, agent)
    call = asyncio.create_task(values(what, 1))
    await until(what.partitions()[P0].is_guarded)
    consumer.logs[P0].append(await record(P0, 2, b"2"))
    assert await call == [b"2"]
    assert agent.audit.counts == {"delivered": 1}


async def test_who_has_read_here_is_not_new_at_the_first_record() -> None:
    """Going back to the beginning does not make a reader forget that retention has taken what it was given."""
    consumer, agent = FakeConsumer(P0, group=None), alone()
    await fill(consumer, b"0", b"1")
    what = intake(consumer, agent)
    assert await values(what, 2) == [b"0", b"1"]
    replay(consumer, 0)
    consumer.first = 1
    consumer.logs[P0] = consumer.logs[P0][1:]
    what.put_back([P0])
    consumer.seek(P0, 1)
    call = asyncio.create_task(values(what, 1))
    await until(lambda: agent.audit.counts["stale"] == 2)
    call.cancel()
    assert agent.audit.counts == {"delivered": 2, "stale": 2}


async def test_retention_that_cuts_while_the_log_is_read_again() -> None:
    """What was to be remembered and is gone before it was raises the floor as well."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys, mode=Mode.OBSERVE)
    await fill(consumer, b"0", b"1", b"2")
    consumer.seek(P0, 2)
    what = intake(consumer, agent)
    keys.gate.clear()
    call = asyncio.create_task(values(what, 1))
    await keys.question.wait()
    consumer.first = 1
    keys.gate.set()
    assert await call == [b"2"]
    assert agent.audit.counts == {"stale": 1}


async def test_where_producers_set_the_time_a_cut_window_counts_from_now() -> None:
    """The first record's own time is its producer's word, so what was issued until now, and the skew, is stale."""
    consumer, agent = FakeConsumer(P0), alone(mode=Mode.OBSERVE)
    await fill(consumer, b"0", b"1", b"2")
    consumer.logs[P0] = [replace(r, timestamp_type=0) for r in consumer.logs[P0]]
    consumer.seek(P0, 2)
    consumer.first, consumer.offset_committed = 1, 2
    assert await values(intake(consumer, agent), 1) == [b"2"]
    assert agent.audit.counts == {"stale": 1}
