"""Worlds of agents on both buses: the ones that the clients are tested with."""

from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from tests.brokers.plugin import MakeTopic
from tests.integration.kafka.world import World as KafkaWorld
from tests.integration.nats.world import World as NatsWorld
from tests.integration.nats.world import world_on


@pytest.fixture
async def kafka(kafka_bootstrap: str, make_topic: MakeTopic, unique: Callable[[str], str]) -> KafkaWorld:
    """Give agents on the Kafka of this run."""
    return KafkaWorld(kafka_bootstrap, make_topic, unique)


@pytest_asyncio.fixture
async def nats(nats_url: str) -> AsyncIterator[NatsWorld]:
    """Give agents on the server of this run."""
    async with world_on(nats_url) as made:
        yield made
