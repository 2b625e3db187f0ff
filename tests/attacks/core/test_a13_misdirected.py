"""A13, A36: captured messages re-sent elsewhere, or for someone else."""

from dataclasses import replace

import pytest

from tests.unit.core.world import BOB, MALLORY, NOW, World, at_once, kafka, known_keys, nats, signed
from watchword import MemoryKeys, Policy, Reason, Rejected
from watchword.spi import Channel, MemoryReplayStore, Message, Verifier


@pytest.mark.parametrize(
    ("message", "channel"),
    [
        (kafka(), Channel("kafka", "prod", "tasks2")),
        (kafka(), Channel("nats", "prod", "tasks")),
        (kafka(), Channel("kafka", "staging", "tasks")),
        (nats(), Channel("nats", "prod", "tasks.scale.all")),
        (nats(), Channel("nats", "prod", "TASKS.scale")),
        (nats(), Channel("kafka", "prod", "tasks.scale")),
        (nats(), Channel("nats", "staging", "tasks.scale")),
    ],
)
def test_a13_another_channel(message: Message, channel: Channel) -> None:
    """Promise: a message is good on the topic or subject, bus and realm that it was signed for, nowhere else."""
    captured = replace(signed(message), channel=channel)
    verifier = Verifier(
        realm=channel.realm,
        keys=MemoryKeys(known_keys()),
        replay=MemoryReplayStore(horizon=None),
        policy=Policy(),
        clock=lambda: NOW,
        principal=BOB,
    )
    with pytest.raises(Rejected) as caught:
        at_once(verifier.verify(captured))
    assert caught.value.reason is Reason.WRONG_CHANNEL
    assert World().verify(signed(message)).channel == message.channel


def test_a13_another_partition() -> None:
    """Promise: a captured record re-produced into another partition, where no guard knows it, is misdirected."""
    with pytest.raises(Rejected) as caught:
        World().verify(replace(signed(kafka()), partition=1))
    assert caught.value.reason is Reason.WRONG_PARTITION


@pytest.mark.parametrize("reader", [MALLORY, None])
def test_a36_meant_for_another_agent(reader: str | None) -> None:
    """Promise: what is addressed to B is good for B only, also on a channel that many read."""
    message = signed(nats(), recipient=BOB)
    with pytest.raises(Rejected) as caught:
        World(principal=reader).verify(message)
    assert caught.value.reason is Reason.WRONG_RECIPIENT
    assert World(principal=BOB).verify(message).recipient == BOB
