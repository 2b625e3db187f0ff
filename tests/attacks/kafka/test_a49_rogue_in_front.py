"""A49: one compromised key and rubbish, in front of what others have sent, make nobody else's messages stale."""

import time
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import INTERN, Captured, World, values
from tests.integration.kafka.world import read as read_some
from tests.support.broker_tools import commit_for, ends_of
from tests.support.readers import END, judged, until

HOUR = 3_500.0
HONEST = [b"%d" % number for number in range(20)]
RUBBISH = Captured(value=b"x" * 100_000)
"""Twelve of these fill more than one answer to a fetch (1 MiB a partition)."""

BEGINNINGS = ["after another client", "after its own look at the metadata", "without a group"]


async def said_an_hour_ago(world: World, topic: str, *sent: bytes) -> None:
    """Write what an honest agent sent an hour ago."""
    async with world.producer(world.speaker(clock=lambda: time.time() - HOUR)) as producer:
        for value in sent:
            await producer.send_and_wait(topic, value, partition=0)


async def backlog(world: World, topic: str) -> None:
    """Write what an honest agent sent an hour ago, behind a rogue's message of today, and rubbish."""
    await world.say(topic, b"rogue", principal=INTERN)
    await world.inject(topic, [RUBBISH] * 12)
    await said_an_hour_ago(world, topic, *HONEST)


@pytest.mark.parametrize("beginning", BEGINNINGS)
async def test_a49_a_rogue_in_front_of_a_backlog(world: World, beginning: str) -> None:
    """Without a checkpoint the whole backlog tells how far to read back, not what stands first in it."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    tp = TopicPartition(topic, 0)
    await said_an_hour_ago(world, topic, b"before")
    options: dict[str, Any] = {"group_id": group, "enable_auto_commit": False}
    if beginning == "after another client":
        await commit_for(world.bootstrap, group, tp, 1)
    elif beginning == "after its own look at the metadata":
        await commit_for(world.bootstrap, group, tp, 1, "mine")
    else:
        options = {"group_id": None}
    captured = await world.capture(topic)
    await backlog(world, topic)
    await world.inject(topic, captured)
    await world.say(topic, END)
    reader = world.reader()
    async with world.consumer(reader, topic, **options) as consumer:
        if beginning == "without a group":
            consumer.seek(tp, 1)
        assert await until(consumer) == [b"rogue", *HONEST, END]
    assert (judged(reader)["stale"], judged(reader)["replayed"]) == (0, 1)


async def test_a49_a_seek_below_the_checkpoint(world: World) -> None:
    """The same holds after a restart that seeks back further than the checkpoint of the previous process."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    tp = TopicPartition(topic, 0)
    await said_an_hour_ago(world, topic, b"before")
    await backlog(world, topic)
    await said_an_hour_ago(world, topic, b"after")
    options: dict[str, Any] = {"group_id": group, "enable_auto_commit": False}
    end = (await ends_of(world.bootstrap, tp))[1]
    async with world.consumer(world.reader(), topic, **options) as consumer:
        consumer.seek(tp, end - 1)
        assert values(await read_some(consumer, 1)) == [b"after"]
        await consumer.commit()
    await world.say(topic, END)
    async with world.consumer(world.reader(), topic, **options) as consumer:
        consumer.seek(tp, 1)
        assert await until(consumer) == [b"rogue", *HONEST, b"after", END]


async def test_a49_what_a_strangers_transaction_hides_is_not_forgotten(world: World) -> None:
    """Where an open transaction hides part of the backlog the reader waits for a while, then reads back far enough."""
    topic, group = await world.make_topic(timestamp_type="CreateTime"), world.unique("group")
    tp = TopicPartition(topic, 0)
    await said_an_hour_ago(world, topic, b"before")
    await commit_for(world.bootstrap, group, tp, 1)
    await world.say(topic, b"rogue", principal=INTERN)
    options: dict[str, Any] = {"group_id": group, "enable_auto_commit": False, "isolation_level": "read_committed"}
    async with world.producer(transactional_id=world.unique("tx")) as stranger:
        transaction = stranger.transaction()
        await transaction.__aenter__()
        await stranger.send_and_wait(topic, b"of a stranger", partition=0)
        await said_an_hour_ago(world, topic, *HONEST)
        reader = world.reader()
        async with world.consumer(reader, topic, **options) as consumer:
            assert values(await read_some(consumer, 1)) == [b"rogue"]  # it is waited for, not forever
            await stranger.abort_transaction()
            await world.say(topic, END)
            assert await until(consumer) == [*HONEST, END]
    assert judged(reader)["stale"] == 0
