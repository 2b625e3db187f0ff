"""The state machine of one JetStream consumer whose replay memory is in this process. It does no I/O.

It takes what the server says of stream and consumer (``StreamFacts``) and each delivery's numbers, and decides with
which floor the memory begins and which part of the stream must be read into it. Reading the stream is the adapter's.

A stream retains its messages, so earlier deliveries can be read again. A reader therefore begins by reading the stream
up to its consumer's position, from far enough back to include the original of any copy that may still arrive. In these
cases more is needed:

Cut: messages that limits or a purge removed from the front of the stream, or a deletion from its middle, cannot be read
again. The consumer's own state does not help, because a consumer created or reset a moment ago looks like one that has
never delivered. So every message issued before the last removed message was appended is stale. That append time is not
known, but it is before the time of the next message; in an empty stream it is that of the stream's last message.

Set back: a consumer that is reset, or recreated under its name, delivers messages a second time. Log time has passed
these, and the memory has dropped their ids, so it could not tell them from copies. Then the reader begins again at the
consumer's current position.

Out of order: two subscriptions of one consumer judge their deliveries in any order, and a message that is not
acknowledged is redelivered however late. Its id is pinned from the first judgement until it is acknowledged. A message
that was delivered, but not judged before log time passed it, is treated as after a set-back: if ``was_passed`` is True
and the memory cannot tell, the message is not stale, but ``Unavailable``.

Widened: an operator may add subjects to a running consumer. It continues from its position, but may have delivered
messages of these subjects earlier. Only the first delivery on such a subject, or the next subscription, shows the
change. Then the stream is read again, with these subjects, up to that delivery. (Reading all subjects of the stream at
every start would cost a consumer of one subject in a thousand a thousand times as much.)

Missed: an earlier message of the stream may have been lost on its way, or may wait at the other subscription, and the
delivery at hand may be a copy of it. The next reader would read the stream in order and take the earlier one for the
first. So messages ``missed_before`` a delivery are read and recalled first; a gap in the consumer's own numbering of
its deliveries shows that one is missing. A consumer that is reset or recreated numbers from 1 again, and if as many of
its next deliveries are lost as it had made before, no number is missing (SECURITY.md, "Where the promises end").

Overtaken: messages that were in the stream when a reader began may have been delivered before, even those after the
consumer's position, because it may have been recreated or set back. If limits remove such a message before its turn
comes again, it is never delivered, and no number is missing; a copy after it would count as the first. So until the
reader is past the end that the stream then had, it looks for messages ``gone_before`` a delivery, and raises the floor
as for messages cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword.patterns import covers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword.policy import Policy


_UNKNOWN: Final = -2
_MOST_SUBJECTS: Final = 1024
"""The most subjects that are remembered as being read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """The server's answer about a stream and one of its consumers; times in seconds by the server's clock.

    ``origin`` distinguishes this stream and this consumer from others of the same names. ``subjects`` are the patterns
    that the consumer delivers. ``delivered`` is the highest sequence delivered, ``number`` the consumer's own number of
    its last delivery, ``acknowledged`` the sequence up to which everything is acknowledged. ``next_at`` is the append
    time of the first message after that, on these subjects; None if there is none. All removed messages were appended
    at ``last_gone_at`` or before; None if none was removed. ``last`` is the highest sequence that the stream has used.
    Messages that were deleted from the middle after ``had`` were not delivered.
    """

    origin: tuple[str, str]
    subjects: tuple[str, ...]
    delivered: int
    number: int
    acknowledged: int
    next_at: float | None
    last_gone_at: float | None
    last: int
    had: float = inf


class _Reached(NamedTuple):
    """How far a consumer's deliveries are known: a sequence, and the consumer's own ``number`` of that delivery.

    A consumer numbers all its deliveries, repeated ones too, so a missing one shows. Before the first delivery the
    number means nothing: it is the same in a consumer that was set forward.
    """

    sequence: int
    number: int

    def misses(self, sequence: int, number: int) -> bool:
        """Return True if there may be a message in between that was not delivered here."""
        return sequence > self.sequence + 1 and (number != self.number + 1 or not self.number)

    def behind(self, sequence: int, number: int) -> _Reached:
        """Return how far deliveries are known after this one."""
        if sequence > self.sequence:
            return _Reached(sequence, number)
        return self._replace(number=number) if number == self.number + 1 else self


class Beginning(NamedTuple):
    """How to begin: with this ``floor``, recalling messages appended from time ``since`` up to sequence ``upto``.

    Messages after ``acknowledged`` may be redelivered. ``is_cut`` says that removed messages have raised the floor.
    """

    floor: float
    since: float
    acknowledged: int
    upto: int
    is_cut: bool


