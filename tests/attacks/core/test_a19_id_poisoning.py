"""A19: the id of an honest message, used first by someone else."""

from dataclasses import replace

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    MALLORY,
    MALLORY_KEY,
    World,
    bear,
    cbor,
    claims_of,
    direct,
    nats,
    press,
)
from watchword import Rejected
from watchword.spi import Message

REAL = press(nats())


@pytest.mark.parametrize(
    "poison",
    [
        bear(nats(), direct(cbor(claims_of(nats())), MALLORY_KEY, c4=ALICE_KEY.key_id)),
        replace(REAL, value=b"forged"),
        press(nats(), c="nats://prod/other"),
        press(nats(), c6=0),
    ],
    ids=["forged", "altered", "misdirected", "stale"],
)
def test_a19_what_is_rejected_takes_no_id(poison: Message) -> None:
    """Promise: a message that fails any check of authenticity does not use up the id that it names."""
    world = World()
    for _ in range(3):
        with pytest.raises(Rejected):
            world.verify(poison)
    assert len(world.memory) == 0
    assert world.verify(REAL).principal == ALICE


def test_a19_a_valid_message_of_another_principal() -> None:
    """Promise: B, with a valid key, can spend its own ids only."""
    world = World()
    assert world.verify(press(nats(), key=MALLORY_KEY, principal=MALLORY)).principal == MALLORY
    assert world.verify(REAL).principal == ALICE
