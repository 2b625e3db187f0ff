"""Checkpoints: one line of text from which the next reader of a partition can rebuild the memory (docs/replay.md).

A checkpoint is taken when everything before offset K has been judged. It records the floor f of that moment, and the
lowest offset F that the next reader must read again: every message handed over before K and issued at or above f is in
[F, K). The marks are for records that retention may have deleted: no message handed over before a mark's offset was
issued later than the mark's time. ``until`` is the time up to which messages may have been handed over after the last
commit; 0 if its writer gave no bound.

A reader in a consumer group commits the line as the metadata of its offset. Metadata is trusted only if it is exactly
what this module writes; anything else belongs to another program and is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf
from typing import Final, NamedTuple

MOST_POINTS: Final = 64
"""The most checkpoints, and marks, that a process stores; beyond that, every other one is dropped."""

MOST_MARKS: Final = 16
MOST_CHARACTERS: Final = 512
"""Kafka accepts 4,096 by default (``offset.metadata.max.bytes``); a broker may be configured with less."""

_FORM: Final = re.compile(
    r"w1 (?P<tag>[0-9a-f]{8}) (?P<until>\d{1,11}) (?P<floor>\d{1,11}) (?P<at>\d{1,19}) (?P<since>\d{1,19})"
    r"(?P<marks>(?: \d{1,19}:\d{1,11}){0,16})",
    re.ASCII,
)


class Mark(NamedTuple):
    """No message handed over before ``offset`` was issued later than ``issued_at``, in seconds since the epoch."""

    offset: int
    issued_at: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything before offset ``at`` is judged; messages before ``since`` are all below ``floor``.

    ``floor`` and ``until`` are in whole seconds since the epoch, rounded up. ``marks`` are in ascending order.
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
            del marks[0]  # the oldest are worth least: their messages are the first to fall below the floor


def read_line(text: str) -> tuple[str, Checkpoint] | None:
    """Return the tag and checkpoint of a line that ``Checkpoint.line`` wrote; None for any other text."""
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
    """A checkpoint, and the earliest issue time of the messages handed over from there to the next one."""

    at: int
    floor: int
    since: int
    lowest: float = inf


class Trail:
    """The checkpoints and marks of one process, both in ascending order.

    Issue times are in seconds since the epoch. A message counts for the marks after it as soon as it is judged, which
    is before it is handed over.
    """

    def __init__(self) -> None:
        self._points: list[_Point] = []
        self._marks: list[Mark] = []
        self._batch = 0, 0  # the parts of a Mark: making one for each record that is taken alone would cost time
        self._given = self._judged = 0

    def clear(self) -> None:
        """Forget everything except the latest issue time that was handed over."""
        self._points.clear()
        self._marks.clear()
        self._judged = self._given

    def follow(self, checkpoint: Checkpoint) -> None:
        """Continue from a predecessor's checkpoint."""
        self._points = [_Point(checkpoint.at, checkpoint.floor, checkpoint.since)]
        self._marks = [*checkpoint.marks]
        self.rise(max((mark.issued_at for mark in checkpoint.marks), default=checkpoint.floor - 1))

    def rise(self, issued_at: float) -> None:
        """Note that messages issued up to this time may have been handed over."""
        if issued_at > self._given:
            self._given = ceil(issued_at)
            self._judged = max(self._judged, self._given)

    def judge(self, earliest: int, latest: int) -> None:
        """Note that messages issued between these times are about to be handed over."""
        self._judged = max(self._judged, latest)
        self.lower(earliest)

    def lower(self, issued_at: float) -> None:
        """Note that a message issued as early as this may be handed over when it is read again."""
        self._points[-1].lowest = min(self._points[-1].lowest, issued_at)

    def begin_batch(self, offset: int) -> None:
        """Note that a commit may come at ``offset`` after later messages were handed over."""
        self._batch = offset, self._given

    def add(self, at: int, floor: float, since: int) -> None:
        """Add a checkpoint at an offset before which everything is judged."""
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
        """Forget checkpoints and marks after ``offset``, because reading goes back there."""
        lowest = min((point.lowest for point in self._points if point.at > offset), default=inf)
        self._points = [point for point in self._points if point.at <= offset]
        self._marks = [mark for mark in self._marks if mark.offset <= offset]
        if self._points:
            self._points[-1].lowest = min(self._points[-1].lowest, lowest)

    def latest(self, offset: int, *, until: float = 0) -> Checkpoint | None:
        """Return the latest checkpoint at or below ``offset``, for a commit at ``offset``; None if there is none."""
        point = next((point for point in reversed(self._points) if point.at <= offset), None)
        if point is None:
            return None
        last = Mark(*self._batch) if self._batch[0] == offset else Mark(offset, self._given)
        marks = (*(mark for mark in self._marks if mark.offset < offset), last)
        return Checkpoint(point.at, point.floor, point.since, thinned(marks, point.since), ceil(until))

    @property
    def latest_issue(self) -> int:
        """An upper bound on the issue times of messages that were judged and may be handed over."""
        return self._judged

    def lowest_from(self, offset: int) -> float:
        """Return a lower bound on the issue times of messages handed over at ``offset`` or after."""
        behind = [point.lowest for point in self._points if point.at > offset]
        around = [point.lowest for point in self._points if point.at <= offset]
        return min([*behind, *around[-1:]], default=-inf)

    def issued_below(self, first: int) -> int:
        """Return an upper bound on the issue times of messages handed over before offset ``first``."""
        return next((mark.issued_at for mark in self._marks if mark.offset >= first), self._given)


def thinned(marks: tuple[Mark, ...], since: int) -> tuple[Mark, ...]:
    """Return at most 16 of the marks above ``since``, evenly spread and with the last one.

    Of two at one offset the first counts, which is the tighter one, as times only grow.
    """
    first = {mark.offset: mark for mark in reversed(marks)}
    left = [mark for offset, mark in sorted(first.items()) if offset > since]
    while len(left) > MOST_MARKS:
        left = _without_closest(left)
    return tuple(left)


def _without_closest(marks: list[Mark]) -> list[Mark]:
    """Return the marks without the one that is closest to the next; the last always stays."""
    gaps = [after.offset - before.offset for before, after in pairwise(marks)]
    closest = min(range(len(gaps)), key=gaps.__getitem__)
    return marks[:closest] + marks[closest + 1 :]
