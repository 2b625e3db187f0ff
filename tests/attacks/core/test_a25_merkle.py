"""A25: inclusion proofs bent in every way, before verifiers that remember nothing and one that knows the true tree."""

import cbor2
import pytest

from tests.unit.core.world import (
    ALICE_KEY,
    BOB,
    World,
    batch,
    batched,
    bear,
    cbor,
    claims_of,
    direct,
    endings,
    nats,
    protected_of,
    signature_of,
    structure,
)
from tests.vectors import trees
from watchword import Reason, Rejected
from watchword.reader import LearningReader
from watchword.signatures import SignatureChecker
from watchword.spi import Message

SIZE = 7
MESSAGES = [nats(value=bytes([index])) for index in range(SIZE)]
ENTRIES = [cbor(claims_of(message, c7=bytes([index]) * 16)) for index, message in enumerate(MESSAGES)]
HEADER = protected_of(ALICE_KEY, c395=1)
SIGNATURE = signature_of(ALICE_KEY, structure(HEADER, SIZE, trees.root(ENTRIES)))


@pytest.fixture(autouse=True, params=["cold", "warm"])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every verifier of the test share one memory of roots and shapes, that of the one that verified it all."""
    if request.param == "warm":
        signatures, reader = SignatureChecker(), LearningReader()
        monkeypatch.setattr("watchword.verifier.SignatureChecker", lambda: signatures)
        monkeypatch.setattr("watchword.verifier.LearningReader", lambda: reader)
        world = World()
        for index, message in enumerate(MESSAGES):
            raw = batched(ENTRIES[index], HEADER, SIGNATURE, size=SIZE, index=index, path=trees.path(index, ENTRIES))
            assert world.verify(bear(message, raw)).value == message.value


def reason_of(message: Message) -> Reason | None:
    """Return why the message is rejected; None if it is delivered."""
    try:
        World().verify(message)
    except Rejected as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("at", range(SIZE))
def test_a25_every_other_index_and_size(at: int) -> None:
    """Promise: of all indexes and sizes only the true pair verifies."""
    path = trees.path(at, ENTRIES)
    for size in range(2, 20):
        for index in range(size):
            raw = batched(ENTRIES[at], HEADER, SIGNATURE, size=size, index=index, path=path)
            true = (size, index) == (SIZE, at)
            assert reason_of(bear(MESSAGES[at], raw)) is (None if true else Reason.BAD_SIGNATURE)


def test_a25_the_attack_if_the_size_were_not_signed() -> None:
    """Promise: we know why the size is signed: the path of (2, 3) leads to the same root for (1, 2)."""
    three = ENTRIES[:3]
    path = trees.path(2, three)
    header = protected_of(ALICE_KEY, c395=1)
    for signed_size, claimed, passes in ((3, (3, 2), True), (3, (2, 1), False), (2, (2, 1), True)):
        signature = signature_of(ALICE_KEY, structure(header, signed_size, trees.root(three)))
        raw = batched(three[2], header, signature, size=claimed[0], index=claimed[1], path=path)
        assert reason_of(bear(MESSAGES[2], raw)) is (None if passes else Reason.BAD_SIGNATURE)
    huge = batched(three[2], header, signature, size=(1 << 60) + 1, index=1 << 60, path=path)
    assert reason_of(bear(MESSAGES[2], huge)) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (trees.path(0, ENTRIES)[:-1], Reason.BAD_SIGNATURE),
        ([*trees.path(0, ENTRIES), bytes(32)], Reason.BAD_SIGNATURE),
        (trees.path(0, ENTRIES)[::-1], Reason.BAD_SIGNATURE),
        (trees.path(1, ENTRIES), Reason.BAD_SIGNATURE),
        ([], Reason.MALFORMED),
        ([bytes(32)] * 13, Reason.MALFORMED),
    ],
)
def test_a25_other_paths(path: list[bytes], reason: Reason) -> None:
    """Promise: a path too short, too long, turned round or of another leaf proves nothing."""
    raw = batched(ENTRIES[0], HEADER, SIGNATURE, size=SIZE, index=0, path=path)
    assert reason_of(bear(MESSAGES[0], raw)) is reason


def test_a25_another_trees_proof() -> None:
    """Promise: a leaf with the proof or the signature of another tree of the same key is not in that tree."""
    other = [*ENTRIES[:-1], cbor(claims_of(MESSAGES[6], c7=b"x" * 16))]
    signature = signature_of(ALICE_KEY, structure(HEADER, SIZE, trees.root(other)))
    raw = batched(ENTRIES[0], HEADER, signature, size=SIZE, index=0, path=trees.path(0, ENTRIES))
    assert reason_of(bear(MESSAGES[0], raw)) is Reason.BAD_SIGNATURE
    raw = batched(ENTRIES[0], HEADER, SIGNATURE, size=SIZE, index=0, path=trees.path(0, other))
    assert reason_of(bear(MESSAGES[0], raw)) is Reason.BAD_SIGNATURE


def test_a25_an_interior_node_as_leaf() -> None:
    """Promise: the bytes of an interior node are no claims, and hash otherwise than a leaf."""
    node = b"\x01" + trees.root(ENTRIES[:1]) + trees.root(ENTRIES[1:2])
    for leaf in (node, node[1:]):
        path = [trees.root(ENTRIES[2:4]), trees.root(ENTRIES[4:])]
        raw = batched(leaf, HEADER, SIGNATURE, size=4, index=0, path=path)
        assert reason_of(bear(MESSAGES[0], raw)) is Reason.MALFORMED


def test_a25_direct_and_batched_are_never_taken_for_each_other() -> None:
    """Promise: the protected field alone says which; a root signed as claims, or claims as a root, is bad."""
    size_zero = signature_of(ALICE_KEY, structure(HEADER, 0, ENTRIES[0]))
    raw = batched(ENTRIES[0], HEADER, size_zero, size=SIZE, index=0, path=trees.path(0, ENTRIES))
    assert reason_of(bear(MESSAGES[0], raw)) is Reason.BAD_SIGNATURE
    as_direct = cbor2.dumps([1, ENTRIES[0], [protected_of(ALICE_KEY), {}, None, SIGNATURE]])
    assert reason_of(bear(MESSAGES[0], as_direct)) is Reason.BAD_SIGNATURE
    stripped = cbor2.dumps([1, ENTRIES[0], [HEADER, {}, None, SIGNATURE]])
    assert reason_of(bear(MESSAGES[0], stripped)) is Reason.MALFORMED
    unprotected = cbor2.dumps([1, ENTRIES[0], [protected_of(ALICE_KEY), {395: 1}, None, SIGNATURE]])
    assert reason_of(bear(MESSAGES[0], unprotected)) is Reason.MALFORMED


def test_a25_a_root_shared_by_two_agents() -> None:
    """Promise: a tree says nothing about who: a leaf that names another principal needs that one's key."""
    entries = [cbor(claims_of(MESSAGES[0])), cbor(claims_of(MESSAGES[1], BOB))]
    raws = batch(entries)
    assert reason_of(bear(MESSAGES[0], raws[0])) is None
    assert reason_of(bear(MESSAGES[1], raws[1])) is Reason.WRONG_PRINCIPAL
    assert reason_of(bear(MESSAGES[0], direct(entries[0]))) is None


