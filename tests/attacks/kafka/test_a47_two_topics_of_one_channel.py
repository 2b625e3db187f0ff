"""A47, K14: an alias, and a group that reads both topics of it: one message, two places."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import REALM, World
from tests.support.kafka_api import VerifyingConsumer
from tests.support.patience import PATIENCE
from tests.support.readers import END, judged, until
from watchword import Alias, ConfigurationError, Policy, Watchword
from watchword.testing import SharedMemoryStore

LAST = b"last"


def reader_of(world: World, mirror: str, original: str, *, shared: bool) -> Watchword:
    """Return a reader that accepts on a mirror what was signed for the original."""
    alias = Alias(channel=f"kafka://{REALM}/{mirror}", signed_for=f"kafka://{REALM}/{original}")
    policy = Policy(aliases=(alias,))
    store = SharedMemoryStore(policy=policy, open_to_all=True) if shared else None
    return Watchword(realm=REALM, keys=world.keys, policy=policy, replay=store)


async def delivered(world: World, reader: Watchword, way: str, *topics: str) -> list[Any] | str:
    """Return what a group gets of two topics, up to the end of both; or why it may not read them together."""
    consumer = VerifyingConsumer(
        *(topics if way == "in the constructor" else ()),
        bootstrap_servers=world.bootstrap,
        watchword=reader,
        group_id=world.unique("group"),
        auto_offset_reset="earliest",
    )
    found: list[Any] = []
    try:
        match way:
            case "by subscribe":
                consumer.subscribe(topics)
            case "by pattern":
                consumer.subscribe(pattern="|".join(topics))
        await consumer.start()
        if way == "by assign":
            consumer.assign([TopicPartition(topic, 0) for topic in topics])
        async with asyncio.timeout(PATIENCE):
            while not {END, LAST} <= set(found):
                found.append((await consumer.getone()).value)
    except ConfigurationError as error:
        return str(error)
    finally:
        await consumer.stop()
    return found


async def mirrored(world: World) -> tuple[str, str]:
    """Make a topic with a message, and another with its copy."""
    original, mirror = await world.make_topic(), await world.make_topic()
    await world.say(original, b"0")
    await world.inject(mirror, await world.capture(original))
    await world.say(original, END)
    await world.say(mirror, LAST)
    return original, mirror


@pytest.mark.parametrize("way", ["in the constructor", "by subscribe", "by pattern", "by assign"])
async def test_a47_both_topics_without_a_shared_store(world: World, way: str) -> None:
    """A group that reads a mirror and its original is refused with what is wanted, or gets each message once."""
    original, mirror = await mirrored(world)
    found = await delivered(world, reader_of(world, mirror, original, shared=False), way, original, mirror)
    if isinstance(found, str):
        assert "store" in found
    else:
        assert sorted(found) == [b"0", END, LAST]


async def test_a47_both_topics_with_a_shared_store(world: World) -> None:
    """With a store that the group shares each message is delivered once, from whichever topic it is read first."""
    original, mirror = await mirrored(world)
    reader = reader_of(world, mirror, original, shared=True)
    found = await delivered(world, reader, "in the constructor", original, mirror)
    assert isinstance(found, list)
    assert sorted(found) == [b"0", END, LAST]
    assert judged(reader)["replayed"] == 1


async def test_a47_the_mirror_alone(world: World) -> None:
    """Who reads only the mirror needs no store."""
    original, mirror = await mirrored(world)
    async with world.consumer(reader_of(world, mirror, original, shared=False), mirror) as consumer:
        assert await until(consumer, LAST) == [b"0", LAST]
