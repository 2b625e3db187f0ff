"""A key source that a test fills, asks, and lets fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watchword import MemoryKeys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword import VerificationKey


class KeyDirectory:
    """A key source whose keys come and go.

    It raises ConnectionError for the next ``failures`` questions, and for those about the principals in ``down_for``;
    ``asked`` counts all questions.
    """

    def __init__(self, keys: Iterable[VerificationKey] = ()) -> None:
        self._keys = list(keys)
        self._source = MemoryKeys(self._keys)
        self.failures = 0
        self.down_for: set[str] = set()
        self.asked = 0

    def add(self, key: VerificationKey) -> None:
        """Let a key be known from now on; ConfigurationError where it is another principal's, or its id is taken."""
        self._source = MemoryKeys([*self._keys, key])
        self._keys.append(key)

    def remove(self, principal: str) -> None:
        """Let no key of a principal be known any more."""
        self._keys = [key for key in self._keys if key.principal != principal]
        self._source = MemoryKeys(self._keys)

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        self.asked += 1
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the key source is down")
        if principal in self.down_for:
            raise ConnectionError(f"the key source is down for {principal}")
        return await self._source.find(principal, key_id)