def test_a25_a_known_node_at_another_place() -> None:
    """Promise: a node that is known to be in the tree proves nothing at another place, nor as a path's end."""
    for at in range(SIZE):
        path = trees.path(at, ENTRIES)
        nodes = [*path, *trees.path(SIZE - 1 - at, ENTRIES), trees.root(ENTRIES)]
        for step in range(len(path)):
            for node in nodes:
                bent = [*path[:step], node, *path[step + 1 :]]
                raw = batched(ENTRIES[at], HEADER, SIGNATURE, size=SIZE, index=at, path=bent)
                assert reason_of(bear(MESSAGES[at], raw)) is (None if bent == path else Reason.BAD_SIGNATURE)


def test_a25_a_tree_known_under_one_size_proves_nothing_under_another() -> None:
    """Promise: the same signature with another size is another tree, of which nothing is known."""
    for size in (SIZE - 1, SIZE + 1, 2 * SIZE, 4096):
        for at in range(3):
            for path in (trees.path(at, ENTRIES), [*trees.path(at, ENTRIES), bytes(32)]):
                raw = batched(ENTRIES[at], HEADER, SIGNATURE, size=size, index=at, path=path)
                assert reason_of(bear(MESSAGES[at], raw)) is Reason.BAD_SIGNATURE


def test_a25_a_whole_tree_signed_under_another_size() -> None:
    """Promise: a key's own owner cannot sign what verifies together and not alone: paths must fit the signed size."""
    two, size = ENTRIES[:2], 3
    signature = signature_of(ALICE_KEY, structure(HEADER, size, trees.root(two)))
    raws = [batched(two[at], HEADER, signature, size=size, index=at, path=trees.path(at, two)) for at in range(2)]
    messages = [bear(MESSAGES[at], raws[at]) for at in range(2)]
    assert [reason_of(message) for message in messages] == [Reason.BAD_SIGNATURE] * 2
    assert endings(World(), messages) == ["bad_signature"] * 2
