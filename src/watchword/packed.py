"""Ids in few bytes: what is new in a small table, the rest in sorted arrays of 64-bit numbers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN: Final = 4096
"""Ids that all tables of a guard hold before they are packed; an open id takes some 200 bytes, a packed one 20."""

LEAST: Final = 128
"""Ids that one table may hold, however many tables there are."""

_LARGEST: Final = 1 << 15
"""Ids in one run; sorting that many takes some 10 ms, for which the event loop waits."""

_OWNER_BITS: Final = 32
_OWNER_MASK: Final = (1 << _OWNER_BITS) - 1


class _Run(NamedTuple):
    keys: array[int]
    marks: array[int]
    owners: array[int]


class Bucket:
    """Ids of one slice of time: under a 64-bit key, a 64-bit mark and the 32-bit number of its owner."""

    __slots__ = ("_open", "_runs")

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._runs: list[_Run] = []

    def find(self, key: int) -> int | None:
        """Return the mark under ``key``."""
        entry = self._open.get(key)
        if entry is not None:
            return entry >> _OWNER_BITS
        for keys, marks, _ in self._runs:
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                return marks[at]
        return None

    def put(self, key: int, mark: int, owner: int, room: int = OPEN) -> None:
        """Add a key that is not there; ``room`` is how many may be open."""
        self._open[key] = mark << _OWNER_BITS | owner
        if len(self._open) >= room:
            self.seal()

    def owners(self) -> Iterator[int]:
        """Return the owner of each id."""
        for entry in self._open.values():
            yield entry & _OWNER_MASK
        for run in self._runs:
            yield from run.owners

    def seal(self) -> None:
        """Pack what is open; runs of like size become one, so that there are few to look into."""
        if not self._open:
            return
        keys = sorted(self._open)
        entries = [self._open[key] for key in keys]
        self._open = {}
        marks = array("Q", [entry >> _OWNER_BITS for entry in entries])
        self._runs.append(_Run(array("Q", keys), marks, array("I", [entry & _OWNER_MASK for entry in entries])))
        while len(self._runs) > 1:
            one, other = self._runs[-2:]
            if len(one.keys) > 2 * len(other.keys) or len(one.keys) + len(other.keys) > _LARGEST:
                break
            self._runs[-2:] = [_merged(one, other)]


def _merged(one: _Run, other: _Run) -> _Run:
    keys, marks, owners = one.keys + other.keys, one.marks + other.marks, one.owners + other.owners
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return _Run(
        array("Q", [keys[at] for at in order]),
        array("Q", [marks[at] for at in order]),
        array("I", [owners[at] for at in order]),
    )
