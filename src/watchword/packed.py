"""Ids in few bytes: what is new in a small table, the rest in sorted arrays of 64-bit numbers."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from itertools import compress
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from watchword_native import Entries

OPEN: Final = 4096
"""Ids that all tables of a guard hold before they are packed; an open id takes some 200 bytes, a packed one 20."""

LEAST: Final = 128
"""Ids that the tables of one log may hold, however many logs there are."""

_LARGEST: Final = 1 << 15
"""Ids in one run; sorting that many takes some 10 ms, for which the event loop waits."""

_OWNER_BITS: Final = 32
_OWNER_MASK: Final = (1 << _OWNER_BITS) - 1


class _Run(NamedTuple):
    keys: array[int]
    marks: array[int]
    owners: array[int]


class Bucket:
    """Ids of one slice of time: under a 64-bit key, a 64-bit mark and the 32-bit number of its owner.

    ``lowest`` is the lowest offset at which something lies that belongs here.
    """

    __slots__ = ("_open", "_runs", "lowest")

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._runs: list[_Run] = []
        self.lowest: float = inf

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

    def put(self, key: int, mark: int, owner: int) -> bool:
        """Add a key that is not there; return True if it is the first since all was packed."""
        opened = not self._open
        self._open[key] = mark << _OWNER_BITS | owner
        return opened

    def holds_any(self, entries: Entries) -> bool:
        """Tell whether any of the keys of some entries is there."""
        return any(self.find(key) is not None for key in entries.keys())  # noqa: SIM118 - no mapping

    def put_all(self, entries: Entries, owner: int) -> bool:
        """Add entries whose keys are not there, as ``put`` does."""
        opened = False
        for _, key, mark, offset in entries.rows():
            opened |= self.put(key, mark, owner)
            self.lowest = min(self.lowest, inf if offset is None else offset)
        return opened

    def owners(self) -> Counter[int]:
        """Return how many ids each owner has."""
        found = Counter([entry & _OWNER_MASK for entry in self._open.values()])
        for run in self._runs:
            found.update(run.owners)
        return found

    def drop(self, owners: AbstractSet[int]) -> None:
        """Forget all ids of some owners."""
        self.seal()
        kept = ((run, [owner not in owners for owner in run.owners]) for run in self._runs)
        runs = (_Run(*(array(part.typecode, compress(part, stays)) for part in run)) for run, stays in kept)
        self._runs = [run for run in runs if run.keys]

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
