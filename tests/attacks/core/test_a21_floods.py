"""A21: floods of forged messages and of unknown keys, among the honest messages of a bulk."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests.unit.core.world import (
    NOW,
    Checks,
    World,
    bear,
    cbor,
    claims_of,
    ed_key,
    endings,
    kafka,
    press,
    press_many,
    raw_of,
)
from watchword.spi import Message, Position

FORGER = ed_key(9, kid=b"alice-1")


def records(count: int, **options: Any) -> list[Message]:
    """Return records in a row, in one signed tree."""
    return press_many([kafka(position=Position("tasks/0", at), value=b"%d" % at) for at in range(count)], **options)


def borrowing(tree: Message, number: int) -> Message:
    """Return a forged record that bears the signature and the proof of an honest one."""
    plain = kafka(position=Position("tasks/0", 500 + number))
    envelope = cbor2.loads(raw_of(tree))
    envelope[1] = cbor(claims_of(plain, c7=number.to_bytes(16)))
    return bear(plain, cbor2.dumps(envelope))


def flood(kind: str, honest: list[Message]) -> list[Message]:
    """Return thirty forged messages under the id of a known key."""
    if kind == "direct":
        return [press(kafka(), key=FORGER, c7=b"%016d" % at) for at in range(30)]
    if kind == "trees of their own":
        return [message for at in range(10) for message in records(3, key=FORGER, c6=NOW + at % 6, c7=b"%016d" % at)]
    return [borrowing(honest[at % len(honest)], at) for at in range(30)]


@pytest.mark.parametrize("check", [None, Checks()], ids=["inline", "checker"])
@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("kind", ["direct", "trees of their own", "honest signatures"])
def test_a21_a_forged_message_costs_one_check_and_leaves_nothing(
    kind: str, check: Checks | None, signatures: list[bytes], *, warm: bool
) -> None:
    """Promise: a forged message costs one check of a signature at most; no tree of its enters the memory."""
    world, honest = World(), records(9)
    if warm:
        assert endings(world, honest[:1]) == ["first"]
        assert len(signatures) == 1
    forged = flood(kind, honest[:4])
    signatures.clear()
    assert endings(world, forged, check=check) == ["bad_signature"] * len(forged)
    assert len(signatures) <= len(forged)
    assert endings(world, forged, check=check) == ["bad_signature"] * len(forged), "none is taken for verified"
    assert world.store.claims[int(warm) :] == []
    signatures.clear()
    assert endings(world, honest[1:], check=check) == ["first"] * 8
    assert len(signatures) == (0 if warm else 1), "what was remembered still is"


def test_a21_forged_messages_in_between_hold_nobody_up(signatures: list[bytes]) -> None:
    """Promise: among forged messages the honest ones are delivered, at one check for all of their tree."""
    honest = records(10)
    forged = flood("trees of their own", honest)
    mixed = [message for pair in zip(forged, [*honest, *honest, *honest], strict=True) for message in pair]
    assert endings(World(), mixed)[1::2] == ["first"] * 10 + ["again"] * 20
    assert len(signatures) <= len(forged) + 1


def test_a21_unknown_keys_are_asked_for_once_a_bulk() -> None:
    """Promise: however many messages name a few invented key ids, the source is asked once for each id."""
    world, honest = World(), records(4)
    invented = [ed_key(9, kid=b"invented-%d" % at) for at in range(3)]
    forged = [press(kafka(), key=key, c7=b"%016d" % at) for at in range(40) for key in invented]
    assert endings(world, [*forged, *honest], check=Checks()) == ["unknown_key"] * 120 + ["first"] * 4
    assert world.keys.asked == 4


def test_a21_a_signature_that_cannot_hold_costs_no_check(signatures: list[bytes]) -> None:
    """Promise: what is unsigned, malformed, stale, misdirected, or does not fit its tree, costs no signature check."""
    (message, *_) = records(3)
    envelope = cbor2.loads(raw_of(message))
    size, index, path = cbor2.loads(envelope[2][1][396][-1][0])
    envelope[2][1] = {396: {-1: [cbor2.dumps([size, index, path * 2])]}}
    misfit = bear(replace(message, headers=message.headers[:-1]), cbor2.dumps(envelope))
    cheap = [kafka(), bear(kafka(), b"x"), press(kafka(), c6=0), replace(message, partition=1), misfit]
    for check in (None, Checks()):
        assert endings(World(), cheap * 5, check=check) == [
            "unsigned", "malformed", "stale", "wrong_partition", "bad_signature",
        ] * 5  # fmt: skip
    assert signatures == []
