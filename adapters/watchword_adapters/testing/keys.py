"""A key source that a test can fill, delay and make fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from watchword import MemoryKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword import VerificationKey


class KeyDirectory:
    """A key source whose keys can be changed.

    It raises ConnectionError while it is ``down``, for the next ``failures`` look-ups, and for look-ups of the
    principals in ``down_for``; it knows no keys of those in ``unknown``. Look-ups wait while ``gate`` is cleared.
    ``asked`` counts all look-ups, and each sets ``question``.
    """

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self._keys: Final[list[VerificationKey]] = []
        self.replace(*keys)
        self.down = False
        self.failures = 0
        self.down_for: set[str] = set()
        self.unknown: set[str] = set()
        self.asked = 0
        self.question: Final = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def add(self, key: VerificationKey) -> None:
        """Add a key; ConfigurationError if it belongs to another principal, or its id is taken."""
        self.replace(*self._keys, key)

    def replace(self, *keys: VerificationKey) -> None:
        """Replace all keys by these."""
        self._source = MemoryKeys(keys)
        self._keys[:] = keys

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        self.asked += 1
        self.question.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the key source is down")
        if self.down or principal in self.down_for:
            raise ConnectionError(f"the key source is down for {principal}")
        return None if principal in self.unknown else await self._source.find(principal, key_id)
