"""One partition's machine, fed by hand: each race is a row, for there is nothing to wait for.

Any order of events is played in tests/properties; here stands what each promise rests on.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, TypeAlias

import pytest

from watchword import Policy, Reason, Rejected, Unavailable, VerifiedMessage, partition
from watchword.checkpoint import read_line
from watchword.endings import Endings, Outage
from watchword.message import seal
from watchword.partition import (
    BLOCKED,
    BRISK,
    FARTHEST,
    FRESH,
    RECALLED,
    TOGETHER,
    Commit,
    Found,
    Judge,
    Judged,
    Keep,
    Locate,
    Located,
    LookUp,
    PartitionReader,
    Peek,
    Recall,
    Recollected,
    Renew,
    Seek,
    Take,
    Taken,
    Wait,
)
from watchword.spi import Channel, Message, ObservedMessage, Position

NOW = 1_763_928_000
POLICY = Policy()
CHANNEL = Channel("kafka", "prod", "tasks")
TAG = "0123abcd"
SENDER = "agent://a"
DOWN = Unavailable("keys")
FORGED = Rejected(Reason.UNSIGNED)
make_verified = seal()

Action: TypeAlias = Any


@dataclass(frozen=True)
class Record:
    """A record that the broker stamped, or did not."""

    offset: int
    stamp: float | None = NOW


@dataclass
class Memory:
    """Records the calls that a reader makes to its memory."""

    begun: list[float] = field(default_factory=list)
    passed: list[int] = field(default_factory=list)
    needed: int | None = None

    def begin(self, *, floor: float) -> None:
        """See ``Memory``."""
        self.begun.append(floor)

    def floor(self) -> float:
        """See ``Memory``."""
        return self.begun[-1]

    def pass_time(self, time: float) -> None:
        """See ``Memory``."""

    def lowest_needed(self) -> int | None:
        """See ``Memory``."""
        return self.needed

    def remember_unjudged(self, message: Message) -> None:
        """See ``Memory``."""
        assert message.position is not None
        self.passed.append(message.position.offset)


class World:
    """A log, and one who reads it: carries out what the machine says, until it waits."""

    def __init__(
        self,
        count: int = 0,
        *,
        committed: tuple[int, str] | None = None,
        first: int = 0,
        shared: bool = False,
        stamped: bool = True,
        **options: Any,
    ) -> None:
        self.memory = Memory()
        self.records = [Record(offset, NOW if stamped else None) for offset in range(first, count)]
        self.first, self.end, self.stable = first, max(first, count), inf
        self.committed = committed
        self.position: int | None = first if committed is None else max(first, committed[0])
        self.now = 1_000.0
        self.verdicts: dict[int, Any] = {}
        self.issued: dict[int, float] = {}
        self.in_quarantine = True
        self.done: list[Action] = []
        self.failures: list[Unavailable] = []
        self.reader: PartitionReader[Record] = PartitionReader(
            policy=POLICY,
            stamp=lambda record: record.stamp,
            clock=lambda: NOW,
            endings=Endings(Outage(POLICY.max_hold)),
            memory=None if shared else self.memory,
            tag=TAG,
            **options,
        )
        self.reader.assigned()

    def look(self) -> None:
        """Fetch: the answer tells where the log ends."""
        self.reader.looked(NOW, self.end, NOW, stable=None if self.stable == inf else int(self.stable))

    def next(self, want: int | None = None) -> Action:
        """Return what is to be done now, and move where the machine says."""
        self.look()
        action = self.reader.next(self.now, self.position, want)
        if isinstance(action, Seek):
            self.position = action.offset
        return action

    def answer(self, action: Action) -> object:
        """Do what the machine says."""
        result: object = getattr(self, f"_{type(action).__name__.lower()}")(action)
        return result

    def _locate(self, _: Action) -> Located:
        return Located(self.committed, self.first)

    def _lookup(self, action: LookUp) -> Found | None:
        later = [r for r in self.records if r.offset >= self.first and (r.stamp or NOW) >= action.time]
        return Found(later[0].offset, later[0].stamp or NOW) if later else None

    def _take(self, action: Take) -> Taken[Record]:
        assert self.position is not None
        stable = int(min(self.stable, self.end))
        left = [r for r in self.records if self.position <= r.offset < stable]
        taken = left[: action.most]
        self.position = taken[-1].offset + 1 if taken != left else max(self.position, stable)
        return Taken(taken, self.position)

    def _peek(self, action: Peek[Record]) -> list[float]:
        return [self.issued.get(one.offset, NOW) for one in action.records if one.offset not in self.verdicts]

    def _recall(self, action: Recall[Record]) -> Recollected:
        for at, record in enumerate(action.records):
            if self.verdicts.get(record.offset) is DOWN:
                return Recollected(at, message(record.offset))
        return Recollected(len(action.records), None)

    def _judge(self, action: Judge[Record]) -> Judged:
        found = [self.verdicts.get(record.offset) or verified() for record in action.records]
        until = next((at + 1 for at, verdict in enumerate(found) if verdict is DOWN), len(found))
        return Judged([message(record.offset) for record in action.records], found[:until], self.now)

    def _renew(self, action: Renew[Record]) -> list[Any]:
        return [self.verdicts.get(entry.record.offset) for entry in action.entries]

    def _keep(self, _: Action) -> bool:
        return self.in_quarantine

    def _commit(self, action: Commit) -> None:
        self.committed = action.offset, self.reader.metadata(action.offset)

    def carry_out(self, action: Action) -> None:
        """Do it, and say what came of it."""
        self.reader.answered(action, self.answer(action), self.now)
        if self.reader.failure is not None:
            self.failures.append(self.reader.failure)
            self.reader.failure = None

    def run(self, want: int | None = None, *, until: type | None = None) -> Action:
        """Go on until the machine waits, or wants ``until``; return that, which is not carried out."""
        for _ in range(200):
            action = self.next(want)
            if until is not None and isinstance(action, until):
                return action
            if isinstance(action, Wait):
                if action.until > self.now:
                    return action
                continue
            if isinstance(action, Seek):
                self.done.append(action)
                continue
            before = self.position
            self.carry_out(action)
            if isinstance(action, Take) and self.position == before and not self.reader.pending:
                return action
            self.done.append(action)
        raise AssertionError([type(action).__name__ for action in self.done])

    def read(self, most: int | None = None) -> list[int]:
        """Hand over what is ready, and return the offsets."""
        self.run(most)
        return [entry.record.offset for entry in self.reader.hand_over(most)] if self.reader.is_fresh(self.now) else []

    def read_on(self) -> list[int]:
        """Hand over all that is ready, and return the offsets."""
        found: list[int] = []
        while some := self.read():
            found += some
        return found

    def did(self, kind: type) -> list[Action]:
        """Return what was done of one kind since the last time it was asked, and forget all."""
        found, self.done = [action for action in self.done if isinstance(action, kind)], []
        return found

    def recalled(self) -> list[int]:
        """Return the offsets of what was remembered since the last time it was asked."""
        return [record.offset for action in self.did(Recall) for record in action.records]


def message(offset: int) -> Message:
    """Return the message at an offset."""
    return Message(channel=CHANNEL, value=b"%d" % offset, position=Position("tasks/0", offset))


def verified(issued_at: int = NOW) -> VerifiedMessage:
    """Return the verdict on what verified."""
    return make_verified(*(SENDER, "k", "00", CHANNEL, b"", None, (), issued_at, False, None, None, None, None))


def offsets(records: Sequence[Any]) -> list[int]:
    """Return the offsets of records, or of what is ready."""
    return [getattr(one, "record", one).offset for one in records]


# One action at a time


def test_nothing_else_is_to_be_done_while_an_action_is_under_way() -> None:
    """Promise: an action runs to its end, no matter who asks meanwhile."""
    world = World(3)
    action = world.run(until=Judge)
    assert [type(world.next()) for _ in range(3)] == [Wait] * 3
    world.carry_out(action)
    assert world.reader.ready


def test_an_answer_that_nobody_asked_for_is_a_mistake() -> None:
    """Promise: a driver that mixes answers up does not get by unnoticed."""
    world = World(3)
    with pytest.raises(ValueError, match="Locate was not asked for"):
        world.reader.answered(Locate(), Located(None, 0), world.now)
    action = world.run(until=Judge)
    with pytest.raises(ValueError, match="Judge was not asked for"):
        world.reader.failed(Judge([]), world.now)
    with pytest.raises(TypeError, match="NoneType is not an answer to Judge"):
        world.reader.answered(action, None, world.now)


def seek_back(world: World) -> None:
    """Let the caller seek to the second record."""
    world.position = 1
    world.reader.sought(1)


def seek_to_an_end(world: World) -> None:
    """Let the caller seek where the client is yet to find."""
    world.position = None
    world.reader.sought(None)


def rebalance(world: World) -> None:
    """Let the partition come back to where its group stands."""
    world.reader.assigned()
    world.position = 0 if world.committed is None else world.committed[0]


def lose(world: World) -> None:
    """Let the partition go to another member, and come back."""
    world.reader.lost()
    rebalance(world)


EVENTS: list[Callable[[World], None]] = [seek_back, seek_to_an_end, rebalance, lose]


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("kind", [Locate, LookUp, Peek, Recall, Judge, Renew, Keep, Commit])
@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_for_a_state_that_is_gone_is_dropped(
    kind: type, event: Callable[[World], None], *, fails: bool
) -> None:
    """Promise (A14, A17, A41): what came between wins, whatever was under way, and nothing of the answer is used."""
    world = World(6, committed=None if kind is Commit else (3, ""), stamped=kind is not Peek, grouped=True)
    if kind is Keep:
        world.verdicts = {3: DOWN}
        assert isinstance(world.run(), Wait)
        world.now += 2 * POLICY.max_hold
    if kind is Renew:
        world.run()
        world.now += 2 * FRESH
    action = world.run(until=kind)
    assert type(action).__name__ == kind.__name__
    answer = world.answer(action)
    event(world)
    while isinstance(world.next(), Seek):
        pass
    assert isinstance(world.next(), Wait), "the new state waits for the old one's end"
    begun, passed = [*world.memory.begun], [*world.memory.passed]
    if fails:
        assert not world.reader.failed(action, world.now)
    else:
        world.reader.answered(action, answer, world.now)
    assert (world.memory.begun, world.memory.passed) == (begun, passed)
    assert not world.reader.ready
    assert not world.reader.dropped
    assert world.reader.failure is None
    world.verdicts, world.done = {}, []
    if world.position is None:
        world.position = 2
    place = world.position
    assert world.read() == [*range(place, 6)]
    assert len(world.memory.begun) == len(begun) + 1, "the memory began again where reading continues"


def test_an_action_that_failed_is_tried_again_later() -> None:
    """Promise: whatever fails is tried again at growing distances, and a success ends that."""
    world = World(1)
    for wait in (0.1, 0.2, 0.4):
        assert world.reader.failed(world.run(until=Locate), world.now)
        waiting = world.run()
        assert waiting.until == pytest.approx(world.now + wait)
        world.now = waiting.until
    assert world.read() == [0]


# Placing


def test_where_nothing_can_be_read_yet_a_look_at_the_end_stands_for_the_next_record() -> None:
    """Promise (A46): at the end of its log a reader is ready at once, and nothing that comes is stale for that."""
    world = World(0)
    assert isinstance(world.run(), Take | Wait)
    assert world.reader.is_reading
    (floor,) = world.memory.begun
    assert floor <= NOW - POLICY.horizon - POLICY.max_skew
    world.records, world.end = [Record(0)], 1
    assert world.read() == [0]


def test_behind_an_open_transaction_the_first_record_that_can_be_read_is_waited_for() -> None:
    """Promise (A49, K16): what stands behind a stranger's open transaction is not judged by our own time."""
    world = World(2)
    world.records = [Record(0, NOW - 3600.0), Record(1, NOW - 3600.0)]
    world.stable = 0
    assert isinstance(world.run(), Take)
    assert not world.reader.is_reading
    assert world.memory.begun == []
    world.stable = inf
    assert world.read() == [0, 1]
    assert world.memory.begun == [NOW - 3600.0 - POLICY.horizon]


