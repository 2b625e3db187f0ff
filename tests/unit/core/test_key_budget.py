"""Budgets of look-ups: which keys are familiar, how many others may be looked up, and what is reported."""

import pickle
from collections import deque
from collections.abc import Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, BOB, BOB_KEY, MALLORY, at_once, known_keys, public
from watchword import MemoryKeys, Unavailable, VerificationKey
from watchword.errors import Shed
from watchword.key_budget import FAILURES, KeyBudget
from watchword.testing import Clock

if TYPE_CHECKING:
    from watchword.quota import Warned


class Source:
    """A source that knows Alice at once; for others it waits, fails or answers, as ``mode`` says."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.mode = "hang"
        self.takes = 0.0
        self.clock = Clock(1000.0)

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        self.asked.append(key_id)
        if (principal, key_id) == (ALICE, ALICE_KEY.key_id):
            return public(ALICE_KEY, ALICE)
        self.clock.advance(self.takes)
        if self.mode == "hang":
            await Never()
        if self.mode == "fail":
            raise ConnectionError
        return public(BOB_KEY, BOB) if self.mode == "other" else None


class Never:
    """What never is done."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class ListedSource(Source):
    """The same, and it can list Alice's key."""

    listings = 0

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """See ``ListedKeys``."""
        self.listings += 1
        return (public(ALICE_KEY, ALICE),)


class Asked:
    """A budget in front of a source."""

    def __init__(self, source: Source | None = None, *, most: int = 4) -> None:
        self.source = source or Source()
        self.warnings: deque[Warned] = deque()
        self.budget = KeyBudget(self.source, clock=self.source.clock, warnings=self.warnings, most=most)
        self.waiting: list[Coroutine[Any, Any, object]] = []

    def stranger(self, number: int = 0, *, name: str = MALLORY) -> str:
        """Look for an invented key, and say how that ended."""
        work = self.budget.find(name, b"invented-%d" % number)
        try:
            work.send(None)
        except StopIteration as done:
            return "unknown" if done.value is None else "known"
        except Shed:
            return "shed"
        except ConnectionError:
            return "failed"
        self.waiting.append(work)
        return "waits"

    def alice(self) -> object:
        """Look for a key that the source has at hand."""
        return at_once(self.budget.find(ALICE, ALICE_KEY.key_id))


@pytest.fixture
def asked() -> Iterator[Asked]:
    """Return a budget, and let go of what waits in the end."""
    made = Asked()
    yield made
    for work in made.waiting:
        work.close()


def test_a_source_that_hangs_is_asked_for_so_many_strangers(asked: Asked) -> None:
    """Promise (A21): beyond the bound they are shed without a look-up, whatever principal they claim."""
    assert [asked.stranger(number) for number in range(9)] == ["waits"] * 4 + ["shed"] * 5
    assert asked.stranger(10, name=ALICE) == "shed"
    assert len(asked.source.asked) == 4


def test_what_was_given_up_makes_room(asked: Asked) -> None:
    """Promise: a look-up that is cancelled is under way no more."""
    assert [asked.stranger(number) for number in range(5)] == ["waits"] * 4 + ["shed"]
    asked.waiting.pop().close()
    assert [asked.stranger(number) for number in range(2)] == ["waits", "shed"]


def test_a_key_that_was_found_is_asked_for_beside_any_flood(asked: Asked) -> None:
    """Promise (A21): an agent that spoke before is looked up as ever, and the source's answer is its own."""
    assert asked.alice() == public(ALICE_KEY, ALICE)
    assert [asked.stranger(number) for number in range(5)][-1] == "shed"
    assert asked.alice() == public(ALICE_KEY, ALICE)


def test_a_key_that_the_source_lists_is_familiar() -> None:
    """Promise (A21): a process that starts in the midst of a flood finds the agents whose keys are in its files."""
    source = ListedSource()
    asked = Asked(source)
    assert [asked.stranger(number) for number in range(500)].count("shed") == 496
    assert asked.alice() == public(ALICE_KEY, ALICE)
    asked.budget.require(ALICE, ALICE_KEY.key_id)
    listings = source.listings
    assert listings <= 2, "the list is not read for each message"
    source.clock.advance(3.0)
    assert asked.stranger() == "shed"
    assert source.listings == 2 * listings
    for work in asked.waiting:
        work.close()


def test_an_answer_about_somebody_else_makes_nobody_familiar(asked: Asked) -> None:
    """Promise (A21): a flood under a key id of another agent's gains no standing by the source's polite answer."""
    asked.source.mode = "other"
    assert asked.stranger(7) == "known"
    asked.source.mode = "hang"
    assert [asked.stranger(7) for _ in range(5)] == ["waits"] * 4 + ["shed"]


def test_failures_in_a_row_are_counted_and_one_answer_clears_them(asked: Asked) -> None:
    """Promise (A21): a source that is down is asked ten times a second; once it answers, it is asked as ever."""
    source = asked.source
    source.mode = "fail"
    endings = [asked.stranger(number) for number in range(FAILURES + 50)]
    assert endings == ["failed"] * FAILURES + ["shed"] * 50
    source.clock.advance(0.2)
    assert [asked.stranger() for _ in range(3)] == ["failed", "failed", "shed"]
    source.mode = "none"
    source.clock.advance(0.11)
    assert [asked.stranger() for _ in range(500)] == ["unknown"] * 500
    source.mode = "fail"
    assert [asked.stranger() for _ in range(FAILURES)] == ["failed"] * FAILURES
    source.clock.advance(3600.0)
    assert [asked.stranger() for _ in range(FAILURES + 1)] == ["failed"] * FAILURES + ["shed"]


