"""The state machine of one reader of one partition. It does no I/O: events go in, the next action comes out.

    assigned, sought, or moved by the client
        |
        v
    PLACING     fetch the group's commit and the log's first offset; look at the record at the position;
        |       find the offset to re-read from. Then the replay memory begins, with a floor.
        v
    RECALLING   re-read [since, resume) only to fill the memory. If retention deletes part of it: back to PLACING.
        |
        v
    READING     taken -> pending -> judged -> ready -> handed over -> handled -> committed
                an outage holds the first pending record, or gives it up to quarantine (see ``endings``)

A driver calls ``next`` for the next action, performs it, and reports the result with ``answered``. At most one action
runs at a time, and it is never cancelled: a caller that stops waiting leaves it running. If the caller seeks, or the
partition moves to another member, the action still runs to its end, because it may be writing to the memory, and its
result is discarded. Results are discarded in one place only: ``answered``.

The log is consumed in three steps, so in offset order come ``ready`` (judged, not yet handed over), ``pending`` (taken,
not yet judged), and the client's own position. Everything before the offset ``judged`` was handed over or rejected:
a commit may go that far, and reading resumes there after a restart.

docs/replay.md has the rules of the memory: floors, checkpoints, and records that retention may have deleted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice, repeat
from math import inf, nextafter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from watchword.checkpoint import Checkpoint, Trail, read_line
from watchword.endings import Ending, Endings
from watchword.errors import Reason, Rejected, Unavailable
from watchword.looks import Looks
from watchword.message import ObservedMessage, VerifiedMessage, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.message import Message
    from watchword.policy import Policy

FRESH: Final = 1.0
"""Seconds for which a verdict is valid: a record handed over later is judged again, as its key may be revoked."""

FARTHEST: Final = 128
"""The most records judged ahead of a caller that takes one at a time."""

BRISK: Final = 0.05
"""Seconds within which a caller must take the records judged ahead, for more to be judged ahead next time."""

TOGETHER: Final = 256
"""Records judged at once: enough for several full Merkle trees, so that each leaf is hashed only once."""

RECALLED: Final = 256
"""Records taken at once while re-reading for the memory."""

SPACING: Final = 1000
"""The most records judged between two checkpoints."""

UNSETTLED: Final = frozenset(
    {
        Reason.FROM_FUTURE,
        Reason.UNKNOWN_KEY,
        Reason.WRONG_PRINCIPAL,
        Reason.KEY_NOT_VALID,
        Reason.OVER_QUOTA,
        Reason.NOT_PERMITTED,
        Reason.RATE_LIMITED,
        Reason.CONTAINED,
        Reason.NOT_TRUSTED,
    }
)
"""Rejections that another member may decide otherwise, before or after: its clock, keys and policy may differ."""

REMEMBERED: Final = frozenset({Reason.NOT_PERMITTED, Reason.RATE_LIMITED, Reason.CONTAINED, Reason.NOT_TRUSTED})
"""Rejections that come after the id was remembered."""

BLOCKED: Final = 10.0
"""Seconds for which placing waits for an open transaction to end, to see the records after it."""

SLICES: Final = 32
"""The fewest checkpoints taken per horizon (the time for which an id must be remembered), while records arrive."""


class Placed(Protocol):
    """A client's record, of which the state machine needs only the offset."""

    @property
    def offset(self) -> int:
        """The record's offset; the driver has checked it against the range of its batch."""
        ...


R = TypeVar("R", bound=Placed)
Verdict: TypeAlias = "VerifiedMessage | ObservedMessage | Rejected | Unavailable"


class Memory(Protocol):
    """The part of this log's replay guard that the state machine uses; times are in seconds since the epoch."""

    def begin(self, *, floor: float) -> None:
        """Forget everything; messages issued before ``floor`` are stale from now on."""
        ...

    def pass_time(self, time: float) -> None:
        """Advance log time: a record appended at ``time`` or later was judged, whatever the verdict."""
        ...

    def floor(self) -> float:
        """Return the floor for all principals."""
        ...

    def lowest_needed(self) -> int | None:
        """Return an offset before which there is no id that must still be remembered; None if no id is known."""
        ...

    def remember_unjudged(self, message: Message) -> None:
        """Remember a message that is passed over without a verdict."""
        ...


class Ready(NamedTuple, Generic[R]):
    """A record that may be handed over, its verdict, and the index ``at`` of its message in ``messages``."""

    record: R
    messages: Sequence[Message]
    at: int
    verdict: VerifiedMessage | ObservedMessage

    @property
    def message(self) -> Message:
        """The message; it may be built on first access, and is the same object each time."""
        return self.messages[self.at]


