"""A23: keys rotated, revoked and expired, also while a root that they signed is remembered."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    MALLORY,
    NOW,
    Checks,
    World,
    batched,
    bear,
    cbor,
    claims_of,
    ed_key,
    endings,
    kafka,
    press,
    press_many,
    protected_of,
    public,
    signature_of,
    structure,
)
from tests.vectors import trees
from watchword import MemoryKeys, VerificationKey
from watchword.spi import Message, Position

NEW_KEY = ed_key(7, kid=b"alice-2")


def records(count: int, start: int = 0, **options: Any) -> list[Message]:
    """Return records in a row, in one signed tree."""
    return press_many([kafka(position=Position("tasks/0", start + at)) for at in range(count)], **options)


def warmed(messages: list[Message]) -> World:
    """Return a world that has verified these, so that their root and shape are remembered."""
    world = World()
    assert set(endings(world, messages)) == {"first"}
    world.keys.source = MemoryKeys()
    return world


def known(world: World, *keys: VerificationKey) -> World:
    """Let the world's key source know these from now on, and nothing else."""
    world.keys.source = MemoryKeys(keys)
    return world


@pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])
@pytest.mark.parametrize("kid", [b"alice-1", b"mallory"])
@pytest.mark.parametrize("first", [0, 1])
def test_a23_a_leaf_in_anothers_tree(kid: bytes, first: int, check: Checks | None) -> None:
    """Promise (A10): what names alice in a tree that mallory signed is not hers, though the tree itself verifies."""
    mallory = ed_key(8, kid=kid)
    messages = [kafka(value=b"mine"), kafka(value=b"forged")]
    named = [(MALLORY, mallory), (ALICE, ALICE_KEY)]
    entries = [
        cbor(claims_of(message, principal, c7=bytes([at]) * 16))
        for at, (message, (principal, _)) in enumerate(zip(messages, named, strict=True))
    ]
    proof = signature_of(mallory, structure(protected_of(mallory, c395=1), 2, trees.root(entries)))
    forged = [
        bear(message, batched(entry, protected_of(key, c395=1), proof, size=2, index=at, path=trees.path(at, entries)))
        for at, (message, entry, (_, key)) in enumerate(zip(messages, entries, named, strict=True))
    ]
    world = World(keys=[public(ALICE_KEY, ALICE), public(mallory, MALLORY)])
    wanted = ["first", "bad_signature"]
    order = 1 if not first else -1
    assert endings(world, forged[::order], check=check) == wanted[::order]


CHANGES: dict[str, tuple[Callable[[], list[VerificationKey]], str]] = {
    "revoked": (lambda: [public(ALICE_KEY, ALICE, revoked_at=NOW + 1)], "key_revoked"),
    "expired": (lambda: [public(ALICE_KEY, ALICE, not_after=NOW)], "key_not_valid"),
    "not yet valid": (lambda: [public(ALICE_KEY, ALICE, not_before=NOW + 10)], "key_not_valid"),
    "withdrawn": (list, "unknown_key"),
    "given to another": (lambda: [public(ALICE_KEY, BOB)], "wrong_principal"),
    "replaced under its id": (lambda: [public(ed_key(7, kid=b"alice-1"), ALICE)], "bad_signature"),
}


@pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])
@pytest.mark.parametrize("change", CHANGES)
def test_a23_a_remembered_root_outlives_no_key(change: str, check: Checks | None) -> None:
    """Promise: the next message of a tree that had verified is judged by the key as it is now."""
    keys, reason = CHANGES[change]
    tree = records(8)
    world = known(warmed(tree[:4]), *keys())
    assert endings(world, tree[4:6], check=check) == [reason] * 2
    assert endings(world, tree[:1], check=check) == [reason], "nor is what had been delivered"
    known(world, public(ALICE_KEY, ALICE))
    assert endings(world, tree[6:], check=check) == ["first"] * 2, "and what is mended counts at once too"


def test_a23_revoked_between_two_messages_of_one_tree() -> None:
    """Promise: revocation is judged for each message at the present time; a bulk is judged at one instant."""
    tree = records(4)
    world = known(World(), public(ALICE_KEY, ALICE, revoked_at=NOW + 5))
    assert endings(world, tree[:2]) == ["first"] * 2
    world.now = NOW + 5.0
    assert endings(world, tree[2:], check=Checks()) == ["key_revoked"] * 2


def test_a23_an_expired_key_keeps_what_it_signed_in_time() -> None:
    """Promise: validity is judged at each message's reference time: of one tree some are in time, some late."""
    tree = records(4)
    late = [replace(message, appended_at=NOW + 60.0) for message in tree[2:]]
    world = known(World(), public(ALICE_KEY, ALICE, not_after=NOW + 60))
    world.now = NOW + 100.0
    assert endings(world, [*tree[:2], *late]) == ["first"] * 2 + ["key_not_valid"] * 2


def test_a23_rotation_with_messages_in_flight() -> None:
    """Promise: both keys verify while both are known; each tree under its own, in one bulk or not."""
    old, new = records(3), records(3, 10, key=NEW_KEY, c6=NOW + 1)
    lone = press(kafka(position=Position("tasks/0", 20)), key=NEW_KEY)
    mixed = [old[0], new[0], lone, old[1], new[1]]
    for check in (None, Checks()):
        world = known(World(), public(ALICE_KEY, ALICE, not_after=NOW + 30), public(NEW_KEY, ALICE))
        assert endings(world, mixed, check=check) == ["first"] * 5
        known(world, public(NEW_KEY, ALICE))
        assert endings(world, [old[2], new[2]], check=check) == ["unknown_key", "first"]
