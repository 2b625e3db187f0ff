"""One reader of one partition, as a machine without I/O: events go in, the next action comes out, time is passed in.

    assigned, sought, or moved by the client
        |
        v
    PLACING     ask for the group's commit and the log's first offset; look at what stands at the position;
        |       look up from where to read again. Then the memory begins, with a floor.
        v
    RECALLING   read [since, resume) for the memory alone. If retention cut into that meanwhile: back to PLACING.
        |
        v
    READING     taken -> pending -> judged -> ready -> handed over -> handled -> committed
                an outage holds the first pending record, or gives it up into quarantine (see ``endings``)

A driver asks ``next`` what to do, does it, and says what came of it with ``answered``. At most one action is under way
at a time, and nobody cancels it: callers who give up leave it running. Meanwhile the caller may seek, or the partition
may go to another member; then the action still runs to its end, because it may be writing to the memory, and its answer
is dropped. That happens in one place: ``answered``.

The client's own position runs ahead: it is behind ``pending`` (taken, not judged), which is behind ``ready`` (judged,
not handed over). ``judged`` is the offset before which everything was handed over or rejected. It is what a commit may
reach, and where reading goes on after a restart.

The rules of the memory (floors, checkpoints, what retention may have taken) are those of docs/replay.md.
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
from watchword.message import ObservedMessage, VerifiedMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.message import Message
    from watchword.policy import Policy

FRESH: Final = 1.0
"""Seconds for which a verdict stands: a record that is taken later is judged once more, for its key may be revoked."""

FARTHEST: Final = 128
"""Records judged ahead of a caller who takes one at a time, at most."""

BRISK: Final = 0.05
"""Seconds in which a caller must have taken what was judged ahead, to get more the next time."""

TOGETHER: Final = 256
"""Records judged at once: some full trees, of which each leaf is hashed but once."""

RECALLED: Final = 256
"""Records taken at once for the memory alone."""

SPACING: Final = 1000
"""Records judged between two checkpoints, at most."""

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
"""Why a record is dropped that another member may have been given, or may be yet: clocks, keys and policies differ."""

REMEMBERED: Final = frozenset({Reason.NOT_PERMITTED, Reason.RATE_LIMITED, Reason.CONTAINED, Reason.NOT_TRUSTED})
"""Why a record is dropped after its id was remembered."""

BLOCKED: Final = 10.0
"""Seconds for which a beginning waits for an open transaction to show what is behind it."""

SLICES: Final = 32
"""Checkpoints in the time for which an id must be known, at least, while records come."""


class Placed(Protocol):
    """What the machine must know of a client's record: where the broker put it."""

    @property
    def offset(self) -> int:
        """Its offset, which the driver has checked against the range of its batch."""
        ...


R = TypeVar("R", bound=Placed)
Verdict: TypeAlias = "VerifiedMessage | ObservedMessage | Rejected | Unavailable"


class Memory(Protocol):
    """The guard of this log, as far as the machine goes."""

    def begin(self, *, floor: float) -> None:
        """Forget everything; what was issued below ``floor`` is stale from now on."""
        ...

    def pass_time(self, time: float) -> None:
        """Note that a record was judged, whatever came of it, that was appended at ``time`` or later."""
        ...

    def floor(self) -> float:
        """Return the floor for all principals."""
        ...

    def lowest_needed(self) -> int | None:
        """Return an offset below which no id stands that is at or above its floor; None if no id is known."""
        ...

    def remember_unjudged(self, message: Message) -> None:
        """Remember a message that passes without a verdict."""
        ...


class Ready(NamedTuple, Generic[R]):
    """A record that may be handed over, the verdict, and where in ``messages`` the message stands that it is."""

    record: R
    messages: Sequence[Message]
    at: int
    verdict: VerifiedMessage | ObservedMessage

    @property
    def message(self) -> Message:
        """The message; it may be made only now, and is the same each time."""
        return self.messages[self.at]


class Located(NamedTuple):
    """What the broker says about a partition: the group's commit with its metadata, if any, and the first offset."""

    committed: tuple[int, str] | None
    first: int


class Found(NamedTuple):
    """The first record at or after a time: its offset, and the time in seconds since the epoch."""

    offset: int
    stamp: float


# What is to be done. An action is known by its identity, so each is made once.


@dataclass(frozen=True, slots=True, eq=False)
class Locate:
    """Ask the broker; the answer is Located."""


