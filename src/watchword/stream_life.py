"""The life of a reader of one stream whose memory is in this process, as a machine without I/O.

A stream that keeps its messages is its own memory: what a consumer was given before can be read again. So a reader
begins by reading the stream up to where its consumer has got to, from as far back as there may be the original of a
copy that is still to come. Three things can be missing from that.

Cut away: what limits or a purge took from the front of the stream, or a deletion from its middle, cannot be read again.
The consumer's own past says nothing about it, for one that was made or reset a moment ago looks like one that never
delivered. So whatever was issued before the last message that is gone was appended is stale. That time is not known,
but it lies before the time of the message which follows; in an empty stream it is that of the last one that there was.

Set back: a consumer that somebody resets, or makes again under its name, delivers what it had delivered before. Log
time has passed these messages, and the memory has let their ids go, so it could not tell them from copies. Then the
reader begins again where its consumer stands now.

Out of turn: two subscriptions of one consumer judge what they were given in any order, and a message that is not
acknowledged comes again however late. Its id is pinned from when it was first judged until it is acknowledged; one that
was delivered, but not judged before log time passed it, is treated as one that was set back. So the memory is asked
about what ``was_passed`` with that in mind: where it cannot tell, the message is not stale, but ``Unavailable``.

Widened: an operator may let a running consumer read more subjects. It goes on from where it is, but may have been given
messages of these subjects in an earlier time. Nothing tells but the first delivery of such a subject, or the next
subscription. Then the stream is read again, with these subjects, up to that delivery. (All subjects of a stream could
be read at every start instead; that would cost a consumer of one subject in a thousand a thousand times as much.)

Missed: what is judged before a message that stands in front of it, and was lost on its way or waits at the other
subscription, may be a copy of that one. A successor would read the stream in its order, and take that one for the
first. So what was ``missed_before`` a delivery is read first, and recalled; the numbers that a consumer gives to its
deliveries show where one is missing.

Overtaken: what stood in the stream when a reader began, an earlier one may have been given, also behind where the
consumer stands now: it may have been made anew, or set back. What the limits take of that before its turn comes again
is never delivered, and no number is missing for it; a copy behind it would pass for the first. So until the reader has
worked off what stood there, it looks for what is ``gone_before`` a delivery, and the floor rises as for what is cut.
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
"""Subjects of which it is remembered that they are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """What a server says of a stream, and of one consumer of it; times in seconds by its clock.

    ``origin`` tells this stream and this consumer from others of the same names. ``subjects`` are the patterns of what
    the consumer delivers. ``delivered`` is the highest sequence
    that was delivered, ``number`` the consumer's own of its last delivery, ``acknowledged`` the sequence up to which
    nothing is waited for. ``next_at`` is when the first message behind that was appended, of the subjects that are
    read; None if there is none. Everything that is gone was appended at ``last_gone_at`` or before; None if nothing is
    gone. ``last`` is the highest sequence that the stream has given to anything. What was deleted from the middle
    behind ``had`` was delivered to nobody.
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
    """How far a consumer's deliveries are known: up to a sequence; ``number`` is the consumer's own of that delivery.

    Those that a consumer makes are numbered, repeated ones too; so one that is missing shows. Before the first one its
    number says nothing: a consumer that was set forth would have the same.
    """

    sequence: int
    number: int

    def misses(self, sequence: int, number: int) -> bool:
        """Return True if something may stand in between that was not delivered here."""
        return sequence > self.sequence + 1 and (number != self.number + 1 or not self.number)

    def behind(self, sequence: int, number: int) -> _Reached:
        """Return how far they are known behind this delivery."""
        if sequence > self.sequence:
            return _Reached(sequence, number)
        return self._replace(number=number) if number == self.number + 1 else self


class Beginning(NamedTuple):
    """How to begin: with this ``floor``; then recall what was appended ``since`` then, up to sequence ``upto``.

    What lies behind ``acknowledged`` may come again. ``is_cut`` says that the floor is higher for what is gone.
    """

    floor: float
    since: float
    acknowledged: int
    upto: int
    is_cut: bool


class StreamLife:
    """One reader of one stream, for all its subscriptions in this process, of which ``users`` are open."""

    def __init__(self, name: str, stream: str, policy: Policy) -> None:
        self.name: Final = name
        self.log: Final = f"{name}#{stream}"
        self.users = 0
        self.closed_at = -inf
        self.gate: Any = None  # what an adapter needs to let nobody judge while it builds the memory
        self._policy: Final = policy
        self.subjects: tuple[str, ...] = (">",)
        self._known_subjects: set[str] = set()
        self._origin: tuple[str, str] | None = None
        self._reached = _Reached(0, 0)
        self.had = inf
        self._end = self._stood = 0
        self._unacked: set[int] = set()

    def bind(self, facts: StreamFacts, now: float) -> Beginning | None:
        """Return how to begin with a subscription; None if the memory is that of this very place already.

        While another subscription reads, what was delivered and is not judged yet waits there.
        """
        same = (self._origin, self.subjects) == (facts.origin, facts.subjects)
        if same and (self.users > 1 or self._reached.sequence == facts.delivered):
            return None
        return self.begin(facts, now)

    def begin(self, facts: StreamFacts, now: float) -> Beginning:
        """Return how to begin, whatever is known; ``now`` is from before the server was asked."""
        policy = self._policy
        # Where there is no next message, what comes later is appended after this, by any clock within the skew.
        anchor = now - policy.max_skew if facts.next_at is None else facts.next_at
        floor = policy.floor_at(anchor)
        cut = policy.floor_at(anchor, cut=facts.last_gone_at)
        self._origin, self._reached = facts.origin, _Reached(facts.delivered, facts.number)
        self.had, self._end, self._stood = facts.had, facts.last, 0
        self.subjects, self._known_subjects = facts.subjects, set()
        self._unacked = set()
        # Earlier by the skew: the server halves its way to a time, which a clock that stepped back within it misleads.
        since = anchor - policy.window - policy.max_skew
        return Beginning(cut, since, facts.acknowledged, facts.delivered, cut > floor)

    def forget(self) -> None:
        """Begin anew with the next subscription, for the memory could not be built."""
        self._origin = None

    def recalled(self, sequences: Iterable[int]) -> None:
        """Take note of messages that were recalled, and may come again."""
        self._unacked.update(sequences)

    def reads(self, subject: str) -> bool:
        """Return True for a subject of which the memory knows what was delivered."""
        if subject in self._known_subjects:
            return True
        if not any(covers(pattern.split("."), subject.split("."), "*", ">") for pattern in self.subjects):
            return False
        if len(self._known_subjects) < _MOST_SUBJECTS:
            self._known_subjects.add(subject)
        return True

    def was_reached(self, sequence: int) -> bool:
        """Return True for a delivery of what was delivered before."""
        return sequence <= self._reached.sequence

    def was_passed(self, sequence: int) -> bool:
        """Return True for a delivery of what was delivered before, and is not known to be waited for."""
        return self.was_reached(sequence) and sequence not in self._unacked

    def missed_before(self, sequence: int, number: int) -> int | None:
        """Return the sequence from which on something may stand before a delivery that was not judged; else None."""
        return self._reached.sequence + 1 if self._reached.misses(sequence, number) else None

    def gone_before(self, sequence: int, number: int) -> int | None:
        """Return the sequence from which on something may have gone before a delivery, unread; else None.

        Only what stood in the stream when this life began may have been given to an earlier one.
        """
        return self._reached.sequence + 1 if self._is_overtaken(self._reached, sequence, number) else None

    def is_behind(self, sequence: int, number: int) -> bool:
        """Return True if something was missed, or may have gone, before a delivery that was not judged."""
        return self._is_behind(self._reached, sequence, number)

    def stood(self, upto: int) -> None:
        """Take note that all up to a sequence still stood when the consumer had delivered that."""
        self._stood = max(upto, self._stood)

    def filled(self, upto: int) -> None:
        """Take note that everything up to a sequence was recalled that was missed, and the floor is above what is gone.

        Nothing of that is missing before what follows.
        """
        self._reached = self._reached._replace(sequence=max(upto, self._reached.sequence))

    def together(self, deliveries: Iterable[tuple[int, int]]) -> int:
        """Return how many of these (sequence, number) follow one another with nothing missed or gone in between."""
        reached, count = self._reached, 0
        for sequence, number in deliveries:
            if count and self._is_behind(reached, sequence, number):
                break
            reached = reached.behind(sequence, number)
            count += 1
        return count

    def judged(self, sequence: int, number: int, *, undetermined: bool = False) -> None:
        """Take note of a delivery that was judged, and comes again until it is acknowledged.

        ``number`` is the consumer's own of this delivery; it begins again with a consumer that was made anew. What log
        time has passed and is ``undetermined`` even so stays passed: nothing is remembered of it.
        """
        passed = self.was_passed(sequence)
        if passed:  # made anew, or set back: its numbers may begin again
            self._reached = self._reached._replace(number=_UNKNOWN)
        else:
            self._reached = self._reached.behind(sequence, number)
        if not (passed and undetermined):
            self._unacked.add(sequence)

    def acknowledged(self, sequence: int) -> None:
        """Take note of what does not come again."""
        self._unacked.discard(sequence)

    def _is_behind(self, reached: _Reached, sequence: int, number: int) -> bool:
        return reached.misses(sequence, number) or self._is_overtaken(reached, sequence, number)

    def _is_overtaken(self, reached: _Reached, sequence: int, number: int) -> bool:
        if sequence <= reached.sequence + 1 or reached.sequence >= self._end:
            return False
        return sequence > self._stood or reached.misses(sequence, number)
