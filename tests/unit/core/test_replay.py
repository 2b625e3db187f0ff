"""The replay store in memory: its rules one by one; the state machine in tests/properties holds them together."""

from typing import Any

import pytest

from tests.unit.core.world import ALICE, BOB, NOW, at_once
from watchword import Admission, Claim, MemoryReplayStore, Position
from watchword.guard import MAX_RAISED
from watchword.packed import OPEN

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
HORIZON = 100.0


def claim(**fields: Any) -> Claim:
    """Return a claim on an id that was just issued."""
    given: dict[str, Any] = {
        "scope": "kafka://prod/tasks#group", "log": "log", "principal": ALICE, "key_id": b"k", "id": b"1" * 16,
        "digest": b"d" * 32,
        "place": (Position("tasks/0", 1), 1.5), "issued_at": NOW, "reference": NOW, "keep_until": NOW + 10_000,
    }  # fmt: skip
    return Claim(**given | fields)


def store(**options: Any) -> MemoryReplayStore:
    """Return a store with a short horizon."""
    return MemoryReplayStore(**{"horizon": HORIZON} | options)


@pytest.mark.parametrize(
    ("again", "admission"),
    [
        ({}, REDELIVERED),
        ({"reference": NOW + 50}, REDELIVERED),
        ({"place": (Position("tasks/0", 2), 1.5)}, REPLAYED),
        ({"place": (Position("tasks/1", 1), 1.5)}, REPLAYED),
        ({"place": (Position("tasks/0", 1), 1.6)}, REPLAYED),
        ({"place": (Position("tasks/0", 1), None)}, REPLAYED),
        ({"place": None}, REPLAYED),
        ({"digest": b"e" * 32}, REPLAYED),
        ({"principal": BOB}, FIRST),
        ({"id": b"2" * 16}, FIRST),
        ({"log": "other"}, FIRST),
        ({"reference": NOW + HORIZON}, REDELIVERED),
        ({"reference": NOW + HORIZON + 0.5}, TOO_OLD),
        ({"issued_at": NOW + 1}, FIRST),
    ],
)
def test_the_second_sight_of_an_id(again: dict[str, Any], admission: Admission) -> None:
    """Promise (A12, A17): the same claims at the same place are a redelivery, anywhere else a replay."""
    memory = store()
    assert at_once(memory.claim(claim())) is FIRST
    assert at_once(memory.claim(claim(**again))) is admission


def test_without_a_position_any_repeat_is_a_replay() -> None:
    """Promise: core NATS has no position, so nothing there is called a redelivery."""
    memory = store()
    assert at_once(memory.claim(claim(place=None))) is FIRST
    assert at_once(memory.claim(claim(place=None))) is REPLAYED


def test_the_floor_never_falls() -> None:
    """Promise (A34): time that steps back forgets nothing and lets nothing old in."""
    memory = store()
    assert at_once(memory.claim(claim(reference=NOW + 90))) is FIRST
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=NOW + 200, reference=NOW + 200))) is FIRST
    assert len(memory) == 1
    assert at_once(memory.claim(claim(reference=NOW - 500))) is TOO_OLD
    assert at_once(memory.claim(claim(issued_at=NOW + 99, reference=NOW - 500))) is TOO_OLD
    assert at_once(memory.claim(claim(issued_at=NOW + 100, reference=NOW - 500))) is FIRST


def test_a_refused_claim_is_not_remembered() -> None:
    """Promise: what is too old or over quota takes no memory and no id."""
    memory = store(per_principal=1)
    at_once(memory.claim(claim(reference=NOW + HORIZON + 1)))
    assert len(memory) == 0
    assert at_once(memory.claim(claim(issued_at=NOW + 50))) is FIRST
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=NOW + 50))) is OVER_QUOTA
    assert len(memory) == 1


def test_no_horizon_forgets_nothing() -> None:
    """Promise: the command line's store has no floor and forgets nothing."""
    memory = store(horizon=None)
    assert at_once(memory.claim(claim(issued_at=0))) is FIRST
    assert at_once(memory.claim(claim(id=b"2" * 16, reference=NOW + 10_000_000))) is FIRST
    assert at_once(memory.claim(claim(issued_at=0))) is REDELIVERED


def test_one_principal_cannot_fill_the_store() -> None:
    """Promise (A20): a principal at its bound is refused, over all logs; others are served, nothing is forgotten."""
    memory = store(per_principal=5)
    answers = [at_once(memory.claim(claim(id=bytes([n]) * 16, log=f"log{n % 2}"))) for n in range(8)]
    assert answers == [FIRST] * 5 + [OVER_QUOTA] * 3
    assert at_once(memory.claim(claim(principal=BOB))) is FIRST
    assert at_once(memory.claim(claim(id=bytes(16), log="log0"))) is REDELIVERED


