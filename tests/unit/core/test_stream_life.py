"""One reader of one stream, fed by hand; any order of events is played in tests/properties."""

from dataclasses import replace
from math import inf, nextafter
from typing import Any

import pytest

from tests.unit.core.world import ALICE, NOW, World, at_once, nats, press
from watchword import Policy, Reason, Rejected, Unavailable
from watchword.errors import Forgotten
from watchword.spi import Expected, Position
from watchword.stream_life import StreamFacts, StreamLife

POLICY = Policy(max_age=100.0, max_skew=5.0)
HORIZON, WINDOW = 105.0, 110.0


def facts(**changes: Any) -> StreamFacts:
    """Return what a server says of a consumer that has delivered ten messages, of which it waits for one."""
    given: dict[str, Any] = {
        "origin": ("stream", "consumer"),
        "subjects": ("tasks",),
        "delivered": 10,
        "number": 12,
        "acknowledged": 9,
        "next_at": 1000.0,
        "last_gone_at": None,
        "last": 10,
    }
    return StreamFacts(**given | changes)


def begun(**changes: Any) -> StreamLife:
    """Return a life that has begun, of one open subscription."""
    life = StreamLife("js:S:worker", "S", POLICY)
    life.users = 1
    assert life.bind(facts(**changes), now=2000.0) is not None
    return life


def test_where_nothing_is_gone_the_floor_is_that_of_what_comes_next() -> None:
    """Nothing honest is stale, and the look-up begins earlier by the skew, which halving a stream's times asks for."""
    beginning = StreamLife("js:S:worker", "S", POLICY).begin(facts(), now=2000.0)
    assert beginning == (1000.0 - HORIZON, 1000.0 - WINDOW - 5.0, 9, 10, False)


def test_where_nothing_comes_next_local_time_stands_for_it() -> None:
    """What comes later is appended after the server was asked, by any clock within the skew."""
    beginning = StreamLife("js:S:worker", "S", POLICY).begin(facts(next_at=None), now=2000.0)
    assert beginning.floor == 1995.0 - HORIZON


@pytest.mark.parametrize("delivered", [0, 10])
def test_what_is_gone_raises_the_floor_of_every_consumer(delivered: int) -> None:
    """A consumer that has delivered nothing may have been recreated: what is gone is stale, up to the skew."""
    life = StreamLife("js:S:worker", "S", POLICY)
    beginning = life.begin(facts(delivered=delivered, last_gone_at=990.0), now=2000.0)
    assert beginning.floor == nextafter(995.0, inf)
    assert beginning.is_cut
    assert not life.begin(facts(last_gone_at=800.0), now=2000.0).is_cut  # that lies below the floor anyway


def test_a_memory_of_this_very_place_is_kept() -> None:
    """A second subscription, and one that begins where the last has ended, build nothing."""
    life = begun()
    assert life.bind(facts(), now=2000.0) is None
    life.users = 2
    assert life.bind(facts(delivered=15), now=2000.0) is None  # what is not judged waits at the other one
    life.users = 1
    assert life.bind(facts(delivered=15), now=2000.0) is not None
    assert life.bind(facts(delivered=15, origin=("stream", "recreated")), now=2000.0) is not None


def test_a_memory_that_could_not_be_built_is_none() -> None:
    """The next subscription builds it, though others were open meanwhile."""
    life = begun()
    life.forget()
    life.users = 2
    assert life.bind(facts(), now=2000.0) is not None


def test_what_was_passed_is_what_nobody_waits_for() -> None:
    """A delivery of what was delivered before was passed, unless it was recalled or judged, and not acknowledged."""
    life = begun()
    life.recalled([10])
    assert [life.was_passed(one) for one in (8, 10, 11)] == [True, False, False]
    life.judged(11, 13)
    assert not life.was_passed(11)
    life.acknowledged(11)
    life.acknowledged(10)
    assert life.was_passed(11)
    assert life.was_passed(10)
    life.judged(10, 14)
    assert not life.was_passed(10)
    life.begin(facts(), now=2000.0)
    assert life.was_passed(10)