@pytest.mark.parametrize(("takes", "quiet"), [(0.5, 5.0), (2.0, 20.0), (10.0, 30.0)])
def test_a_failure_that_took_long_is_followed_by_quiet(asked: Asked, takes: float, quiet: float) -> None:
    """Promise (A21): a source with a time-out takes up a small part of a reader's time, however many strangers come."""
    source = asked.source
    assert asked.alice()
    source.mode, source.takes = "fail", takes
    assert [asked.stranger(), asked.stranger()] == ["failed", "shed"]
    assert asked.alice() == public(ALICE_KEY, ALICE)
    source.clock.advance(quiet - 0.01)
    assert asked.stranger() == "shed"
    source.clock.advance(0.02)
    assert asked.stranger() == "failed"


def test_a_clock_that_steps_back_shuts_nobody_out(asked: Asked) -> None:
    """Promise (A34): no quiet, and no count, lasts longer because the clock was set back."""
    source = asked.source
    source.mode, source.takes = "fail", 10.0
    assert asked.stranger() == "failed"
    source.clock.advance(-3600.0)
    assert asked.stranger() == "failed"
    source.takes = 0.0
    source.clock.advance(40.0)
    assert [asked.stranger() for _ in range(FAILURES + 1)][-1] == "shed"
    source.clock.advance(-3600.0)
    assert asked.stranger() == "shed"
    source.clock.advance(1.0)
    assert asked.stranger() == "failed"


def test_known_keys_have_a_bound_of_their_own(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    """Promise (A20): forgeries under a known key's name take no more memory than that bound, and no stranger's room."""
    monkeypatch.setattr("watchword.key_budget.MOST_FAMILIAR", 3)
    assert asked.alice()
    monkeypatch.setattr(asked.source, "find", lambda *_: hang())
    waiting = [asked.budget.find(ALICE, ALICE_KEY.key_id) for _ in range(4)]
    for work in waiting[:3]:
        work.send(None)
    with pytest.raises(Shed, match="3 look-ups for known keys"):
        waiting[3].send(None)
    assert asked.stranger() == "waits"
    for work in waiting[:3]:
        work.close()
    at_once_again = asked.budget.find(ALICE, ALICE_KEY.key_id)
    at_once_again.send(None)
    at_once_again.close()


async def hang() -> None:
    """Never end."""
    await Never()


def test_a_key_that_two_look_for_at_once_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: the second to come with the same answer takes no place of another's."""
    monkeypatch.setattr("watchword.key_budget.MOST_KNOWN", 1)
    key = public(ALICE_KEY, ALICE)

    class Late:
        async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:  # noqa: ARG002 - it knows one
            await Never()
            return key

    budget = KeyBudget(Late(), clock=Clock(0.0), warnings=deque())
    asking = [budget.find(key.principal, key.key_id) for _ in range(2)]
    for one in asking:
        one.send(None)
    for one in asking:
        with pytest.raises(StopIteration) as done:
            one.send(None)
        assert done.value.value is key
    assert [*budget._familiar] == [(ALICE, key.key_id)]


def test_what_is_familiar_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20): those known longest are forgotten first, and cost a budget once more."""
    monkeypatch.setattr("watchword.key_budget.MOST_KNOWN", 2)
    keys = known_keys()
    budget = KeyBudget(MemoryKeys(keys), clock=Clock(0.0), warnings=deque())
    for key in (*keys[:3], *keys[:3]):
        assert at_once(budget.find(key.principal, key.key_id)) == key
    assert len(budget._familiar) == 2


def test_what_is_shed_is_told_once_a_minute(asked: Asked) -> None:
    """Promise (A21): the operator reads of it at once, then of all that came since, and no flood fills the log."""
    for number in range(1004):
        asked.stranger(number)
    asked.source.clock.advance(61.0)
    asked.stranger()
    first, second = asked.warnings
    assert first[0] == second[0] == "keys.look_ups_shed"
    assert (first[1]["count"], second[1]["count"]) == (1, 1000)
    assert first[1]["why"] == "4 look-ups for unknown keys are under way"


def test_another_source_begins_anew_and_none_knows_nobody(asked: Asked) -> None:
    """Promise: a source that replaces a broken one is asked at once; without any, nobody is known, and nothing shed."""
    asked.source.mode = "fail"
    asked.source.takes = 10.0
    assert [asked.stranger(), asked.stranger()] == ["failed", "shed"]
    asked.budget.source = asked.source
    assert asked.stranger() == "failed"
    asked.budget.source = None
    assert asked.budget.source is None
    assert asked.stranger() == "unknown"
    asked.budget.require(MALLORY, b"x")


def test_what_was_shed_travels_as_unavailable() -> None:
    """Promise: another process reads of it that a message could not be judged."""
    made = pickle.loads(pickle.dumps(Shed("why")))  # noqa: S301 - our own
    assert (type(made), made.what, made.detail) == (Unavailable, "keys", "why")


@pytest.mark.parametrize("source", [Source, ListedSource])
def test_a_key_is_known_that_was_found_or_is_listed(source: type[Source]) -> None:
    """Promise (A21): a key that the source has, or had, is distinguished from invented ones without a look-up."""
    asked = Asked(source())
    known = ALICE, ALICE_KEY.key_id
    assert asked.budget.knows(*known) is (source is ListedSource)
    assert not asked.source.asked
    at_once(asked.budget.find(*known))
    assert asked.budget.knows(*known)
    assert not asked.budget.knows(MALLORY, ALICE_KEY.key_id)
    assert not asked.budget.knows(ALICE, b"invented")
