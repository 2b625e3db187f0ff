"""The guard of a log that is read alone: its rules one by one; tests/properties play them together."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.claims import HORIZON, claim, make_room, numbered, place, store
from tests.unit.core.world import ALICE, BOB, NOW, at_once
from watchword.key_floors import KeyFloors, ProvenKeys
from watchword.packed import LEAST, OPEN
from watchword.spi import Admission

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission


@pytest.mark.parametrize(
    ("again", "admission"),
    [
        ({}, REDELIVERED),
        ({"reference": NOW + 50}, REDELIVERED),
        ({"place": place(2)}, REPLAYED),
        ({"place": place(1, log="tasks/1")}, REPLAYED),
        ({"place": place(1, 1.6)}, REPLAYED),
        ({"place": place(1, None)}, REPLAYED),
        ({"place": place(0)}, REPLAYED),
        ({"place": None}, REPLAYED),
        ({"digest": b"e" * 32}, REPLAYED),
        ({"principal": BOB}, FIRST),
        ({"id": b"2" * 16}, FIRST),
        ({"issued_at": NOW + 1}, FIRST),
        ({"log": "other"}, FIRST),
        ({"reference": NOW + HORIZON}, REDELIVERED),
        ({"reference": NOW + HORIZON + 0.5}, TOO_OLD),
    ],
)
def test_the_second_sight_of_an_id(again: dict[str, Any], admission: Admission) -> None:
    """Promise (A12, A17): the same claims at the same place are a redelivery, anywhere else a replay."""
    memory = store()
    assert at_once(memory.claim(claim())) is FIRST
    assert at_once(memory.claim(claim(**again))) is admission


def test_no_two_places_are_taken_for_one() -> None:
    """Promise (A12): log, offset and stamp count each, and no stamp is not the stamp 0."""
    places = [
        place(offset, stamp, log)
        for offset in (0, 1, 2, 1 << 62)
        for stamp in (None, 0.0, 1.0, 1.5, 2.0, NOW + 0.5, NOW + 0.501)
        for log in ("", "tasks/0", "tasks/1")
    ]
    for one in places:
        memory = store()
        assert at_once(memory.claim(claim(place=one))) is FIRST
        found = [at_once(memory.claim(claim(place=other))) for other in places]
        assert [admission is REDELIVERED for admission in found] == [other == one for other in places]


@pytest.mark.usefixtures("python_engine")
def test_ids_are_kept_open_in_fewer_the_more_logs_there_are() -> None:
    """Promise: what all logs together keep open is bounded, and what was packed is known like the rest."""
    memory = store()
    for number in range(3000):
        assert at_once(memory.claim(numbered(number, log=f"log{number % 60}"))) is FIRST
    more = [numbered(5000 + number, log="log0") for number in range(LEAST)]
    assert [at_once(memory.claim(one)) for one in more] == [FIRST] * LEAST
    bucket: Any
    (bucket,) = memory._logs["log0"].ids._buckets.values()
    assert (memory._room, len(bucket._open) < LEAST, len(bucket._runs)) == (LEAST, True, 1)
    assert [at_once(memory.claim(one)) for one in more] == [REDELIVERED] * LEAST
    few = store()
    assert [at_once(few.claim(numbered(number))) for number in range(OPEN - 1)] == [FIRST] * (OPEN - 1)
    (bucket,) = few._logs["log"].ids._buckets.values()
    assert (few._room, len(bucket._open)) == (OPEN, OPEN - 1)


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


def test_what_is_refused_is_not_remembered() -> None:
    """Promise: what is too old takes no memory and no id."""
    memory = store()
    at_once(memory.claim(claim(reference=NOW + HORIZON + 1)))
    assert len(memory) == 0


def test_no_horizon_forgets_nothing() -> None:
    """Promise: the command line's store has no floor and forgets nothing."""
    memory = store(horizon=None)
    assert at_once(memory.claim(claim(issued_at=0))) is FIRST
    assert at_once(memory.claim(claim(id=b"2" * 16, reference=NOW + 10_000_000))) is FIRST
    assert at_once(memory.claim(claim(issued_at=0))) is REDELIVERED


def test_what_ages_makes_room() -> None:
    """Promise: ids below the floor give their room back, to their own principal too."""
    memory = store(per_principal=1)
    assert at_once(memory.claim(claim())) is FIRST
    later = NOW + 200
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=later, reference=later))) is FIRST
    assert len(memory) == 1


def test_forgetting_a_log_gives_its_memory_back() -> None:
    """Promise: a partition that was taken away takes no memory, settled or not; the others keep theirs."""
    memory = store(per_principal=2, unverified=1)
    at_once(memory.claim(claim()))
    at_once(memory.claim(claim(id=b"2" * 16, unacked=True)))
    memory.remember_unjudged(numbered(3))
    memory.forget("other")
    assert len(memory) == 2
    memory.forget("log")
    assert len(memory) == 0
    assert at_once(memory.claim(claim())) is FIRST
    memory.remember_unjudged(numbered(4))
    assert at_once(memory.claim(numbered(4, place=place(9)))) is REPLAYED


