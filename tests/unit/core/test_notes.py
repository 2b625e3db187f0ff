"""What the guard takes note of for a journal, and what a successor makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf

import pytest

from tests.unit.core.claims import claim, make_room, numbered, place, store
from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    MALLORY_KEY,
    NOW,
    REALM,
    World,
    at_once,
    endings,
    in_turns,
    nats,
    press,
    press_many,
)
from watchword.guard import Kind, Note
from watchword.journal import Recalled
from watchword.key_floors import MAX_PROVEN, MAX_RAISED
from watchword.message import Expected, Message, log_name
from watchword.spi import Admission, Claim, MemoryReplayStore, Verifier

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
KEY = ALICE_KEY.key_id
SUBJECT = nats(exclusive=True)
LOG = log_name(SUBJECT)


def noted(**options: float) -> MemoryReplayStore:
    """Return a guard that takes notes of the log of ``claim``."""
    memory = store(**options)
    memory.note("log")
    return memory


def successor(memory: MemoryReplayStore, *, floor: float = 0.0, **options: float) -> MemoryReplayStore:
    """Return a guard that begins with what another took note of."""
    following = store(**options)
    following.begin("log", floor=floor)
    at_once(following.restore("log", memory.take_notes()))
    return following


def test_an_id_is_noted_once() -> None:
    """Promise (A14): what passed for the first time is noted, and nothing else is; a successor calls it a replay."""
    memory = noted()
    given = claim(place=None)
    assert [memory.admit(given), memory.admit(given)] == [FIRST, REPLAYED]
    (note,) = memory.take_notes()
    assert note == Note("log", Kind.ID, ALICE, KEY, NOW, given.id)
    assert memory.take_notes() == []
    following = store()
    at_once(following.restore("log", [note, note]))
    assert (len(following), following.admit(given)) == (1, REPLAYED)


def test_logs_that_are_not_noted() -> None:
    """Promise: of what a broker remembers no notes are taken."""
    memory = noted()
    other = claim(log="other")
    memory.admit(other)
    memory.remember_unjudged(replace(other, id=b"2" * 16, digest=b"e" * 32))
    assert memory.take_notes() == []


def test_claims_without_a_verdict_are_noted() -> None:
    """Promise: what passed without a verdict, or from the future, is to a successor a replay by its claims."""
    memory = noted()
    unjudged = claim(place=None)
    ahead = claim(id=b"2" * 16, digest=b"e" * 32, place=None, issued_at=NOW + 50)
    memory.remember_unjudged(unjudged)
    memory.remember_ahead(ahead, verified=True)
    following = successor(memory)
    assert [following.admit(unjudged), following.admit(ahead)] == [REPLAYED, REPLAYED]
    assert following.admit(replace(unjudged, digest=b"f" * 32)) is FIRST


@pytest.mark.parametrize("verified", [True, False])
def test_a_floor_that_rose_is_noted(*, verified: bool) -> None:
    """Promise (A20): what found no room is taken for seen by a successor too; noted once, however often it comes."""
    memory = noted(per_principal=1)
    memory.admit(numbered(1, issued_at=NOW - 1))
    late = numbered(2)
    for _ in range(3):
        assert memory.admit(late) is OVER_QUOTA
    if verified:
        memory.remember_ahead(late, verified=True)
    notes = memory.take_notes()
    assert [note.kind for note in notes] == [Kind.ID, Kind.RAISED]
    following = store()
    at_once(following.restore("log", notes))
    assert [following.admit(late), following.admit(numbered(3, issued_at=NOW + 1))] == [TOO_OLD, FIRST]


def test_a_successor_with_less_room() -> None:
    """Promise (A20): an id or claims that find no room any more raise the floor of their key, and no other's."""
    memory = noted()
    memory.admit(numbered(1))
    memory.admit(numbered(2))
    memory.remember_unjudged(numbered(3, key_id=b"unknown"))
    memory.remember_unjudged(numbered(4, key_id=b"unknown"))
    following = successor(memory, per_principal=1, unverified=1)
    assert len(following) == 1
    make_room(following, 9)
    answers: dict[Admission, list[Claim]] = {
        REPLAYED: [numbered(1), numbered(3, key_id=b"unknown", place=place(9))],
        TOO_OLD: [numbered(2), numbered(4, key_id=b"unknown")],
        FIRST: [numbered(5, issued_at=NOW + 1), numbered(6, key_id=b"unknown", issued_at=NOW + 1)],
    }
    for answer, claims in answers.items():
        assert [following.admit(one) for one in claims] == [answer] * 2
    assert following.admit(numbered(7, key_id=b"another")) is FIRST
    assert following.admit(numbered(8, principal=BOB)) is FIRST


