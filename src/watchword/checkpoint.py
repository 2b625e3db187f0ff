"""What a reader says about its memory in one line, so that its successor can continue it (docs/replay.md).

A checkpoint is taken where everything before offset K has been judged. It names the floor f of that moment, and the
lowest offset F that the successor must read again: every id that was handed over below K, and that is not below f,
stands in [F, K). The marks tell what retention may have taken: below the offset of a mark, nothing was handed over that
was issued later than the mark says. ``until`` is the time up to which anything may have been handed over that no later
commit tells of; 0 where its writer promised nothing.

A reader of a consumer group commits the line as the metadata of its offset. What stands there is believed only if it
reads exactly as we write it; anything else is somebody else's metadata, and is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf
from typing import Final, NamedTuple

MOST_POINTS: Final = 64
"""Checkpoints that a process keeps, and marks; of more, every other one is left out."""

MOST_MARKS: Final = 16
MOST_CHARACTERS: Final = 512
"""Kafka takes 4,096 by default (``offset.metadata.max.bytes``); a caller's broker may be set lower."""

_FORM: Final = re.compile(
    r"w1 (?P<tag>[0-9a-f]{8}) (?P<until>\d{1,11}) (?P<floor>\d{1,11}) (?P<at>\d{1,19}) (?P<since>\d{1,19})"
    r"(?P<marks>(?: \d{1,19}:\d{1,11}){0,16})",
    re.ASCII,
)


class Mark(NamedTuple):
    """Below ``offset`` nothing was handed over that was issued later than ``issued_at``, in seconds since the epoch."""

    offset: int
    issued_at: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything before offset ``at`` is judged; ids that matter stand from ``since`` on, others are below ``floor``.

    ``floor`` and ``until`` are in whole seconds since the epoch, rounded up. ``marks`` ascend.
    """

    at: int
    floor: int
    since: int
    marks: tuple[Mark, ...] = field(default=())
    until: int = 0

    def line(self, tag: str) -> str:
        """Return the checkpoint as text of at most 512 characters; ``tag`` names the memory: 8 hexadecimal digits."""
        marks = list(self.marks)
        while True:
            places = [f"{mark.offset}:{mark.issued_at}" for mark in marks]
            line = " ".join(["w1", tag, *map(str, (self.until, self.floor, self.at, self.since)), *places])
            if len(line) <= MOST_CHARACTERS:
                return line
            del marks[0]  # the oldest tell least: what they spare is below the floor first


def read_line(text: str) -> tuple[str, Checkpoint] | None:
    """Return tag and checkpoint of a line that ``Checkpoint.line`` wrote; None if the text is anything else."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    marks = tuple(Mark(*map(int, mark.split(":"))) for mark in found["marks"].split())
    until, floor, at, since = (int(found[name]) for name in ("until", "floor", "at", "since"))
    checkpoint = Checkpoint(at, floor, since, marks, until)
    ascending = all(one.offset < other.offset for one, other in pairwise(marks))
    if checkpoint.since > checkpoint.at or not ascending or checkpoint.line(found["tag"]) != text:
        return None
    return found["tag"], checkpoint


@dataclass(slots=True)
class _Point:
    """A checkpoint, and the earliest time of issue of what was handed over from there to the next one."""

    at: int
    floor: int
    since: int
    lowest: float = inf