def test_what_was_passed_and_cannot_be_judged_stays_passed() -> None:
    """Nothing is remembered of it, so it may have been delivered before whenever it comes again."""
    life = begun()
    life.judged(5, 13, undetermined=True)
    assert life.was_passed(5)
    life.judged(5, 14)
    assert not life.was_passed(5)


def test_what_is_missing_before_a_delivery_shows_by_its_number() -> None:
    """A gap between sequences is one of deliveries only if a number is missing too."""
    life = begun()
    assert life.missed_before(20, 13) is None  # the consumer reads one subject of many
    assert life.missed_before(11, 15) is None  # nothing stands in between
    assert life.missed_before(20, 14) == 11
    life.filled(19)
    assert life.missed_before(20, 14) is None
    life.judged(20, 14)
    assert life.missed_before(30, 15) is None
    life.filled(5)  # less than is known
    assert life.missed_before(30, 16) == 21


def test_deliveries_that_are_repeated_are_counted_too() -> None:
    """A number that was used to deliver something again is not missing; one that was lost before it still is."""
    life = begun()
    life.recalled([9, 10])
    life.judged(10, 13)
    assert life.missed_before(20, 14) is None
    life.judged(9, 15)  # the one before was lost
    assert life.missed_before(20, 16) == 11


def test_numbers_that_begin_again_are_not_believed() -> None:
    """Behind a delivery that shows a consumer recreated, what follows is looked for."""
    life = begun()
    life.judged(3, 1)
    assert life.missed_before(20, 13) == 11
    assert life.missed_before(20, 0) == 11


def test_before_its_first_delivery_a_consumer_may_have_been_set_forth() -> None:
    """What it skipped is read first, for the first that it delivers may be a copy of that."""
    life = begun(delivered=0, number=0, acknowledged=0)
    assert life.missed_before(1, 1) is None
    assert life.missed_before(2, 1) == 1
    life.judged(2, 1)
    assert life.missed_before(9, 2) is None


def test_deliveries_are_judged_together_up_to_one_before_which_something_was_missed() -> None:
    """So what was missed is recalled behind those that stand before it."""
    life = begun()
    assert life.together([(11, 13), (15, 14), (15, 15), (17, 16)]) == 4
    assert life.together([(11, 13), (0, 0), (13, 15), (14, 16)]) == 2
    assert life.together([(13, 15), (14, 16)]) == 2  # what was missed before the first was recalled by now
    assert life.together([]) == 0


def test_what_an_earlier_reader_may_have_been_given_may_have_gone() -> None:
    """No number is missing for what limits took before its turn; so each gap is looked into, as far as things stood."""
    life = begun(last=40)
    assert life.gone_before(11, 13) is None  # nothing stands in between
    assert life.gone_before(15, 13) == 11
    assert life.is_behind(15, 13)
    life.filled(14)
    assert not life.is_behind(15, 13)
    life.judged(15, 13)
    life.stood(30)
    assert life.gone_before(20, 14) is None  # it stood there when that was delivered
    assert life.gone_before(20, 15) == 16  # but this was delivered, and lost on its way
    assert life.gone_before(31, 14) == 16
    life.stood(5)  # less than is known
    assert life.gone_before(30, 14) is None
    life.judged(39, 14)
    assert life.gone_before(50, 15) == 40
    life.judged(50, 15)
    assert life.gone_before(60, 16) is None  # nobody had been given that
    assert not life.is_behind(60, 16)
    assert life.is_behind(60, 17)
    life.begin(facts(last=60), now=2000.0)
    assert life.gone_before(30, 13) == 11


def test_deliveries_are_judged_together_up_to_one_before_which_something_may_have_gone() -> None:
    """So the floor rises behind those that stand before that."""
    life = begun(last=40)
    assert life.together([(12, 13), (13, 14), (15, 15), (16, 16)]) == 2
    life.stood(15)
    assert life.together([(12, 13), (13, 14), (15, 15), (16, 16), (18, 17)]) == 4


