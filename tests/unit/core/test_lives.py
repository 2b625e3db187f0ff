"""Which subscription is which reader, and since when its memory knows everything; fed by hand."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, inf, nextafter
from typing import Any

import pytest

from tests.unit.core.world import ALICE, BOB, NOW, at_once, in_turns, known_keys, nats, press
from watchword import Alias, ConfigurationError, MemoryKeys, Mode, Policy, VerifiedMessage, lives
from watchword.audit import Audit
from watchword.guard import AT_A_TIME, Kind, Note
from watchword.journal import Recalled
from watchword.lives import MAX_ENDED, Life, Lives
from watchword.spi import MemoryReplayStore, Position, Verifier
from watchword.stream_life import StreamLife

SKEW, WINDOW = 5.0, 110.0


class Journal:
    """A journal that knows one id of the first reader, and has heard of floors."""

    def __init__(self, *, failures: int = 0, more: int = 0, shared: bool = False) -> None:
        self.raised: list[float] = []
        self.failures, self.more, self.shared = failures, more, shared
        self.asked: list[list[str]] = []

    def recall(self, logs: Sequence[str], *, birth: float) -> list[Recalled]:
        """See Journal."""
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        self.asked.append([*logs])
        known = "sub:tasks.scale#"
        others = [Note(known, Kind.ID, ALICE, b"alice-1", NOW + 50, at.to_bytes(16)) for at in range(self.more)]
        notes = (*others, Note(known, Kind.ID, ALICE, b"alice-1", NOW, bytes(range(16))))
        unknown = Recalled(floor=birth, is_shared=self.shared)
        return [Recalled(floor=-inf, notes=notes) if log == known else unknown for log in logs]

    def write(self, notes: Any) -> None:
        """See Journal."""

    def raise_floors(self, floor: float) -> None:
        """See Journal."""
        self.raised.append(floor)

    def close(self) -> None:
        """See Journal."""


class Place:
    """A process at a time that the test chooses, and what it was warned of."""

    def __init__(self, *, journal: Journal | None = None, aliases: tuple[Alias, ...] = ()) -> None:
        self.now = float(NOW)
        self.store = MemoryReplayStore(horizon=105.0)
        self.verifier = Verifier(
            realm="prod",
            keys=MemoryKeys(known_keys()),
            replay=self.store,
            policy=Policy(max_age=100.0, max_skew=SKEW, aliases=aliases),
            clock=lambda: self.now,
            principal=BOB,
            journal=journal,
        )
        self.warned: list[dict[str, Any]] = []
        audit = Audit(clock=lambda: self.now)
        audit.warn = lambda _, **fields: self.warned.append(fields)  # type: ignore[method-assign]  # to listen
        self.lives = Lives(self.verifier, audit)

    def begun(self, pattern: str, **options: bool) -> Life:
        """Open a subscription that is confirmed at once."""
        life = self.lives.open(pattern)
        at_once(self.lives.bear(life, **options))
        return life

    def floor(self, life: Life | StreamLife) -> float:
        """Return the floor that a reader began with."""
        return self.store.floor(life.log)

    def judged(self, reader: str, issued_at: int) -> str:
        """Judge one and the same message for a reader."""
        message = press(nats(reader=reader, exclusive=True), c6=issued_at)
        (verdict,) = at_once(self.verifier.verify_many([message]))
        return "first" if isinstance(verdict, VerifiedMessage) else str(getattr(verdict, "reason", "unavailable"))


def test_a_reader_is_a_pattern_and_the_lowest_free_number() -> None:
    """Two of one pattern are two readers; one that is opened again is the one that was closed."""
    place = Place()
    first, second, wide = (place.begun(pattern) for pattern in ("a.b", "a.b", "a.>"))
    assert [life.name for life in (first, second, wide)] == ["sub:a.b#0", "sub:a.b#1", "sub:a.>#0"]
    place.lives.close(first, "a.b")
    assert place.lives.open("a.b") is first
    assert place.lives.open("a.b").name == "sub:a.b#2"


def test_a_birth_is_when_the_server_confirms_the_first_subscription() -> None:
    """An earlier process may be given messages until then; what they were by then issued at is stale, to the skew."""
    place = Place()
    life = place.lives.open("tasks.scale")
    place.now += 60
    at_once(place.lives.bear(life))
    assert place.floor(life) == nextafter(NOW + 60 + SKEW, inf)
    assert place.judged(life.name, NOW + 65) == "stale"
    assert place.judged(life.name, NOW + 65 + 1) == "from_future"
    place.now += 1
    assert place.judged(life.name, NOW + 65 + 1) == "first"
    place.now += 1
    at_once(place.lives.bear(life))
    assert place.floor(life) == nextafter(NOW + 60 + SKEW, inf)


def test_a_memory_outlives_its_subscription_for_as_long_as_it_may_be_needed() -> None:
    """It is kept for a window and the skew; after that nothing that it knew is fresh, and there is no floor."""
    place = Place()
    life = place.begun("tasks.scale")
    place.now += 20
    assert place.judged(life.name, NOW + 20) == "first"
    place.lives.close(life, "tasks.scale")
    place.now += WINDOW + SKEW
    assert place.lives.open("tasks.scale") is life
    place.lives.close(life, "tasks.scale")
    place.now += WINDOW + SKEW + 1
    again = place.begun("tasks.scale")
    assert again is not life
    closed_at = place.now - (WINDOW + SKEW + 1)
    assert place.floor(again) == nextafter(closed_at + SKEW, inf), "whatever it was given; all of that is stale by now"


def test_alias_and_original_are_one_reader() -> None:
    """While either is open the memory is there; a pattern with wildcards is itself."""
    place = Place(aliases=(Alias("nats://prod/mapped", "nats://prod/tasks.scale"),))
    original, mapped = place.begun("tasks.scale"), place.begun("mapped")
    assert original is mapped
    assert place.lives.signed_pattern("mapped.*") == "mapped.*"
    assert place.lives.signed_pattern("another") == "another"
    place.lives.close(original, "tasks.scale")
    place.now += 1000
    assert place.begun("tasks.scale") is mapped
    place.lives.close(original, "mapped")
    assert place.lives.open("mapped") is mapped
    place.lives.close(original, "mapped")  # opened after the other one, and closed before it


def test_an_answer_is_no_replay_of_what_came_before() -> None:
    """A reader of answers to what this process asks has no floor, and needs no journal."""
    place = Place(journal=Journal())
    assert place.floor(place.begun("_INBOX.x", solicited=True)) == -inf
    assert not place.warned


def test_a_journal_knows_what_was_given() -> None:
    """With it a reader continues without a floor; one that it does not know, or that begins beside another, has one."""
    place = Place(journal=Journal())
    known, beside, new = place.begun("tasks.scale"), place.begun("tasks.scale"), place.begun("other")
    born = nextafter(NOW + SKEW, inf)
    assert [place.floor(one) for one in (known, beside, new)] == [-inf, born, born]
    assert place.judged(known.name, NOW) == "replayed"
    assert [place.judged(one.name, NOW) for one in (beside, new)] == ["stale", "stale"]


def test_a46_a_journal_that_could_not_be_read_is_asked_again() -> None:
    """A reader is not born before its memory is there: what failed is tried again, and nothing passes for new."""
    place = Place(journal=Journal(failures=1))
    life = place.lives.open("tasks.scale")
    with pytest.raises(OSError, match="disk full"):
        at_once(place.lives.bear(life))
    at_once(place.lives.bear(life))
    assert place.judged(life.name, NOW) == "replayed"


def test_a_beginning_that_is_interrupted_is_made_again_from_the_start() -> None:
    """A subscription may be closed while its memory is restored; the next one like it does not take the half for it."""
    place = Place(journal=Journal(more=AT_A_TIME))
    life = place.lives.open("tasks.scale")
    beginning = place.lives.bear(life)
    beginning.send(None)
    place.lives.close(life, "tasks.scale")
    beginning.close()
    in_turns(place.lives.bear(place.lives.open("tasks.scale")))
    assert place.judged(life.name, NOW) == "replayed"
    assert len(place.store) == AT_A_TIME + 1


@pytest.mark.parametrize("interrupted", [True, False])
def test_of_two_subscriptions_that_are_one_reader_one_begins(*, interrupted: bool) -> None:
    """The other waits for the whole memory; where the first is closed meanwhile, it begins itself."""
    place = Place(journal=Journal(more=AT_A_TIME), aliases=(Alias("nats://prod/mapped", "nats://prod/tasks.scale"),))
    life = place.lives.open("tasks.scale")
    assert place.lives.open("mapped") is life
    first, second = place.lives.bear(life), place.lives.bear(life)
    for beginning in (first, second, second):
        beginning.send(None)
    assert not life.is_born
    first.close() if interrupted else in_turns(first)
    in_turns(second)
    assert (life.is_born, len(place.store)) == (True, AT_A_TIME + 1)


def test_a_machine_that_was_set_back_while_a_memory_is_restored() -> None:
    """A51: the memory that is on its way has the floor too, for the journal was read before."""
    place = Place(journal=Journal(more=AT_A_TIME))
    life = place.lives.open("tasks.scale")
    place.lives.compare_clocks(NOW, 100.0)
    beginning = place.lives.bear(life)
    beginning.send(None)
    place.lives.compare_clocks(NOW + 25, 110.0)
    in_turns(beginning)
    assert place.floor(life) == nextafter(NOW + 25 + SKEW, inf)


def test_a_reader_that_is_replaced_by_another_begins_again() -> None:
    """A43: where connections take turns, a reader takes nothing that the one before it may have been given."""
    place = Place()
    old = place.begun("tasks.scale")
    place.now += 60
    new = place.begun("tasks.scale")
    place.lives.close(old, "tasks.scale")
    place.now += 60
    assert place.judged(new.name, int(place.now)) == "first"
    again = place.begun("tasks.scale")
    assert again is old
    assert place.judged(again.name, int(place.now)) == "stale"


@pytest.mark.parametrize("closed_first", [0, 1])
def test_a_reader_that_was_closed_long_ago_may_have_been_replaced_since(closed_first: int) -> None:
    """A43: what another of its pattern was given meanwhile it does not take for new, though its own past is over."""
    place = Place()
    both = [place.begun("tasks.scale") for _ in range(2)]
    place.lives.close(both[closed_first], "tasks.scale")
    place.now += WINDOW + SKEW + 1
    captured = int(place.now)
    assert place.judged(both[1 - closed_first].name, captured) == "first"
    if closed_first == 0:
        place.lives.close(both[1], "tasks.scale")
    place.now += 1
    again = place.lives.open("tasks.scale")
    if closed_first == 1:
        place.lives.close(both[0], "tasks.scale")  # it goes before the server has confirmed the other
    at_once(place.lives.bear(again))
    assert again.name == both[closed_first].name
    assert place.judged(again.name, captured) == "stale"
    place.now += SKEW + 1
    assert place.judged(again.name, int(place.now)) == "first"


def test_the_floor_that_stays_never_falls() -> None:
    """A clock that steps back between two ends does not take from what the first one said."""
    place = Place()
    for life in [place.begun("tasks.scale") for _ in range(2)]:
        place.lives.close(life, "tasks.scale")
        place.now -= 3
    place.now += WINDOW + 2 * SKEW + 1
    assert place.floor(place.begun("tasks.scale")) == nextafter(NOW + SKEW, inf)


def test_a_subscription_that_never_began_says_nothing_of_when_another_ended() -> None:
    """A46: an earlier process may have been given messages after it was closed."""
    place = Place()
    place.lives.close(place.lives.open("tasks.scale"), "tasks.scale")
    place.now += WINDOW + SKEW + 1
    assert place.floor(place.begun("tasks.scale")) == nextafter(place.now + SKEW, inf)


def test_floors_that_end_together_are_one_warning() -> None:
    """Each one that ends a second later is another; ``floor_ends_at`` is the last of all."""
    place = Place()
    for _ in range(3):
        place.begun("a")
    place.now += 1.5
    place.begun("a")
    assert [fields["until"] for fields in place.warned] == [
        ceil(nextafter(NOW + SKEW, inf)), ceil(NOW + SKEW + 1.5)
    ]  # fmt: skip
    place.lives.announce("b", NOW, remedy="")
    assert place.lives.floor_ends_at == ceil(NOW + SKEW + 1.5)
    assert len(place.warned) == 2


@pytest.mark.parametrize(
    ("journal", "remedy"),
    [
        (None, lives.NO_JOURNAL),
        (Journal(), lives.INIT),
        (Journal(shared=True), lives.TWO_PROCESSES),
    ],
)
def test_a_floor_is_told_with_the_remedy_for_its_cause(journal: Journal | None, remedy: str) -> None:
    """No journal, one that does not know this reader, one of another process, a second subscription, the clock."""
    place = Place(journal=journal)
    place.begun("a")
    place.now += 1.5
    place.begun("a")
    place.lives.compare_clocks(NOW, 100.0)
    place.lives.compare_clocks(NOW + 25, 100.0)
    assert [fields["remedy"] for fields in place.warned] == [remedy, lives.TWO_SUBSCRIPTIONS, lives.PASSES]


@pytest.mark.parametrize("journal", [True, False])
def test_a_machine_that_was_set_back_begins_anew(*, journal: bool) -> None:
    """Whatever was begun has a floor then, open or closed, on disk too; a clock that drifts slowly changes nothing."""
    kept = Journal() if journal else None
    place = Place(journal=kept)
    opened, unborn, closed = place.begun("tasks.scale"), place.lives.open("c"), place.begun("b")
    place.lives.close(closed, "b")
    place.lives.compare_clocks(NOW, 100.0)
    place.lives.compare_clocks(NOW + 10, 105.0)
    assert place.floor(closed) <= NOW + SKEW + 1
    place.lives.compare_clocks(NOW + 25, 110.0)
    until = nextafter(NOW + 25 + SKEW, inf)
    assert [place.floor(life) for life in (opened, closed)] == [until, until]
    assert place.floor(unborn) == -inf
    assert place.warned[-1]["until"] == ceil(until)
    assert kept is None or kept.raised == [until]


def test_a_machine_that_was_set_back_may_have_opened_what_it_knows_to_be_closed() -> None:
    """A reader that was closed long ago has a floor again, for what it was given since may be forgotten."""
    place = Place()
    place.lives.close(place.begun("a"), "a")
    place.now += 1000
    place.lives.close(place.begun("b"), "b")
    place.lives.compare_clocks(place.now, 100.0)
    place.now += 10
    warned = len(place.warned)
    place.lives.compare_clocks(place.now, 100.0)
    assert len(place.warned) == warned  # nothing is open that could lose anything
    assert place.floor(place.begun("a")) == nextafter(place.now + SKEW, inf)


def test_a_name_is_one_client_s() -> None:
    """A second one is refused for as long as the first has it."""
    place = Place()
    place.lives.take_name("controller")
    with pytest.raises(ConfigurationError, match="give each client its own"):
        place.lives.take_name("controller")
    place.lives.free_number("name:controller", 0)
    place.lives.take_name("controller")


def test_of_readers_that_were_closed_long_ago_a_bounded_number_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that makes up subjects without end keeps no more than a name of the latest; none of their memories."""
    assert MAX_ENDED == 100_000
    monkeypatch.setattr("watchword.lives.MAX_ENDED", 100)
    place, lives = Place(), list[Life]()
    for number in range(1000):
        lives.append(place.begun(f"made.up.{number}"))
        place.now += 10
        place.lives.close(lives[-1], f"made.up.{number}")
    place.now += 1000
    assert place.floor(place.begun("last")) > place.now
    assert [place.floor(life) for life in lives] == [-inf] * 1000
    assert list(place.lives._open) == ["last"]
    assert place.floor(place.begun("made.up.900")) < place.now
    assert place.floor(place.begun("made.up.899")) > place.now  # forgotten: then it is as new
    assert not place.lives._lives.keys() - {"sub:last#0", "sub:made.up.900#0", "sub:made.up.899#0"}


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced")
def test_a_hundred_thousand_closed_readers() -> None:
    """To open one more costs no more than it did for the first."""
    place, lives = Place(), list[Life]()
    for number in range(100_001):
        lives.append(place.begun(f"s.{number}"))
        place.lives.close(lives[-1], f"s.{number}")
        place.now += 0.5
    assert 1 <= sum(place.floor(life) > -inf for life in lives) <= 2 * (WINDOW + SKEW) + 2