def test_an_empty_log_with_a_commit_beyond_its_end_is_no_place_to_begin() -> None:
    """Promise (A42): a position that the log has not reached is the client's to set right; nothing is judged there."""
    world = World(2, committed=(9, ""))
    assert isinstance(world.run(), Take | Wait)
    assert world.memory.begun == []
    world.position = 2
    world.run()
    assert world.reader.is_reading
    assert world.reader.judged() == 2


def test_the_window_before_the_next_record_is_read_again() -> None:
    """Promise (A14): what may be fresh and was handed over is remembered before anything is judged, by stamps."""
    world = World(4, committed=(2, ""))
    world.records[0] = Record(0, NOW - POLICY.window - 60)
    assert world.read() == [2, 3]
    assert world.recalled() == [1]
    assert world.memory.begun == [NOW - POLICY.horizon]


def test_where_the_broker_stamps_nothing_the_next_records_tell_how_far_to_read_back() -> None:
    """Promise (A39, K2): without a checkpoint the earliest time of issue among what verified sets the floor."""
    world = World(4, committed=(2, ""), stamped=False)
    assert world.read() == [2, 3]
    assert world.recalled() == [0, 1]
    (floor,) = world.memory.begun
    assert floor <= NOW + 3 * POLICY.max_skew


def test_forged_records_tell_nothing_of_how_far_to_read_back() -> None:
    """Promise (A49): where nothing of what comes next verifies the reader still begins, and reads all of it."""
    world = World(6, committed=(2, ""), stamped=False)
    world.verdicts = {2: FORGED, 3: FORGED, 4: FORGED}
    assert world.read() == [5]
    assert world.recalled()[:2] == [0, 1]
    world = World(4, committed=(2, ""), stamped=False)
    world.verdicts = {2: FORGED, 3: FORGED}
    world.run()
    world.records, world.end, world.done = [*world.records, Record(4, None)], 5, []
    assert world.read() == [4]
    assert world.reader.judged() == 5