class Located(NamedTuple):
    """The broker's answer about a partition: the group's commit with its metadata, if any, and the first offset."""

    committed: tuple[int, str] | None
    first: int


class Found(NamedTuple):
    """The first record at or after a time: its offset, and the time in seconds since the epoch."""

    offset: int
    stamp: float


# Actions. Each is compared by identity, so that a result matches exactly the action that was returned.


@dataclass(frozen=True, slots=True, eq=False)
class Locate:
    """Ask the broker for the group's commit and the first offset; the answer is Located."""


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """Ask for the first record at or after ``time``, seconds since the epoch; the answer is Found or None."""

    time: float


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """Take at most ``most`` of the records that the client has fetched; the answer is Taken."""

    most: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Peek(Generic[R]):
    """Run checks 1 to 7 on records without remembering them; the answer is the issue times of those that passed."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Recall(Generic[R]):
    """Remember records in order, up to the first that cannot be judged; the answer is Recollected."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Judge(Generic[R]):
    """Judge records in order, up to the first that cannot be judged; the answer is Judged."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Renew(Generic[R]):
    """Judge ready records again; the answer is a list with None (still valid) or the new verdict for each in order.

    It ends with the first that cannot be judged.
    """

    entries: Sequence[Ready[R]]


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """Quarantine a message that could not be judged; the answer is True if the quarantine has it."""

    message: Message
    verdict: Unavailable


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """Commit ``offset`` with our metadata; the answer is None once the broker has it."""

    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Seek:
    """Move the client's position; no answer."""

    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Wait:
    """Do nothing until the next event, or until the time ``until``."""

    until: float = inf


Action: TypeAlias = "Locate | LookUp | Take | Peek[R] | Recall[R] | Judge[R] | Renew[R] | Keep | Commit | Seek | Wait"


class Taken(NamedTuple, Generic[R]):
    """Records taken from the client, and the client's position after them."""

    records: Sequence[R]
    position: int | None


class Judged(NamedTuple):
    """The records' messages, and the verdicts on them, which may be fewer; ``begun`` is when judging began."""

    messages: Sequence[Message]
    verdicts: Sequence[Verdict]
    begun: float


class Recollected(NamedTuple):
    """How many records were remembered, and the next message if that one could not be judged."""

    done: int
    undetermined: Message | None


class Note(NamedTuple):
    """An event for the operator's log, with its numbers; a warning if it has a ``remedy``."""

    event: str
    fields: dict[str, float | None]
    remedy: str | None = None


class _Stage(Enum):
    PLACING = auto()
    RECALLING = auto()
    READING = auto()
    RETURNING = auto()
    """The partition was assigned to this member again: its state is still valid if the position is unchanged."""


