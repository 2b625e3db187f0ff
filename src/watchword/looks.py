"""When a record was appended, where the broker stamps nothing: bounds from a reader's own looks at the log's end.

A look asks for records and reads in the answer where the log ended. A record at that end or behind it was appended
after the question; one before it was appended before the answer. No publisher can move these times, for they are the
reader's own. (A record counts as appended once it can be read.)

    ends of three looks    ------E1-----------E2-----------E3------>  offsets
    a record                             o
    at the earliest, L     when the latest look that ended at o or before it was asked: here the first one
    at the latest, U       when the earliest look that ended behind o was answered: here the second one; now, without
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final

MOST: Final = 256
"""Looks that are kept. At one a second they give the times of a backlog to the second for four minutes, then to two."""


class Looks:
    """Looks at one log's end, at most ``most`` of them (4 or more).

    Of more, every second one is dropped. That makes intervals wider, never narrower, so a record stays in its own.
    Times are seconds on the reader's clock, which may step within the skew.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most: Final = most
        self._ends: list[int] = []  # ascending
        self._asked: list[float] = []  # the latest question of the looks that ended there or before
        self._answered: list[float] = []  # the earliest answer of the looks that ended there or behind

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, asked: float, end: int, answered: float) -> None:
        """Take a look: when it was asked, the first offset that could not be read yet, when it was answered.

        An end before the highest one so far, as a new leader may name it, counts as that one.
        """
        ends, questions, answers = self._ends, self._asked, self._answered
        if ends:
            asked = max(asked, questions[-1])
        if not ends or end > ends[-1]:
            ends.append(end)
            questions.append(asked)
            answers.append(answered)
        questions[-1] = asked
        at = len(answers) - 1
        while at >= 0 and answers[at] >= answered:  # more than once only where the clock has stepped back
            answers[at] = answered
            at -= 1
        if len(ends) > self._most:
            self._thin()

    def interval(self, offset: int, now: float) -> tuple[float, float]:
        """Return the earliest and the latest time at which the record at ``offset``, read ``now``, was appended."""
        behind = bisect_right(self._ends, offset)
        earliest = self._asked[behind - 1] if behind else -inf
        latest = self._answered[behind] if behind < len(self._ends) else now
        return earliest, max(earliest, latest)  # a clock that stepped back may show less now

    def intervals(self, first: int, last: int, now: float) -> list[tuple[int, float, float]]:
        """Return (offset, earliest, latest) for records ``first`` to ``last``: from that offset on, up to the next."""
        begins = [first, *(end for end in self._ends if first < end <= last)]
        return [(begin, *self.interval(begin, now)) for begin in begins]

    def prune(self, position: int) -> None:
        """Forget what no record at ``position`` or behind it needs."""
        needless = bisect_right(self._ends, position) - 1
        for column in (self._ends, self._asked, self._answered):
            del column[: max(0, needless)]

    def _thin(self) -> None:
        """Keep half of the looks, about as far apart from one another in time; the first and the last among them."""
        asked, last = self._asked, len(self._ends) - 1
        step = (asked[last] - asked[0]) * 2 / self._most
        kept = [0]
        for at in range(1, last):
            if asked[at] - asked[kept[-1]] >= step and len(kept) < self._most // 2:
                kept.append(at)
        kept.append(last)
        self._ends = [self._ends[at] for at in kept]
        self._asked = [asked[at] for at in kept]
        self._answered = [self._answered[at] for at in kept]
