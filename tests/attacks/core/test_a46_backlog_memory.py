"""A46, A20: a backlog on a log that the broker does not stamp, and that is longer than the memory.

While a reader works off what came when it did not look, log time stands still: these claims were appended after nothing
that it knows of. Each attack is shown to work without the rule that stops it.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from tests.unit.core.claims import claim
from tests.unit.core.world import ALICE, BOB, MALLORY, NOW, at_once
from watchword import Policy
from watchword.quota import Bounds
from watchword.spi import Admission, Claim, MemoryReplayStore, Position

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
POLICY = Policy()
HORIZON = POLICY.horizon
HOUR = 3600
DAY = 24 * HOUR
LOG = "group#tasks/0"


def guard(per_principal: int = 1000, in_all: int = 2000, horizon: float = HORIZON) -> MemoryReplayStore:
    """Return a guard with little room; it begins at the floor that nothing is older than."""
    bounds = Bounds(per_principal=per_principal, in_all=in_all, unverified=100)
    return MemoryReplayStore(horizon=horizon, bounds=bounds)


def behind(number: int, issued_at: int, *, principal: str = ALICE, looked: float = -inf, **fields: Any) -> Claim:
    """Return the claim of a record at an offset of its own, read long after it was written."""
    raw = number.to_bytes(16)
    given = {
        "log": LOG, "principal": principal, "id": raw, "digest": raw * 2, "place": (Position("tasks/0", number), None),
        "issued_at": issued_at, "reference": float(issued_at), "appended_after": looked, "keep_until": inf,
    }  # fmt: skip
    return claim(**given | fields)


def copy(one: Claim, offset: int) -> Claim:
    """Return the same claims, found further on."""
    return replace(one, place=(Position("tasks/0", offset), None))


def offered(memory: MemoryReplayStore, claims: Iterator[Claim] | list[Claim]) -> Counter[Admission]:
    """Count what is answered."""
    return Counter(at_once(memory.claim(one)) for one in claims)


def test_a46_a_backlog_of_hours_is_longer_than_the_memory() -> None:
    """Promise: it flows: nothing is over quota, nothing is let in twice, and no more is held than allowed."""
    memory = guard()
    backlog = [behind(second, NOW + second) for second in range(6 * HOUR)]
    assert offered(memory, backlog) == {FIRST: 6 * HOUR}
    assert len(memory) <= 1000
    assert list(memory.warnings) == []
    copies = offered(memory, [copy(one, 10 * HOUR + at) for at, one in enumerate(backlog)])
    assert copies.keys() == {TOO_OLD, REPLAYED}
    assert copies[REPLAYED] >= int(HORIZON)
    assert memory.lowest_needed(LOG) == 0, "a successor reads the backlog again, for it does not know these floors"
    assert memory.floor(LOG) == -inf


def test_a46_four_principals_share_a_backlog() -> None:
    """Promise: the same where all of them together are at the bound, and each is below its own."""
    memory = guard(per_principal=1000, in_all=1600)
    names = [f"agent://acme/{number}" for number in range(4)]
    backlog = [behind(number, NOW + number // 4, principal=names[number % 4]) for number in range(4 * 3 * HOUR)]
    assert offered(memory, backlog) == {FIRST: len(backlog)}
    assert memory.floor(LOG) == -inf
    assert set(offered(memory, [copy(one, DAY + at) for at, one in enumerate(backlog)])) == {TOO_OLD, REPLAYED}


def test_a46_many_short_lives_in_a_backlog() -> None:
    """Promise: agents that spoke for a minute and never again do not stop it: the log's floor rises, with a warning.

    It rises by the second latest of all principals, so what was written in the order of issue is not lost.
    """
    memory = guard(per_principal=500, in_all=1000)
    backlog = [behind(second, NOW + second, principal=f"agent://acme/{second // 60}") for second in range(3 * HOUR)]
    assert offered(memory, backlog) == {FIRST: 3 * HOUR}
    assert {event for event, _ in memory.warnings} >= {"replay.floor_raised"}
    assert set(offered(memory, [copy(one, DAY + at) for at, one in enumerate(backlog)])) == {TOO_OLD, REPLAYED}
    latest = NOW + 3 * HOUR
    assert latest - 2 * HOUR < memory.floor(LOG) < latest - HORIZON
    assert at_once(memory.claim(behind(DAY, int(memory.floor(LOG)) + 1, principal=BOB))) is FIRST


def test_a46_the_end_of_a_backlog_lets_go_of_it() -> None:
    """Promise: once looks tell that log time has passed, ids leave as on any log, and a successor reads the window."""
    memory = guard()
    offered(memory, [behind(second, NOW + second, principal=(ALICE, BOB)[second % 2]) for second in range(HOUR)])
    live = NOW + HOUR + 600
    assert offered(memory, [behind(HOUR, live, looked=float(live))]) == {FIRST: 1}
    assert (len(memory), memory.lowest_needed(LOG), memory.floor(LOG)) == (1, HOUR, live - HORIZON)
    assert memory._logs[LOG].latest == {ALICE: live}


def test_a46_two_that_date_ahead_make_nobody_else_stale() -> None:
    """Promise: compromised principals in front of a backlog, dated up to now, raise their own floors and no other.

    Nor do principals that policy does not permit: their claims come before that check.
    """
    memory, now = guard(), NOW + 7 * DAY
    for number, name in enumerate((MALLORY, "agent://acme/accomplice", "agent://acme/not-permitted")):
        assert at_once(memory.claim(behind(number, now, principal=name))) is FIRST
    backlog = [behind(10 + minute, NOW + 60 * minute) for minute in range(7 * 24 * 60)]
    assert offered(memory, backlog) == {FIRST: len(backlog)}
    assert at_once(memory.claim(behind(5, NOW, principal=MALLORY))) is TOO_OLD, "it has passed its own messages"
    by_the_latest_of_all = MemoryReplayStore(horizon=HORIZON)
    assert offered(by_the_latest_of_all, [behind(1, now, looked=float(now)), backlog[0]]) == {FIRST: 1, TOO_OLD: 1}


def test_a46_a_stamped_log_has_no_floors_of_principals() -> None:
    """Promise: where the broker stamps, nothing that a principal dates moves a floor, its own included."""
    memory = guard()
    stamped: dict[str, Any] = {"appended_after": None, "reference": NOW + 0.5}
    assert offered(memory, [behind(1, NOW + 5, **stamped), behind(2, NOW - 304, **stamped)]) == {FIRST: 2}
    assert memory.floor(LOG) == NOW + 0.5 - HORIZON


def test_a46_the_time_of_reading_moves_no_floor_of_a_backlog() -> None:
    """Promise: neither the reference time of an unstamped record nor its issue is log time; only looks are."""
    memory = guard()
    assert at_once(memory.claim(behind(1, NOW + DAY, looked=float(NOW)))) is FIRST
    assert memory.floor(LOG) == NOW - HORIZON
    assert at_once(memory.claim(behind(2, NOW, principal=BOB, looked=NOW - 60.0))) is FIRST
    assert memory.floor(LOG) == NOW - HORIZON, "no floor falls"


def test_a20_one_that_fills_its_room_costs_others_nothing_in_a_backlog() -> None:
    """Promise: a principal whose live messages exceed its bound is refused; the log's floor stays where it is."""
    memory = guard(per_principal=200)
    flood = offered(memory, [behind(number, NOW + number % 60, principal=MALLORY) for number in range(900)])
    assert flood == {FIRST: 200, OVER_QUOTA: 700}
    assert memory.floor(LOG) == -inf
    assert [event for event, _ in memory.warnings] == ["replay.memory_filling"]
    assert offered(memory, [behind(1000 + number, NOW - 5 * HOUR) for number in range(100)]) == {FIRST: 100}