class StreamLife:
    """One consumer of one stream, for all its subscriptions in this process; ``users`` of them are open."""

    def __init__(self, name: str, stream: str, policy: Policy) -> None:
        self.name: Final = name
        self.log: Final = f"{name}#{stream}"
        self.users = 0
        self.closed_at = -inf
        self.gate: Any = None  # for the adapter, which blocks judging with it while it builds the memory
        self._policy: Final = policy
        self.subjects: tuple[str, ...] = (">",)
        self._known_subjects: set[str] = set()
        self._origin: tuple[str, str] | None = None
        self._reached = _Reached(0, 0)
        self.had = inf
        self._end = self._stood = 0
        self._unacked: set[int] = set()

    def bind(self, facts: StreamFacts, now: float) -> Beginning | None:
        """Return how to begin a subscription; None if the memory is already complete for this position.

        While another subscription reads, deliveries that are not judged yet are waiting there.
        """
        same = (self._origin, self.subjects) == (facts.origin, facts.subjects)
        if same and (self.users > 1 or self._reached.sequence == facts.delivered):
            return None
        return self.begin(facts, now)

    def begin(self, facts: StreamFacts, now: float) -> Beginning:
        """Return how to begin, whatever is known; ``now`` is a time from before the server was asked."""
        policy = self._policy
        # If there is no next message, later ones are appended after this time, by any clock within the skew.
        anchor = now - policy.max_skew if facts.next_at is None else facts.next_at
        floor = policy.floor_at(anchor)
        cut = policy.floor_at(anchor, cut=facts.last_gone_at)
        self._origin, self._reached = facts.origin, _Reached(facts.delivered, facts.number)
        self.had, self._end, self._stood = facts.had, facts.last, 0
        self.subjects, self._known_subjects = facts.subjects, set()
        self._unacked = set()
        # Earlier by the skew: the server finds a time by bisection, which a clock that stepped back can mislead.
        since = anchor - policy.window - policy.max_skew
        return Beginning(cut, since, facts.acknowledged, facts.delivered, cut > floor)

    def forget(self) -> None:
        """Begin again with the next subscription, because the memory could not be built."""
        self._origin = None

    def recalled(self, sequences: Iterable[int]) -> None:
        """Note recalled messages that may be redelivered."""
        self._unacked.update(sequences)

    def reads(self, subject: str) -> bool:
        """Return True if the memory covers this subject's deliveries."""
        if subject in self._known_subjects:
            return True
        if not any(covers(pattern.split("."), subject.split("."), "*", ">") for pattern in self.subjects):
            return False
        if len(self._known_subjects) < _MOST_SUBJECTS:
            self._known_subjects.add(subject)
        return True

    def was_reached(self, sequence: int) -> bool:
        """Return True if this sequence was delivered before."""
        return sequence <= self._reached.sequence

    def was_passed(self, sequence: int) -> bool:
        """Return True if this sequence was delivered before and is not known to be unacknowledged."""
        return self.was_reached(sequence) and sequence not in self._unacked

    def missed_before(self, sequence: int, number: int) -> int | None:
        """Return the first sequence that may have been missed before this delivery; None if none was."""
        return self._reached.sequence + 1 if self._reached.misses(sequence, number) else None

    def gone_before(self, sequence: int, number: int) -> int | None:
        """Return the first sequence that may have been removed before this delivery, unread; None if none was.

        Only messages that were in the stream when this reader began may have been delivered to an earlier one.
        """
        return self._reached.sequence + 1 if self._is_overtaken(self._reached, sequence, number) else None

    def is_behind(self, sequence: int, number: int) -> bool:
        """Return True if a message was missed, or may have been removed, before this delivery."""
        return self._is_behind(self._reached, sequence, number)

    def stood(self, upto: int) -> None:
        """Note that all messages up to a sequence were still in the stream when the consumer had delivered it."""
        self._stood = max(upto, self._stood)

    def filled(self, upto: int) -> None:
        """Note that missed messages up to a sequence were recalled, and that the floor is above the removed ones.

        They do not count as missing before later deliveries.
        """
        self._reached = self._reached._replace(sequence=max(upto, self._reached.sequence))

    def together(self, deliveries: Iterable[tuple[int, int]]) -> int:
        """Return how many of these (sequence, number) pairs follow one another without a missed or removed message."""
        reached, count = self._reached, 0
        for sequence, number in deliveries:
            if count and self._is_behind(reached, sequence, number):
                break
            reached = reached.behind(sequence, number)
            count += 1
        return count

    def judged(self, sequence: int, number: int, *, undetermined: bool = False) -> None:
        """Note a delivery that was judged, and will be redelivered until it is acknowledged.

        ``number`` is the consumer's own; a recreated consumer starts again at 1. A message that log time has passed and
        that is ``undetermined`` stays passed: nothing is remembered of it.
        """
        passed = self.was_passed(sequence)
        if passed:  # the consumer was recreated or set back: its numbers may start again
            self._reached = self._reached._replace(number=_UNKNOWN)
        else:
            self._reached = self._reached.behind(sequence, number)
        if not (passed and undetermined):
            self._unacked.add(sequence)

    def acknowledged(self, sequence: int) -> None:
        """Note that this sequence will not be redelivered."""
        self._unacked.discard(sequence)

    def _is_behind(self, reached: _Reached, sequence: int, number: int) -> bool:
        return reached.misses(sequence, number) or self._is_overtaken(reached, sequence, number)

    def _is_overtaken(self, reached: _Reached, sequence: int, number: int) -> bool:
        if sequence <= reached.sequence + 1 or reached.sequence >= self._end:
            return False
        return sequence > self._stood or reached.misses(sequence, number)
