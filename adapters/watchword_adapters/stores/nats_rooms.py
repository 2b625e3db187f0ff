"""Limits how many ids each principal may store in a NATS KV bucket, which can count ids but not limit them."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

QUIET: Final = 1.0
"""Seconds before a principal at its limit is counted again."""
_SHARE: Final = 16
"""A principal is counted again when 1/_SHARE of its quota is used up: that many processes cannot exceed it."""


class Rooms:
    """The remaining quotas of all principals under one ``bound``; ``count`` returns how many ids one holds."""

    def __init__(self, bound: int, count: Callable[[bytes], Awaitable[int]]) -> None:
        self._bound: Final = bound
        self._count: Final = count
        self._rooms: dict[bytes, _Room] = {}
        self._counting: Final = asyncio.Lock()

    async def prepare(self, owners: Iterable[bytes]) -> None:
        """Count the ids of principals whose quota is not known well enough."""
        async with self._counting:  # no further ids are sent meanwhile
            rooms = {owner: self._rooms.setdefault(owner, _Room()) for owner in owners}
            stale = [(owner, room) for owner, room in rooms.items() if room.is_stale]
            await asyncio.gather(*(room.recount(self._bound, self._count(owner)) for owner, room in stale))

    def take(self, owner: bytes) -> bool:
        """Reserve quota for one id, which then is in flight; return False if there is none."""
        room = self._rooms[owner]
        if room.left <= 0:
            return False
        room.left -= 1
        room.under_way += 1
        return True

    def arrived(self, owner: bytes) -> None:
        """Record that an id is no longer in flight, so that a count includes it."""
        self._rooms[owner].under_way -= 1

    def give_back(self, owner: bytes) -> None:
        """Return the quota of an id that was there already."""
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
        self._quiet_until = -math.inf if under_way else time.monotonic() + QUIET