# A guard that starts over


def test_a_guard_that_begins_knows_nothing_but_its_floor() -> None:
    """Promise (A14): what was known is gone, and whatever was issued below the floor is too old."""
    memory = store()
    at_once(memory.claim(claim()))
    memory.begin("log", floor=NOW - 10.5)
    assert len(memory) == 0
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=NOW - 11))) is TOO_OLD
    assert at_once(memory.claim(claim(id=b"3" * 16, issued_at=NOW - 10))) is FIRST
    assert at_once(memory.claim(claim(place=place(9)))) is FIRST


def test_an_answer_that_is_awaited_needs_no_floor_of_a_beginning() -> None:
    """Promise (A22): a reader that has just begun takes the answer to its own request, but none that log time left."""
    memory = store()
    memory.begin("log", floor=NOW + 10)
    assert at_once(memory.claim(claim(solicited=True))) is FIRST
    assert at_once(memory.claim(claim(solicited=True, place=place(2)))) is REPLAYED
    late = NOW + HORIZON + 1
    assert at_once(memory.claim(claim(solicited=True, id=b"2" * 16, reference=late))) is TOO_OLD


def test_what_passed_before_the_guard_began() -> None:
    """Promise (A14): what a rebuild saw is known at the place where it was first, and nowhere else."""
    memory = store()
    memory.begin("log", floor=NOW - 10)
    memory.recall(claim())
    memory.recall(claim(place=place(5)))
    memory.recall(claim(id=b"2" * 16, issued_at=NOW - 11))
    assert len(memory) == 1
    assert at_once(memory.claim(claim(place=place(5)))) is REPLAYED
    assert at_once(memory.claim(claim())) is REDELIVERED


def test_a_recalled_delivery_that_may_come_again_is_pinned_above_the_floor() -> None:
    """Promise (A17): after a restart the unacknowledged is known however late; what is below the floor never is."""
    memory = store()
    memory.begin("log", floor=NOW)
    memory.recall(claim(unacked=True))
    memory.recall(claim(id=b"2" * 16, issued_at=NOW - 1, unacked=True))
    late = NOW + 5000
    assert at_once(memory.claim(claim(unacked=True, reference=late))) is REDELIVERED
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=NOW - 1, unacked=True))) is TOO_OLD


# What passed without a verdict on its key


def test_what_passed_without_a_verdict_is_judged_where_it_was_only() -> None:
    """Promise (A39): a key that becomes known late brings back the message in its place, and no copy."""
    memory = store()
    memory.remember_unjudged(claim())
    memory.remember_unjudged(claim(place=place(5)))
    assert len(memory) == 0
    assert at_once(memory.claim(claim(place=place(5)))) is REPLAYED
    assert at_once(memory.claim(claim(place=None))) is REPLAYED
    assert at_once(memory.claim(claim())) is FIRST
    assert at_once(memory.claim(claim(place=place(5)))) is REPLAYED
    assert at_once(memory.claim(claim())) is REDELIVERED


def test_without_a_position_nothing_comes_back() -> None:
    """Promise (A39): on core NATS what passed without a verdict has passed."""
    memory = store()
    memory.remember_unjudged(claim(place=None))
    assert at_once(memory.claim(claim(place=None))) is REPLAYED


def test_other_claims_under_the_same_id_are_not_held_up() -> None:
    """Promise (A19): under an invented key one can use up one's own claims only, not the id of an honest message."""
    memory = store()
    memory.remember_unjudged(claim(digest=b"e" * 32))
    assert at_once(memory.claim(claim())) is FIRST


def test_what_is_known_or_too_old_is_not_passed_over() -> None:
    """Promise: no memory for copies of what is known, nor for what is too old anyway."""
    memory = store(unverified=1)
    at_once(memory.claim(claim(reference=NOW + HORIZON)))
    memory.remember_unjudged(claim(place=place(5)))
    memory.remember_unjudged(claim(issued_at=NOW - 1))
    memory.remember_unjudged(numbered(2))
    assert at_once(memory.claim(numbered(2, place=place(9)))) is REPLAYED, "there was room for one"
    assert at_once(memory.claim(claim())) is REDELIVERED


def test_a_rebuild_takes_no_copy_for_the_original_that_had_no_verdict() -> None:
    """Promise (A39): a key source that answers again in the middle of a rebuild makes no copy the first sight."""
    memory = store()
    memory.begin("log", floor=NOW)
    memory.remember_unjudged(claim())
    memory.recall(claim(place=place(5)))
    assert at_once(memory.claim(claim(place=place(5)))) is REPLAYED
    memory.recall(claim())
    assert at_once(memory.claim(claim())) is REDELIVERED


