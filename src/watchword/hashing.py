"""64-bit hashes that stand for ids, claims and places in memory: a universal hash (Carter and Wegman, 1979)."""

from __future__ import annotations

import os
import secrets
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from watchword import engine

if TYPE_CHECKING:
    from watchword_native import Hasher

    from watchword.replay import Claim

PRIME: Final = (1 << 130) - 5
"""Above 128 bits, so that two ids, or halves of digests, are never the same number."""

MASK_64: Final = (1 << 64) - 1


class Hashing:
    """64-bit hashes of parts of claims, linear in all that a sender may choose, so that they collide only by chance.

    The coefficients are secrets of this process, so nobody can aim for a collision. Among a million ids, one collision
    is to be expected in 10^7 such windows. Principals and logs, of which there are few, are hashed once; ``kept`` of
    these hashes are cached.
    """

    def __init__(self, kept: int) -> None:
        self._secret: Final = os.urandom(32)
        self._a, self._b, self._c = (1 + secrets.randbelow(PRIME - 1) for _ in range(3))
        self.number: Final = lru_cache(kept)(self._hash)
        """The number of a principal or a log, below 2^128."""

    @cached_property
    def native(self) -> Hasher:
        """The same hash in the native engine, which must be installed."""
        native = engine.native()
        assert native is not None  # noqa: S101 - only callers with a run of it ask
        return native.Hasher(*(number.to_bytes(24, "little") for number in (self._a, self._b, self._c)))

    def key(self, principal: str, message_id: bytes, issued_at: int) -> int:
        """Return the key under which an id is stored."""
        linear = int.from_bytes(message_id) * self._a + issued_at * self._b + self.number(principal)
        return linear % PRIME & MASK_64

    def late_key(self, claim: Claim) -> int:
        """Return the key under which unverified claims are stored."""
        return self.digest_key(claim.digest)

    def digest_key(self, digest: bytes) -> int:
        """Return the key under which claims with this digest are stored."""
        return self._hash(digest) & MASK_64

    def mark(self, claim: Claim) -> int:
        """Return the number that identifies the claims and their place."""
        linear = int.from_bytes(claim.digest[:16]) * self._a
        if claim.place is not None:
            position, stamp = claim.place
            linear += position.offset * self._b + (0 if stamp is None else 1 + hash(stamp)) * self._c
            linear += self.number(position.log)
        return linear % PRIME & MASK_64

    def _hash(self, data: str | bytes) -> int:
        raw = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
        return int.from_bytes(blake2b(raw, digest_size=16, key=self._secret).digest())