def behind_a_rogue(count: int, old: int) -> World:
    """Return a world where a message of now comes first, then rubbish, then a message from an hour ago at ``old``."""
    world = World(count, committed=(2, ""), stamped=False)
    world.verdicts = dict.fromkeys(range(3, old), FORGED)
    world.issued = {old: NOW - 3600}
    return world


@pytest.mark.parametrize("old", [3, 400, 600, 1500])
def test_a49_the_whole_backlog_tells_how_far_to_read_back(old: int) -> None:
    """Promise (A49): what stands first in a backlog makes nothing stale that comes later, however much lies between."""
    world = behind_a_rogue(old + 1, old)
    assert world.read_on() == [2, old]
    assert world.memory.begun == [NOW - 3600 - POLICY.horizon]
    assert world.recalled() == [0, 1]


def test_a49_a_look_that_was_behind_the_backlog_needs_no_other() -> None:
    """Promise (A49): where this reader has seen the log end before the backlog, that look tells when it began."""
    world = World(2, committed=(2, ""), stamped=False)
    world.look()
    world.records, world.end = [*world.records, Record(2, None)], 3
    world.issued = {2: NOW - 3600}
    assert world.read() == [2]
    assert world.memory.begun == [NOW - POLICY.horizon]
    assert not world.did(Peek)


