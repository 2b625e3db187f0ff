"""Ids that may come again however late: what was delivered and is not acknowledged, or waits for a verdict."""

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
    """An id: when it was issued, its key and mark, and where it was found; whose it is, and until when it is kept."""

    entry: Entry
    owner: int
    keep_until: float


class Pins:
    """The pins of one log, by key in the order of arrival, and by place: that is all that an acknowledgement knows.

    ``by_key`` is there for those who look, and for nobody else to change.
    """

    __slots__ = ("_keys", "by_key")

    def __init__(self) -> None:
        # The first of a plain dict takes the longer to find, the more were taken from its front.
        self.by_key: Final[OrderedDict[int, tuple[Entry, int, float]]] = OrderedDict()
        self._keys: dict[int, tuple[int, ...]] = {}

    def mark(self, key: int) -> int | None:
        """Return the mark under ``key``."""
        pin = self.by_key.get(key)
        return None if pin is None else pin[0][2]

    def holds_any(self, keys: AbstractSet[int]) -> bool:
        """Tell whether any of some keys is there."""
        return not self.by_key.keys().isdisjoint(keys)

    def put(self, entry: Entry, owner: int, keep_until: float) -> None:
        """Add one whose key is not there."""
        _, key, _, offset = entry
        self.by_key[key] = entry, owner, keep_until
        if offset is not None:
            self._keys[offset] = (*self._keys.get(offset, ()), key)

    def put_all(self, entries: Sequence[Entry], owner: int, keep: float) -> None:
        """Add several as ``put`` does, each to be kept for ``keep`` seconds from its issue on."""
        places = {entry[3]: (entry[1],) for entry in entries}
        if len(places) < len(entries) or None in places or not self._keys.keys().isdisjoint(places):
            for entry in entries:
                self.put(entry, owner, entry[0] + keep)
            return
        self._keys.update(places)  # type: ignore[arg-type]  # None is not among them
        until = [entry[0] + keep for entry in entries]
        self.by_key.update(zip([entry[1] for entry in entries], zip(entries, repeat(owner), until), strict=True))

    def pop(self, key: int) -> Pin | None:
        """Take one away and return it; None if there is none."""
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
        """Return the keys of what was found at a place."""
        return self._keys.get(offset, ())

    def pop_over(self, time: float) -> Iterator[int]:
        """Take away what need not be kept at ``time``, and yield whose it was.

        Those that came first go first; one that outstays its neighbours only delays their leaving.
        """
        while self.by_key:
            key = next(iter(self.by_key))
            _, owner, keep_until = self.by_key[key]
            if keep_until >= time:
                return
            self.pop(key)
            yield owner

    def owners(self) -> list[int]:
        """Return whose they are."""
        return [owner for _, owner, _ in self.by_key.values()]

    def places(self) -> set[int]:
        """Return where they were found."""
        return {*self._keys}

    @property
    def lowest(self) -> float:
        """The lowest place of all; infinity where there is none."""
        return min(self._keys, default=inf)