def test_what_is_below_the_floor_is_left_out() -> None:
    """Promise: a successor spends no memory on what is stale anyway."""
    memory = noted()
    for number, issued in enumerate((NOW - 1, NOW, NOW + 1)):
        memory.admit(numbered(number, issued_at=issued, place=None))
    following = successor(memory, floor=NOW)
    assert len(following) == 2
    assert following.admit(numbered(0, issued_at=NOW - 1, place=None)) is TOO_OLD


def test_a_flood_before_a_restart() -> None:
    """Promise (A19): floors of invented keys, more than are kept apart, raise none of a key that verified before."""
    memory = noted(unverified=0)
    memory.admit(numbered(0, principal=BOB, place=None))
    for number in range(MAX_RAISED + 10):
        memory.remember_unjudged(numbered(number + 1, key_id=b"%d" % number, issued_at=NOW + 5, place=None))
    notes = memory.take_notes()
    assert len(notes) == 1 + MAX_RAISED + 1  # the shared floor rose once
    following = store(unverified=0)
    in_turns(following.restore("log", notes[::-1]))
    assert following.admit(numbered(-1 % 1000, principal=BOB, place=None)) is FIRST
    for issued_at, answer in ((NOW, TOO_OLD), (NOW + 5, TOO_OLD), (NOW + 6, FIRST)):
        assert following.admit(numbered(7777, key_id=b"new", issued_at=issued_at, place=None)) is answer


def test_more_keys_than_are_known_apart() -> None:
    """Promise: a journal with any number of keys is restored."""
    following = store()
    notes = [Note("log", Kind.ID, f"a{at}", b"k", NOW, b"%016d" % at) for at in range(MAX_PROVEN + 1)]
    in_turns(following.restore("log", notes))
    assert len(following) == MAX_PROVEN + 1


def test_a_floor_that_is_raised_from_outside() -> None:
    """Promise (A51): it rises and never falls, and what is known stays known."""
    memory = store()
    memory.admit(claim(place=None, issued_at=NOW + 10))
    memory.raise_floor("log", NOW + 5.0)
    memory.raise_floor("log", NOW + 1.0)
    memory.raise_floor("fresh", NOW + 5.0)
    assert memory.admit(claim(place=None, issued_at=NOW + 10)) is REPLAYED
    assert memory.admit(numbered(1, place=None, issued_at=NOW + 4)) is TOO_OLD
    assert memory.admit(numbered(2, place=None, issued_at=NOW + 5)) is FIRST
    assert memory.floor("fresh") == NOW + 5


