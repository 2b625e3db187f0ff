"""Bounds on a record's append time, where the broker does not stamp it, from a reader's looks at the log's end.

A look is a fetch whose answer says where the log ends. A record at that offset or after it was appended after the fetch
was sent; a record before it was appended before the answer came. No publisher can influence these times: they are the
reader's own. (A record counts as appended once it can be read.)

    ends of three looks    ------E1-----------E2-----------E3------>  offsets
    a record                             o
    earliest append time   when the latest look with its end at or before o was sent: here the first look
    latest append time     when the earliest look with its end after o was answered: here the second; now, without one
"""

from __future__ import annotations

from bisect import bisect_right
from math import inf
from typing import Final

MOST: Final = 256
"""Looks stored. At one a second they give append times to the second for four minutes, after that to two seconds."""


class Looks:
    """The looks at one log's end, at most ``most`` of them (4 or more).

    If there are more, every second one is dropped. That only widens intervals, so they still contain the append time.
    Times are in seconds of the reader's clock, which may step within the skew.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most: Final = most
        self._ends: list[int] = []  # ascending
        self._asked: list[float] = []  # when the latest look with its end there or before was sent
        self._answered: list[float] = []  # when the earliest look with its end there or after was answered

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, asked: float, end: int, answered: float) -> None:
        """Add a look: when it was sent, the first offset that could not be read yet, and when it was answered.

        If a new leader names an end before the highest so far, the highest counts.
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
        """Return (offset, earliest, latest) for records ``first`` to ``last``, each valid up to the next offset."""
        begins = [first, *(end for end in self._ends if first < end <= last)]
        return [(begin, *self.interval(begin, now)) for begin in begins]

    def prune(self, position: int) -> None:
        """Forget looks that no record at ``position`` or after it needs."""
        needless = bisect_right(self._ends, position) - 1
        for column in (self._ends, self._asked, self._answered):
            del column[: max(0, needless)]

    def _thin(self) -> None:
        """Keep half of the looks, about evenly spaced in time, with the first and the last."""
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