# Bounds


def test_what_finds_no_room_raises_the_floor_of_its_key() -> None:
    """Promise (A20): nothing that could not be remembered comes again; later messages of that key do."""
    memory = store(per_principal=2)
    for number in range(3):
        at_once(memory.claim(numbered(number, issued_at=NOW + number)))
    late = NOW + 1 + int(HORIZON) + 4  # the first two have left
    assert at_once(memory.claim(numbered(2, issued_at=NOW + 2, reference=late - 3, place=place(9)))) is OVER_QUOTA
    assert at_once(memory.claim(numbered(3, issued_at=NOW + 9, principal=BOB, reference=late))) is FIRST
    assert at_once(memory.claim(numbered(4, issued_at=late, reference=late))) is FIRST


@pytest.mark.parametrize("how", ["claim", "recall", "remember_unjudged"])
def test_each_way_of_finding_no_room_raises_it(how: str) -> None:
    """Promise (A20): at a claim, in a rebuild and without a verdict alike, and only for the key at fault."""
    memory = store(per_principal=0, unverified=0)
    full = claim(issued_at=NOW + 5)
    if how == "claim":
        assert at_once(memory.claim(full)) is OVER_QUOTA
    else:
        getattr(memory, how)(full)
    make_room(memory, 9)
    for number, issued_at in enumerate([NOW + 4, NOW + 5]):
        assert at_once(memory.claim(numbered(number, issued_at=issued_at))) is TOO_OLD
    assert at_once(memory.claim(claim(issued_at=NOW + 5, key_id=b"another"))) is FIRST
    assert at_once(memory.claim(claim(issued_at=NOW + 5, principal=BOB))) is FIRST
    assert at_once(memory.claim(claim(issued_at=NOW + 6))) is FIRST


def test_what_could_not_be_remembered_is_not_let_in_by_a_later_copy() -> None:
    """Promise (A20, A39): no copy is taken for the first sight of what found no room, passed over or in a rebuild."""
    memory = store(per_principal=0)
    memory.recall(claim())
    make_room(memory, 9)
    memory.remember_unjudged(claim(place=place(5)))
    memory.recall(claim(place=place(6)))
    for offset in (5, 6):
        assert at_once(memory.claim(claim(place=place(offset)))) is TOO_OLD


def test_a_flood_under_invented_keys_silences_no_key_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20, A21): an attacker without a key can hold up only keys that have not spoken, until they have."""
    monkeypatch.setattr("watchword.key_floors.MAX_RAISED", 2)
    memory = store(unverified=0)
    at_once(memory.claim(numbered(0)))
    for number in range(5):
        memory.remember_unjudged(numbered(100 + number, key_id=b"invented%d" % number, issued_at=NOW + number))
    assert at_once(memory.claim(numbered(1))) is FIRST
    newcomer = numbered(2, principal=BOB, key_id=b"bob", issued_at=NOW + 4)
    assert at_once(memory.claim(newcomer)) is TOO_OLD
    memory.remember_unjudged(numbered(200, key_id=b"invented9", issued_at=NOW + 50))
    assert at_once(memory.claim(replace(newcomer, id=b"3" * 16, issued_at=NOW + 5))) is FIRST
    later = NOW + 200
    at_once(memory.claim(numbered(4, issued_at=later, reference=later)))
    assert memory._logs["log"].key_floors.own == {}, "raised floors leave when log time has passed them"


def test_a_key_that_is_too_many_is_held_up_no_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20): however many keys there are, what was passed over unremembered under one of them never comes."""
    monkeypatch.setattr("watchword.key_floors.MAX_RAISED", 0)
    monkeypatch.setattr("watchword.key_floors.MAX_PROVEN", 2)
    memory = store(unverified=0)
    memory.remember_unjudged(numbered(0, key_id=b"k0", issued_at=NOW + 5))
    for number in range(6):
        late = numbered(number, key_id=b"k%d" % (number % 3), issued_at=NOW + 5)
        assert at_once(memory.claim(late)) is TOO_OLD
    assert at_once(memory.claim(numbered(9, key_id=b"k0", issued_at=NOW + 6))) is FIRST


