"""aiokafka's own clients, as the measure, beside ours: made by the same call."""

from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.integration.kafka.world import World
from tests.support.kafka_api import SigningProducer, VerifyingConsumer

kinds = pytest.mark.parametrize("kind", ["aiokafka", "watchword"])


def consumer_of(world: World, kind: str, *topics: str, **options: Any) -> Any:
    """Make aiokafka's consumer, the measure, or ours."""
    if kind == "aiokafka":
        return AIOKafkaConsumer(*topics, bootstrap_servers=world.bootstrap, **options)
    return VerifyingConsumer(*topics, bootstrap_servers=world.bootstrap, watchword=world.reader(), **options)


def producer_of(world: World, kind: str, **options: Any) -> Any:
    """Make aiokafka's producer, the measure, or ours."""
    if kind == "aiokafka":
        return AIOKafkaProducer(bootstrap_servers=world.bootstrap, **options)
    return SigningProducer(bootstrap_servers=world.bootstrap, watchword=world.speaker(), **options)
