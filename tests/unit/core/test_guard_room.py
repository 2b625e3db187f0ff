"""How a guard makes room on logs that the broker does not stamp: what it costs, and for whom."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from tests.unit.core.claims import HORIZON, claim
from tests.unit.core.world import ALICE, BOB, MALLORY, NOW, at_once
from watchword.quota import Bounds
from watchword.slices import Slices
from watchword.spi import Admission, Claim, MemoryReplayStore, Position

FIRST, _, REPLAYED, TOO_OLD, OVER_QUOTA = Admission


def guard(per_principal: int = 100, in_all: int = 200) -> MemoryReplayStore:
    """Return a guard with little room."""
    return MemoryReplayStore(horizon=HORIZON, bounds=Bounds(per_principal=per_principal, in_all=in_all, unverified=100))


def behind(number: int, issued_at: int, principal: str = ALICE, **fields: Any) -> Claim:
    """Return the claim of a record in a backlog, with an id and an offset of its own."""
    raw = number.to_bytes(16)
    given = {"id": raw, "digest": raw * 2, "place": (Position("tasks/0", number), None)}
    return claim(**given | {"issued_at": issued_at, "principal": principal, "appended_after": -inf} | fields)


def answers(memory: MemoryReplayStore, claims: Iterator[Claim] | list[Claim]) -> Counter[Admission]:
    """Count what is answered."""
    return Counter(at_once(memory.claim(one)) for one in claims)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many ids are gone through to make room."""
    seen: list[int] = []
    let_go = Slices.let_go

    def counting(self: Slices, floors: Mapping[int, float]) -> Iterator[tuple[int, Counter[int]]]:
        for count, gone in let_go(self, floors):
            seen.append(count)
            yield count, gone

    monkeypatch.setattr(Slices, "let_go", counting)
    return seen


