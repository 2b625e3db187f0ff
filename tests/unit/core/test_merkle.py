"""Inclusion proofs against trees that the tests build as the RFC writes them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.vectors import second, trees
from watchword.merkle import leaf_of, paths_of, root_of, whole_root


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
@settings(max_examples=300)
def test_any_path_leads_where_the_rfcs_recursion_leads(size: int, at: int, path: list[bytes]) -> None:
    """Promise (A25): whatever the path, it has the root of the RFC's own recursion, or fits neither."""
    index = at % size
    try:
        wanted = second._root(b"entry", index, size, path)
    except second.Refused:
        wanted = None
    assert root_of(leaf_of(b"entry"), index, size, path) == wanted


def standing(entries: list[bytes]) -> list[tuple[bytes, tuple[bytes, ...]]]:
    """Return the leaves of a tree as they are asked for."""
    return [(leaf_of(entry), tuple(trees.path(at, entries))) for at, entry in enumerate(entries)]


@given(size=st.integers(1, 70))
@settings(max_examples=70)
def test_all_leaves_of_a_tree_share_its_root(size: int) -> None:
    """Promise: a tree's leaves together lead where each of them leads."""
    entries = [b"%d" % index for index in range(size)]
    assert whole_root(standing(entries)) == trees.root(entries)


@given(size=st.integers(2, 20), data=st.data())
@settings(max_examples=300)
def test_leaves_of_which_one_is_bent_share_no_root(size: int, data: st.DataObject) -> None:
    """Promise (A25): leaves have a shared root only where each of them leads to that one."""
    entries = [b"%d" % index for index in range(size)]
    leaves = standing(entries)
    at = data.draw(st.integers(0, size - 1))
    leaf, path = leaves[at]
    step = data.draw(st.integers(0, len(path) - 1))
    bends = {
        "leaf": (bytes(32), path),
        "another leaf": (leaf_of(b"%d" % (size - 1 - at)), path),
        "node": (leaf, (*path[:step], bytes(32), *path[step + 1 :])),
        "short": (leaf, path[:-1]),
        "long": (leaf, (*path, bytes(32))),
        "turned": (leaf, path[::-1]),
    }
    leaves[at] = data.draw(st.sampled_from([*bends.values()]))
    roots = {root_of(leaf, at, size, path) for at, (leaf, path) in enumerate(leaves)}
    assert whole_root(leaves) == (trees.root(entries) if roots == {trees.root(entries)} else None)


def test_leaves_in_another_order_share_no_root() -> None:
    """Promise (A25): a caller that asks for a tree's root names each leaf once, and in its place."""
    leaves = standing([b"a", b"b", b"c", b"d"])
    assert whole_root([leaves[at] for at in (1, 0, 2, 3)]) is None
    assert whole_root([leaves[at] for at in (0, 0, 2, 3)]) is None
    assert whole_root(leaves[:3]) is None