@dataclass
class Recorder:
    """A journal that can fail, and calls ``seen`` with what it is given."""

    fails: bool = False
    given: list[list[Note]] = field(default_factory=list)
    handed: list[Message] = field(default_factory=list)

    def recall(self, logs: Sequence[str], *, birth: float) -> list[Recalled]:
        """Know of nothing."""
        notes = [note for given in self.given for note in given]
        return [Recalled(floor=birth, notes=[note for note in notes if note.log == log]) for log in logs]

    def write(self, notes: Sequence[Note]) -> None:
        """Keep them, unless nothing can be kept; nothing has been handed over meanwhile."""
        assert not self.handed
        if self.fails:
            raise OSError("disk full")
        self.given.append(list(notes))

    def raise_floors(self, floor: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def reading(journal: Recorder | None) -> World:
    """Return a world whose reader continues with what the journal knows."""
    world = World(journal=journal)
    (recalled,) = (journal or Recorder()).recall([LOG], birth=0.0)
    at_once(world.verifier.resume(LOG, floor=recalled.floor, notes=recalled.notes))
    return world


def test_written_before_it_is_handed_over() -> None:
    """Promise (A14): when a verdict is returned its id is in the journal, all of a run in one write."""
    journal = Recorder()
    world = reading(journal)
    messages = press_many([SUBJECT] * 3)
    verdicts = at_once(world.verifier.verify_many([*messages, messages[0]]))
    assert [len(notes) for notes in journal.given] == [3]
    assert [type(verdict).__name__ for verdict in verdicts] == ["VerifiedMessage"] * 3 + ["Rejected"]
    assert endings(reading(journal), messages) == ["replayed"] * 3
    assert world.verifier.journal is journal


def test_the_writer_comes_before_the_verdict() -> None:
    """Promise (A14): at the time of the write no message has been accepted, so none can have been handed over."""
    journal = Recorder()
    world = reading(journal)
    accepted = []
    permitted = world.verifier._check_permission

    def judge(case: object) -> None:
        accepted.append(len(journal.given))
        permitted(case)  # type: ignore[arg-type] # whatever it is

    world.verifier._check_permission = judge  # type: ignore[method-assign] # to see when
    assert endings(world, press_many([SUBJECT] * 2)) == ["first"] * 2
    assert set(accepted) == {1}


def test_a_journal_that_fails() -> None:
    """Promise: what cannot be written is not handed over; other logs are, and so is what comes later."""
    journal = Recorder(fails=True)
    world = reading(journal)
    other = nats(exclusive=True, reader="other")
    messages = press_many([SUBJECT, other, SUBJECT, SUBJECT])
    forged = replace(messages[3], value=b"forged")
    assert endings(world, [*messages[:3], forged]) == ["replay", "first", "replay", "altered"]
    verdict = at_once(world.verifier.verify_many([press(SUBJECT, c7=b"3" * 16)]))[0]
    assert str(verdict) == "replay unavailable: journal: OSError"
    assert isinstance(getattr(verdict, "__cause__", None), OSError)
    journal.fails = False
    assert endings(world, [press(SUBJECT, c7=b"4" * 16)]) == ["first"]


def test_what_passed_without_a_verdict_is_written_at_once() -> None:
    """Promise (A14): a process may end before its next message; its successor knows the claims all the same."""
    journal = Recorder()
    world = reading(journal)
    message = press(SUBJECT)
    world.verifier.remember_unjudged(message)
    assert [note.kind for notes in journal.given for note in notes] == [Kind.CLAIMS]
    assert endings(reading(journal), [message]) == ["replayed"]
    journal.fails = True
    world.verifier.remember_unjudged(press(SUBJECT, c7=b"2" * 16))
    reading(None).verifier.remember_unjudged(message)


def test_what_is_rejected_needs_no_journal() -> None:
    """Promise: a journal that fails makes nothing of a verdict that is final."""
    world = reading(Recorder(fails=True))
    unknown = press(SUBJECT, key=MALLORY_KEY)
    assert endings(world, [unknown, unknown]) == ["wrong_principal"] * 2


def test_notes_without_a_journal() -> None:
    """Promise: without a journal a log that is resumed is judged all the same, and no notes pile up."""
    world, memory, message = World(), MemoryReplayStore(horizon=None), press(SUBJECT)
    world.verifier = Verifier(realm=REALM, keys=world.keys, replay=memory, policy=world.policy, clock=lambda: world.now)
    at_once(world.verifier.resume(LOG, floor=-inf))
    assert endings(world, [message, message]) == ["first", "replayed"]
    assert memory.take_notes() == []


def test_a_floor_of_a_log_that_is_raised() -> None:
    """Promise (A51): what was issued before the machine was set back is stale; an answer that we wait for is not."""
    world = reading(Recorder())
    world.verifier.raise_floor(LOG, NOW + 1.0)
    assert endings(world, [press(SUBJECT)]) == ["stale"]
    assert endings(world, [press(SUBJECT, c6=NOW + 1)]) == ["first"]
    assert endings(World(), [press(SUBJECT)], Expected(floor=NOW + 1.0)) == ["stale"]
