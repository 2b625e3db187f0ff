"""Floors of single keys in one log. An id without room counts as seen, and so does all that its key signed before.

Anyone can invent key ids. So a key under which a message has verified is proven and has its own floor. Of the other
keys, the first ones have their own, and the rest share one. A flood under invented keys raises no proven key's floor.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_RAISED: Final = 1024
"""The most unproven keys with their own floor in one log; the others share one."""

MAX_PROVEN: Final = 1 << 14
"""The most proven keys; if they are forgotten, they only lose that status."""

Pair: TypeAlias = tuple[str, bytes]
"""A principal and one of its keys' ids."""


class ProvenKeys(set[Pair]):
    """The keys of all logs under which a message has verified."""

    __slots__ = ()

    def prove(self, pair: Pair, floors: Iterable[KeyFloors]) -> None:
        """Give a key its own floors from now on; the shared floor no longer raises them."""
        if len(self) >= MAX_PROVEN:
            self.clear()
        self.add(pair)
        for one in floors:
            one.keep_apart(pair)


class KeyFloors:
    """The time up to which each key's messages are too old in one log."""

    __slots__ = ("_proven", "own", "shared")

    def __init__(self, proven: ProvenKeys) -> None:
        self._proven: Final = proven
        self.own: dict[Pair, float] = {}
        self.shared = -inf

    def of(self, pair: Pair) -> float:
        """Return the time up to which this key's messages are too old."""
        if not self.own and self.shared == -inf:
            return -inf
        own = self.own.get(pair, -inf)
        return own if pair in self._proven else max(own, self.shared)

    def rise(self, pair: Pair, issued_at: int) -> bool:
        """Raise the floor of a key, or the shared one; return False if it is already as high."""
        if pair in self._proven or pair in self.own or len(self.own) < MAX_RAISED:
            before = self.own.get(pair, -inf)
            self.own[pair] = max(before, issued_at)
        else:
            before = self.shared
            self.shared = max(before, issued_at)
        return issued_at > before

    def keep_apart(self, pair: Pair) -> None:
        """Give a key its own floor, beginning with the shared one."""
        if self.shared > self.own.get(pair, -inf):
            self.own[pair] = self.shared

    def forget(self, floor: float) -> None:
        """Forget key floors below the floor of the whole log."""
        self.own = {pair: raised for pair, raised in self.own.items() if raised >= floor}