# A successor


def successor(memory: MemoryReplayStore, log: list[Claim], position: int, **options: float) -> MemoryReplayStore:
    """Return the guard of another process that continues at ``position`` with what the first one says of itself."""
    after = guard(**options)  # type: ignore[arg-type] # bounds and horizon
    after.begin(LOG, floor=memory.floor(LOG))
    lowest = memory.lowest_needed(LOG)
    for one in log[position if lowest is None else lowest : position]:
        after.recall(one)
    return after


@pytest.mark.parametrize("stamped", [True, False])
def test_a14_a_longer_max_age_brings_back_nothing_that_was_forgotten(*, stamped: bool) -> None:
    """Promise: a floor is handed on as a value, not as a time from which another setting derives a lower one."""
    log = [behind(minute, NOW + 60 * minute, looked=NOW + 60.0 * minute) for minute in range(60)]
    if stamped:
        log = [replace(one, appended_after=None) for one in log]
    memory = guard()
    assert offered(memory, log) == {FIRST: 60}
    longer = successor(memory, log, 60, horizon=DAY)
    copies = [at_once(longer.claim(copy(one, 100 + at))) for at, one in enumerate(log)]
    assert set(copies) == {TOO_OLD, REPLAYED}
    from_a_time = guard(horizon=DAY)
    from_a_time.begin(LOG, floor=NOW + 60 * 59 - DAY)
    for one in log[memory.lowest_needed(LOG) :]:
        from_a_time.recall(one)
    assert at_once(from_a_time.claim(copy(log[0], 100))) is FIRST, "the attack without the rule"


