"""Trees and inclusion proofs of RFC 9162 section 2.1 (SHA-256).

A node has a position: its level, counted from the leaves, and its place there. Where a level has an odd number of nodes
the last one has no sibling and moves up as it is; so the RFC's split at the largest power of two and this pairing level
by level give the same tree.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_LEVEL: Final = 16
"""Bits that a place has in a position; a tree has at most 2^12 leaves."""

_STEPS_KEPT: Final = 1 << 13


def paths_of(entries: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """Return the root of the tree over ``entries``, and the path to it from each (sections 2.1.1 and 2.1.3.1)."""
    level = [leaf_of(entry) for entry in entries]
    paths: list[list[bytes]] = [[] for _ in entries]
    height = 0
    while len(level) > 1:
        last = len(level) - 1
        for at, path in enumerate(paths):
            sibling = at >> height ^ 1
            if sibling <= last:
                path.append(level[sibling])
        above = [sha256(b"\x01" + level[at] + level[at + 1]).digest() for at in range(0, last, 2)]
        level = above if last & 1 else [*above, level[last]]
        height += 1
    return level[0], paths


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root of the tree of ``size`` leaves that has ``leaf`` at ``index``; None if ``path`` does not fit.

    RFC 9162 section 2.1.3.2. A path that fits (index, size) may fit other pairs too, so the size must be bound by what
    is signed.
    """
    steps = _steps(index, size)
    if len(path) != len(steps):
        return None
    node = leaf
    for (_, right), sibling in zip(steps, path, strict=True):
        node = sha256(b"\x01" + sibling + node if right else b"\x01" + node + sibling).digest()
    return node


class ProvenTree:
    """What is known of one tree whose root is true, so that no way to it need be climbed twice.

    If the root is true then so is every node of a path that leads to it, or SHA-256 is broken. Each is kept with the
    rest of its own path.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._nodes: dict[int, tuple[bytes, tuple[bytes, ...]]] = {}

    def proves(self, leaf: bytes, index: int, path: tuple[bytes, ...]) -> bool:
        """Tell whether ``path`` meets a known node and goes on as that one's; then what it passed is known too."""
        node, nodes = leaf, self._nodes
        passed: list[tuple[int, bytes]] = []
        for (position, right), sibling in zip(_steps(index, self._size), path, strict=False):
            known = nodes.get(position)
            if known is not None:
                proven = known[0] == node and known[1] == path[len(passed) :]
                if proven and passed:
                    self._learn(passed, path)
                return proven
            passed.append((position, node))
            node = sha256(b"\x01" + sibling + node if right else b"\x01" + node + sibling).digest()
        return False

    def learn(self, leaf: bytes, index: int, path: tuple[bytes, ...]) -> None:
        """Know a path that ``root_of`` found to lead to the root."""
        node = leaf
        passed: list[tuple[int, bytes]] = []
        for (position, right), sibling in zip(_steps(index, self._size), path, strict=True):
            passed.append((position, node))
            node = sha256(b"\x01" + sibling + node if right else b"\x01" + node + sibling).digest()
        self._learn(passed, path)

    def _learn(self, passed: list[tuple[int, bytes]], path: tuple[bytes, ...]) -> None:
        for step, (position, node) in enumerate(passed):
            self._nodes[position] = (node, path[step:])
            self._nodes[position ^ 1] = (path[step], (node, *path[step + 1 :]))


def leaf_of(entry: bytes) -> bytes:
    """Return the hash of a leaf (section 2.1.1)."""
    return sha256(b"\x00" + entry).digest()


@lru_cache(_STEPS_KEPT)
def _steps(index: int, size: int) -> tuple[tuple[int, bool], ...]:
    """Return the positions on the way from a leaf to the root, each with whether it is a right child."""
    level, at, last = 0, index, size - 1
    steps: list[tuple[int, bool]] = []
    while last:
        while at == last and not at & 1:  # no sibling: it moves up as it is
            level, at, last = level + 1, at >> 1, last >> 1
        steps.append((level << _LEVEL | at, bool(at & 1)))
        level, at, last = level + 1, at >> 1, last >> 1
    return tuple(steps)
