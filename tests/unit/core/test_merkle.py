"""Inclusion proofs against trees that the tests build as the RFC writes them."""

import pytest

from tests.vectors import trees
from watchword.merkle import leaf_of, root_of


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65])
def test_every_leaf_of_every_tree_leads_to_its_root(size: int) -> None:
    """Promise: each leaf's path gives the tree's root, for balanced and lopsided trees alike."""
    entries = [bytes([index]) * 3 for index in range(size)]
    root = trees.root(entries)
    for index, entry in enumerate(entries):
        path = trees.path(index, entries)
        assert root_of(leaf_of(entry), index, size, path) == root
        assert root_of(leaf_of(entry + b"x"), index, size, path) != root


@pytest.mark.parametrize("size", [2, 3, 5, 8, 13])
def test_a_path_of_another_length_does_not_fit(size: int) -> None:
    """Promise (A25): a path that is too short or too long has no root."""
    entries = [bytes([index]) for index in range(size)]
    for index, entry in enumerate(entries):
        path = trees.path(index, entries)
        assert root_of(leaf_of(entry), index, size, [*path, bytes(32)]) is None
        assert root_of(leaf_of(entry), index, size, path[:-1]) is None


def test_a_path_may_fit_another_index_and_size() -> None:
    """Promise: we know why the size must be signed: RFC 9162's check alone takes a path of (2, 3) for (1, 2)."""
    entries = [b"a", b"b", b"c"]
    path = trees.path(2, entries)
    assert root_of(leaf_of(b"c"), 1, 2, path) == root_of(leaf_of(b"c"), 2, 3, path) == trees.root(entries)
    assert root_of(leaf_of(b"c"), 1 << 60, (1 << 60) + 1, path) == trees.root(entries)