class Trail:
    """The checkpoints of one process, and the marks, both in ascending order.

    Times of issue are in seconds since the epoch. What is handed over was judged before, and counts for marks behind it
    from then on.
    """

    def __init__(self) -> None:
        self._points: list[_Point] = []
        self._marks: list[Mark] = []
        self._batch = 0, 0  # a Mark's parts, for there is one for each record that is taken alone
        self._given = self._judged = 0

    def clear(self) -> None:
        """Forget all but what was handed over at the latest."""
        self._points.clear()
        self._marks.clear()
        self._judged = self._given

    def follow(self, checkpoint: Checkpoint) -> None:
        """Go on after a predecessor's checkpoint."""
        self._points = [_Point(checkpoint.at, checkpoint.floor, checkpoint.since)]
        self._marks = [*checkpoint.marks]
        self.rise(max((mark.issued_at for mark in checkpoint.marks), default=checkpoint.floor - 1))

    def rise(self, issued_at: float) -> None:
        """Note that something may have been handed over that was issued up to then."""
        if issued_at > self._given:
            self._given = ceil(issued_at)
            self._judged = max(self._judged, self._given)

    def judge(self, earliest: int, latest: int) -> None:
        """Note that something is about to be handed over that was issued between these times."""
        self._judged = max(self._judged, latest)
        self.lower(earliest)

    def lower(self, issued_at: float) -> None:
        """Note that something may be handed over, once it is read again, that was issued as early as that."""
        self._points[-1].lowest = min(self._points[-1].lowest, issued_at)

    def begin_batch(self, offset: int) -> None:
        """Note that a commit may come at ``offset``, when more is handed over already."""
        self._batch = offset, self._given

    def add(self, at: int, floor: float, since: int) -> None:
        """Take a checkpoint at an offset below which all is judged."""
        self.forget(at - 1)
        self._points.append(_Point(at, max(0, ceil(floor)), since))
        self._marks.append(Mark(at, self._judged))
        if len(self._points) > MOST_POINTS:
            for point, following in zip(self._points[0:-2:2], self._points[1:-1:2], strict=False):
                point.lowest = min(point.lowest, following.lowest)
            self._points = [*self._points[0:-2:2], *self._points[-2:]]
        if len(self._marks) > MOST_POINTS:
            self._marks = [*self._marks[0:-2:2], *self._marks[-2:]]

    def forget(self, offset: int) -> None:
        """Forget what was said of places behind ``offset``, for these are read again."""
        lowest = min((point.lowest for point in self._points if point.at > offset), default=inf)
        self._points = [point for point in self._points if point.at <= offset]
        self._marks = [mark for mark in self._marks if mark.offset <= offset]
        if self._points:
            self._points[-1].lowest = min(self._points[-1].lowest, lowest)

    def latest(self, offset: int, *, until: float = 0) -> Checkpoint | None:
        """Return the latest checkpoint at or below ``offset``, as a commit there tells it; None if there is none."""
        point = next((point for point in reversed(self._points) if point.at <= offset), None)
        if point is None:
            return None
        last = Mark(*self._batch) if self._batch[0] == offset else Mark(offset, self._given)
        marks = (*(mark for mark in self._marks if mark.offset < offset), last)
        return Checkpoint(point.at, point.floor, point.since, thinned(marks, point.since), ceil(until))

    @property
    def latest_issue(self) -> int:
        """Return the latest time of issue of what was judged and may be delivered; later, maybe."""
        return self._judged

    def lowest_from(self, offset: int) -> float:
        """Return the earliest time of issue of what was handed over at ``offset`` or behind; lower, maybe."""
        behind = [point.lowest for point in self._points if point.at > offset]
        around = [point.lowest for point in self._points if point.at <= offset]
        return min([*behind, *around[-1:]], default=-inf)

    def issued_below(self, first: int) -> int:
        """Return the latest time of issue of what was handed over below offset ``first``; later, maybe."""
        return next((mark.issued_at for mark in self._marks if mark.offset >= first), self._given)


def thinned(marks: tuple[Mark, ...], since: int) -> tuple[Mark, ...]:
    """Return at most 16 of the marks above ``since``, spread over all of them, the last one among them.

    Of two at one offset the first counts, which tells more: times only grow.
    """
    first = {mark.offset: mark for mark in reversed(marks)}
    left = [mark for offset, mark in sorted(first.items()) if offset > since]
    while len(left) > MOST_MARKS:
        left = _without_closest(left)
    return tuple(left)


def _without_closest(marks: list[Mark]) -> list[Mark]:
    """Leave out the mark that stands closest behind its neighbour, but never the last."""
    gaps = [after.offset - before.offset for before, after in pairwise(marks)]
    closest = min(range(len(gaps)), key=gaps.__getitem__)
    return marks[:closest] + marks[closest + 1 :]
