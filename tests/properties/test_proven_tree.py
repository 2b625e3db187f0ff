"""What is proven by a known tree against what climbs to its root."""

from hypothesis import given, settings
from hypothesis import strategies as st

from watchword.merkle import ProvenTree, leaf_of, paths_of, root_of


@given(st.integers(2, 70), st.data())
@settings(max_examples=300, deadline=None)
def test_proven_is_exactly_what_leads_to_the_root(size: int, data: st.DataObject) -> None:
    """Promise (A25): in any order of leaves, bent or not, a proof holds exactly if it leads to the root that is known.

    So nothing that did not hold is ever learned from.
    """
    entries = [b"%d" % at for at in range(size)]
    root, paths = paths_of(entries)
    tree = ProvenTree(size)
    first = data.draw(st.integers(0, size - 1))
    tree.learn(leaf_of(entries[first]), first, tuple(paths[first]))
    nodes = [*map(leaf_of, entries), *(node for path in paths for node in path), root, bytes(32)]
    for _ in range(data.draw(st.integers(1, 40))):
        at = data.draw(st.integers(0, size - 1))
        leaf, index, path = leaf_of(entries[at]), at, list(paths[at])
        match data.draw(st.sampled_from(["none", "leaf", "index", "node", "short", "long", "other", "from above"])):
            case "leaf":
                leaf = data.draw(st.sampled_from(nodes))
            case "index":
                index = data.draw(st.integers(0, size - 1))
            case "node":
                path[data.draw(st.integers(0, len(path) - 1))] = data.draw(st.sampled_from(nodes))
            case "short":
                del path[data.draw(st.integers(0, len(path) - 1))]
            case "long":
                path.insert(data.draw(st.integers(0, len(path))), data.draw(st.sampled_from(nodes)))
            case "other":
                path = paths[data.draw(st.integers(0, size - 1))]
            case "from above":
                leaf, path = path[0], path[1:]
        assert tree.proves(leaf, index, tuple(path)) is (root_of(leaf, index, size, path) == root)


@given(st.integers(2, 70).flatmap(lambda size: st.permutations(range(size))))
@settings(max_examples=100, deadline=None)
def test_every_leaf_is_proven_in_any_order(order: list[int]) -> None:
    """Promise: once its root is known, a tree proves all of its leaves, whichever comes first."""
    entries = [b"%d" % at for at in range(len(order))]
    _, paths = paths_of(entries)
    tree = ProvenTree(len(order))
    tree.learn(leaf_of(entries[order[0]]), order[0], tuple(paths[order[0]]))
    assert all(tree.proves(leaf_of(entries[at]), at, tuple(paths[at])) for at in order)
