"""A33: a mirrored topic or a mapped subject is another channel, unless an alias names that very pair."""

from dataclasses import replace

import pytest

from tests.unit.core.world import World, kafka, nats, press, rejected
from watchword import Alias, ConfigurationError, Policy, Reason
from watchword.spi import Channel, Message, Position

SOURCE, MIRROR = "kafka://src/tasks", "kafka://prod/src.tasks"
POLICY = Policy(aliases=(Alias(MIRROR, SOURCE), Alias("nats://prod/jobs.scale", "nats://prod/tasks.scale")))


def mirrored(uri: str = MIRROR) -> Message:
    """Return a record that was signed for the source, as it is found elsewhere."""
    return replace(press(kafka(channel=Channel.parse(SOURCE))), channel=Channel.parse(uri))


def test_a33_without_an_alias_a_mirror_is_another_channel() -> None:
    """Promise: what a mirror or a mapping moved is misdirected by default."""
    assert rejected(mirrored()).reason is Reason.WRONG_CHANNEL


def test_a33_an_alias_lets_that_very_pair_in() -> None:
    """Promise: named on both sides, a mirrored record and a mapped message are delivered, where they were found."""
    assert World(policy=POLICY).verify(mirrored()).channel.uri == MIRROR
    mapped = replace(press(nats()), channel=Channel.parse("nats://prod/jobs.scale"))
    assert World(policy=POLICY).verify(mapped).channel == mapped.channel


@pytest.mark.parametrize(
    "message",
    [
        mirrored("kafka://prod/tasks"),
        mirrored("kafka://prod/src.tasks2"),
        replace(mirrored(), partition=1, position=Position("src.tasks/1", 12)),
        replace(press(kafka(channel=Channel.parse(MIRROR))), channel=Channel("kafka", "prod", "tasks")),
        replace(press(nats(channel=Channel.parse("nats://prod/jobs.scale"))), channel=nats().channel),
    ],
)
def test_a33_an_alias_lets_nothing_else_in(message: Message) -> None:
    """Promise: neither another mirror nor the way back, and the partition stays the one that was signed."""
    assert rejected(message, World(policy=POLICY)).reason in {Reason.WRONG_CHANNEL, Reason.WRONG_PARTITION}


def test_a33_a_replay_in_a_mirror_is_one() -> None:
    """Promise: an alias changes nothing about replays."""
    world = World(policy=POLICY)
    world.verify(mirrored())
    assert rejected(replace(mirrored(), position=Position("tasks/0", 13)), world).reason is Reason.REPLAYED


@pytest.mark.parametrize(
    "pair", [("src.tasks", SOURCE), (MIRROR, "amqp://x/y"), ("nats://prod/a.>", "nats://prod/a.b")]
)
def test_a33_an_alias_is_a_pair_of_channels(pair: tuple[str, str]) -> None:
    """Promise: what is no channel, or more than one, is refused when the policy is made."""
    with pytest.raises(ConfigurationError, match="alias: "):
        Alias(*pair)