def test_room_is_made_for_a_principal_in_whatever_log_its_ids_are() -> None:
    """Promise (A20): the bound is over all logs, so the room of one that lies idle is given to the one that is read."""
    memory = guard()
    idle = [behind(number, NOW + number // 2, log="idle") for number in range(60)]
    idle.append(behind(99, NOW + 10 * int(HORIZON), log="idle"))
    assert answers(memory, idle) == {FIRST: 61}
    assert answers(memory, [behind(100 + number, NOW, log="read") for number in range(99)]) == {FIRST: 99}
    assert set(answers(memory, idle[:60])) == {TOO_OLD}


def test_no_claim_pays_for_more_than_a_few(steps: list[int]) -> None:
    """Promise (A20): however it is arranged, making room goes through twenty ids a claim, and once through all."""
    memory, rounds = guard(per_principal=100, in_all=400), 3000
    for number in range(95):  # they never speak again, and so keep their ids
        at_once(memory.claim(behind(number, NOW, f"agent://acme/{number}")))
    flood = [behind(1000 + number, NOW + 5000, MALLORY) for number in range(rounds)]
    assert answers(memory, flood) == {FIRST: 100, OVER_QUOTA: rounds - 100}
    assert 95 <= sum(steps) <= 20 * rounds + 400
    assert len(steps) < rounds // 3


@pytest.mark.parametrize("in_all", [50, 200])
def test_a_message_moves_its_own_older_ones_out_of_the_way(in_all: int) -> None:
    """Promise (A46): after a burst that fills all there is, the next message makes room for itself by being later."""
    memory = guard(per_principal=50, in_all=in_all)
    assert answers(memory, [behind(number, NOW) for number in range(50)]) == {FIRST: 50}
    assert answers(memory, [behind(100, NOW + 50), behind(101, NOW + 1000)]) == {OVER_QUOTA: 1, FIRST: 1}
    assert (len(memory), memory.floor("log")) == (1, -inf)


def test_where_letting_go_is_enough_no_floor_of_a_log_is_raised() -> None:
    """Promise (A20): principals pay with their own floors first; others' older messages stay welcome."""
    memory, carol = guard(per_principal=50, in_all=100), "agent://acme/carol"
    for number in range(99):
        at_once(memory.claim(behind(number, NOW, (ALICE, BOB, carol)[number % 3])))
    assert answers(memory, [behind(200, NOW + 1000, BOB), behind(201, NOW + 1000)]) == {FIRST: 2}
    assert (memory.floor("log"), len(memory)) == (-inf, 1 + 1 + 33)
    copies = [replace(behind(number, NOW, carol), place=(Position("tasks/0", 300), None)) for number in range(2, 99, 3)]
    assert answers(memory, copies) == {REPLAYED: 33}


def test_a_principal_at_its_own_bound_raises_no_floor_of_a_log() -> None:
    """Promise (A20): however little is left for all, what one is refused for its own sake costs nobody else."""
    memory = guard(per_principal=50, in_all=100)
    assert answers(memory, [behind(0, NOW, MALLORY), behind(1, NOW, MALLORY)]) == {FIRST: 2}
    assert answers(memory, [behind(100 + number, NOW + 1000, BOB) for number in range(45)]) == {FIRST: 45}
    assert answers(memory, [behind(200 + number, NOW + 1000) for number in range(60)]) == {FIRST: 50, OVER_QUOTA: 10}
    assert memory.floor("log") == -inf


def test_no_principals_date_stands_for_others_alone() -> None:
    """Promise (A20): where the floor of a log must rise, one that dates ahead does not take it further."""
    memory = guard(per_principal=50, in_all=100)
    assert answers(memory, [behind(0, NOW + 100_000, MALLORY)]) == {FIRST: 1}
    backlog = [behind(1 + number, NOW + 10 * number, f"agent://acme/{number // 6}") for number in range(900)]
    assert answers(memory, backlog) == {FIRST: 900}
    assert NOW < memory.floor("log") <= NOW + 9000 - HORIZON


def test_what_leaves_at_once_is_bounded(steps: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a long backlog gives its room back step by step, not all in one claim."""
    monkeypatch.setattr("watchword.guard.AT_ONCE", 10)
    memory = guard(per_principal=1000, in_all=2000)
    backlog = [behind(number, NOW + number // 2) for number in range(3000)]
    assert answers(memory, backlog) == {FIRST: 3000}
    assert max(steps) <= 8
    assert 700 <= len(memory) <= 1000


@pytest.mark.parametrize("stamped", [True, False])
def test_what_log_time_has_passed_leaves_when_room_is_needed(monkeypatch: pytest.MonkeyPatch, *, stamped: bool) -> None:
    """Promise: where very much may leave it does so step by step, but nobody is refused for what is still there."""
    monkeypatch.setattr("watchword.slices.AT_ONCE", 3)
    memory, live = guard(per_principal=50, in_all=50), float(NOW + 1000)
    assert answers(memory, [behind(number, NOW + number, BOB) for number in range(50)]) == {FIRST: 50}
    time: dict[str, Any] = {"reference": live, "appended_after": None if stamped else live}
    assert answers(memory, [behind(100 + number, NOW + 1000, **time) for number in range(40)]) == {FIRST: 40}
    assert len(memory) - 40 in range(1, 30)


def test_a_floor_that_would_free_nothing_is_not_raised() -> None:
    """Promise (A20): nobody's messages become stale in vain; then those are refused that hold their share."""
    memory = guard(per_principal=100, in_all=100)
    for number in range(120):
        at_once(memory.claim(behind(number, NOW + number % 50, (ALICE, BOB)[number % 2])))
    assert memory.floor("log") == -inf
    assert answers(memory, [behind(200, NOW, MALLORY)]) == {FIRST: 1}
    assert answers(memory, [behind(300, NOW + 60)]) == {OVER_QUOTA: 1}


def test_nobody_raises_the_floor_of_a_log_alone() -> None:
    """Promise (A20): where only one principal has spoken in a log, its dates stand for nobody else's."""
    memory = guard(per_principal=100, in_all=100)
    for number in range(100):
        at_once(memory.claim(behind(number, NOW + number, (ALICE, BOB)[number % 2], log="other")))
    crowd = [behind(1000 + number, NOW + 40 * number, MALLORY) for number in range(60)]
    assert answers(memory, crowd).keys() <= {FIRST, OVER_QUOTA}
    assert memory.floor("log") == -inf


def test_a_message_below_the_floor_that_rose_for_it_is_refused() -> None:
    """Promise (A20): the one message that brings the floor up is not let in below it."""
    memory = guard(per_principal=60, in_all=100)
    for number in range(50):
        at_once(memory.claim(behind(number, NOW, f"agent://acme/{number}")))
    for number in range(25):
        at_once(memory.claim(behind(100 + number, NOW + 1000, ALICE)))
        at_once(memory.claim(behind(200 + number, NOW + 1000, BOB)))
    theirs = [at_once(memory.claim(behind(300 + number, NOW + 5, MALLORY))) for number in range(3)]
    assert theirs == [FIRST, OVER_QUOTA, TOO_OLD]
    assert memory.floor("log") == NOW + 1000 - HORIZON
    assert (len(memory), memory.lowest_needed("log")) == (50, 100)