def test_a14_a_successor_in_a_backlog_knows_what_its_own_room_has_let_go() -> None:
    """Promise: floors of principals are made again by what made them, and where no key is known by claims."""
    log = [behind(second, NOW + second) for second in range(HOUR)]
    memory = guard()
    assert offered(memory, log) == {FIRST: HOUR}
    again = [copy(one, DAY + at) for at, one in enumerate(log)]
    assert set(offered(successor(memory, log, HOUR), iter(again))) == {TOO_OLD, REPLAYED}
    blind = guard()
    blind.begin(LOG, floor=memory.floor(LOG))
    lowest = memory.lowest_needed(LOG)
    assert lowest is not None
    for one in log[lowest:]:
        blind.remember_unjudged(one)
    assert set(offered(blind, iter(again))) == {TOO_OLD, REPLAYED}


def test_a14_what_found_no_room_is_read_again_by_a_successor() -> None:
    """Promise: what was refused, passed over or ahead without being remembered lies at the lowest offset or behind."""
    memory = MemoryReplayStore(horizon=HORIZON, bounds=Bounds(per_principal=1, in_all=9, unverified=0))
    assert memory.lowest_needed("never read") is None
    assert memory.floor("never read") == -inf
    memory.begin(LOG, floor=NOW - HORIZON)
    assert memory.lowest_needed(LOG) is None
    assert at_once(memory.claim(behind(9, NOW))) is FIRST
    assert memory.lowest_needed(LOG) == 9
    assert at_once(memory.claim(behind(8, NOW))) is OVER_QUOTA
    assert memory.lowest_needed(LOG) == 8
    memory.recall(behind(7, NOW))
    assert memory.lowest_needed(LOG) == 7
    memory.remember_unjudged(behind(6, NOW + 100, principal=BOB))
    assert memory.lowest_needed(LOG) == 6
    memory.remember_ahead(behind(5, NOW + 100, principal=MALLORY), verified=False)
    assert memory.lowest_needed(LOG) == 5
    memory.remember_ahead(behind(4, NOW + 50), verified=True)
    assert memory.lowest_needed(LOG) == 4
    assert at_once(memory.claim(behind(30, NOW + 300, looked=NOW + 390.0))) is FIRST
    assert memory.lowest_needed(LOG) == 5, "the others have left with the slices in which they were issued"


def test_a14_pins_are_needed_too() -> None:
    """Promise: what a stream still offers counts however old it is, also when it is acknowledged in the end."""
    memory = MemoryReplayStore(horizon=HORIZON)
    pinned = claim(unacked=True, place=(Position("S", 3), NOW + 0.5), log=LOG)
    assert at_once(memory.claim(pinned)) is FIRST
    later = claim(id=b"2" * 16, place=(Position("S", 9), NOW + 100.5), issued_at=NOW + 100, log=LOG)
    assert at_once(memory.claim(later)) is FIRST
    assert memory.lowest_needed(LOG) == 3
    memory.acknowledge_at(LOG, 3)
    assert memory.lowest_needed(LOG) == 3
    assert at_once(memory.claim(claim(id=b"3" * 16, place=None, issued_at=NOW + 100, log=LOG))) is FIRST
    assert memory.lowest_needed(LOG) == 3


# Without a checkpoint


def begun(now: float, log: list[Claim], position: int, *, floor: float | None = None) -> MemoryReplayStore:
    """Return a guard that begins at ``position`` with nothing but the log."""
    ahead = [one.issued_at for one in log[position : position + 100]]
    anchor = max(min(ahead, default=now), now - POLICY.max_lag)
    memory = guard()
    memory.begin(LOG, floor=POLICY.floor_at(anchor) if floor is None else floor)
    since = anchor - POLICY.window
    for one in log[:position]:
        if one.issued_at >= since:  # CreateTime: a record's own time is that of its issue
            memory.recall(one)
    return memory


@pytest.mark.parametrize("empty", [True, False])
def test_a14_a_month_old_capture_and_a_reader_without_memory(*, empty: bool) -> None:
    """Promise: a new group at the end, an expired commit, a silent partition: the capture is stale or a replay.

    With a floor of minus infinity and nothing in memory it is delivered.
    """
    now = NOW + 30.0 * DAY
    log = [behind(0, NOW), behind(1, NOW + 20 * DAY)]
    position = len(log)
    log += [] if empty else [behind(2, int(now) - 1), behind(3, int(now))]
    capture = copy(log[0], 99)
    memory = begun(now, log, position)
    assert at_once(memory.claim(capture)) is TOO_OLD
    assert at_once(begun(now, log, position, floor=-inf).claim(capture)) is FIRST, "the attack without the rule"
    assert offered(memory, log[position:]) == ({} if empty else {FIRST: 2})


def test_a14_a_capture_among_the_next_records_lowers_no_floor_in_vain() -> None:
    """Promise: anyone who puts an old message first makes the reader look further back, where it finds the original."""
    now = NOW + 3.0 * DAY
    log = [behind(0, NOW), behind(1, NOW + DAY, principal=BOB)]
    log += [copy(log[0], 2), behind(3, int(now))]
    memory = begun(now, log, 2)
    assert [at_once(memory.claim(one)) for one in log[2:]] == [REPLAYED, FIRST]