def test_in_all_the_largest_holders_are_refused() -> None:
    """Promise (A20): once the store is full only principals below an equal share are served."""
    memory = store(per_principal=10, in_all=10)
    for n in range(10):
        assert at_once(memory.claim(claim(id=bytes([n]) * 16))) is FIRST
    assert at_once(memory.claim(claim(id=b"x" * 16))) is OVER_QUOTA
    answers = [at_once(memory.claim(claim(principal=BOB, id=bytes([n]) * 16))) for n in range(8)]
    assert answers == [FIRST] * 5 + [OVER_QUOTA] * 3


@pytest.mark.parametrize("in_all", [1, 4, 50])
def test_never_more_than_twice_as_many(in_all: int) -> None:
    """Promise (A20): however many principals conspire, memory stays below twice the bound."""
    memory = store(per_principal=in_all, in_all=in_all)
    for who in range(3 * in_all):
        for n in range(in_all):
            at_once(memory.claim(claim(principal=f"p{who}", id=n.to_bytes(16))))
    assert in_all <= len(memory) <= 2 * in_all


def test_what_ages_makes_room() -> None:
    """Promise: ids below the floor give their room back, to their own principal too."""
    memory = store(per_principal=1)
    assert at_once(memory.claim(claim())) is FIRST
    later = NOW + 200
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=later, reference=later))) is FIRST
    assert len(memory) == 1


def test_an_unsettled_id_outlives_the_horizon_until_it_is_settled() -> None:
    """Promise (A17): a delivery that JetStream still offers stays known, however long the handler takes."""
    memory = store()
    assert at_once(memory.claim(claim(unsettled=True))) is FIRST
    late = NOW + 5000
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=late, reference=late))) is FIRST
    assert at_once(memory.claim(claim(unsettled=True, reference=late))) is REDELIVERED
    assert at_once(memory.claim(claim(unsettled=True, place=(Position("tasks/0", 9), 1.5)))) is REPLAYED
    memory.settle("log", ALICE, b"1" * 16, NOW)
    assert len(memory) == 1
    assert at_once(memory.claim(claim(unsettled=True))) is TOO_OLD


def test_a_settled_id_ages_like_any_other() -> None:
    """Promise: within the horizon a settled id is still known, as what it is."""
    memory = store()
    at_once(memory.claim(claim(unsettled=True)))
    memory.settle("log", ALICE, b"1" * 16, NOW)
    memory.settle("log", ALICE, b"1" * 16, NOW)
    memory.settle("log", ALICE, b"9" * 16, NOW)
    memory.settle("other", ALICE, b"1" * 16, NOW)
    assert len(memory) == 1
    assert at_once(memory.claim(claim(unsettled=True))) is REDELIVERED
    assert at_once(memory.claim(claim(place=None))) is REPLAYED


def test_what_is_never_settled_leaves_in_the_end() -> None:
    """Promise: an id that nobody settles is kept until its keep-until, then it is too old to come back."""
    memory = store()
    at_once(memory.claim(claim(unsettled=True, keep_until=NOW + 1000)))
    at_once(memory.claim(claim(unsettled=True, id=b"2" * 16, keep_until=NOW + 3000)))
    at = NOW + 1000
    at_once(memory.claim(claim(id=b"3" * 16, issued_at=at, reference=at)))
    assert len(memory) == 3
    at_once(memory.claim(claim(id=b"4" * 16, issued_at=at, reference=at + 1)))
    assert len(memory) == 3
    assert at_once(memory.claim(claim(unsettled=True))) is TOO_OLD


def test_a_log_that_begins_anew_knows_its_floor_only() -> None:
    """Promise: after a seek nothing is known of a log but what is recalled; what is below its floor is too old."""
    memory = store()
    at_once(memory.claim(claim(issued_at=NOW + 500, reference=NOW + 500)))
    assert at_once(memory.claim(claim(id=b"2" * 16))) is TOO_OLD
    memory.begin("log", floor=float(NOW))
    assert len(memory) == 0
    assert at_once(memory.claim(claim(id=b"2" * 16))) is FIRST
    assert at_once(memory.claim(claim(id=b"3" * 16, issued_at=NOW - 1))) is TOO_OLD
    assert at_once(memory.claim(claim(id=b"3" * 16, issued_at=NOW - 1, solicited=True))) is FIRST


def test_what_is_recalled_is_known_where_it_stood_first() -> None:
    """Promise (A14): of an id that stands twice in the log the first sight counts; what is below the floor does not."""
    memory = store()
    memory.begin("log", floor=float(NOW))
    memory.recall(claim())
    memory.recall(claim(place=(Position("tasks/0", 2), 1.5)))
    memory.recall(claim(id=b"2" * 16, issued_at=NOW - 1))
    assert len(memory) == 1
    assert at_once(memory.claim(claim())) is REDELIVERED
    assert at_once(memory.claim(claim(place=(Position("tasks/0", 2), 1.5)))) is REPLAYED


