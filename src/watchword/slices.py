"""The ids of one log, in slices of issue time, so that the oldest can be dropped slice by slice."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from watchword import engine, packed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from watchword_native import Bucket as NativeBucket
    from watchword_native import Entries

    Bucket: TypeAlias = packed.Bucket | NativeBucket

AT_ONCE: Final = 1 << 18
"""Ids dropped at once, in some 10 ms; the others wait for the next call."""


class Slices:
    """Ids under 64-bit keys, each in the slice of ``width`` seconds in which it was issued.

    Each slice knows the lowest offset of the messages issued in it, even of those whose ids are no longer stored. So a
    reader that restarts knows the offset to read from.
    """

    def __init__(self, width: int) -> None:
        self._width: Final = width
        self._numbers: list[int] = []  # ascending, of all slices
        self._buckets: dict[int, Bucket] = {}
        self._offsets_only: dict[int, float] = {}  # lowest offsets of slices without a bucket
        self._unpacked: list[Bucket] = []  # those in which ids are not packed yet
        self._open = 0  # how many these are
        self._next = 0  # the slice at which ``let_go`` resumes
        native = engine.native()
        self._new_bucket: Final[Callable[[], Bucket]] = packed.Bucket if native is None else native.Bucket

    def find(self, issued_at: int, key: int) -> int | None:
        """Return the mark under ``key``."""
        bucket = self._buckets.get(issued_at // self._width)
        return None if bucket is None else bucket.find(key)

    def put(self, issued_at: int, key: int, mark: int, owner: int, offset: float, room: int) -> None:  # noqa: PLR0917 - for each id
        """Add a new key, found at ``offset``; up to ``room`` keys wait to be packed."""
        number = issued_at // self._width
        bucket = self._buckets.get(number) or self._bucket(number)
        if offset < bucket.lowest:  # noqa: PLR1730 - a third of the time
            bucket.lowest = offset
        if bucket.put(key, mark, owner):
            self._unpacked.append(bucket)
        self._open += 1
        if self._open >= room:
            self._seal()

    def holds_any(self, entries: Entries, least: int, most: int) -> bool:
        """Return True if any key of ``entries``, issued between these times, is stored."""
        return any(bucket.holds_any(entries) for bucket in self._between(least, most))

    def holds_key(self, keys: Iterable[int], least: int, most: int) -> bool:
        """Return True if any of the keys is stored for a message issued between these times."""
        return any(bucket.find(key) is not None for bucket in self._between(least, most) for key in keys)

    def put_all(self, entries: Entries, least: int, most: int, owner: int, room: int) -> None:
        """Add new keys of messages issued between these times, as ``put`` does."""
        number = least // self._width
        if number != most // self._width:
            for issued_at, key, mark, offset in entries.rows():
                self.put(issued_at, key, mark, owner, inf if offset is None else offset, room)
            return
        bucket = self._buckets.get(number) or self._bucket(number)
        if bucket.put_all(entries, owner):
            self._unpacked.append(bucket)
        self._open += len(entries)
        if self._open >= room:
            self._seal()

    def _seal(self) -> None:
        for one in self._unpacked:
            one.seal()
        self._unpacked.clear()
        self._open = 0

    def _between(self, least: int, most: int) -> Iterator[Bucket]:
        first, last = least // self._width, most // self._width
        for number in self._numbers[bisect_left(self._numbers, first) : bisect_right(self._numbers, last)]:
            if number in self._buckets:
                yield self._buckets[number]

    def note(self, issued_at: int, offset: float) -> None:
        """Note the offset of a message whose id is not stored."""
        number = issued_at // self._width
        bucket = self._buckets.get(number)
        if bucket is not None:
            bucket.lowest = min(bucket.lowest, offset)
            return
        if number not in self._offsets_only:
            insort(self._numbers, number)
        self._offsets_only[number] = min(self._offsets_only.get(number, inf), offset)

    @property
    def lowest(self) -> float:
        """The lowest offset of all messages; infinity without any."""
        return min([bucket.lowest for bucket in self._buckets.values()] + [*self._offsets_only.values()], default=inf)

    def leave(self, floor: float) -> Counter[int] | None:
        """Drop slices below ``floor``; return how many ids of each owner were dropped, None if there was no slice."""
        numbers, over = self._numbers, 0
        if not numbers or (numbers[0] + 1) * self._width > floor:  # as nearly always
            return None
        gone = Counter[int]()
        while over < len(numbers) and (numbers[over] + 1) * self._width <= floor and gone.total() < AT_ONCE:
            self._offsets_only.pop(numbers[over], None)
            if numbers[over] in self._buckets:
                gone += Counter(self._buckets.pop(numbers[over]).owners())
            over += 1
        del numbers[:over]
        return gone

    def let_go(self, floors: Mapping[int, float]) -> Iterator[tuple[int, Counter[int]]]:
        """Drop ids below the floors of their owners, slice by slice.

        Yield for each slice how many ids were scanned, and how many of each owner were dropped. The next call resumes
        where the caller stopped.
        """
        highest = max(floors.values(), default=-inf)
        for number in sorted(number for number in self._buckets if number >= self._next):
            end = (number + 1) * self._width
            if end > highest:
                break
            self._next = number + 1
            owners = Counter(self._buckets[number].owners())
            gone = Counter({owner: count for owner, count in owners.items() if floors.get(owner, -inf) >= end})
            if len(gone) == len(owners):
                self._offsets_only[number] = self._buckets.pop(number).lowest
            elif gone:
                self._buckets[number].drop({*gone})
            yield owners.total(), gone
        self._next = 0

    def holds_below(self, floor: float) -> bool:
        """Return True if ``leave(floor)`` would drop ids."""
        return bool(self._buckets) and (min(self._buckets) + 1) * self._width <= floor

    def owners(self) -> Counter[int]:
        """Return how many ids each owner has."""
        return sum((Counter(bucket.owners()) for bucket in self._buckets.values()), Counter[int]())

    def _bucket(self, number: int) -> Bucket:
        """Return a new bucket for a slice that has none."""
        bucket = self._buckets[number] = self._new_bucket()
        if number in self._offsets_only:
            bucket.lowest = self._offsets_only.pop(number)
        else:
            insort(self._numbers, number)
        return bucket
