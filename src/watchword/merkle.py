"""Merkle trees and inclusion proofs of RFC 9162 section 2.1 (SHA-256)."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def leaf_of(entry: bytes) -> bytes:
    """Return the hash of a leaf (section 2.1.1)."""
    return sha256(b"\x00" + entry).digest()


def paths_of(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Return the root of the tree over ``leaves``, and each leaf's path to it (sections 2.1.1 and 2.1.3.1).

    On a level with an odd number of nodes, the last one has no sibling and moves up unchanged; so this pairing level by
    level gives the same tree as the RFC's split at the largest power of two.
    """
    levels = [leaves]
    while len(nodes := levels[-1]) > 1:
        last = len(nodes) - 1
        above = [sha256(b"\x01" + nodes[at] + nodes[at + 1]).digest() for at in range(0, last, 2)]
        levels.append(above if last & 1 else [*above, nodes[last]])
    (root,) = levels.pop()
    paths: list[tuple[bytes, ...]] = [()]
    for nodes in reversed(levels):
        last = len(nodes) - 1
        paths = [(nodes[at ^ 1], *paths[at >> 1]) if at ^ 1 <= last else paths[at >> 1] for at in range(last + 1)]
    return root, paths


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root of the tree of ``size`` leaves that has ``leaf`` at ``index``; None if ``path`` does not fit.

    RFC 9162 section 2.1.3.2. A path that fits (index, size) may fit other pairs too, so the signature must cover the
    size.
    """
    node, at, last = leaf, index, size - 1
    for sibling in path:
        if not last:
            return None
        while at == last and not at & 1:  # it has no sibling here
            at >>= 1
            last >>= 1
        node = sha256(b"\x01" + sibling + node if at & 1 else b"\x01" + node + sibling).digest()
        at >>= 1
        last >>= 1
    return None if last else node


def whole_root(leaves: Sequence[tuple[bytes, tuple[bytes, ...]]]) -> bytes | None:
    """Return the root of the tree of exactly these leaves, each a hash and its path; None if a path does not fit.

    It equals the result of ``root_of`` for each leaf, but hashes each node once: for 64 leaves a sixth of the hashes.
    """
    root, paths = paths_of([leaf for leaf, _ in leaves])
    return root if paths == [path for _, path in leaves] else None