def test_a49_what_comes_behind_the_backlog_is_not_looked_at() -> None:
    """Promise (A49): what is sent while the backlog is looked through was issued after that look, give or take."""
    world = behind_a_rogue(RECALLED + 2, RECALLED + 1)
    world.carry_out(world.run(until=Peek))
    world.records, world.end = [*world.records, Record(RECALLED + 2, None)], RECALLED + 3
    world.issued[RECALLED + 2] = NOW - 7200
    assert world.read_on() == [2, RECALLED + 1, RECALLED + 2]
    assert world.memory.begun == [NOW - 3600 - POLICY.horizon]


def test_a49_a_message_dated_ahead_does_not_raise_the_floor_above_the_look() -> None:
    """Promise (A49): the floor is never above what was sent when the log's end was looked at."""
    world = World(4, committed=(2, ""), stamped=False)
    world.issued = {2: NOW + POLICY.max_skew, 3: NOW + POLICY.max_skew}
    assert world.read() == [2, 3]
    assert world.memory.begun == [NOW - POLICY.horizon]


def test_a49_what_is_as_old_as_may_be_ends_the_look() -> None:
    """Promise (A49): one old message makes the reader look back as far as it may, and not through the backlog."""
    world = behind_a_rogue(2000, 1999)
    world.issued = {2: NOW - POLICY.max_lag - 1}
    world.run()
    assert len(world.did(Peek)) == 1
    assert world.memory.begun == [NOW - POLICY.max_lag - POLICY.horizon]


def test_a49_an_open_transaction_is_waited_for_and_then_counts_as_old() -> None:
    """Promise (A49): what a transaction hides may be as old as anything; but it holds up nobody forever."""
    world = World(6, committed=(2, ""), stamped=False)
    world.stable = 4
    assert isinstance(world.run(), Take)
    assert not world.memory.begun
    world.now += BLOCKED
    assert world.read() == [2, 3]
    assert world.memory.begun == [NOW - POLICY.max_lag - POLICY.horizon]


def test_a49_a_transaction_that_ends_in_time_is_looked_through() -> None:
    """Promise (A49): what it hid tells how far to read back; another one behind it is waited for by itself."""
    world = World(6, committed=(2, ""), stamped=False)
    world.issued, world.stable = {4: NOW - 3600}, 4
    assert isinstance(world.run(), Take)
    world.now, world.stable = world.now + BLOCKED - 1, 5
    assert isinstance(world.run(), Take)
    world.now, world.stable = world.now + BLOCKED - 1, inf
    assert world.read() == [2, 3, 4, 5]
    assert world.memory.begun == [NOW - 3600 - POLICY.horizon]


def test_a49_keys_that_nobody_can_tell_make_the_backlog_old() -> None:
    """Promise (A38): what could not be looked at for longer than an outage may last may be as old as anything."""
    world = World(4, committed=(2, ""), stamped=False)
    action = world.run(until=Peek)
    assert world.reader.failed(action, world.now)
    world.now += POLICY.max_hold + 1
    assert world.reader.failed(world.run(until=Peek), world.now)
    world.now += POLICY.max_hold + 1
    assert world.read() == [2, 3]
    assert world.memory.begun == [NOW - POLICY.max_lag - POLICY.horizon]


def test_a_look_that_fails_is_made_again() -> None:
    """Promise (A38): what must be known to begin is asked for until there is an answer."""
    world = World(4, committed=(2, ""), stamped=False)
    assert world.reader.failed(world.run(until=Peek), world.now)
    waiting = world.run()
    assert waiting.until > world.now
    world.now = waiting.until
    assert world.read() == [2, 3]