@dataclass(frozen=True, slots=True, eq=False)
class LookUp:
    """Ask for the first record at or after ``time``, seconds since the epoch; the answer is Found or None."""

    time: float


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """Take what the client has fetched, at most so many records; the answer is Taken."""

    most: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Peek(Generic[R]):
    """Make checks 1 to 7 of records, and remember nothing; the answer is the times of issue of those that passed."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Recall(Generic[R]):
    """Have records remembered; the answer is how many were, up to one that could not be judged, and its message."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Judge(Generic[R]):
    """Judge records; the answer is messages and verdicts, as far as they go."""

    records: Sequence[R]


@dataclass(frozen=True, slots=True, eq=False)
class Renew(Generic[R]):
    """Judge once more what is ready; the answer is None or the new verdict for each, as far as they go."""

    entries: Sequence[Ready[R]]


@dataclass(frozen=True, slots=True, eq=False)
class Keep:
    """Put a message into quarantine that could not be judged; the answer is True if it is there."""

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
    """Do nothing until something happens, or until the time ``until``."""

    until: float = inf


Action: TypeAlias = "Locate | LookUp | Take | Peek[R] | Recall[R] | Judge[R] | Renew[R] | Keep | Commit | Seek | Wait"


class Taken(NamedTuple, Generic[R]):
    """Records that the client gave, and its position behind them."""

    records: Sequence[R]
    position: int | None


class Judged(NamedTuple):
    """Messages made of records, and the verdicts on them, which may be fewer; ``begun`` is when it began."""

    messages: Sequence[Message]
    verdicts: Sequence[Verdict]
    begun: float


class Recollected(NamedTuple):
    """How many records were remembered, and the message behind these, which could not be judged, if there is one."""

    done: int
    undetermined: Message | None


class Note(NamedTuple):
    """Something that an operator may want to read, with numbers; a warning where there is a ``remedy``."""

    event: str
    fields: dict[str, float | None]
    remedy: str | None = None


class _Stage(Enum):
    PLACING = auto()
    RECALLING = auto()
    READING = auto()
    RETURNING = auto()
    """The partition came back to this member: all is as it was, if its position is."""


