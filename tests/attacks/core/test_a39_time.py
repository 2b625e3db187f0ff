"""A39: time between an original and its replay: restarts, backlogs, clocks, retention, and keys that come late.

Each attack is played against a reader that is rebuilt as docs/replay.md says, and shown to work without the rule that
stops it.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    NOW,
    REALM,
    CountingKeys,
    at_once,
    kafka,
    known_keys,
    press,
    public,
)
from watchword import MemoryKeys, Policy, Rejected, Unavailable
from watchword.spi import KeySource, MemoryReplayStore, Message, Position, Verifier

POLICY = Policy(max_skew=30.0)
LOG = "group#tasks/0"


class Down:
    """A key source that fails."""

    async def find(self, principal: str, key_id: bytes) -> None:
        """See KeySource."""
        raise OSError(principal, key_id)


class Reader:
    """One process that reads one log; each begins with nothing in memory."""

    def __init__(self, log: list[Message], *, now: float, keys: KeySource | None = None) -> None:
        self.log = log
        self.now = now
        self.keys = CountingKeys(MemoryKeys(known_keys()) if keys is None else keys)
        self.verifier = Verifier(
            realm=REALM,
            keys=self.keys,
            replay=MemoryReplayStore(horizon=POLICY.horizon),
            policy=POLICY,
            clock=lambda: self.now,
            principal=BOB,
        )

    def rebuild(
        self, position: int, *, anchor: float | None = None, first: int = 0, cut: float | None = None
    ) -> "Reader":
        """Read again what is retained from ``first`` on, in the window before ``position``."""
        if anchor is None:
            at_end = position >= len(self.log)
            anchor = self.now - POLICY.max_skew if at_end else stamp(self.log[position])
        self.verifier.begin(LOG, floor=POLICY.floor_at(anchor, cut=cut))
        begun = False
        for message in self.log[first:position]:
            begun = begun or stamp(message) >= anchor - POLICY.window
            if begun:
                try:
                    at_once(self.verifier.recall(message))
                except Unavailable:
                    self.verifier.remember_unjudged(message)
        return self

    def read(self, offset: int) -> str:
        """Return how the record at an offset ends."""
        try:
            return "again" if at_once(self.verifier.verify(self.log[offset])).redelivered else "first"
        except Rejected as refused:
            return str(refused.reason)
        except Unavailable:
            self.verifier.remember_unjudged(self.log[offset])
            return "unavailable"


def stamp(message: Message) -> float:
    """Return the time that the log was looked up by."""
    found = message.appended_at if message.appended_at is not None else message.created_at
    assert found is not None
    return found


def append(log: list[Message], at: float, *, issued: int, number: int | None = None) -> None:
    """Write a message of ALICE's that was issued at some time."""
    offset = len(log)
    found = kafka(exclusive=True, position=Position("tasks/0", offset), appended_at=at)
    log.append(press(found, c6=issued, c7=(offset if number is None else number).to_bytes(16)))


def test_a39_restart_with_a_backlog_of_hours() -> None:
    """Promise: the window is anchored at the next record, not at the present: the replay in the backlog is found."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 60.0, issued=NOW + 59)
    append(log, NOW + 320.0, issued=NOW, number=0)
    later = NOW + 6 * 3600.0
    assert Reader(log, now=NOW + 1.0).read(0) == "first"
    assert Reader(log, now=later).rebuild(1, anchor=later).read(2) == "stale", "the floor alone closes that hole"
    assert [Reader(log, now=later).rebuild(1, anchor=later).read(1)] == ["stale"], "but loses the honest backlog"
    reader = Reader(log, now=later).rebuild(1)
    assert [reader.read(1), reader.read(2)] == ["first", "replayed"]


@pytest.mark.parametrize("ahead", [0, 15, 30])
def test_a39_the_replay_at_the_last_moment(ahead: int) -> None:
    """Promise: a signer's clock that is ahead by the skew leaves no gap between the window and the floor."""
    log: list[Message] = []
    append(log, float(NOW), issued=NOW + ahead)
    last = NOW + ahead + 330.0
    append(log, last, issued=NOW + ahead, number=0)
    append(log, last, issued=int(last))
    reader = Reader(log, now=last).rebuild(1)
    assert [reader.read(1), reader.read(2)] == ["replayed", "first"]


@pytest.mark.parametrize("behind", [0.0, 15.0, 30.0])
def test_a39_the_end_of_the_log(behind: float) -> None:
    """Promise: with nothing to anchor at, nothing honest is lost to a broker that is behind, no replay let in."""
    log: list[Message] = []
    append(log, NOW - behind, issued=NOW)
    reader = Reader(log, now=float(NOW)).rebuild(1)
    append(log, NOW - behind, issued=NOW, number=0)
    append(log, NOW - behind, issued=int(NOW - behind) - 330)
    assert [reader.read(1), reader.read(2)] == ["replayed", "first"]


