"""Stores ids compactly: new ones in a small dict, the others in sorted arrays of 64-bit numbers.

Takes hashes of ids (see ``hashing``), and finds the mark stored under each. It decides neither what to drop nor when.
"""

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
"""Unpacked ids in all tables of a guard, before they are packed; an unpacked id takes some 200 bytes, a packed one 20.
"""

LEAST: Final = 128
"""Unpacked ids that the tables of one log may hold, however many logs there are."""

_LARGEST: Final = 1 << 15
"""The most ids in one run; to sort that many blocks the event loop for some 10 ms."""

_OWNER_BITS: Final = 32
_OWNER_MASK: Final = (1 << _OWNER_BITS) - 1


class _Run(NamedTuple):
    keys: array[int]
    marks: array[int]
    owners: array[int]


class Bucket:
    """The ids of one time slice: each 64-bit key maps to a 64-bit mark and the 32-bit number of its owner.

    ``lowest`` is the lowest offset of a record whose id is here.
    """

    __slots__ = ("_open", "_runs", "lowest")

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._runs: list[_Run] = []
        self.lowest: float = inf

    def find(self, key: int) -> int | None:
        """Return the mark under ``key``; None if there is no such key."""
        entry = self._open.get(key)
        if entry is not None:
            return entry >> _OWNER_BITS
        for keys, marks, _ in self._runs:
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                return marks[at]
        return None

    def put(self, key: int, mark: int, owner: int) -> bool:
        """Add a new key; return True if it is the only unpacked one."""
        opened = not self._open
        self._open[key] = mark << _OWNER_BITS | owner
        return opened

    def holds_any(self, entries: Entries) -> bool:
        """Return True if any of the entries' keys is here."""
        return any(self.find(key) is not None for key in entries.keys())  # noqa: SIM118 - not a mapping

    def put_all(self, entries: Entries, owner: int) -> bool:
        """Add entries whose keys are new; return True if they are the only unpacked ones."""
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
        """Drop all ids of these owners."""
        self.seal()
        kept = ((run, [owner not in owners for owner in run.owners]) for run in self._runs)
        runs = (_Run(*(array(part.typecode, compress(part, stays)) for part in run)) for run, stays in kept)
        self._runs = [run for run in runs if run.keys]

    def seal(self) -> None:
        """Pack the open ids into a run; runs of similar size are merged, so that lookups search only a few."""
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