def test_a_life_in_a_stream_is_that_of_its_consumer() -> None:
    """All subscriptions of a durable share it; it is kept for a window, that of a consumer of no further use not."""
    place = Place()
    life = place.lives.open_stream("S", "worker")
    assert place.lives.open_stream("S", "worker") is life
    assert life.users == 2
    place.verifier.begin(life.log, floor=NOW)
    for _ in range(2):
        place.lives.close_stream(life, for_good=False)
    place.now += WINDOW + SKEW
    assert place.lives.open_stream("S", "worker") is life
    place.lives.close_stream(life, for_good=False)
    place.now += WINDOW + SKEW + 1
    place.lives.close(place.begun("a"), "a")
    assert place.floor(life) == -inf
    other = place.lives.open_stream("S", "ephemeral")
    place.verifier.begin(other.log, floor=NOW)
    place.lives.close_stream(other, for_good=True)
    assert place.floor(other) == -inf
    assert place.lives.open_stream("S", "ephemeral") is not other


def test_what_a_stream_delivered_is_acknowledged_by_message_or_by_place() -> None:
    """Either way its id ages from then on, and a repeated delivery of it was passed."""
    place = Place()
    life = place.lives.open_stream("S", "worker")
    for offset in (1, 2):
        message = press(
            nats(
                reader=life.name,
                exclusive=True,
                position=Position("S", offset),
                appended_at=NOW + 1.0,
                delivered_by=("S", "worker"),
            ),
            c7=offset.to_bytes(16),
        )
        at_once(place.verifier.verify(message))
        life.judged(offset, offset)
        if offset == 1:
            place.lives.settle(life, 1)
        else:
            place.lives.acknowledged_at("S", "worker", 2)
        assert life.was_passed(offset)
    place.lives.acknowledged_at("S", "another", 2)
    assert len(place.store) == 2
    place.store.look(life.log, NOW + 5000)
    assert len(place.store) == 0