@pytest.mark.parametrize("back", [10.0, 100.0, 1000.0, 100_000.0])
def test_a39_a_brokers_clock_steps_back(back: float) -> None:
    """Promise: at a leader change, however far back, nothing forgotten returns; before and after a restart."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 1000.0, issued=NOW + 1000)
    append(log, NOW + 1000.5 - back, issued=NOW, number=0)
    append(log, NOW + 0.5, issued=NOW, number=0)
    reader = Reader(log, now=NOW + 1000.0)
    assert [reader.read(n) for n in (0, 1)] == ["first", "first"]
    assert {reader.read(2), reader.read(3)} <= {"stale", "from_future", "replayed"}
    for position in (2, 3):
        again = Reader(log, now=NOW + 1001.0).rebuild(position)
        assert {again.read(n) for n in range(position, 4)} <= {"stale", "from_future", "replayed"}


@pytest.mark.parametrize("ahead", [0, 30])
def test_a39_retention_has_cut_the_window(ahead: int) -> None:
    """Promise: what retention took with it is stale; with a floor at the anchor only, it would be new."""
    log: list[Message] = []
    append(log, float(NOW), issued=NOW + ahead)
    append(log, NOW + 1.0, issued=NOW + 1)
    append(log, NOW + 100.0, issued=NOW + ahead, number=0)
    append(log, NOW + 101.0, issued=NOW + 101)
    assert Reader(log, now=NOW + 101.0).rebuild(2, first=1).read(2) == "first", "the attack without the rule"
    reader = Reader(log, now=NOW + 101.0).rebuild(2, first=1, cut=stamp(log[1]))
    assert [reader.read(2), reader.read(3)] == ["stale", "first"]


@pytest.mark.parametrize("restarted", [False, True])
def test_a39_a_key_that_becomes_known_late(restarted: bool) -> None:  # noqa: FBT001
    """Promise: the message that passed under an unknown key is not replayed once the key is known."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 50.0, issued=NOW, number=0)
    reader = Reader(log, now=NOW + 50.0, keys=MemoryKeys())
    if restarted:
        reader.rebuild(1)
    else:
        assert reader.read(0) == "unknown_key"
    reader.keys.source = MemoryKeys([public(ALICE_KEY, ALICE)])
    assert reader.read(1) == "replayed"


@pytest.mark.parametrize("restarted", [False, True])
def test_a39_an_outage_between_an_original_and_its_replay(restarted: bool) -> None:  # noqa: FBT001
    """Promise: what was passed over in an outage can be redriven at its place, and nowhere else."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 50.0, issued=NOW, number=0)
    reader = Reader(log, now=NOW + 50.0, keys=Down())
    if restarted:
        reader.rebuild(1)
    else:
        assert reader.read(0) == "unavailable"
    reader.keys.source = MemoryKeys(known_keys())
    assert [reader.read(1), reader.read(0), reader.read(1)] == ["replayed", "first", "replayed"]


def test_a39_a_key_source_that_answers_again_in_the_middle_of_a_rebuild() -> None:
    """Promise: the copy is not taken for the first sight because the original had no verdict."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 1.0, issued=NOW, number=0)
    append(log, NOW + 2.0, issued=NOW, number=0)
    reader = Reader(log, now=NOW + 2.0)
    reader.verifier.begin(LOG, floor=NOW - 330.0)
    reader.verifier.remember_unjudged(log[0])
    at_once(reader.verifier.recall(log[1]))
    assert [reader.read(1), reader.read(2)] == ["replayed", "replayed"]


def unstamped(message: Message, created: float) -> Message:
    """Return the record as a topic has it whose times producers choose."""
    return replace(message, appended_at=None, created_at=created)


@pytest.mark.parametrize(
    ("created", "expected"),
    [(lambda: NOW + 29.0, "replayed"), (lambda: NOW + 900.0, "altered"), (lambda: 0.0, "altered")],
)
def test_a39_record_times_that_an_attacker_sets(created: Callable[[], float], expected: str) -> None:
    """Promise: a copy dated to mislead the look-up is altered, and hides no original from the rebuild."""
    log: list[Message] = []
    for number in (0, 1):
        append(log, NOW + 0.5, issued=NOW + number)
    log[0] = unstamped(log[0], float(NOW))
    log.append(replace(unstamped(log[0], created()), position=Position("tasks/0", 2)))
    reader = Reader(log, now=NOW + 300.0).rebuild(2, anchor=NOW + 300.0)
    assert reader.read(2) == expected


def test_a39_a_slow_consumer_between_original_and_replay() -> None:
    """Promise: ids are forgotten in log time: however slowly it is read, the replay is found where it stands."""
    log: list[Message] = []
    append(log, NOW + 0.5, issued=NOW)
    append(log, NOW + 329.0, issued=NOW, number=0)
    reader = Reader(log, now=NOW + 1.0)
    assert reader.read(0) == "first"
    reader.now += 86_400.0
    assert reader.read(1) == "replayed"
