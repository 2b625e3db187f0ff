"""Inclusion proofs of RFC 9162 section 2.1 (SHA-256), as far as a verifier needs them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def root_of(entry: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root of the tree of ``size`` leaves that has ``entry`` at ``index``; None if ``path`` does not fit.

    RFC 9162 section 2.1.3.2. A path that fits (index, size) may fit other pairs too, so the size must be bound by what
    is signed.
    """
    node = sha256(b"\x00" + entry).digest()
    left, last = index, size - 1
    for sibling in path:
        if last == 0:
            return None
        if left & 1 or left == last:
            node = sha256(b"\x01" + sibling + node).digest()
            while not left & 1 and left:
                left >>= 1
                last >>= 1
        else:
            node = sha256(b"\x01" + node + sibling).digest()
        left >>= 1
        last >>= 1
    return node if last == 0 else None
