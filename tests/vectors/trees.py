"""Trees of RFC 9162 section 2.1 as the RFC writes them: recursive, slow, and unlike the verifier's own loop."""

from collections.abc import Sequence
from hashlib import sha256


def root(entries: Sequence[bytes]) -> bytes:
    """Return the Merkle tree head of ``entries`` (section 2.1.1)."""
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = _split(len(entries))
    return sha256(b"\x01" + root(entries[:split]) + root(entries[split:])).digest()


def path(index: int, entries: Sequence[bytes]) -> list[bytes]:
    """Return the inclusion path of the entry at ``index`` (section 2.1.3.1)."""
    if len(entries) == 1:
        return []
    split = _split(len(entries))
    if index < split:
        return [*path(index, entries[:split]), root(entries[split:])]
    return [*path(index - split, entries[split:]), root(entries[:split])]


def _split(count: int) -> int:
    """Return the largest power of two that is smaller than ``count``."""
    return 1 << (count - 1).bit_length() - 1
