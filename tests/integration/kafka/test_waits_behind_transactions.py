"""A broker answers a fetch beyond the last stable offset at once, with nothing: who asks again at once has no rest."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest

from tests.integration.kafka.world import World, read, values
from tests.support.broker_tools import commit_for
from tests.support.patience import PATIENCE
from tests.support.raw_kafka import Batch, Raw, RawClient

pytestmark = pytest.mark.needs_kafka("raw_batches")

SECONDS = 1.0
MOST = 40
"""Fetches in that time; without a rest there are some thousand."""


def fetches(consumer: Any) -> list[FetchRequest]:
    """Return a list to which each fetch of a consumer is added."""
    found: list[FetchRequest] = []
    send = consumer._client.send

    async def counted(node_id: Any, request: Any, **options: Any) -> Any:
        if isinstance(request, FetchRequest):
            found.append(request)
        return await send(node_id, request, **options)

    consumer._client.send = counted
    return found


@pytest.mark.parametrize("begins", ["at the group's commit", "by a seek"])
async def test_a_reader_beyond_an_open_transaction_rests(world: World, begins: str) -> None:
    """Its position was set when all could be read, by another member or a seek; what comes is delivered soon."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0")
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        await held.send(topic, Batch(records=[Raw()]))
        await world.say(topic, b"1", b"2")
        if begins == "at the group's commit":
            await commit_for(world.bootstrap, group, tp, 3)
        options = {"group_id": group, "isolation_level": "read_committed"}
        async with world.consumer(world.reader(), topic, **options) as consumer:
            if begins == "by a seek":
                assert values(await read(consumer, 1)) == [b"0"]
                consumer.seek(tp, 3)
            assert await consumer.getmany(timeout_ms=500) == {}
            asked = fetches(consumer)
            assert await consumer.getmany(timeout_ms=SECONDS * 1000) == {}
            assert 0 < len(asked) < MOST
            await held.abort()
            async with asyncio.timeout(PATIENCE):
                assert values(await read(consumer, 1)) == [b"2"]


async def test_a_partition_beside_it_is_read_soon(world: World) -> None:
    """One fetch asks for both partitions: what comes in the other is delivered as ever."""
    topic, beside, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(beside, b"0")
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        await held.send(topic, Batch(records=[Raw()]))
        await world.say(topic, b"1", b"2")
        options = {"group_id": group, "isolation_level": "read_committed"}
        async with world.consumer(world.reader(), topic, beside, **options) as consumer:
            assert values(await read(consumer, 1)) == [b"0"]
            consumer.seek(tp, 3)
            assert await consumer.getmany(timeout_ms=500) == {}
            for value in (b"1", b"2", b"3"):
                reading = asyncio.create_task(read(consumer, 1))
                await world.say(beside, value)
                async with asyncio.timeout(PATIENCE):
                    assert values(await reading) == [value]
            await held.abort()


async def test_a_reader_of_everything_is_not_held_up(world: World) -> None:
    """Under ``read_uncommitted`` the broker keeps the fetch until something comes, and we add nothing to it."""
    topic, group = await world.make_topic(), world.unique("group")
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        await held.send(topic, Batch(records=[Raw()]))
        await world.say(topic, b"1")
        async with world.consumer(world.reader(), topic, group_id=group) as consumer:
            assert values(await read(consumer, 1)) == [b"1"]
            asked = fetches(consumer)
            assert await consumer.getmany(timeout_ms=SECONDS * 1000) == {}
            assert len(asked) <= 4
            await held.abort()
