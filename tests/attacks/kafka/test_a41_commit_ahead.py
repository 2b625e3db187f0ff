"""A41: nothing is committed that nobody has judged, however long judging takes."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.kafka.world import World, committed, eventually, read, values
from tests.support.patience import PATIENCE


async def test_a41_auto_commit_while_a_message_is_being_verified(world: World) -> None:
    """With a slow key source and a short interval, auto-commit stays before the message; after a crash it comes."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    tp = TopicPartition(topic, 0)
    world.keys.gate.clear()
    fast = {"group_id": group, "auto_commit_interval_ms": 10}
    async with world.consumer(world.reader(), topic, **fast) as consumer:
        call = asyncio.create_task(consumer.getmany(timeout_ms=20_000))
        await asyncio.wait_for(world.keys.question.wait(), PATIENCE)
        await committed(consumer, tp, 0)  # auto-commit is at work
        assert AIOKafkaConsumer.highwater(consumer, tp) == 2
        assert await consumer.committed(tp) == 0
        await consumer.commit()
        assert await consumer.committed(tp) == 0
        call.cancel()
    world.keys.gate.set()
    async with world.consumer(world.reader(), topic, **fast) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]


async def test_a41_plain_client_commits_ahead(world: World) -> None:
    """The attack works on a wrapper that leaves the commit to aiokafka: its position is past what was only taken."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    tp = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        topic,
        bootstrap_servers=world.bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=10,
    ) as plain:
        await asyncio.wait_for(plain.getone(), PATIENCE)  # a wrapper would be verifying this one now
        await committed(plain, tp, 1)


@pytest.mark.needs_kafka("rebalance_with_auto_commit")
async def test_a41_rebalance_while_a_message_is_being_verified(world: World) -> None:
    """When a second member joins while the first still judges, every message is delivered by one of the two."""
    topic, group = await world.make_topic(2), world.unique("group")
    async with world.producer() as producer:
        for partition in (0, 1):
            await producer.send_and_wait(topic, b"%d" % partition, partition=partition)
    world.keys.gate.clear()
    fast = {"group_id": group, "auto_commit_interval_ms": 10, "heartbeat_interval_ms": 100}
    readers = [world.reader(), world.reader()]
    async with world.consumer(readers[0], topic, **fast) as first:
        one = asyncio.create_task(read(first, 1))
        await asyncio.wait_for(world.keys.question.wait(), PATIENCE)
        async with world.consumer(readers[1], topic, **fast) as second:
            two = asyncio.create_task(read(second, 1))

            async def shared() -> bool:
                return len(first.assignment()) == len(second.assignment()) == 1

            await eventually(shared)
            world.keys.gate.set()
            got = values(await one + await two)
    assert sorted(got) == [b"0", b"1"]
    assert all(reader.audit.counts.keys() == {"delivered"} for reader in readers)
