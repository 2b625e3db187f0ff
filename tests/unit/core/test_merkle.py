"""Inclusion proofs against trees that the tests build as the RFC writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import second, trees
from watchword.merkle import leaf_of, paths_of, root_of


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


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 70, 128, 130, 257])
def test_trees_are_those_of_the_rfc(size: int) -> None:
    """Promise: root and paths that a signer makes are those of the RFC's own recursive words."""
    entries = [b"%d" % index for index in range(size)]
    root, paths = paths_of([*map(leaf_of, entries)])
    assert root == trees.root(entries)
    assert [*map(list, paths)] == [trees.path(index, entries) for index in range(size)]


@pytest.mark.parametrize("size", [4095, 4096])
def test_the_largest_trees(size: int) -> None:
    """Promise: at the limit each leaf still leads to the root, by a path of at most twelve."""
    entries = [b"%d" % index for index in range(size)]
    leaves = [*map(leaf_of, entries)]
    root, paths = paths_of(leaves)
    assert {root_of(leaf, at, size, paths[at]) for at, leaf in enumerate(leaves)} == {root}
    assert max(map(len, paths)) == 12


@given(
    size=st.integers(2, 70) | st.integers(2, 4096),
    at=st.integers(0, 4095),
    path=st.lists(st.binary(min_size=32, max_size=32), max_size=13),
)
@settings(max_examples=300, deadline=None)
def test_any_path_leads_where_the_rfcs_recursion_leads(size: int, at: int, path: list[bytes]) -> None:
    """Promise (A25): whatever the path, it has the root of the RFC's own recursion, or fits neither."""
    index = at % size
    try:
        wanted = second._root(b"entry", index, size, path)
    except second.Refused:
        wanted = None
    assert root_of(leaf_of(b"entry"), index, size, path) == wanted