class PartitionReader(Generic[R]):
    """The state of one reader of one partition.

    ``stamp`` returns when the broker appended a record, in seconds since the epoch, or None where the producer set
    the time. ``clock`` is the wall clock, in seconds since the epoch; ``now``, in every method, is in seconds of a
    clock that never steps back and keeps running while the machine sleeps. ``memory`` is None where a shared store
    remembers the ids: then nothing is re-read. ``tag`` names this memory in checkpoints. While ``observing``, every
    record is handed over, and checkpoints are neither written nor trusted; call ``sought`` after changing it. A reader
    in a group (``grouped``) commits its first position before it hands anything over, so that a group that has read
    never counts as new; one that commits automatically (``leased``) commits at the start of each assignment.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        stamp: Callable[[R], float | None],
        clock: Callable[[], float],
        endings: Endings,
        memory: Memory | None,
        tag: str,
        grouped: bool = False,
        leased: bool = False,
        observing: bool = False,
    ) -> None:
        self._policy: Final = policy
        self._stamp: Final = stamp
        self._clock: Final = clock
        self._endings: Final = endings
        self._memory: Final = memory
        self._grouped: Final = grouped
        self._leased: Final = leased
        self.observing = observing
        self._tag = tag
        # The action under way, and where the client should be.
        self._doing: Action[R] | None = None
        self._is_stale = False
        self._expected: int | None = None
        self._seek_to: int | None = None
        # Placing: reading resumes at ``_resume``; before the client moved, it was to resume at ``_meant``.
        # Where the floor depends on it, the backlog up to ``_backlog_end`` is searched for its earliest issue time.
        self._stage = _Stage.PLACING
        self._is_new = True
        self._has_skipped = False
        self._end: int | None = None
        self._readable: int | None = None
        self._located: Located | None = None
        self._lowest_issued = inf
        self._backlog_end: int | None = None
        self._blocked_since: float | None = None
        self._floor = -inf
        self._must_commit = False
        self._resume = self._meant = self._since = self._recalled = 0
        self.looks = Looks()
        # Reading.
        self.pending: deque[R] = deque()
        self.ready: deque[Ready[R]] = deque()
        self._ahead: deque[Ready[R]] = deque()
        self._given_up: tuple[Message, Unavailable] | None = None
        self._unhandled: int | None = None
        self._ready_since = self._ready_at = -inf
        self._look_ahead = 1
        # Whether this process has handed anything over, and until when others may have, from here on (None: unknown).
        self._has_given = False
        self._others_until: float | None = None
        self._trail: Final = Trail()
        self._judged_since = 0
        self._point_time = -inf
        # Results that the driver collects.
        self.committed: int | None = None
        self.dropped: list[tuple[Message, Rejected]] = []
        self.notes: list[Note] = []
        self.failure: Unavailable | None = None

    # Questions from the driver

    def next(self, now: float, position: int | None, want: int | None = None) -> Action[R]:
        """Return the next action towards having ``want`` records ready; ``position`` is the client's own."""
        if self._doing is not None or position is None:  # the client will find one, by its commit or its reset policy
            return Wait()
        self.follow(position)
        if self._seek_to is not None:
            self._expected, self._seek_to = self._seek_to, None
            return Seek(self._expected)
        if now < self._endings.retry_at:
            return Wait(self._endings.retry_at)
        action = self._action(now, position, want)
        if not isinstance(action, Wait | Seek):
            self._doing = action
        return action

    def judged(self) -> int | None:
        """Return the offset before which everything was handed over or rejected; None if no position is known."""
        if self._stage is _Stage.PLACING:
            reached = self._expected is not None and self._end is not None and self._resume <= self._end
            return self._resume if reached else None
        if self._stage is not _Stage.READING:
            return self._resume
        if self.ready:
            return self.ready[0].record.offset
        following = self.pending[0].offset if self.pending else self._expected
        if self._ahead and following is not None:  # the client may have left the log's range and resumed after these
            return min(following, self._ahead[0].record.offset)
        return following

    def handled(self) -> int | None:
        """Return the offset before which the caller has handled everything; None if that is not known."""
        judged = None if self._is_new else self.judged()
        return judged if judged is None or self._unhandled is None else min(judged, self._unhandled)

    def metadata(self, offset: int, *, until: float = 0) -> str:
        """Return the metadata for a commit at ``offset``: a checkpoint for the next reader, or an empty string.

        ``until`` is the time up to which the caller may receive records without a later commit; 0 means forever.
        """
        if self._is_at_rest() and self._judged_since and not (self.ready or self._ahead) and offset == self.judged():
            self._add_point(offset)
        checkpoint = None if self.observing else self._trail.latest(offset, until=until)
        return "" if checkpoint is None else checkpoint.line(self._tag)

    def is_fresh(self, now: float) -> bool:
        """Return True if the verdicts on the ready records are recent enough to hand them over."""
        return now - self._ready_since < FRESH and self._stage is _Stage.READING

    def doubt(self) -> None:
        """Have the ready records judged again before they are handed over."""
        self._ready_since = -inf

    def look_ahead(self, now: float) -> int:
        """Return how many records to judge for a caller that takes one at a time, and has taken all that were ready.

        Only a fast caller has many judged ahead: a verdict that grows old costs a second one.
        """
        quick = now - self._ready_at < BRISK
        self._look_ahead = min(2 * self._look_ahead, FARTHEST) if quick else max(1, self._look_ahead // 4)
        return self._look_ahead

    @property
    def is_reading(self) -> bool:
        """Whether the memory is complete, so that records are judged."""
        return self._stage is _Stage.READING

    # Events

    def follow(self, position: int | None) -> None:
        """Follow the client's own position, which the client resets if it is not in the log.

        If it moved forward, records already taken are read first: the log may no longer have them.
        """
        if position is None or position == self._expected or self._doing is not None or self._seek_to is not None:
            return
        moved_on = self._stage is _Stage.READING and self._expected is not None and position > self._expected
        if not (moved_on and (self.ready or self.pending or self._is_before_ahead(position))):
            self._on_moved(position)

    def looked(self, asked: float, end: int, answered: float, *, stable: int | None = None) -> None:
        """Record the log's ``end`` (the high watermark), asked and answered at these wall-clock times in seconds.

        ``stable`` is the last stable offset for a client that reads committed records only: it gets none after that.
        """
        self._end = end
        self._readable = end if stable is None else stable
        self.looks.add(asked, end, answered)
        judged = self.judged()
        if judged is not None:
            self.looks.prune(judged)

    def assigned(self) -> None:
        """Begin an assignment; state from an earlier one is kept, and used if the position is the same."""
        kept = self.judged()
        if self._is_at_rest() and kept is not None:
            self.pending.clear()
            self._stage, self._resume, self._must_commit = _Stage.RETURNING, kept, self._leased
        else:
            self._forget_assignment()
            self._restart(None)
        self._expected = self._seek_to = self._unhandled = self.committed = self._end = None
        self._is_new = True

    def sought(self, offset: int | None) -> None:
        """Follow the caller's seek to ``offset``, which is None while the client has yet to look it up."""
        # While the log's end is unknown the position may be beyond it: the records before were to be read anyway.
        reached = self._resume if self.judged() is None and self._expected is not None else self.judged()
        self._is_new = self._has_skipped = False
        self._unhandled = None
        if offset is not None and self._remembers(offset):
            # Verdicts on records not yet handed over are kept: judged again, they would count as delivered before.
            if not self._ahead:
                self._ahead, self.ready = self.ready, deque()
            self.ready.clear()
            self.pending.clear()
            self._trail.forget(offset)
            self._ready_since = self._ready_at = -inf
            self._expected, self._seek_to = offset, None
            return
        if self._stage is _Stage.RETURNING:
            self._forget_assignment()
        self._restart(offset)
        if offset is None or reached is None or offset > reached:
            self._note_skipped()

    def lost(self) -> None:
        """End the assignment: the partition now belongs to another member."""
        self._forget_assignment()
        self._restart(None)
        self.looks = Looks()

    def hand_over(self, most: int | None = None) -> list[Ready[R]]:
        """Return the first ready records; they count as unhandled until ``all_handled``."""
        if not self.ready:
            return []
        if self._unhandled is None:
            self._unhandled = offset = self.ready[0].record.offset
            self._trail.begin_batch(offset)
        self._has_given = True
        count = len(self.ready) if most is None else min(most, len(self.ready))
        given = [self.ready.popleft() for _ in range(count)]
        self._trail.rise(max([_issued_at(entry.verdict) for entry in given], default=-inf))
        return given

    def give_back(self, entries: Sequence[Ready[R]]) -> None:
        """Take back the last records that ``hand_over`` returned."""
        self.ready.extendleft(reversed(entries))

    def all_handled(self) -> None:
        """Note that the caller has handled all the records handed to it."""
        self._unhandled = None

    def failed(self, action: Action[R], now: float) -> bool:
        """Note that an action failed, to be retried later. Return False if its result is no longer needed."""
        current = self._is_current(action)
        if current and isinstance(action, Peek):
            held = self._endings.remembered(now, complete=False, observing=self.observing) is Ending.HOLD
            if not held:  # its issue time is unknown, so it may be arbitrarily old
                self._on_peeked([-inf])
        elif current:
            self._endings.hold(now)
        return current

    def answered(self, action: Action[R], answer: object, now: float) -> None:
        """Take the result of an action; a result for a state that is gone is discarded here, and nowhere else."""
        if not self._is_current(action):
            return
        match action, answer:
            case Take(), Taken():
                self.pending.extend(answer.records)
                self._expected = answer.position
            case Locate(), Located():
                self._endings.release()
                self._on_located(answer)
            case LookUp(), Found() | None:
                self._endings.release()
                self._begin(answer)
            case Commit(), None:
                self._endings.release()
                self._must_commit = False
            case _:
                self._on_verdicts(action, answer, now)

    def _on_verdicts(self, action: Action[R], answer: object, now: float) -> None:
        match action, answer:
            case Peek(), list():
                self._on_peeked(answer)
            case Recall(), Recollected():
                self._on_recalled(answer, now)
            case Judge(), Judged():
                self._on_judged(answer, now)
            case Renew(), list():
                self._on_renewed(action.entries, answer, now)
            case Keep(), bool():
                self._on_kept(action.message, in_quarantine=answer, now=now)
            case _:
                raise TypeError(f"{type(answer).__name__} is not an answer to {type(action).__name__}")

    def _is_current(self, action: Action[R]) -> bool:
        if action is not self._doing:
            raise ValueError(f"{type(action).__name__} was not asked for")
        stale, self._doing, self._is_stale = self._is_stale, None, False
        return not stale

    def _is_at_rest(self) -> bool:
        """Return True if the memory knows exactly the records that were handed over or are ready."""
        under_way = self._doing is not None or self._given_up is not None
        return self._memory is not None and self._stage is _Stage.READING and not under_way

    def _restart(self, position: int | None) -> None:
        """Go back to PLACING at ``position``, or where the client will be; the action under way becomes stale."""
        for queue in (self.pending, self.ready, self._ahead):
            queue.clear()
        self._stage = _Stage.PLACING
        self._is_stale = self._doing is not None
        self._expected = position
        self._resume = self._meant = position or 0
        self._located = self._given_up = self._seek_to = self.failure = None
        self._lowest_issued, self._backlog_end, self._blocked_since, self._floor = inf, None, None, -inf
        self._look_ahead, self._ready_since, self._ready_at = 1, -inf, -inf
        self._endings.doubtful = False
        self._endings.release()

    def _forget_assignment(self) -> None:
        """Forget the state that is valid only while no other member reads."""
        self._trail.clear()
        self._others_until = None

    def _note_skipped(self) -> None:
        """Note that reading resumes after records that we have not judged: other members may have delivered them."""
        self._has_skipped = True
        if self._others_until is not None:
            self._trail.rise(self._others_until + 2 * self._policy.max_skew)

    def _on_moved(self, position: int) -> None:
        """Follow the client: it has found its first position, or left one that is no longer in the log."""
        expected, stage = self._expected, self._stage
        self._expected = position
        if stage is _Stage.RETURNING and position == self._resume:
            self._stage, self._is_new = _Stage.READING, False
            self._others_until = max(self._clock(), self._others_until or -inf)
            if self.ready:
                self._seek_to = self.ready[-1].record.offset + 1
        elif stage is _Stage.RETURNING:
            self._forget_assignment()
            self._restart(position)
        elif stage is _Stage.RECALLING:  # retention has deleted records that were to be re-read
            self._restart(self._resume)
            self._seek_to = self._resume
        elif expected is None:
            self._resume = self._meant = position
        else:
            meant = min(expected, self._meant) if stage is _Stage.PLACING else expected
            self._restart(position)
            if position > meant:
                self._meant = meant
                self._note_skipped()

    # Placing: the offset to re-read from, and the floor

    def _action(self, now: float, position: int, want: int | None) -> Action[R]:
        match self._stage:
            case _Stage.PLACING:
                return self._place(now, position)
            case _Stage.RECALLING:
                return self._recall(position)
            case _:
                return self._read(now, position, want)

    def _place(self, now: float, position: int) -> Action[R]:
        """Return the next action towards a floor and a start for the memory; nothing is judged before these."""
        if self._memory is None:
            self._stage, self._is_new = _Stage.READING, False
            return Wait(-inf)
        if self._located is None:
            return Locate()
        is_seen = self._has_seen_backlog(now, position)
        if not self.pending and self._end != position and not is_seen:  # outside the log's range, or not fetched yet
            return Take(RECALLED)
        elsewhere = self._committed_elsewhere(max(position, self._end or 0))
        if elsewhere is not None:
            self._restart(elsewhere)
            return Seek(elsewhere)
        if self._latest_checkpoint() is not None:
            self._begin(None)
            return Wait(-inf)
        return self._look_for_floor(position, is_seen=is_seen)

    def _look_for_floor(self, position: int, *, is_seen: bool) -> Action[R]:
        """Find a floor where there is no checkpoint, and the first record to re-read for it."""
        floor = self._floor_without_checkpoint(position, is_seen=is_seen)
        if floor is None:
            self._backlog_end = max(self._end or 0, position) if self._backlog_end is None else self._backlog_end
            return Peek([*self.pending])
        self._floor = floor
        return LookUp(max(0.0, floor - 2 * self._policy.max_skew))

    def _committed_elsewhere(self, end: int) -> int | None:
        """Return the group's offset if another member committed it between the client's request and ours."""
        assert self._located is not None  # noqa: S101 - asked before
        committed, first = self._located
        if not self._is_new or committed is None or committed[0] == self._resume:
            return None
        return committed[0] if first <= committed[0] <= end else None

    def _has_seen_backlog(self, now: float, position: int) -> bool:
        """Return True if the backlog's earliest issue time is known, or is already as low as the policy allows."""
        if self._backlog_end is None:
            return False
        if self._lowest_issued <= self._clock() - self._policy.max_lag:
            return True
        if self.pending or position >= self._backlog_end:
            return not self.pending
        if self._readable is None or position < self._readable:
            self._blocked_since = None
            return False
        self._blocked_since = now if self._blocked_since is None else self._blocked_since
        if now - self._blocked_since < BLOCKED:
            return False
        self._lowest_issued = -inf  # records after an open transaction may be arbitrarily old
        return True

    def _on_peeked(self, times: list[float]) -> None:
        """Take the earliest issue time that verified, and move on to the next records; they will be read again."""
        self._lowest_issued = min([self._lowest_issued, *times])
        self.pending.clear()

    def _next_stamp(self) -> float | None:
        """Return the append time of the next record, if the broker stamped it."""
        return self._stamp(self.pending[0]) if self.pending else None

    def _floor_without_checkpoint(self, position: int, *, is_seen: bool) -> float | None:
        """Return a floor where there is no checkpoint; None if it depends on records that were not looked at yet.

        Every fresh record from here on was issued above that floor: it was appended after the next record, or after an
        observation of the log's end. Where neither is known, the earliest issue time in the *whole* backlog counts. If
        only the first records counted, one compromised key and some junk there could make all later records stale.
        """
        assert self._located is not None  # noqa: S101 - asked before
        policy, now, stamp = self._policy, self._clock(), self._next_stamp()
        oldest = now - policy.max_lag
        if self._backlog_end is None:
            if stamp is not None:
                return stamp - policy.horizon
            if not self.pending:  # the broker may stamp the next record, by another clock
                return self.looks.interval(position, now)[0] - policy.max_skew - policy.horizon
            looked = self.looks.interval(self._resume, now)[0]
            if looked > oldest:
                return looked - policy.horizon
            if self._resume <= self._located.first:  # there is nothing to re-read
                return oldest - policy.horizon
        if self._backlog_end is None or not is_seen:
            return None
        lowest = min(self._lowest_issued, self.looks.interval(self._backlog_end, now)[0])
        return max(oldest, lowest) - policy.horizon

    def _committed_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint in the group's commit, unless its floor is in the future: then some clock was wrong."""
        if self._located is None or self._located.committed is None or self.observing:
            return None
        line = read_line(self._located.committed[1])
        believable = line is not None and line[1].floor <= self._clock() + 3 * self._policy.max_skew + 2
        return line[1] if line is not None and believable else None

    def _latest_checkpoint(self) -> Checkpoint | None:
        """Return the latest checkpoint at or below the resume offset, from this process or from the commit."""
        own, line = self._trail.latest(self._resume), self._committed_checkpoint()
        found = [one for one in (own, line) if one is not None and one.at <= self._resume]
        return max(found, key=lambda one: one.at, default=None)

    def _begin(self, found: Found | None) -> None:
        """Begin the memory: every record handed over before the position is below the floor, or is re-read."""
        assert self._located is not None and self._memory is not None and self._expected is not None  # noqa: S101, PT018 - by the stage
        base = self._latest_checkpoint()
        self._learn_from_commit()
        if base is not None:
            floor, since = float(base.floor), base.since
        else:
            floor = self._floor
            since = self._resume if found is None else found.offset
        first = self._located.first
        is_whole = first <= since if base is not None else self._is_whole(found)
        cut = self._retention_floor(is_whole=is_whole)
        if cut > floor:
            gone = max(0, first - self._came_from())
            remedy = "messages issued before stale_below are stale: set a retention longer than readers are ever away"
            self.notes.append(Note("replay.cut", {"first": first, "gone": gone, "stale_below": cut}, remedy))
            floor = cut
        self._since, self._recalled = min(max(since, first), self._resume), 0
        self._memory.begin(floor=floor)
        if self._has_skipped and self._resume > first:  # skipped records may yet be handed over, after a seek back
            self._trail.rise(self._clock() + 2 * self._policy.max_skew)
        self._must_commit = self._grouped and (self._leased or self._located.committed is None) and not self.observing
        self._is_new = self._has_skipped = False
        self._stage = _Stage.RECALLING
        if self._since < self._resume or self._backlog_end is not None or not self.pending:
            self.pending.clear()
            self._seek_to = self._since
            self.notes.append(Note("replay.rebuilding", {"position": self._resume, "since": self._since}))

    def _is_whole(self, found: Found | None) -> bool:
        """Return True if retention has left every record of the window, which begins at the record found by time."""
        assert self._located is not None  # noqa: S101 - by the stage
        first = self._located.first
        return first == 0 or first < (self._resume if found is None else found.offset)

    def _learn_from_commit(self) -> None:
        """Learn, at the start of an assignment, what other members may have handed over, and until when."""
        assert self._located is not None  # noqa: S101 - by the stage
        committed, line, now = self._located.committed, self._committed_checkpoint(), self._clock()
        if self._others_until is not None:
            return
        self._others_until = -inf if committed is None else now
        if line is not None:
            self._trail.follow(line)
            told = read_line(committed[1]) if committed is not None else None
            self._tag = self._tag if told is None else told[0]
            self._others_until = min(now, line.until or now)
        if line is None or (committed is not None and self._resume > committed[0]):
            self._note_skipped()

    def _retention_floor(self, *, is_whole: bool) -> float:
        """Return the lowest floor that makes every record stale that was handed over and that retention deleted."""
        assert self._located is not None  # noqa: S101 - by the stage
        committed, first = self._located
        if committed is None and not self._has_given:
            return -inf
        skew, floor = 2 * self._policy.max_skew, -inf
        behind = self._came_from() < first
        if behind or not is_whole:
            floor = self._trail.issued_below(first) + 1.0
        if behind and self._others_until is not None:
            floor = max(floor, self._others_until + skew)
        stamp = self._next_stamp()
        return floor if stamp is None else min(floor, nextafter(stamp + skew, inf))

    def _came_from(self) -> int:
        """Return where reading was to resume before retention, or the caller, moved the client."""
        committed = None if self._located is None else self._located.committed
        return self._meant if committed is None or not self._is_new else min(self._meant, committed[0])

    def _on_located(self, located: Located) -> None:
        before, self._located = self._located, located
        if self._stage is not _Stage.RECALLING:
            return
        assert before is not None  # noqa: S101 - by the stage
        if located.first > before.first and located.first >= self._since:  # retention deleted records to be re-read
            self._restart(self._resume)
            self._located, self._seek_to = located, self._resume
        else:
            assert self._memory is not None  # noqa: S101 - by the stage
            self._stage = _Stage.READING
            self._trail.add(self._resume, self._memory.floor(), self._since)
            self.notes.append(Note("replay.rebuilt", {"position": self._resume, "recalled": self._recalled}))

    # Recalling and reading

    def _recall(self, position: int) -> Action[R]:
        """Re-read the records that the memory must know, then check that retention deleted none of them meanwhile."""
        if (self.pending[0].offset if self.pending else position) >= self._resume:
            return Locate()
        if not self.pending:
            return Take(RECALLED)
        together = 1 if self._endings.doubtful else RECALLED
        return Recall([record for record in islice(self.pending, together) if record.offset < self._resume])

    def _on_recalled(self, answer: Recollected, now: float) -> None:
        self._pop_recalled(answer.done)
        undetermined = answer.undetermined
        ending = self._endings.remembered(now, complete=undetermined is None, observing=self.observing)
        if ending is Ending.HOLD:
            self.failure = Unavailable("keys", "a message before the position cannot be judged, so the memory waits")
        elif undetermined is not None and self._memory is not None:
            self._memory.remember_unjudged(undetermined)
            self._pop_recalled(1)

    def _pop_recalled(self, count: int) -> None:
        for _ in range(count):
            self.pending.popleft()
        self._recalled += count

    def _read(self, now: float, position: int, want: int | None) -> Action[R]:
        """Return the next action towards having ``want`` records ready."""
        if self._given_up is not None:
            return Keep(*self._given_up)
        if self._must_commit:
            return Commit(self.judged() or 0)
        back, enough = self._is_before_ahead(position), want is not None and len(self.ready) >= want
        is_old = not self.is_fresh(now)
        if self.ready and (is_old or enough or not (back or self.pending)):
            return Renew([*self.ready]) if is_old else Wait()
        if back:
            self.ready.extend(self._ahead)
            self._ahead.clear()
            self.pending.clear()
            self._ready_since = -inf  # the verdicts may be old
            self._expected = self.ready[-1].record.offset + 1
            return Seek(self._expected)
        if not self.pending:
            return Take(TOGETHER if want is None else min(want, TOGETHER))
        left = TOGETHER if want is None else want - len(self.ready)
        last = self._ahead[0].record.offset if self._ahead else inf
        records = islice(self.pending, 1 if self._endings.doubtful else min(TOGETHER, left))
        return Judge([record for record in records if record.offset < last])

    def _is_before_ahead(self, position: int) -> bool:
        """Return True if the next record was already judged, before a seek went back to an earlier offset."""
        offset = self.pending[0].offset if self.pending else position
        return bool(self._ahead) and offset >= self._ahead[0].record.offset

    def _on_judged(self, answer: Judged, now: float) -> None:
        if not self.ready:
            self._ready_since, self._ready_at = answer.begun, now
        if self._endings.delivers(answer.verdicts):
            self._on_delivered(answer, now)
            return
        record = None
        messages = answer.messages
        for at, verdict in enumerate(answer.verdicts):
            ending = self._endings.of(verdict, now)
            if isinstance(verdict, Unavailable):  # the last one
                self._give_up_or_hold(ending, messages[at], verdict)
                break
            record = self.pending.popleft()
            if isinstance(verdict, Rejected):
                self.dropped.append((messages[at], verdict))
                self._note_dropped(record, verdict.reason)
            else:
                self.ready.append(ready := Ready(record, messages, at, verdict))
                self._note_judged(ready)
            self._judged_since += 1
        if record is not None and self._memory is not None:
            self._memory.pass_time(self._appended(record))
        self._add_point_if_due(now)

    def _on_delivered(self, answer: Judged, now: float) -> None:
        """Take verdicts that let everything through; the same as ``_on_judged``, all at once."""
        verdicts = [verdict for verdict in answer.verdicts if isinstance(verdict, VerifiedMessage)]
        records = [self.pending.popleft() for _ in verdicts]
        self.ready.extend(map(Ready, records, repeat(answer.messages), range(len(verdicts)), verdicts))
        self._judged_since += len(verdicts)
        if self._memory is not None:
            times = [verdict.issued_at for verdict in verdicts]
            self._trail.judge(min(times), max(times))
            self._memory.pass_time(self._appended(records[-1]))
        self._add_point_if_due(now)

    def _on_renewed(self, entries: Sequence[Ready[R]], verdicts: Sequence[Verdict | None], now: float) -> None:
        gone: list[Ready[R]] = []
        for entry, verdict in zip(entries, verdicts, strict=False):
            if isinstance(verdict, Unavailable):
                self._give_up_or_hold(self._endings.of(verdict, now), entry.message, verdict)
            elif isinstance(verdict, Rejected):
                self.dropped.append((entry.message, verdict))
                self._note_dropped(entry.record, verdict.reason, known=True)
                gone.append(entry)
        self.ready = deque(entry for entry in self.ready if not any(entry is other for other in gone))
        if self.failure is None and self._given_up is None:
            self._ready_since = self._ready_at = now

    def _give_up_or_hold(self, ending: Ending, message: Message, verdict: Unavailable) -> None:
        if ending is Ending.GIVE_UP:
            self._given_up = message, verdict
        else:
            self.failure = verdict

    def _on_kept(self, message: Message, *, in_quarantine: bool, now: float) -> None:
        assert self._given_up is not None  # noqa: S101 - by the action
        verdict, self._given_up = self._given_up[1], None
        if self._endings.kept(now, in_quarantine=in_quarantine) is Ending.HOLD:
            self.failure = verdict
            return
        if self._memory is not None:
            self._memory.remember_unjudged(message)
        entry = next((entry for entry in self.ready if entry.message is message), None)
        record = self.pending.popleft() if entry is None else entry.record
        if entry is not None:
            self.ready.remove(entry)
        self._note_dropped(record, Reason.UNKNOWN_KEY, known=entry is not None)

    # Checkpoints

    def _remembers(self, offset: int) -> bool:
        """Return True if the memory will recognise the records handed over from ``offset`` on as redelivered."""
        frontier = self._ahead[0].record.offset if self._ahead else self.judged()
        if not self._is_at_rest() or self._memory is None or frontier is None:
            return False
        if not self._resume <= offset <= frontier:  # recalled records would count as delivered before
            return False
        floor = max(self._memory.floor(), self._trail.latest_issue - self._policy.horizon)
        return offset == frontier or self._trail.lowest_from(offset) >= floor

    def _appended(self, record: R) -> float:
        """Return the earliest time at which a record can have been appended, in seconds."""
        stamp = self._stamp(record)
        return self.looks.interval(record.offset, self._clock())[0] if stamp is None else stamp

    def _note_judged(self, ready: Ready[R]) -> None:
        found = verdict_of(ready.verdict)
        if self._memory is None:
            return
        if isinstance(found, VerifiedMessage):
            self._trail.judge(found.issued_at, found.issued_at)
        elif isinstance(found, Unavailable):
            self._memory.remember_unjudged(ready.message)

    def _note_dropped(self, record: R, reason: Reason, *, known: bool = False) -> None:
        """Note that a record was dropped; if it is ``known`` to the memory, a re-read would take it for delivered."""
        if self._memory is None:
            return
        if reason in UNSETTLED:
            self._trail.rise(self._clock() + 2 * self._policy.max_skew)
            self._trail.lower(self._appended(record) - self._policy.max_skew)
        if known or reason in REMEMBERED:
            self._trail.lower(-inf)

    def _add_point_if_due(self, now: float) -> None:
        """Take a checkpoint before the first pending record, if one is due."""
        due = self._judged_since >= SPACING or now - self._point_time >= self._policy.horizon / SLICES
        if self._memory is None or not self._judged_since or not due or self._given_up is not None:
            return
        at = self.pending[0].offset if self.pending else self._expected
        assert at is not None  # noqa: S101 - records were judged
        self._add_point(at)
        self._point_time = now

    def _add_point(self, at: int) -> None:
        assert self._memory is not None  # noqa: S101 - no checkpoint without it
        needed = self._memory.lowest_needed()
        self._trail.add(at, self._memory.floor(), at if needed is None else min(needed, at))
        self._judged_since = 0


def _issued_at(verdict: VerifiedMessage | ObservedMessage) -> float:
    """Return the issue time of a message that verified; minus infinity for any other."""
    found = verdict_of(verdict)
    return found.issued_at if isinstance(found, VerifiedMessage) else -inf