def test_a_client_that_leaves_the_log_while_it_is_read_again_begins_again() -> None:
    """Promise (A39): retention that outruns the rebuild moves the client; what is gone counts as gone."""
    world = World(8, committed=(6, ""))
    world.verdicts = {3: DOWN}
    world.run()
    world.first, world.records = 5, world.records[5:]
    world.reader.pending.clear()
    world.position, world.verdicts = 5, {}
    world.now += POLICY.max_hold + 1
    assert world.read() == [6, 7]
    assert len(world.memory.begun) == 2


@pytest.mark.parametrize("want", [1, 2, None])
def test_what_was_taken_comes_before_what_the_client_moved_on_to(want: int | None) -> None:
    """Promise: where the client moves on by itself nothing is passed over that it had given before."""
    world = World(6)
    world.run(want)
    taken = offsets([*world.reader.ready, *world.reader.pending])
    world.position, world.first = 9, 9
    world.records, world.end = [Record(9), Record(10)], 11
    found: list[int] = []
    for _ in range(12):
        found += world.read(want)
    assert found == [*taken, 9, 10]
    assert world.reader.judged() == 11


def test_a_group_that_begins_reads_all_that_is_left() -> None:
    """Promise (A18): a reader that has delivered nothing forgets nothing, so retention costs it nothing."""
    for stamped in (True, False):
        world = World(4, first=2, stamped=stamped)
        assert world.read() == [2, 3]
        assert world.memory.begun[-1] <= NOW - POLICY.horizon


def test_retention_that_takes_what_is_to_be_read_again_makes_it_begin_again() -> None:
    """Promise (A39): what is gone before it was remembered raises the floor, as if it had been gone before."""
    world = World(6, committed=(4, ""))
    recall = world.run(until=Recall)
    world.first, world.records = 2, world.records[2:]
    world.carry_out(recall)
    assert world.read() == [4, 5]
    assert len(world.memory.begun) == 2
    assert world.memory.begun[1] > world.memory.begun[0]


def test_a_seek_back_before_the_end_is_known_skips_nothing() -> None:
    """Promise (A46): going back from a position that was not confirmed yet says nothing of what others were given."""
    world = World(8, committed=(5, ""), stamped=False)
    world.reader.next(world.now, world.position)
    assert world.reader.judged() is None
    world.reader.sought(4)
    assert not world.reader._has_skipped
    world.reader.sought(7)
    assert world.reader._has_skipped


@pytest.mark.parametrize("stamped", [True, False])
def test_what_retention_costs_is_announced(*, stamped: bool) -> None:
    """Promise (R4): where retention has overtaken a commit a warning says how much is gone, and up to when it costs."""
    world = World(8, committed=(2, ""), first=5, stamped=stamped)
    assert world.read() == [5, 6, 7]
    (note,) = [note for note in world.reader.notes if note.remedy is not None]
    assert (note.event, note.fields["first"], note.fields["gone"]) == ("replay.cut", 5, 3)
    assert note.fields["stale_below"] == world.memory.begun[-1]
    world = World(8, committed=(5, ""), stamped=stamped)
    assert world.read() == [5, 6, 7]
    assert all(note.remedy is None for note in world.reader.notes)


def test_a_commit_that_came_after_the_clients_own_question_is_where_to_go_on() -> None:
    """Promise (A17): of what another member committed meanwhile nothing is delivered again."""
    world = World(6, committed=(1, ""))
    world.committed = 3, ""
    world.position = 1
    assert world.read() == [3, 4, 5]


def test_a_position_beyond_what_another_member_committed_is_the_callers() -> None:
    """Promise: a caller who sought is not taken elsewhere."""
    world = World(6, committed=(1, ""))
    world.position = 4
    world.reader.sought(4)
    assert world.read() == [4, 5]


# Checkpoints


def test_a_commit_tells_from_where_to_read_again() -> None:
    """Promise (R3): a successor reads what the line says, and not the whole window."""
    world = World(10, grouped=True)
    world.memory.needed = 6
    assert world.read(8) == [*range(8)]
    line = read_line(world.reader.metadata(8))
    assert line is not None
    assert line[0] == TAG
    successor = World(10, committed=(8, f"w1 {TAG} 0 {NOW - 400} 8 6 8:{NOW}"), grouped=True)
    assert successor.read() == [8, 9]
    assert successor.recalled() == [6, 7]
    assert NOW - 400 <= successor.memory.begun[-1] <= NOW - POLICY.horizon