def test_what_could_not_be_recalled_raises_the_floor_of_its_key() -> None:
    """Promise (A20): an id for which there is no room is taken for seen, and so is all that its key signed before."""
    memory = store(per_principal=1)
    memory.begin("log", floor=float(NOW - 50))
    memory.recall(claim(id=b"2" * 16))
    memory.recall(claim(issued_at=NOW + 5))
    memory.forget("other")
    at = NOW + 200
    assert at_once(memory.claim(claim(id=b"3" * 16, issued_at=at, reference=at))) is FIRST
    memory = store(per_principal=1)
    memory.recall(claim(id=b"2" * 16, log="elsewhere"))
    memory.recall(claim(issued_at=NOW + 5))
    memory.forget("elsewhere")
    assert at_once(memory.claim(claim(issued_at=NOW + 5, reference=NOW + 5))) is TOO_OLD
    assert at_once(memory.claim(claim(key_id=b"other", issued_at=NOW + 5, reference=NOW + 5))) is FIRST


@pytest.mark.parametrize("unsettled", [False, True])
def test_what_passed_without_a_verdict_is_known_by_its_claims(*, unsettled: bool) -> None:
    """Promise (A39): the same claims elsewhere are a replay; at their own place they are judged like any message."""
    memory = store()
    memory.pass_over(claim(unsettled=unsettled))
    memory.pass_over(claim(unsettled=unsettled))
    elsewhere = {"place": (Position("tasks/0", 9), 1.5)}
    assert at_once(memory.claim(claim(**elsewhere))) is REPLAYED
    assert at_once(memory.claim(claim(digest=b"e" * 32, id=b"2" * 16, **elsewhere))) is FIRST
    late = NOW + 150 if unsettled else NOW
    assert at_once(memory.claim(claim(unsettled=unsettled, reference=late))) is FIRST
    memory.forget("log")
    assert len(memory) == 0


def test_a_known_replay_is_not_pinned_and_what_is_too_old_neither() -> None:
    """Promise (A39): an outage does not make room for a copy of what was delivered, however late it comes again."""
    memory = store()
    at_once(memory.claim(claim()))
    memory.pass_over(claim(unsettled=True, place=(Position("tasks/0", 9), 1.5)))
    memory.pass_over(claim(id=b"2" * 16, digest=b"e" * 32, issued_at=NOW - 101, unsettled=True))
    late = NOW + 200
    at_once(memory.claim(claim(id=b"3" * 16, digest=b"f" * 32, issued_at=late, reference=late)))
    assert at_once(memory.claim(claim(unsettled=True, place=(Position("tasks/0", 9), 1.5)))) is TOO_OLD


def test_a_flood_without_keys_raises_no_floor_of_a_known_key() -> None:
    """Promise (A21): what nobody can verify has a bound of its own; beyond it only keys without a verdict suffer."""
    memory = store(unverified=2)
    assert at_once(memory.claim(claim())) is FIRST
    for n in range(MAX_RAISED + 10):
        forged = claim(principal=BOB, key_id=b"%d" % n, digest=n.to_bytes(32), id=n.to_bytes(16), issued_at=NOW + 20)
        memory.pass_over(forged)
    assert at_once(memory.claim(claim(id=b"2" * 16))) is FIRST
    assert at_once(memory.claim(claim(principal=BOB, key_id=b"real", digest=b"x" * 32))) is TOO_OLD
    after = {"principal": BOB, "key_id": b"real", "digest": b"x" * 32, "issued_at": NOW + 21}
    assert at_once(memory.claim(claim(**after))) is FIRST
    late = NOW + 500
    assert at_once(memory.claim(claim(id=b"4" * 16, issued_at=late, reference=late))) is FIRST
    assert len(memory._logs["log"].raised) == 0


def test_many_ids_are_packed_and_found() -> None:
    """Promise: packed or not, an id is known until it is too old, and then gives its room back."""
    memory = store(per_principal=10**6)
    numbers = range(3 * OPEN)
    for n in numbers:
        assert at_once(memory.claim(claim(id=n.to_bytes(16), issued_at=NOW + n % 7, reference=NOW + 7))) is FIRST
    for n in numbers:
        assert at_once(memory.claim(claim(id=n.to_bytes(16), issued_at=NOW + n % 7, reference=NOW + 7))) is REDELIVERED
    assert len(memory) == len(numbers)
    for n in numbers[:2]:  # sealed: nothing is open in the older bucket any more
        assert at_once(memory.claim(claim(id=b"%016d" % n, issued_at=NOW + 20 + 5 * n, reference=NOW + 27))) is FIRST
    late = NOW + 1000
    assert at_once(memory.claim(claim(id=b"x" * 16, issued_at=late, reference=late))) is FIRST
    assert len(memory) == 1


def test_forgetting_a_log_gives_its_memory_back() -> None:
    """Promise: a partition that was taken away takes no memory, settled or not; the others keep theirs."""
    memory = store(per_principal=2)
    at_once(memory.claim(claim()))
    at_once(memory.claim(claim(id=b"2" * 16, unsettled=True)))
    memory.forget("other")
    assert len(memory) == 2
    memory.forget("log")
    assert len(memory) == 0
    assert at_once(memory.claim(claim())) is FIRST
