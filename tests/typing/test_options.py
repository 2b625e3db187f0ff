"""The options that type checkers know are those that the clients take."""

import inspect
from collections.abc import Callable
from typing import Any

import nats.aio.client
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from nats.js import JetStreamContext, JetStreamManager

from watchword_adapters.kafka.options import ConsumerOptions, ProducerOptions
from watchword_adapters.nats.options import ConnectOptions, ManagerOptions, StreamOptions

OPTIONS: dict[str, tuple[type, Callable[..., Any], set[str]]] = {
    "producer": (ProducerOptions, AIOKafkaProducer.__init__, {"self"}),
    "consumer": (ConsumerOptions, AIOKafkaConsumer.__init__, {"self", "topics"}),
    "connect": (ConnectOptions, nats.aio.client.Client.connect, {"self", "servers"}),
    "streams": (StreamOptions, JetStreamContext.__init__, {"self", "conn"}),
    "manager": (ManagerOptions, JetStreamManager.__init__, {"self", "conn"}),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_the_clients_own(name: str) -> None:
    """One that is missing could not be written; of an older client a newer one's may be there."""
    options, call, ours = OPTIONS[name]
    assert set(inspect.signature(call).parameters) - ours <= options.__annotations__.keys()


def test_defaults_fit_their_types() -> None:
    """An option's default in aiokafka is of the type that checkers expect, in one example of each type."""
    for name, kind in (("request_timeout_ms", int), ("security_protocol", str), ("enable_idempotence", bool)):
        assert isinstance(inspect.signature(AIOKafkaProducer.__init__).parameters[name].default, kind)