class PartitionReader(Generic[R]):
    """What one reader knows of one partition.

    ``stamp`` returns when the broker appended a record, in seconds since the epoch, or None where the producer chose
    the time. ``clock`` is the wall clock, in seconds since the epoch; ``now`` of all methods is of a clock that never
    steps back and goes on while the machine sleeps. ``memory`` is None where a shared store remembers: then nothing is
    read again. ``tag`` names this memory in checkpoints. While ``observing``, which hands everything over, none are
    written or believed; where that changes, the partition is to be ``sought`` again. A reader of a group (``grouped``)
    commits its first position before it hands anything over, so that no group which has read counts as new; one that
    commits by itself (``leased``) commits at each beginning.
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
        # What is under way, and where the client should be.
        self._doing: Action[R] | None = None
        self._is_stale = False
        self._expected: int | None = None
        self._seek_to: int | None = None
        # Placing: ``_resume`` is where reading goes on, ``_meant`` where it was to go on before the client moved.
        # A backlog is looked through for its earliest time of issue up to ``_backlog_end``, if it has to be.
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
        # What was handed over: by this process, and until when by others from here on; None if not known yet.
        self._has_given = False
        self._others_until: float | None = None
        self._trail: Final = Trail()
        self._judged_since = 0
        self._point_time = -inf
        # What the driver collects.
        self.committed: int | None = None
        self.dropped: list[tuple[Message, Rejected]] = []
        self.notes: list[Note] = []
        self.failure: Unavailable | None = None

    # What the driver asks

    def next(self, now: float, position: int | None, want: int | None = None) -> Action[R]:
        """Return what to do, so that ``want`` records are ready; ``position`` is the client's own."""
        if self._doing is not None or position is None:  # the client finds one, by its commit or its policy of resets
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
        """Return the offset before which everything was handed over or rejected; None where no position is known."""
        if self._stage is _Stage.PLACING:
            reached = self._expected is not None and self._end is not None and self._resume <= self._end
            return self._resume if reached else None
        if self._stage is not _Stage.READING:
            return self._resume
        if self.ready:
            return self.ready[0].record.offset
        following = self.pending[0].offset if self.pending else self._expected
        if self._ahead and following is not None:  # the client may have left the log's range, and gone on behind these
            return min(following, self._ahead[0].record.offset)
        return following

    def handled(self) -> int | None:
        """Return the offset before which the caller is done with everything; None where there is nothing to tell."""
        judged = None if self._is_new else self.judged()
        return judged if judged is None or self._unhandled is None else min(judged, self._unhandled)

    def metadata(self, offset: int, *, until: float = 0) -> str:
        """Return what a commit at ``offset`` tells a successor, empty where there is nothing to tell.

        ``until`` is the time up to which the caller may get records without a later commit; 0 for ever.
        """
        if self._is_at_rest() and self._judged_since and not (self.ready or self._ahead) and offset == self.judged():
            self._add_point(offset)
        checkpoint = None if self.observing else self._trail.latest(offset, until=until)
        return "" if checkpoint is None else checkpoint.line(self._tag)

    def is_fresh(self, now: float) -> bool:
        """Return True if what is ready may be handed over."""
        return now - self._ready_since < FRESH and self._stage is _Stage.READING

    def doubt(self) -> None:
        """Have what is ready judged once more before it is handed over."""
        self._ready_since = -inf

    def look_ahead(self, now: float) -> int:
        """Return how many records to judge for a caller who takes one at a time, and has taken all that were ready.

        Only a caller who takes them quickly gets many: what grows old is judged twice.
        """
        quick = now - self._ready_at < BRISK
        self._look_ahead = min(2 * self._look_ahead, FARTHEST) if quick else max(1, self._look_ahead // 4)
        return self._look_ahead

    @property
    def is_reading(self) -> bool:
        """Whether the memory knows all that it must, so that records are judged."""
        return self._stage is _Stage.READING

    # What happens

    def follow(self, position: int | None) -> None:
        """Take note of the client's own position, which moves where it is not in the log.

        Where it moved on, what was taken before comes first: the log may have it no more.
        """
        if position is None or position == self._expected or self._doing is not None or self._seek_to is not None:
            return
        moved_on = self._stage is _Stage.READING and self._expected is not None and position > self._expected
        if not (moved_on and (self.ready or self.pending or self._is_before_ahead(position))):
            self._moved(position)

    def looked(self, asked: float, end: int, answered: float, *, stable: int | None = None) -> None:
        """Take the log's end as a fetch told it, the high watermark; times are of the wall clock.

        ``stable`` is the first offset of an open transaction, behind which the client gets nothing, if it does not.
        """
        self._end = end
        self._readable = end if stable is None else stable
        self.looks.add(asked, end, answered)
        judged = self.judged()
        if judged is not None:
            self.looks.prune(judged)

    def assigned(self) -> None:
        """Begin an assignment; what is known from an earlier one is kept, to be used at the same position."""
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
        """Follow the caller's seek; None where the client is yet to find the offset."""
        # Where the log's end is not known yet the position may be beyond it: what lies before was to be read anyway.
        reached = self._resume if self.judged() is None and self._expected is not None else self.judged()
        self._is_new = self._has_skipped = False
        self._unhandled = None
        if offset is not None and self._remembers(offset):
            # The verdicts on what nobody has got yet stay: judged again, it would pass for delivered before.
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
            self._pass_unseen()

    def lost(self) -> None:
        """End: the partition is another's now."""
        self._forget_assignment()
        self._restart(None)
        self.looks = Looks()

    def hand_over(self, most: int | None = None) -> list[Ready[R]]:
        """Return the first ready records for the caller, who is not done with them before ``all_handled``."""
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
        """Take back the last of what ``hand_over`` returned."""
        self.ready.extendleft(reversed(entries))

    def all_handled(self) -> None:
        """Note that the caller is done with all that it was given."""
        self._unhandled = None

    def failed(self, action: Action[R], now: float) -> bool:
        """Note that an action failed: it is tried again later. Return False if nobody wants it any more."""
        current = self._is_current(action)
        if current and isinstance(action, Peek):
            held = self._endings.remembered(now, complete=False, observing=self.observing) is Ending.HOLD
            if not held:  # it may be as old as anything
                self._on_peeked([-inf])
        elif current:
            self._endings.hold(now)
        return current

    def answered(self, action: Action[R], answer: object, now: float) -> None:
        """Take what came of an action; an answer for a state that is gone is dropped here, and nowhere else."""
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
                raise TypeError(f"{type(answer).__name__} is no answer to {type(action).__name__}")

    def _is_current(self, action: Action[R]) -> bool:
        if action is not self._doing:
            raise ValueError(f"{type(action).__name__} was not asked for")
        stale, self._doing, self._is_stale = self._is_stale, None, False
        return not stale

    def _is_at_rest(self) -> bool:
        """Return True if the memory knows all that was handed over or is ready, and nothing more."""
        under_way = self._doing is not None or self._given_up is not None
        return self._memory is not None and self._stage is _Stage.READING and not under_way

    def _restart(self, position: int | None) -> None:
        """Let the memory begin again at ``position``, or where the client will be; what is under way is in vain."""
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
        """Forget what holds only while no other member reads."""
        self._trail.clear()
        self._others_until = None

    def _pass_unseen(self) -> None:
        """Note that reading goes on behind records that we have not judged: others may have been given them."""
        self._has_skipped = True
        if self._others_until is not None:
            self._trail.rise(self._others_until + 2 * self._policy.max_skew)

    def _moved(self, position: int) -> None:
        """Follow the client: it has found its first position, or left one that is not in the log any more."""
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
        elif stage is _Stage.RECALLING:  # retention has taken what was to be read again
            self._restart(self._resume)
            self._seek_to = self._resume
        elif expected is None:
            self._resume = self._meant = position
        else:
            meant = min(expected, self._meant) if stage is _Stage.PLACING else expected
            self._restart(position)
            if position > meant:
                self._meant = meant
                self._pass_unseen()

    # Placing: from where to read again, and what is too old

    def _action(self, now: float, position: int, want: int | None) -> Action[R]:
        match self._stage:
            case _Stage.PLACING:
                return self._place(now, position)
            case _Stage.RECALLING:
                return self._recall(position)
            case _:
                return self._read(now, position, want)

    def _place(self, now: float, position: int) -> Action[R]:
        """Ask what must be known; nothing is judged before."""
        if self._memory is None:
            self._stage, self._is_new = _Stage.READING, False
            return Wait(-inf)
        if self._located is None:
            return Locate()
        is_seen = self._has_seen_backlog(now, position)
        if not self.pending and self._end != position and not is_seen:  # out of the log's range, or not there yet
            return Take(RECALLED)
        elsewhere = self._committed_elsewhere(max(position, self._end or 0))
        if elsewhere is not None:
            self._restart(elsewhere)
            return Seek(elsewhere)
        if self._base() is not None:
            self._begin(None)
            return Wait(-inf)
        return self._look_for_floor(position, is_seen=is_seen)

    def _look_for_floor(self, position: int, *, is_seen: bool) -> Action[R]:
        """Find a floor where no checkpoint tells one, and the first record that may matter for it."""
        floor = self._floor_without_checkpoint(position, is_seen=is_seen)
        if floor is None:
            self._backlog_end = max(self._end or 0, position) if self._backlog_end is None else self._backlog_end
            return Peek([*self.pending])
        self._floor = floor
        return LookUp(max(0.0, floor - 2 * self._policy.max_skew))

    def _committed_elsewhere(self, end: int) -> int | None:
        """Return the group's offset if it is another member's, which came between the client's question and ours."""
        assert self._located is not None  # noqa: S101 - asked before
        committed, first = self._located
        if not self._is_new or committed is None or committed[0] == self._resume:
            return None
        return committed[0] if first <= committed[0] <= end else None

    def _has_seen_backlog(self, now: float, position: int) -> bool:
        """Return True if the whole backlog was looked through for its earliest time of issue, or may be the oldest."""
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
        self._lowest_issued = -inf  # what is behind an open transaction may be as old as anything
        return True

    def _on_peeked(self, times: list[float]) -> None:
        """Take the earliest time of issue that verified, and look at what comes next; reading comes back later."""
        self._lowest_issued = min([self._lowest_issued, *times])
        self.pending.clear()

    def _next_stamp(self) -> float | None:
        """Return when the next record was appended, if the broker stamped it."""
        return self._stamp(self.pending[0]) if self.pending else None

    def _floor_without_checkpoint(self, position: int, *, is_seen: bool) -> float | None:
        """Return a floor where no checkpoint tells one; None where only the next records can tell.

        Whatever is fresh and comes next was issued above it, for it was appended after the next record, or after a look
        at the log's end. Where neither is known, the earliest time of issue in the *whole* backlog counts: if its first
        records did, one compromised key and some rubbish there would make what lies behind them stale.
        """
        assert self._located is not None  # noqa: S101 - asked before
        policy, now, stamp = self._policy, self._clock(), self._next_stamp()
        oldest = now - policy.max_lag
        if self._backlog_end is None:
            if stamp is not None:
                return stamp - policy.horizon
            if not self.pending:  # the broker may stamp what comes, by another clock
                return self.looks.interval(position, now)[0] - policy.max_skew - policy.horizon
            looked = self.looks.interval(self._resume, now)[0]
            if looked > oldest:
                return looked - policy.horizon
            if self._resume <= self._located.first:  # nothing is there to be read again
                return oldest - policy.horizon
        if self._backlog_end is None or not is_seen:
            return None
        lowest = min(self._lowest_issued, self.looks.interval(self._backlog_end, now)[0])
        return max(oldest, lowest) - policy.horizon

    def _line(self) -> Checkpoint | None:
        """Return the checkpoint in the group's commit, if it can be believed: no clock was wrong."""
        if self._located is None or self._located.committed is None or self.observing:
            return None
        line = read_line(self._located.committed[1])
        believable = line is not None and line[1].floor <= self._clock() + 3 * self._policy.max_skew + 2
        return line[1] if line is not None and believable else None

    def _base(self) -> Checkpoint | None:
        """Return the latest checkpoint at or below where reading goes on, of this process or of the commit."""
        own, line = self._trail.latest(self._resume), self._line()
        found = [one for one in (own, line) if one is not None and one.at <= self._resume]
        return max(found, key=lambda one: one.at, default=None)

    def _begin(self, found: Found | None) -> None:
        """Let the memory begin: what was handed over below the position is below its floor, or is read again."""
        assert self._located is not None and self._memory is not None and self._expected is not None  # noqa: S101, PT018 - by the stage
        base = self._base()
        self._learn()
        if base is not None:
            floor, since = float(base.floor), base.since
        else:
            floor = self._floor
            since = self._resume if found is None else found.offset
        first = self._located.first
        is_whole = first <= since if base is not None else self._is_whole(found)
        cut = self._cut(is_whole=is_whole)
        if cut > floor:
            gone = max(0, first - self._came_from())
            remedy = "what was issued before stale_below is stale: let retention be longer than readers are away"
            self.notes.append(Note("replay.cut", {"first": first, "gone": gone, "stale_below": cut}, remedy))
            floor = cut
        self._since, self._recalled = min(max(since, first), self._resume), 0
        self._memory.begin(floor=floor)
        if self._has_skipped and self._resume > first:  # it may be handed over yet, after a seek back
            self._trail.rise(self._clock() + 2 * self._policy.max_skew)
        self._must_commit = self._grouped and (self._leased or self._located.committed is None) and not self.observing
        self._is_new = self._has_skipped = False
        self._stage = _Stage.RECALLING
        if self._since < self._resume or self._backlog_end is not None or not self.pending:
            self.pending.clear()
            self._seek_to = self._since
            self.notes.append(Note("replay.rebuilding", {"position": self._resume, "since": self._since}))

    def _is_whole(self, found: Found | None) -> bool:
        """Return True if retention has left all within the window, which begins at the record found by its time."""
        assert self._located is not None  # noqa: S101 - by the stage
        first = self._located.first
        return first == 0 or first < (self._resume if found is None else found.offset)

    def _learn(self) -> None:
        """Learn at the beginning of an assignment what others were given, and until when."""
        assert self._located is not None  # noqa: S101 - by the stage
        committed, line, now = self._located.committed, self._line(), self._clock()
        if self._others_until is not None:
            return
        self._others_until = -inf if committed is None else now
        if line is not None:
            self._trail.follow(line)
            told = read_line(committed[1]) if committed is not None else None
            self._tag = self._tag if told is None else told[0]
            self._others_until = min(now, line.until or now)
        if line is None or (committed is not None and self._resume > committed[0]):
            self._pass_unseen()

    def _cut(self, *, is_whole: bool) -> float:
        """Return the least floor below which all is that was handed over and that retention has taken."""
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
        """Return where reading was to go on before retention, or the caller, moved the client."""
        committed = None if self._located is None else self._located.committed
        return self._meant if committed is None or not self._is_new else min(self._meant, committed[0])

    def _on_located(self, located: Located) -> None:
        before, self._located = self._located, located
        if self._stage is not _Stage.RECALLING:
            return
        assert before is not None  # noqa: S101 - by the stage
        if located.first > before.first and located.first >= self._since:  # retention has taken what was to be read
            self._restart(self._resume)
            self._located, self._seek_to = located, self._resume
        else:
            assert self._memory is not None  # noqa: S101 - by the stage
            self._stage = _Stage.READING
            self._trail.add(self._resume, self._memory.floor(), self._since)
            self.notes.append(Note("replay.rebuilt", {"position": self._resume, "recalled": self._recalled}))

    # Recalling and reading

    def _recall(self, position: int) -> Action[R]:
        """Read again what the memory must know; then see whether retention has taken some of it meanwhile."""
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
            self.failure = Unavailable("keys", "what passed before cannot be judged")
        elif undetermined is not None and self._memory is not None:
            self._memory.remember_unjudged(undetermined)
            self._pop_recalled(1)

    def _pop_recalled(self, count: int) -> None:
        for _ in range(count):
            self.pending.popleft()
        self._recalled += count

    def _read(self, now: float, position: int, want: int | None) -> Action[R]:
        """Judge what comes next, so that ``want`` records are ready."""
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
        """Return True if what comes next was judged before a seek went back behind it."""
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
        self._add_point_in_time(now)

    def _on_delivered(self, answer: Judged, now: float) -> None:
        """Take verdicts that let everything through, as ``_on_judged`` takes them one by one."""
        verdicts = [verdict for verdict in answer.verdicts if isinstance(verdict, VerifiedMessage)]
        records = [self.pending.popleft() for _ in verdicts]
        self.ready.extend(map(Ready, records, repeat(answer.messages), range(len(verdicts)), verdicts))
        self._judged_since += len(verdicts)
        if self._memory is not None:
            times = [verdict.issued_at for verdict in verdicts]
            self._trail.judge(min(times), max(times))
            self._memory.pass_time(self._appended(records[-1]))
        self._add_point_in_time(now)

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
        """Return True if the memory, as it is, will know for redeliveries what was handed over from ``offset`` on."""
        frontier = self._ahead[0].record.offset if self._ahead else self.judged()
        if not self._is_at_rest() or self._memory is None or frontier is None:
            return False
        if not self._resume <= offset <= frontier:  # what it recalled would pass for delivered before
            return False
        floor = max(self._memory.floor(), self._trail.latest_issue - self._policy.horizon)
        return offset == frontier or self._trail.lowest_from(offset) >= floor

    def _appended(self, record: R) -> float:
        """Return when a record was appended, at the earliest."""
        stamp = self._stamp(record)
        return self.looks.interval(record.offset, self._clock())[0] if stamp is None else stamp

    def _note_judged(self, ready: Ready[R]) -> None:
        found = ready.verdict.verdict if isinstance(ready.verdict, ObservedMessage) else ready.verdict
        if self._memory is None:
            return
        if isinstance(found, VerifiedMessage):
            self._trail.judge(found.issued_at, found.issued_at)
        elif isinstance(found, Unavailable):
            self._memory.remember_unjudged(ready.message)

    def _note_dropped(self, record: R, reason: Reason, *, known: bool = False) -> None:
        """Note what a record may be that is dropped; one that is ``known`` would pass for delivered when read again."""
        if self._memory is None:
            return
        if reason in UNSETTLED:
            self._trail.rise(self._clock() + 2 * self._policy.max_skew)
            self._trail.lower(self._appended(record) - self._policy.max_skew)
        if known or reason in REMEMBERED:
            self._trail.lower(-inf)

    def _add_point_in_time(self, now: float) -> None:
        """Take a checkpoint before the first pending record, if it is time."""
        due = self._judged_since >= SPACING or now - self._point_time >= self._policy.horizon / SLICES
        if self._memory is None or not self._judged_since or not due or self._given_up is not None:
            return
        at = self.pending[0].offset if self.pending else self._expected
        assert at is not None  # noqa: S101 - records were judged
        self._add_point(at)
        self._point_time = now

    def _add_point(self, at: int) -> None:
        assert self._memory is not None  # noqa: S101 - nothing to tell of without
        needed = self._memory.lowest_needed()
        self._trail.add(at, self._memory.floor(), at if needed is None else min(needed, at))
        self._judged_since = 0


def _issued_at(verdict: VerifiedMessage | ObservedMessage) -> float:
    """Return when a message was issued that verified; minus infinity for any other."""
    found = verdict.verdict if isinstance(verdict, ObservedMessage) else verdict
    return found.issued_at if isinstance(found, VerifiedMessage) else -inf
