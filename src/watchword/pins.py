"""Pinned ids of one log: their messages may be redelivered however late, as they are unacked or have no verdict yet."""

from __future__ import annotations

from collections import OrderedDict
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from watchword_native import Entry


class Pin(NamedTuple):
    """An id: its entry (issue time, key, mark and offset), its owner, and until when it must be kept at least."""

    entry: Entry
    owner: int
    keep_until: float


class Pins:
    """The pins of one log, by key in the order of arrival, and by offset, which is all that an acknowledgement names.

    ``by_key`` is for callers to read, not to change.
    """

    __slots__ = ("_keys", "by_key")

    def __init__(self) -> None:
        # In a plain dict, finding the first item takes longer the more items were removed from its front.
        self.by_key: Final[OrderedDict[int, tuple[Entry, int, float]]] = OrderedDict()
        self._keys: dict[int, tuple[int, ...]] = {}

    def mark(self, key: int) -> int | None:
        """Return the mark under ``key``."""
        pin = self.by_key.get(key)
        return None if pin is None else pin[0][2]

    def holds_any(self, keys: AbstractSet[int]) -> bool:
        """Return True if any of the keys is pinned."""
        return not self.by_key.keys().isdisjoint(keys)

    def put(self, entry: Entry, owner: int, keep_until: float) -> None:
        """Add a pin with a new key."""
        _, key, _, offset = entry
        self.by_key[key] = entry, owner, keep_until
        if offset is not None:
            self._keys[offset] = (*self._keys.get(offset, ()), key)

    def put_all(self, entries: Sequence[Entry], owner: int, keep: float) -> None:
        """Add several as ``put`` does, each kept for ``keep`` seconds from its issue."""
        places = {entry[3]: (entry[1],) for entry in entries}
        if len(places) < len(entries) or None in places or not self._keys.keys().isdisjoint(places):
            for entry in entries:
                self.put(entry, owner, entry[0] + keep)
            return
        self._keys.update(places)  # type: ignore[arg-type]  # None is not among them
        until = [entry[0] + keep for entry in entries]
        self.by_key.update(zip([entry[1] for entry in entries], zip(entries, repeat(owner), until), strict=True))

    def pop(self, key: int) -> Pin | None:
        """Remove a pin and return it; None if the key is not pinned."""
        found = self.by_key.pop(key, None)
        if found is None:
            return None
        offset = found[0][3]
        if offset is not None:
            left = self._keys.pop(offset)
            if len(left) > 1:
                self._keys[offset] = tuple(one for one in left if one != key)
        return Pin(*found)

    def at(self, offset: int) -> tuple[int, ...]:
        """Return the keys pinned at an offset."""
        return self._keys.get(offset, ())

    def pop_over(self, time: float) -> Iterator[int]:
        """Remove pins that need not be kept at ``time``, and yield their owners.

        They go in order of arrival; one that must be kept longer only delays those after it.
        """
        while self.by_key:
            key = next(iter(self.by_key))
            _, owner, keep_until = self.by_key[key]
            if keep_until >= time:
                return
            self.pop(key)
            yield owner

    def owners(self) -> list[int]:
        """Return the owner of each pin."""
        return [owner for _, owner, _ in self.by_key.values()]

    def places(self) -> set[int]:
        """Return the offsets that have pins."""
        return {*self._keys}

    @property
    def lowest(self) -> float:
        """The lowest offset with a pin; infinity without any."""
        return min(self._keys, default=inf)
