"""While a memory begins no fetch waits for long, for what is asked behind it waits too."""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka.structs import OffsetAndMetadata

from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import P0, P1, FakeFetcher, FakeKafka, Keys, Log, alone
from watchword_adapters.kafka.pace import SHORTEST

LONGEST = FakeFetcher.longest
DOUBLING = [SHORTEST * 2**n for n in range(6)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the fetcher, which tells nobody
            await asyncio.sleep(0)


async def settled(kafka: FakeKafka) -> None:
    """Wait until fetches take their time."""
    kafka.fetcher.waits.clear()
    await until(lambda: kafka.fetcher.waits[-2:] == [LONGEST, LONGEST])
    kafka.fetcher.waits.clear()


async def test_fetches_wait_briefly_until_the_memory_knows_all(read: Read) -> None:
    """From the first fetch on, before anybody asks; then for as long as the caller has said."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    assert kafka.fetcher.waits[0] == SHORTEST
    assert LONGEST not in kafka.fetcher.waits
    await settled(kafka)


@pytest.mark.parametrize("asked", [False, True])
async def test_a_memory_that_cannot_begin_is_no_load(read: Read, *, asked: bool) -> None:
    """Where nobody asks for records, or an open transaction is in front of them, fetches soon take their time again."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    kafka.logs[P0].stable = 0
    if asked:
        assert await kafka.many(seconds=0.1) == {}
    await settled(kafka)
    if asked:
        assert await kafka.many(seconds=0.1) == {}
    assert set(kafka.fetcher.waits) <= {LONGEST}


async def test_a_memory_that_can_begin_at_last_hurries(read: Read) -> None:
    """Each step of a beginning is one that the next may have to wait for."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    await kafka.fill(b"0", b"1")
    kafka.coordinator.committed[P0] = OffsetAndMetadata(1, "")
    kafka.logs[P0].stable = 1
    assert await kafka.many(seconds=0.1) == {}
    await settled(kafka)
    keys.gate.clear()
    kafka.logs[P0].stable = None
    reading = asyncio.create_task(kafka.values(1))
    await keys.question.wait()
    await until(lambda: SHORTEST in kafka.fetcher.waits)
    keys.gate.set()
    assert await reading == [b"1"]


async def test_each_fetch_waits_twice_as_long(read: Read) -> None:
    """So a memory that begins soon waits for nothing, and one that does not asks no more than it would."""
    kafka = read(alone(), P0)
    await until(lambda: len(kafka.fetcher.waits) > len(DOUBLING))
    assert kafka.fetcher.waits[: len(DOUBLING)] == DOUBLING


@pytest.mark.parametrize("moved", ["sought", "rebalanced", "more", "revoked"])
async def test_fetches_are_brief_again_where_reading_begins_again(read: Read, moved: str) -> None:
    """From a seek, a new assignment, and the beginning of a rebalance on: the very next one."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0", b"1")
    kafka.logs[P1] = Log()
    assert await kafka.values(2) == [b"0", b"1"]
    await settled(kafka)
    match moved:
        case "sought":
            kafka.consumer.seek(P0, 9)
        case "rebalanced":
            kafka.assign(P0)
        case "more":
            kafka.assign(P0, P1)
        case _:
            kafka.consumer._subscription.begin_reassignment()
            await kafka.verified.revoked()
    assert kafka.verified.judged() is not None
    assert kafka.fetcher._fetch_max_wait_ms == SHORTEST


async def test_a_seek_that_needs_no_fetch_changes_nothing(read: Read) -> None:
    """What is remembered comes again from here."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0", b"1")
    assert await kafka.values(2) == [b"0", b"1"]
    await settled(kafka)
    kafka.consumer.seek(P0, 1)
    assert await kafka.values(1) == [b"1"]
    assert set(kafka.fetcher.waits) <= {LONGEST}


async def test_a_caller_who_wants_short_waits_has_them(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the caller has said is never exceeded."""
    monkeypatch.setattr(FakeFetcher, "longest", SHORTEST // 2)
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    await until(lambda: len(kafka.fetcher.waits) > 10)
    assert set(kafka.fetcher.waits) == {SHORTEST // 2}