def message(offset: int, issued_at: int, **fields: Any) -> Any:
    """Return a message of a stream, as its consumer delivers it."""
    at = {"position": Position("S", offset), "appended_at": issued_at + 1.0, "delivered_by": ("S", "worker")}
    return press(nats(exclusive=True, **at | fields), c6=issued_at, c7=offset.to_bytes(16))


@pytest.mark.parametrize("floor", [-inf, NOW + 900.0])
def test_what_was_passed_is_not_stale_but_undecided(floor: float) -> None:
    """Log time, or the floor that a memory began with, has passed it; only another look at the stream can tell.

    A consumer may be set back behind where this reader began.
    """
    world = World()
    world.verifier.begin("sub#S", floor=floor)
    world.now = NOW + 1001.0
    world.verify(message(2, NOW + 1000))
    with pytest.raises(Rejected) as rejected:
        world.verify(message(1, NOW))
    assert rejected.value.reason == Reason.STALE
    with pytest.raises(Unavailable) as undecided:
        world.verify(message(1, NOW), Expected(was_passed=True))
    assert isinstance(undecided.value, Forgotten)
    late = [message(1, NOW), message(3, NOW + 1000)]
    (verdict,) = at_once(world.verifier.verify_many(late, Expected(was_passed=True)))
    assert isinstance(verdict, Unavailable)
    assert world.verify(message(3, NOW + 1000), Expected(was_passed=True)).principal == ALICE


@pytest.mark.parametrize("comes_again", [True, False])
def test_what_does_not_come_again_is_not_pinned(*, comes_again: bool) -> None:
    """Whatever passed without a verdict for good is remembered, and ages like the rest."""
    world = World()
    undecided = message(1, NOW)
    world.verifier.remember_unjudged(undecided)
    if not comes_again:
        world.verifier.remember_unjudged(undecided, comes_again=False)
        world.verifier.remember_unjudged(message(2, NOW), comes_again=False)
    with pytest.raises(Rejected) as rejected:
        world.verify(replace(undecided, position=Position("S", 3)))
    assert rejected.value.reason == Reason.REPLAYED
    memory = world.verifier.memory("sub#S")
    memory.pass_time(NOW + 5000.0)
    assert memory.lowest_needed() == (1 if comes_again else None)


def test_acknowledged_places_age() -> None:
    """Where only the place is known of what was acknowledged, its ids age; those elsewhere stay pinned."""
    world = World()
    for offset in (1, 2):
        world.verify(message(offset, NOW))
    world.verifier.acknowledge_at("sub#S", 1)
    world.verifier.acknowledge_at("another", 2)
    memory = world.verifier.memory("sub#S")
    memory.pass_time(NOW + 5000.0)
    assert (world.verifier.ids_held, memory.lowest_needed()) == (1, 2)


def test_other_subjects_are_another_beginning() -> None:
    """A subscription of a consumer that an operator lets read more begins again, also beside one that is open."""
    life = begun()
    assert life.bind(facts(), now=2000.0) is None
    life.users = 2
    assert life.bind(facts(), now=2000.0) is None
    assert life.bind(facts(subjects=("tasks", "more.*")), now=2000.0) is not None
    assert life.subjects == ("tasks", "more.*")


def test_a_subject_is_read_if_one_of_the_patterns_names_it() -> None:
    """Before anything is known nothing is left out; what was read once is known, though only so much is remembered."""
    life = StreamLife("js:S:worker", "S", POLICY)
    assert life.reads("anything")
    life.bind(facts(subjects=("tasks", "more.*", "all.>")), now=2000.0)
    for _ in range(2):
        assert life.reads("tasks")
        assert life.reads("more.a")
        assert life.reads("all.a.b")
        assert not any(map(life.reads, ("task", "tasks.a", "more", "more.a.b", "all", "anything")))
    assert all(life.reads(f"more.{number}") for number in range(3000))
    assert len(life._known_subjects) == 1024
