"""A02, A12, A19, A40: altered, replayed, poisoned and rate-limited messages within one bulk and one tree."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    MALLORY,
    MALLORY_KEY,
    Checks,
    World,
    at_once,
    endings,
    kafka,
    nats,
    press,
    press_many,
    signer,
)
from watchword import Allow, Policy, Rate
from watchword.message import VerifiedMessage
from watchword.spi import Message, Position

CHECKS = pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])


def records(count: int, **options: Any) -> list[Message]:
    """Return records in a row, in one signed tree."""
    return press_many([kafka(position=Position("tasks/0", at), value=b"%d" % at) for at in range(count)], **options)


def moved(message: Message, offset: int) -> Message:
    """Return a copy elsewhere in the log."""
    return replace(message, position=Position("tasks/0", offset))


@CHECKS
def test_a02_one_altered_message_of_a_tree(check: Checks | None) -> None:
    """Promise: an altered message is rejected alone: its neighbours under the same signature are delivered."""
    tree = records(5)
    tree[2] = replace(tree[2], value=b"altered")
    tree[3] = replace(tree[3], key=b"k2")
    assert endings(World(), tree, check=check) == ["first", "first", "altered", "altered", "first"]


@CHECKS
def test_a02_envelopes_swapped_within_a_tree(check: Checks | None) -> None:
    """Promise: under one signature, no message can take the place, the value or the id of another."""
    one, two = records(2)
    swapped = [replace(one, headers=two.headers), replace(two, headers=one.headers)]
    assert endings(World(), [*swapped, one, two], check=check) == ["altered", "altered", "first", "first"]


@CHECKS
def test_a12_one_id_many_times_in_one_bulk(check: Checks | None) -> None:
    """Promise: of many copies in one bulk exactly one is delivered: the first; the others are replays."""
    tree = records(3)
    copies = [moved(tree[0], 50 + at) for at in range(5)]
    assert endings(World(), [tree[0], *copies, *tree[1:]], check=check) == [
        "first",
        *["replayed"] * 5,
        "first",
        "first",
    ]
    core = press_many([nats(value=b"%d" % at) for at in range(2)])
    assert endings(World(), core * 3, check=check) == ["first"] * 2 + ["replayed"] * 4


@CHECKS
def test_a12_a_copy_that_comes_first_in_a_bulk_is_the_first(check: Checks | None) -> None:
    """Promise: whatever the order, one is delivered; an altered copy before it does not use its id up."""
    tree = records(2)
    broken = replace(moved(tree[0], 1000), value=b"altered")
    assert endings(World(), [broken, moved(tree[0], 7), tree[0], tree[1]], check=check) == [
        "altered", "first", "replayed", "first",
    ]  # fmt: skip


@CHECKS
def test_a19_another_principals_message_with_the_same_id(check: Checks | None) -> None:
    """Promise: another's validly signed message of the same id, earlier in the bulk, takes nothing away."""
    poison = press_many([kafka(), kafka()], key=MALLORY_KEY, principal=MALLORY, c7=b"1" * 16)
    forged = press(kafka(), key=MALLORY_KEY, c7=b"1" * 16)
    honest = press(kafka(), c7=b"1" * 16)
    assert endings(World(), [poison[0], forged, honest, poison[0]], check=check) == [
        "first", "wrong_principal", "first", "again",
    ]  # fmt: skip


@CHECKS
def test_a40_a_rate_is_spent_in_order_and_by_first_sights_only(check: Checks | None) -> None:
    """Promise: within a bulk a rate is spent in order; replays, forgeries and redeliveries spend none of it."""
    world = World(policy=Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(3, 3600.0)),)))
    tree = records(6)
    junk = [replace(tree[5], value=b"altered"), moved(tree[0], 90), moved(tree[0], 91), tree[0]]
    assert endings(world, [tree[0], *junk, *tree[1:5]], check=check) == [
        "first", "altered", "replayed", "replayed", "again", "first", "first", "rate_limited", "rate_limited",
    ]  # fmt: skip
    assert endings(world, [moved(tree[3], 99)], check=check) == ["replayed"], (
        "what the rate dropped is not brought back"
    )


def test_what_the_product_signs_together_verifies_together() -> None:
    """Promise: a signer's own trees are delivered in order, whole or in parts, each message once."""
    messages = [kafka(position=Position("tasks/0", at), value=b"%d" % at) for at in range(100)]
    headers = at_once(signer().sign_many(messages))
    sent = [
        replace(message, headers=(*message.headers, made.header))
        for message, made in zip(messages, headers, strict=True)
    ]
    world = World()
    verdicts = [
        verdict for at in range(0, 100, 30) for verdict in at_once(world.verifier.verify_many(sent[at : at + 30]))
    ]
    assert [found.value for found in verdicts if isinstance(found, VerifiedMessage)] == [
        message.value for message in messages
    ]