def test_many_readers_that_begin_together_ask_the_journal_once() -> None:
    """Those that were born before are not asked for again; each begins with what is known of it alone."""
    journal = Journal()
    place = Place(journal=journal)
    born = place.begun("tasks.now")
    lives = [place.lives.open(pattern) for pattern in ("tasks.scale", "tasks.stop")]
    at_once(place.lives.bear(born, *lives))
    assert journal.asked == [["sub:tasks.now#"], ["sub:tasks.scale#", "sub:tasks.stop#"]]
    assert [place.floor(life) for life in lives] == [-inf, nextafter(NOW + SKEW, inf)]
    at_once(place.lives.bear(*lives))
    assert len(journal.asked) == 2


def test_a_floor_is_told_once_it_costs_something() -> None:
    """While observing nothing is dropped for it; where enforcing begins before its end, that is the time to say so."""
    place = Place()
    place.verifier.switch(replace(place.verifier.policy, mode=Mode.OBSERVE), place.verifier.keys)
    place.begun("tasks")
    assert place.warned == []
    place.verifier.switch(replace(place.verifier.policy, mode=Mode.ENFORCE), place.verifier.keys)
    place.lives.begin_to_enforce()
    place.lives.begin_to_enforce()
    assert [fields["until"] for fields in place.warned] == [ceil(nextafter(NOW + SKEW, inf))]
    other = Place()
    other.lives.begin_to_enforce()
    assert other.warned == []
