"""Looks for keys side by side, so that no message waits for another one's key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from watchword.errors import Pending, Unavailable
from watchword_adapters.freshness import FRESH

if TYPE_CHECKING:
    from watchword import KeySource, VerificationKey

PATIENCE: Final = 0.02
"""Seconds for which a message waits for its key before others are judged instead."""

MOST: Final = 256
"""Look-ups under way at once; a message that would need one more cannot be judged."""

_SLOW_FOR: Final = 60.0
"""Seconds for which a key source that was slow once is not waited for. A task for each look-up costs some 50 us."""


class LookUps:
    """A key source in front of another one, which raises Pending where that one takes its time.

    As long as the source answers at once it is asked directly. What was found stays for the messages that wait for it,
    which are judged again as soon as the look-up is done.
    """

    def __init__(self, keys: KeySource) -> None:
        self._keys: Final = keys
        self._known: dict[tuple[str, bytes], asyncio.Task[VerificationKey | None]] = {}
        self._under_way = 0
        self._slow_until = 0.0

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        loop, pair = asyncio.get_running_loop(), (principal, key_id)
        task = self._known.get(pair)
        if task is None:
            begun = loop.time()
            if begun >= self._slow_until:
                try:
                    return await self._keys.find(principal, key_id)
                finally:
                    self._timed(begun)
            if self._under_way >= MOST:
                raise Unavailable("keys", f"{MOST} look-ups are under way")
            self._under_way += 1
            task = self._known[pair] = loop.create_task(self._found(principal, key_id))
            task.add_done_callback(lambda _: loop.call_later(FRESH, self._known.pop, pair, None))
            await asyncio.wait((task,), timeout=PATIENCE)
        if not task.done():
            raise Pending(task)
        return task.result()

    async def _found(self, principal: str, key_id: bytes) -> VerificationKey | None:
        begun = asyncio.get_running_loop().time()
        try:
            return await self._keys.find(principal, key_id)
        finally:
            self._under_way -= 1
            self._timed(begun)

    def _timed(self, begun: float) -> None:
        now = asyncio.get_running_loop().time()
        if now - begun > PATIENCE:
            self._slow_until = now + _SLOW_FOR
