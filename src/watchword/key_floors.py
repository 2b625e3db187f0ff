"""Floors of single keys in one log: what found no room counts as seen, and so does all that its key signed before.

Anybody can invent keys. So a key under which something has verified is proven, and has a floor of its own; of the
others the first ones have, and the rest share one. A flood under invented keys raises no floor of a proven one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RAISED: Final = 1024
"""Keys without a verdict whose floors are kept apart in one log; the others share one."""

MAX_PROVEN: Final = 1 << 14
"""Keys that are kept apart because something verified under them; to forget them costs nothing but that."""

Pair: TypeAlias = tuple[str, bytes]
"""A principal and one of its keys' ids."""


class ProvenKeys(set[Pair]):
    """The keys of all logs under which something has verified."""

    __slots__ = ()

    def prove(self, pair: Pair, floors: Iterable[KeyFloors]) -> None:
        """Keep the floors of a key apart from now on; what nobody verified raises them no more."""
        if len(self) >= MAX_PROVEN:
            self.clear()
        self.add(pair)
        for one in floors:
            one.keep_apart(pair)


class KeyFloors:
    """Up to when what each key signed is too old in one log."""

    __slots__ = ("_proven", "own", "shared")

    def __init__(self, proven: ProvenKeys) -> None:
        self._proven: Final = proven
        self.own: dict[Pair, float] = {}
        self.shared = -inf

    def of(self, pair: Pair) -> float:
        """Return up to when whatever this key signed is too old."""
        if not self.own and self.shared == -inf:
            return -inf
        own = self.own.get(pair, -inf)
        return own if pair in self._proven else max(own, self.shared)

    def rise(self, pair: Pair, issued_at: int) -> bool:
        """Raise the floor of a key, or the one that it shares; return False if that is as high already."""
        if pair in self._proven or pair in self.own or len(self.own) < MAX_RAISED:
            before = self.own.get(pair, -inf)
            self.own[pair] = max(before, issued_at)
        else:
            before = self.shared
            self.shared = max(before, issued_at)
        return issued_at > before

    def keep_apart(self, pair: Pair) -> None:
        """Give a key the floor that it has shared for its own."""
        if self.shared > self.own.get(pair, -inf):
            self.own[pair] = self.shared

    def forget(self, floor: float) -> None:
        """Forget what lies below a floor of all keys."""
        self.own = {pair: raised for pair, raised in self.own.items() if raised >= floor}
