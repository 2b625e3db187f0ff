from collections.abc import Callable

import pytest

from tests.brokers.plugin import MakeTopic
from tests.integration.kafka.world import World


@pytest.fixture
async def world(kafka_bootstrap: str, make_topic: MakeTopic, unique: Callable[[str], str]) -> World:
    """Give agents on the Kafka of this run."""
    return World(kafka_bootstrap, make_topic, unique)