def test_however_much_is_read_a_commit_says_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (R3): checkpoints are thinned out, and each offset still has one that a successor believes."""
    monkeypatch.setattr(partition, "SPACING", 2)
    world = World(600, grouped=True)
    got: list[int] = []
    while len(got) < 600:
        world.memory.needed = max(0, len(got) - 100)
        got += world.read(2)
    assert got == [*range(600)]
    for offset in range(0, 601, 7):
        line = read_line(world.reader.metadata(offset))
        assert line is not None
        assert line[1].at <= offset
        assert offset - line[1].at <= 300


@pytest.mark.parametrize("metadata", ["", "someone else's", f"w1 {TAG} 0 {NOW + 4000} 8 6", f"w1 {TAG} 0 {NOW} 9 6"])
def test_what_cannot_be_believed_in_a_commit_is_left_alone(metadata: str) -> None:
    """Promise (K7): other metadata, a floor from a clock that was wrong, a place behind the commit: the window then."""
    world = World(10, committed=(8, metadata))
    assert world.read() == [8, 9]
    assert world.recalled() == [*range(8)]


def test_a_log_that_was_emptied_costs_only_what_was_handed_over() -> None:
    """Promise (A46): a checkpoint says up to when that was issued; what is issued later comes through."""
    world = World(10, committed=(8, f"w1 {TAG} 0 {NOW - 400} 8 2 4:{NOW - 90} 8:{NOW - 50}"), first=8, grouped=True)
    assert world.read() == [8, 9]
    assert NOW - 50 < world.memory.begun[-1] <= NOW - 40


@pytest.mark.parametrize(
    ("grouped", "leased", "committed", "observing", "commits"),
    [
        (True, True, None, False, [0]),
        (True, True, (2, ""), False, [2]),
        (True, False, None, False, [0]),
        (True, False, (2, ""), False, []),
        (True, True, None, True, []),
        (False, False, None, False, []),
    ],
)
def test_the_first_commit_comes_before_the_first_record(
    committed: tuple[int, str] | None, commits: list[int], *, grouped: bool, leased: bool, observing: bool
) -> None:
    """Promise (R3): no group that has read counts as new; who commits by itself does so at each beginning."""
    world = World(4, committed=committed, grouped=grouped, leased=leased, observing=observing)
    world.run()
    assert [action.offset for action in world.done if isinstance(action, Commit)] == commits
    if commits:
        kinds = [type(action) for action in world.done]
        assert kinds.index(Commit) < kinds.index(Judge)
        assert world.committed is not None
        assert (read_line(world.committed[1]) or (None,))[0] == TAG


# Seeks and assignments


def test_a_seek_back_by_one_reads_that_one_again_and_nothing_else() -> None:
    """Promise: what was judged and not handed over keeps its verdict; only what was handed over comes again."""
    world = World(6, committed=None)
    assert world.read(6)[:1] == [0]
    world = World(6)
    world.run(6)
    assert offsets(world.reader.hand_over(2)) == [0, 1]
    world.done = []
    seek_back(world)
    assert world.read(1) == [1]
    assert offsets([r for action in world.did(Judge) for r in action.records]) == [1]
    assert world.read(9) == [2, 3, 4, 5]
    assert world.did(Judge) == []
    assert len(world.memory.begun) == 1


def test_seeks_back_one_after_the_other_lose_nothing() -> None:
    """Promise: the verdicts on what nobody has got yet stay, however often the caller goes back behind them."""
    world = World(6)
    world.run(6)
    assert offsets(world.reader.hand_over(4)) == [0, 1, 2, 3]
    for back in (3, 1, 2):
        world.position = back
        world.reader.sought(back)
    assert world.read(1) == [2]
    world.position = 0
    world.reader.sought(0)
    got: list[int] = []
    while len(got) < 6:
        got += world.read(6)
    assert got == [*range(6)]
    assert len(world.memory.begun) == 1


def test_a_seek_while_the_partition_comes_back_wins() -> None:
    """Promise (A17): a caller who seeks before the client has found its position gets what was sought."""
    for place in (1, None, 5):
        world = World(6)
        world.run(6)
        world.reader.hand_over(2)
        world.committed = 2, ""
        rebalance(world)
        world.position = place
        world.reader.sought(place)
        if place is None:
            assert isinstance(world.run(), Wait)
            world.position = 3
        assert world.read() == [*range(place or 3, 6)]


def test_a_seek_beyond_what_is_remembered_begins_again() -> None:
    """Promise (A14): going forward over records, or back behind the memory, lets no copy in."""
    world = World(9, committed=(4, ""))
    world.memory.needed = 4
    assert world.read(1) == [4]
    world.done = []
    world.position = 8
    world.reader.sought(8)
    assert world.read() == [8]
    assert {4, 5, 6, 7} <= set(world.recalled())
    world.position = 0
    world.reader.sought(0)
    assert world.read(1) == [0]
    assert len(world.memory.begun) == 3


def test_a_partition_that_comes_back_goes_on_where_it_stood() -> None:
    """Promise: a rebalance that changes nothing reads nothing again, and what was judged is handed over as new."""
    world = World(6)
    world.run(6)
    assert offsets(world.reader.hand_over(2)) == [0, 1]
    world.done = []
    world.committed = 2, ""
    rebalance(world)
    assert not world.reader.is_reading
    world.position = None
    assert isinstance(world.run(), Wait)
    assert not world.reader.is_reading
    world.position = 2
    assert world.read(9) == [2, 3, 4, 5]
    assert world.did(Judge) == []
    assert len(world.memory.begun) == 1


@pytest.mark.parametrize("position", [0, 1, 3, 5])
def test_a_partition_that_comes_back_elsewhere_is_read_again(position: int) -> None:
    """Promise (A14, A17): where another member continued, or did not come as far, the memory begins again there."""
    world = World(6)
    world.run(6)
    world.reader.hand_over(2)
    world.done = []
    world.committed = position, ""
    rebalance(world)
    assert world.read() == [*range(position, 6)]
    assert world.recalled() == [*range(position)]
    assert len(world.memory.begun) == 2


def test_a_partition_that_was_lost_is_forgotten() -> None:
    """Promise: another owner may meanwhile have handed over more, so nothing that was known counts."""
    world = World(6, grouped=True)
    assert world.read(3) == [0, 1, 2]
    world.reader.lost()
    assert world.reader.metadata(6) == ""
    assert not world.reader.ready
    world.committed = 3, ""
    rebalance(world)
    assert world.read() == [3, 4, 5]


def test_records_that_are_gone_are_gone_over() -> None:
    """Promise: where the client continues behind what compaction or retention took, so does the machine."""
    world = World(2)
    assert world.read() == [0, 1]
    world.records, world.end = [Record(4), Record(5)], 6
    assert world.read() == [4, 5]
    world.records, world.first, world.end, world.position = [Record(9)], 9, 10, 9
    assert world.read() == [9]
    assert world.reader.judged() == 10


# Judging


def test_nothing_is_read_again_where_a_store_is_shared() -> None:
    """Promise: a store that a group shares remembers, so its readers go on at once, and say nothing in commits."""
    world = World(4, committed=(2, ""), shared=True, grouped=True)
    assert world.read() == [2, 3]
    assert {type(action) for action in world.done} == {Take, Judge}
    assert world.reader.metadata(4) == ""


def test_at_most_so_many_are_judged_at_once() -> None:
    """Promise: however much was fetched, other tasks get their turns: no more is taken, or judged, in one."""
    world = World(2 * TOGETHER + 7)
    assert [offset for _ in range(3) for offset in world.read()] == [*range(2 * TOGETHER + 7)]
    assert {action.most for action in world.done if isinstance(action, Take)} == {TOGETHER}
    judged = [len(action.records) for action in world.did(Judge)]
    assert max(judged) == TOGETHER
    assert sum(judged) == 2 * TOGETHER + 7


def test_no_more_is_taken_and_judged_than_is_wanted() -> None:
    """Promise: what a caller did not ask for stays with the client."""
    world = World(9)
    assert world.read(2) == [0, 1]
    assert world.read(3) == [2, 3, 4]
    assert [len(action.records) for action in world.did(Judge)] == [2, 3]


def test_what_is_rejected_is_told_once_and_passed() -> None:
    """Promise: the driver gets each rejected message once, and the position continues behind it."""
    world = World(4)
    world.verdicts = {0: FORGED, 2: FORGED, 3: FORGED}
    assert world.read() == [1]
    assert [one[0].value for one in world.reader.dropped] == [b"0", b"2", b"3"]
    assert world.reader.judged() == 4


def test_behind_one_that_cannot_be_judged_the_others_wait() -> None:
    """Promise: what is before it is handed over; it is tried again, alone, until there is a verdict."""
    world = World(5)
    world.verdicts = {2: DOWN}
    waiting = world.run()
    assert isinstance(waiting, Wait)
    assert world.failures[-1] is DOWN
    assert offsets(world.reader.hand_over()) == [0, 1]
    assert world.reader.judged() == 2
    world.now, world.done, world.verdicts = waiting.until, [], {}
    assert world.read() == [2, 3, 4]
    assert [len(action.records) for action in world.did(Judge)] == [1, 2]


@pytest.mark.parametrize("in_quarantine", [True, False])
def test_an_outage_gives_up_in_the_end_if_a_copy_is_kept(*, in_quarantine: bool) -> None:
    """Promise (A38): after max_hold the message is passed over, remembered by its claims; or held, if no copy is."""
    world = World(3)
    world.verdicts, world.in_quarantine = {0: DOWN}, in_quarantine
    assert isinstance(world.run(), Wait)
    world.now += POLICY.max_hold + 1
    action = world.run(until=Keep)
    assert action.message.value == b"0"
    world.carry_out(action)
    if in_quarantine:
        assert world.read() == [1, 2]
        assert world.memory.passed == [0]
    else:
        assert world.failures[-1] is DOWN
        assert isinstance(world.run(), Wait)
        assert (world.reader.judged(), world.memory.passed) == (0, [])


def test_a_rebuild_that_cannot_judge_is_held_and_goes_on() -> None:
    """Promise (A38): what passed before and has no verdict holds for max_hold; then its claims are remembered."""
    world = World(4, committed=(3, ""))
    world.verdicts = {1: DOWN}
    assert isinstance(world.run(), Wait)
    assert world.failures
    assert not world.reader.is_reading
    world.now += POLICY.max_hold + 1
    assert world.read() == [3]
    assert world.memory.passed == [1]


def test_only_a_caller_who_takes_records_quickly_gets_them_judged_ahead() -> None:
    """Promise: a caller who takes its time gets each verdict fresh; one that hurries gets up to FARTHEST at once."""
    world, got = World(1_000), []
    for _ in range(10):
        got.append(world.reader.look_ahead(world.now))
        world.read(got[-1])
        world.now += BRISK / 2
    assert got[0] == 1
    assert got[1:] == [2, 4, 8, 16, 32, 64, 128, 128, 128]
    assert max(got) == FARTHEST
    assert [world.reader.look_ahead(world.now + later) for later in range(1, 6)] == [32, 8, 2, 1, 1]


def test_old_verdicts_are_looked_at_once_more() -> None:
    """Promise (A23, A51): after a second, or hours asleep, a record is handed over only if its verdict still holds."""
    world = World(4)
    world.run(4)
    world.now += 8 * 3600.0
    assert not world.reader.is_fresh(world.now)
    world.verdicts = {1: FORGED}
    assert world.read(4) == [0, 2, 3]
    assert [one[0].value for one in world.reader.dropped] == [b"1"]
    assert [len(action.entries) for action in world.did(Renew)] == [4]


def test_an_outage_while_old_verdicts_are_looked_at_holds_them() -> None:
    """Promise (A35): nothing goes out on an old verdict, and after max_hold what has none goes into quarantine."""
    world = World(2)
    world.run(2)
    world.now += 2 * FRESH
    world.verdicts = {0: DOWN}
    waiting = world.run(2)
    assert isinstance(waiting, Wait)
    assert world.failures[-1] is DOWN
    assert not world.reader.is_fresh(world.now)
    world.now += POLICY.max_hold + 1
    action = world.run(2, until=Keep)
    assert action.message.value == b"0"
    world.carry_out(action)
    world.verdicts = {}
    assert world.read(2) == [1]


def test_what_the_caller_still_has_is_not_handled() -> None:
    """Promise (A41): the offset to commit stays at the first record that its caller may still be working on."""
    world = World(4)
    assert world.read(2) == [0, 1]
    assert (world.reader.judged(), world.reader.handled()) == (2, 0)
    world.reader.all_handled()
    assert world.reader.handled() == 2
    world.run(2)
    given = world.reader.hand_over(2)
    world.reader.give_back(given[1:])
    assert (world.reader.judged(), world.reader.handled()) == (3, 2)
    assert world.reader.hand_over(0) == []


def test_nothing_is_handed_over_where_nothing_is_ready() -> None:
    """Promise (A41): a caller who asks too early gets nothing, and has nothing to be done with."""
    world = World(2)
    assert world.reader.hand_over() == []
    assert world.read() == [0, 1]
    world.reader.all_handled()
    assert world.reader.handled() == 2


def test_a_look_that_fails_for_longer_than_an_outage_may_take_passes_by() -> None:
    """Promise (A38): a key source that stays down holds no partition forever, at its beginning neither."""
    world = World(4, committed=(2, ""), stamped=False)
    for _ in range(100):
        action = world.run(until=Peek)
        if not isinstance(action, Peek):
            break
        assert world.reader.failed(action, world.now)
        waiting = world.next()
        if not isinstance(waiting, Wait) or waiting.until <= world.now:
            break
        world.now = waiting.until
    assert world.reader.pending == deque()
    assert world.now > 1_000.0 + POLICY.max_hold


def test_what_a_shared_store_does_not_answer_for_is_given_up_too() -> None:
    """Promise (A38): where a store is shared there is no memory of ours to tell, and the outage ends all the same."""
    world = World(2, shared=True)
    world.verdicts = {0: DOWN}
    for _ in range(100):
        waiting = world.run()
        if world.reader.ready:
            break
        assert isinstance(waiting, Wait)
        world.now = waiting.until
    assert world.read() == [1]
    assert world.memory.passed == []


def test_what_observing_hands_over_without_a_verdict_is_remembered_as_such() -> None:
    """Promise (A38): in observe mode a message that could not be judged goes out, and its claims are known."""
    world = World(2, observing=True)
    world.verdicts = {0: ObservedMessage(message(0), Unavailable("keys"))}
    assert world.read() == [0, 1]
    assert world.memory.passed == [0]