def test_floors_of_keys_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20): neither invented keys nor those that verified fill the memory; what is too much is shared."""
    monkeypatch.setattr("watchword.key_floors.MAX_RAISED", 2)
    monkeypatch.setattr("watchword.key_floors.MAX_PROVEN", 2)
    floors = KeyFloors(proven := ProvenKeys())
    for number in range(5):
        assert floors.rise((ALICE, b"invented%d" % number), NOW + number)
    assert (len(floors.own), floors.shared) == (2, NOW + 4)
    for number in range(5):
        proven.prove((ALICE, b"proven%d" % number), [])
        assert 1 <= len(proven) <= 2


# Unsettled ids


def test_an_unsettled_id_outlives_the_horizon_until_it_is_settled() -> None:
    """Promise (A17): a delivery that JetStream still offers stays known, however long the handler takes."""
    memory = store()
    assert at_once(memory.claim(claim(unacked=True))) is FIRST
    late = NOW + 5000
    assert at_once(memory.claim(claim(id=b"2" * 16, issued_at=late, reference=late))) is FIRST
    assert at_once(memory.claim(claim(unacked=True, reference=late))) is REDELIVERED
    assert at_once(memory.claim(claim(unacked=True, place=place(9)))) is REPLAYED
    memory.acknowledge_at("log", 1)
    assert len(memory) == 1
    assert at_once(memory.claim(claim(unacked=True))) is TOO_OLD


def test_a_settled_id_ages_like_any_other() -> None:
    """Promise: within the horizon a settled id is still known, as what it is."""
    memory = store()
    at_once(memory.claim(claim(unacked=True)))
    for log, offset in (("log", 1), ("log", 1), ("log", 9), ("other", 1)):
        memory.acknowledge_at(log, offset)
    assert len(memory) == 1
    assert at_once(memory.claim(claim(unacked=True))) is REDELIVERED
    assert at_once(memory.claim(claim(place=None))) is REPLAYED
    memory.look("log", NOW + 5000)
    assert (len(memory), memory.lowest_needed("log")) == (0, None)


def test_what_waits_for_a_verdict_is_pinned_until_it_has_one() -> None:
    """Promise (A17, A39): what JetStream offers again after an outage is judged, however late; then it ages."""
    memory = store(unverified=1)
    memory.remember_unjudged(claim(unacked=True))
    late = NOW + 5000
    at_once(memory.claim(numbered(2, issued_at=late, reference=late)))
    assert at_once(memory.claim(claim(place=place(9), unacked=True))) is REPLAYED
    assert at_once(memory.claim(claim(unacked=True))) is FIRST
    memory.remember_unjudged(numbered(3, issued_at=late))
    assert at_once(memory.claim(numbered(3, issued_at=late, place=place(9)))) is REPLAYED, "its claims left their room"
    assert at_once(memory.claim(claim(unacked=True))) is REDELIVERED


@pytest.mark.parametrize("is_dropped", [False, True])
def test_only_the_message_at_its_place_is_dropped(*, is_dropped: bool) -> None:
    """Promise (A28): a copy that is rejected leaves the original pinned; the original, rejected in the end, ages."""
    memory = store()
    waiting, handed = numbered(1, unacked=True), numbered(2, unacked=True)
    memory.drop(waiting)
    memory.remember_unjudged(waiting)
    at_once(memory.claim(handed))
    for one in (waiting, handed):
        memory.drop(replace(one, place=place(9)))
    if is_dropped:
        for one in (waiting, handed, handed):
            memory.drop(one)
    assert at_once(memory.claim(replace(waiting, place=place(9)))) is REPLAYED
    memory.look("log", NOW + 5000)
    assert (len(memory), memory.lowest_needed("log")) == ((0, None) if is_dropped else (1, 1))


def test_what_is_never_settled_leaves_in_the_end() -> None:
    """Promise: an id that nobody settles is kept until its keep-until, then it is too old to come back."""
    memory = store()
    at_once(memory.claim(claim(unacked=True, keep_until=NOW + 1000)))
    at_once(memory.claim(claim(unacked=True, id=b"2" * 16, keep_until=NOW + 3000)))
    at = NOW + 1000
    at_once(memory.claim(claim(id=b"3" * 16, issued_at=at, reference=at)))
    assert len(memory) == 3
    at_once(memory.claim(claim(id=b"4" * 16, issued_at=at, reference=at + 1)))
    assert len(memory) == 3
    assert at_once(memory.claim(claim(unacked=True))) is TOO_OLD


def test_claims_of_the_future_are_known_when_their_time_has_come() -> None:
    """Promise (A39): what was ahead is a replay elsewhere, though earlier ids have left meanwhile."""
    memory = store()
    ahead = claim(id=b"2" * 16, digest=b"e" * 32, issued_at=int(NOW + 2 * HORIZON))
    memory.remember_ahead(ahead, verified=True)
    assert at_once(memory.claim(claim())) is FIRST
    later = claim(id=b"3" * 16, issued_at=int(NOW + 2 * HORIZON), reference=NOW + 2 * HORIZON)
    assert at_once(memory.claim(later)) is FIRST
    assert len(memory) == 2
    elsewhere = replace(ahead, place=place(9), reference=NOW + 2 * HORIZON)
    assert at_once(memory.claim(elsewhere)) is REPLAYED
