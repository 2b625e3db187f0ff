"""How many ids each principal may still put into a NATS KV bucket, which can count but not bound them."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

_QUIET: Final = 1.0
"""Seconds for which a principal that has no room left is not counted again."""
_SHARE: Final = 16
"""A principal is counted again when this part of its room is used up: that many processes cannot pass the bound."""


class Rooms:
    """The rooms of all principals under one ``bound``; ``count`` asks the bucket how many ids one holds."""

    def __init__(self, bound: int, count: Callable[[bytes], Awaitable[int]]) -> None:
        self._bound: Final = bound
        self._count: Final = count
        self._rooms: dict[bytes, _Room] = {}
        self._counting: Final = asyncio.Lock()

    async def prepare(self, owners: Iterable[bytes]) -> None:
        """Count whose room is not known well enough."""
        async with self._counting:  # nothing else comes under way meanwhile
            rooms = {owner: self._rooms.setdefault(owner, _Room()) for owner in owners}
            stale = [(owner, room) for owner, room in rooms.items() if room.is_stale]
            await asyncio.gather(*(room.recount(self._bound, self._count(owner)) for owner, room in stale))

    def take(self, owner: bytes) -> bool:
        """Take room for one id, which is under way then; False if there is none."""
        room = self._rooms[owner]
        if room.left <= 0:
            return False
        room.left -= 1
        room.under_way += 1
        return True

    def arrived(self, owner: bytes) -> None:
        """Say that an id is no longer under way, so that a count includes it."""
        self._rooms[owner].under_way -= 1

    def give_back(self, owner: bytes) -> None:
        """Return the room of an id that had been there."""
        self._rooms[owner].left += 1


class _Room:
    def __init__(self) -> None:
        self.left = 0
        self.under_way = 0
        self._recount_at = 0
        self._quiet_until = -math.inf

    @property
    def is_stale(self) -> bool:
        return time.monotonic() > self._quiet_until if self.left <= 0 else self.left <= self._recount_at

    async def recount(self, bound: int, count: Awaitable[int]) -> None:
        under_way = self.under_way  # perhaps counted, perhaps not
        self.left = bound - await count - under_way
        self._recount_at = self.left - max(1, self.left // _SHARE)
        self._quiet_until = -math.inf if under_way else time.monotonic() + _QUIET
