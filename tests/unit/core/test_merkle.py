"""Inclusion proofs against trees that the tests build as the RFC writes them."""

from hashlib import sha256

import pytest

from tests.vectors import trees
from watchword.merkle import ProvenTree, leaf_of, paths_of, root_of


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
    root, paths = paths_of(entries)
    assert root == trees.root(entries)
    assert paths == [trees.path(index, entries) for index in range(size)]


@pytest.mark.parametrize("size", [4095, 4096])
def test_the_largest_trees(size: int) -> None:
    """Promise: at the limit each leaf still leads to the root, by a path of at most twelve."""
    entries = [b"%d" % index for index in range(size)]
    root, paths = paths_of(entries)
    assert {root_of(leaf_of(entry), at, size, paths[at]) for at, entry in enumerate(entries)} == {root}
    assert max(map(len, paths)) == 12


# A tree whose root is known to be true


def learned(size: int, first: int) -> tuple[ProvenTree, list[bytes], list[tuple[bytes, ...]]]:
    """Return a tree that knows one path, its leaves, and the path from each."""
    entries = [b"%d" % index for index in range(size)]
    _, paths = paths_of(entries)
    leaves, fixed = [*map(leaf_of, entries)], [tuple(path) for path in paths]
    tree = ProvenTree(size)
    tree.learn(leaves[first], first, fixed[first])
    return tree, leaves, fixed


def test_an_empty_tree_proves_nothing() -> None:
    """Promise: before a signature was checked nothing is proven."""
    _, leaves, paths = learned(5, 0)
    assert not any(ProvenTree(5).proves(leaf, at, paths[at]) for at, leaf in enumerate(leaves))


@pytest.mark.parametrize("size", [2, 3, 5, 6, 7, 8, 11, 64, 65])
def test_a_known_root_proves_each_of_its_leaves_and_no_other(size: int) -> None:
    """Promise (A25): whichever path was learned, each leaf at its place by its path is proven, and nothing else is."""
    for first in {0, size // 2, size - 1}:
        tree, leaves, paths = learned(size, first)
        for at, (leaf, path) in enumerate(zip(leaves, paths, strict=True)):
            for bad in (
                path[:-1],
                path[1:],
                (*path, bytes(32)),
                (bytes(32), *path),
                path[::-1] if len(path) > 1 else (),
            ):
                assert not tree.proves(leaf, at, bad)
            for step in range(len(path)):
                assert not tree.proves(leaf, at, (*path[:step], bytes(32), *path[step + 1 :]))
            assert not tree.proves(leaf_of(b"other"), at, path)
            assert not any(tree.proves(leaf, other, path) for other in range(size) if other != at)
            assert tree.proves(leaf, at, path)
            assert tree.proves(leaf, at, path)


def test_a_proven_path_makes_the_next_one_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a neighbour of what is known costs no hash at all, so a tree costs some two for each leaf."""
    tree, leaves, paths = learned(64, 0)
    hashes: list[int] = []

    def counting(data: bytes) -> object:
        hashes.append(len(data))
        return sha256(data)

    monkeypatch.setattr("watchword.merkle.sha256", counting)
    assert tree.proves(leaves[1], 1, paths[1])
    assert hashes == []
    assert all(tree.proves(leaf, at, paths[at]) for at, leaf in enumerate(leaves))
    assert len(hashes) < 64
