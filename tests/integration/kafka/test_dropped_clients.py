"""A client that is dropped without `stop()` says so, ours as aiokafka's."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from tests.integration.kafka.world import World
from tests.support.both import consumer_of, kinds, producer_of


def drop(held: list[Any]) -> None:
    """Let go of the last reference."""
    held.clear()
    gc.collect()


@kinds
@pytest.mark.parametrize("started", [False, True])
async def test_a_dropped_consumer_warns(world: World, kind: str, *, started: bool) -> None:
    """A consumer that is dropped without stop() causes a ResourceWarning as soon as nothing refers to it any more."""
    topic = await world.make_topic()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    consumer = consumer_of(world, kind, topic, group_id=world.unique("group"))
    if started:
        await consumer.start()
        await consumer.getmany(timeout_ms=100)
    rest = [consumer._coordinator, consumer._fetcher, consumer._client]
    held, dropped = [consumer], weakref.ref(consumer)
    del consumer
    with pytest.warns(ResourceWarning, match="Unclosed AIOKafkaConsumer"):
        drop(held)
    assert dropped() is None
    for part in rest:
        if part is not None:
            await part.close()


@kinds
@pytest.mark.parametrize("started", [False, True])
async def test_a_dropped_producer_warns(world: World, kind: str, *, started: bool) -> None:
    """So it is with a producer."""
    topic = await world.make_topic()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    producer = producer_of(world, kind)
    if started:
        await producer.start()
        await producer.send_and_wait(topic, b"0", partition=0)
    rest = [producer._sender, producer.client]
    held, dropped = [producer], weakref.ref(producer)
    del producer
    with pytest.warns(ResourceWarning, match="Unclosed AIOKafkaProducer"):
        drop(held)
    assert dropped() is None
    for part in rest:
        await part.close()
