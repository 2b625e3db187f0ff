"""Trees that verified: under which name they are kept, how many, and what they prove."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    NOW,
    ed_key,
    kafka,
    press,
    press_many,
    public,
    raw_of,
)
from watchword import VerificationKey
from watchword.envelope import Envelope, EnvelopeReader
from watchword.roots import Roots

KEY = public(ALICE_KEY, ALICE)


def envelopes(size: int, **options: Any) -> list[Envelope]:
    """Return the envelopes of a signed tree."""
    messages = press_many([kafka(value=b"%d" % at) for at in range(size)], **options)
    return [EnvelopeReader().read_raw(raw_of(message)) for message in messages]


def test_one_signature_proves_a_tree(signatures: list[bytes]) -> None:
    """Promise: the signature is checked once, whichever leaf comes first, and never for what is proven."""
    roots, tree = Roots(), envelopes(5)
    assert not any(roots.prove(KEY, envelope) for envelope in tree)
    assert all(roots.verifies(KEY, envelope) for envelope in reversed(tree))
    assert all(roots.prove(KEY, envelope) for envelope in tree)
    assert len(signatures) == 1


def test_direct_signatures_are_not_remembered(signatures: list[bytes]) -> None:
    """Promise: a direct signature stands for one message, and is checked each time."""
    roots, envelope = Roots(), EnvelopeReader().read_raw(raw_of(press(kafka())))
    assert roots.verifies(KEY, envelope)
    assert roots.verifies(KEY, envelope)
    assert len(signatures) == 2
    assert roots._trees == {}


OTHER_KEYS: dict[str, VerificationKey] = {
    "rotated under the same id": public(ed_key(7, kid=b"alice-1"), ALICE),
    "of another algorithm under the same id": replace(public(ALICE_EC_KEY, ALICE), key_id=b"alice-1"),
    "of another principal": public(BOB_KEY, BOB),
}


@pytest.mark.parametrize("key", OTHER_KEYS.values(), ids=OTHER_KEYS.keys())
def test_a_tree_is_known_under_its_very_key(key: VerificationKey) -> None:
    """Promise (A23): what verified under one key is not proven under any other, whatever that is called."""
    roots, tree = Roots(), envelopes(4)
    assert all(roots.verifies(KEY, envelope) for envelope in tree)
    assert not any(roots.prove(key, envelope) or roots.verifies(key, envelope) for envelope in tree)
    renamed = replace(KEY, principal=BOB, not_after=NOW)
    assert all(roots.prove(renamed, envelope) for envelope in tree), "who owns it, and until when, is check 5's"


def test_a_key_of_another_algorithm_checks_nothing(signatures: list[bytes]) -> None:
    """Promise (A08): the algorithm is the key's; with another one in the envelope no signature is checked."""
    key = replace(KEY, algorithm=public(ALICE_EC_KEY, ALICE).algorithm)
    roots, tree = Roots(), envelopes(2)
    assert roots.verifies(KEY, tree[0])
    assert not roots.verifies(key, tree[1])
    assert len(signatures) == 1


def test_every_part_of_the_name_counts() -> None:
    """Promise (A25): another signature, protected header or size than the one that verified proves nothing."""
    roots, tree = Roots(), envelopes(2)
    assert roots.verifies(KEY, tree[0])
    for part in ("signature", "protected", "size"):
        envelope = tree[0]
        if part == "signature":
            envelope = replace(envelope, signature=bytes(64))
        else:
            change: Any = b"\xa0" if part == "protected" else 3
            envelope = replace(envelope, common=replace(envelope.common, **{part: change}))
        assert not roots.prove(KEY, envelope)
        assert not roots.verifies(KEY, envelope)
    assert len(roots._trees) == 1


def test_what_did_not_verify_is_not_kept() -> None:
    """Promise (A21): a forged tree takes no memory, nor does a path that fits none."""
    roots = Roots()
    for envelope in envelopes(3, key=ed_key(9, kid=b"alice-1")):
        assert not roots.verifies(KEY, envelope)
        assert not roots.verifies(KEY, replace(envelope, path=(*envelope.path, bytes(32))))
    assert (roots._trees, roots._held) == ({}, 0)


def test_the_tree_known_longest_makes_room() -> None:
    """Promise: the bound holds for all leaves together; what was forgotten is checked in full, and verifies."""
    roots = Roots(leaves=10)
    trees = [envelopes(size, c6=NOW + size) for size in (4, 5, 3, 10, 11, 2)]
    kept = [[1], [1, 2], [2, 3], [4], [], [6]]
    for tree, numbers in zip(trees, kept, strict=True):
        assert roots.verifies(KEY, tree[0])
        assert [at + 1 for at, one in enumerate(trees) if roots.prove(KEY, one[0])] == numbers
        assert roots._held == sum(name[2] for name in roots._trees) <= 10
    assert all(roots.verifies(KEY, envelope) for tree in trees for envelope in tree)


def test_a_tree_that_is_remembered_again_counts_once() -> None:
    """Promise: of one name there is one tree, the one that verified last."""
    roots, tree = Roots(leaves=8), envelopes(4)
    for envelope in tree:
        roots.remember(KEY, envelope)
    assert (len(roots._trees), roots._held) == (1, 4)
    assert all(roots.prove(KEY, envelope) for envelope in tree)
