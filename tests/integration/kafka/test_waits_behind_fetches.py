"""What is asked of a broker waits behind a fetch that waits for records: while a memory begins, no fetch may do so."""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import World, read, values
from tests.support.patience import PATIENCE

KEPT: Any = {"fetch_max_wait_ms": int(2000 * PATIENCE), "request_timeout_ms": int(3000 * PATIENCE)}
"""Lets the broker keep a fetch that finds nothing for longer than these tests wait."""


async def test_a_first_start_waits_for_nothing(world: World) -> None:
    """Behind the last record of a short log nothing comes: neither the look-up of a time nor the first record waits."""
    topic = await world.make_topic()
    await world.say(topic, b"1", b"2")
    group = world.unique("group")
    async with world.consumer(world.reader(), topic, group_id=group, **KEPT) as consumer:
        async with asyncio.timeout(PATIENCE):
            assert values(await read(consumer, 2)) == [b"1", b"2"]


@pytest.mark.parametrize("pause", [0.0, 0.5])
async def test_a_restart_at_the_end_of_a_log_waits_for_nothing(world: World, pause: float) -> None:
    """Whether or not the caller asks at once: what comes after the start is delivered when it comes."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"1"]
    async with world.consumer(world.reader(), topic, group_id=group, **KEPT) as consumer:
        await asyncio.sleep(pause)
        async with asyncio.timeout(PATIENCE):
            reading = asyncio.create_task(read(consumer, 1))
            await world.say(topic, b"2")
            assert values(await reading) == [b"2"]


async def test_a_seek_over_what_was_fetched_waits_for_nothing(world: World) -> None:
    """Forward, back to the beginning, and to the end of a log: aiokafka answers at once, and so do we."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.say(topic, *(b"%d" % number for number in range(20)))
    async with world.consumer(world.reader(), topic, **KEPT) as consumer:
        async with asyncio.timeout(PATIENCE):
            assert values(await read(consumer, 1)) == [b"0"]
            consumer.seek(tp, 10)
            assert values(await read(consumer, 1)) == [b"10"]
            await consumer.seek_to_beginning()
            assert values(await read(consumer, 1)) == [b"0"]
            await consumer.seek_to_end()
            assert await consumer.position(tp) == 20
            reading = asyncio.create_task(read(consumer, 1))
            await world.say(topic, b"20")
            assert values(await reading) == [b"20"]
