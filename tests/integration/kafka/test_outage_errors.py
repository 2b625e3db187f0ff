"""An outage is an error of the client's kind too."""

import asyncio

import pytest
from aiokafka.errors import KafkaError

from tests.integration.kafka.world import World
from tests.support.patience import PATIENCE
from watchword import Unavailable, WatchwordError


@pytest.mark.parametrize("call", ["getone", "getmany"])
async def test_unavailable_is_an_error_of_the_client_too(world: World, call: str) -> None:
    """A loop that continues after any KafkaError, as frameworks have it, survives an outage of a key source."""
    topic = await world.make_topic()
    await world.say(topic, b"0")
    world.keys.failures = 1
    async with world.consumer(world.reader(), topic) as consumer, asyncio.timeout(PATIENCE):
        with pytest.raises(KafkaError) as raised:
            await (consumer.getone() if call == "getone" else consumer.getmany(timeout_ms=10_000))
        assert isinstance(raised.value, Unavailable)
        assert isinstance(raised.value, WatchwordError)
        assert (await consumer.getone()).value == b"0"
