"""While a memory begins no fetch waits for long, for what is asked behind it waits too."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.structs import OffsetAndMetadata

from tests.support.patience import PATIENCE
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import P0, P1, FakeFetcher, FakeKafka, Keys, Log, alone
from watchword_adapters.kafka.pace import REST, SHORTEST, Pace

LONGEST = FakeFetcher.longest
DOUBLING = [SHORTEST * 2**n for n in range(6)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the fetcher, which tells nobody
            await asyncio.sleep(0)


async def settled(kafka: FakeKafka) -> None:
    """Wait until fetches take their time."""
    kafka.fetcher.waits.clear()
    await until(lambda: kafka.fetcher.waits[-2:] == [LONGEST, LONGEST])
    kafka.fetcher.waits.clear()


async def test_fetches_wait_briefly_until_the_memory_knows_all(read: Read) -> None:
    """From the first fetch on, before anyone asks; then for as long as the caller has said."""
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
    """From a seek, a new assignment, and the beginning of a rebalance on: the next one."""
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


@pytest.mark.parametrize(
    ("committed", "position", "stable", "records", "rest"),
    [
        (True, 3, 2, b"", REST),
        (True, 3, 3, b"", 0),
        (True, None, 2, b"", 0),
        (True, 3, 2, b"records", 0),
        (True, 3, -1, b"", 0),
        (True, 3, -1, None, 0),
        (False, 3, 2, b"", 0),
    ],
    ids=["beyond", "at", "unplaced", "something", "an error", "an error without records", "uncommitted"],
)
@pytest.mark.parametrize("first", [True, False])
def test_only_what_the_broker_did_not_keep_rests(
    *, committed: bool, position: int | None, stable: int, records: bytes | None, rest: float, first: bool
) -> None:
    """It keeps all fetches but one from beyond the last stable offset, and that one too if there is anything else."""
    inside: Any = SimpleNamespace(
        reads_committed=committed, position={P0: position, P1: 7}.__getitem__, keep_fetches=lambda _: None
    )
    parts: list[Any] = [(P0.partition, 0, 9, stable, 0, [], -1, records), (P1.partition, 0, 7, 7, 0, [], -1, b"")]
    answer = SimpleNamespace(topics=[(P0.topic, parts if first else parts[::-1])])
    assert Pace(inside).rest(answer) == rest


async def test_a_fetch_that_was_not_kept_keeps_the_client_waiting(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets its answer after the rest, so that it asks again no sooner."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0", b"1")
    kafka.place(P0, 2)
    kafka.logs[P0].stable = 1
    kafka.fetcher._isolation_level = 1
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    with monkeypatch.context() as patch:
        patch.setattr("watchword_adapters.kafka._seam.asyncio", SimpleNamespace(sleep=rest))
        await until(lambda: len(rests) > 1)
    assert set(rests) == {REST}
