"""The seam to FastStream: every private name that Watchword uses stands here, once, with the reason.

FastStream has no place where a broker is told which client to use, so the method that makes the clients is overridden.
What is overridden or only written is checked when a broker is made: under another name FastStream would go past us.
Should that happen all the same, no message reaches a handler: ``Judged`` (senders.py) refuses what nobody has judged.
"""

# ruff: noqa: SLF001 - this is the one place where FastStream's private names are used

from __future__ import annotations

import inspect
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from faststream._internal.testing.broker import TestBroker
from faststream.kafka import KafkaBroker, TestKafkaBroker
from faststream.kafka.configs import KafkaBrokerConfig
from faststream.kafka.publisher.producer import AioKafkaFastProducerImpl
from faststream.kafka.subscriber.usecase import LogicSubscriber
from faststream.kafka.testing import FakeProducer as FakeKafkaProducer
from faststream.nats import NatsBroker, TestNatsBroker
from faststream.nats.configs import NatsBrokerConfig
from faststream.nats.publisher.producer import NatsFastProducerImpl, NatsJSFastProducer
from faststream.nats.testing import FakeProducer as FakeNatsProducer

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Name(NamedTuple):
    """One name: whose it is, the parameters of a function (None for an attribute), why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


KAFKA: Final = (
    Name(KafkaBroker, "_connect", (), "makes the clients, of which ours verify; overridden"),
    Name(KafkaBrokerConfig, "builder", None, "makes each subscriber's consumer, of which ours verify; written"),
    Name(LogicSubscriber, "builder", None, "is where a subscriber asks for its consumer; reads what we write"),
    Name(
        AioKafkaFastProducerImpl,
        "connect",
        ("producer", "serializer", "codec"),
        "is given the producer before it starts, which ours signs; overridden",
    ),
    Name(AioKafkaFastProducerImpl, "publish", ("cmd",), "waits where the signing back-end is down; overridden"),
    Name(AioKafkaFastProducerImpl, "publish_batch", ("cmd",), "as publish; overridden"),
    Name(
        TestKafkaBroker, "_patch_producer", ("broker",), "makes the producer of a test, of which ours signs; overridden"
    ),
    Name(
        FakeKafkaProducer,
        "_execute_handler",
        ("msg", "topic", "handler"),
        "hands a message of a test to a handler, before which ours is verified; overridden",
    ),
)
NATS: Final = (
    Name(NatsBroker, "_connect", (), "makes the client, of which ours signs and verifies; overridden"),
    Name(NatsBroker, "_connection_kwargs", None, "says how that connects"),
    Name(NatsBrokerConfig, "producer", None, "publishes, and binds answers to their requests; written"),
    Name(NatsBrokerConfig, "js_producer", None, "as producer, for streams; written"),
    Name(NatsBrokerConfig, "connect", ("connection",), "gives the client to whoever publishes and subscribes"),
    Name(NatsFastProducerImpl, "publish", ("cmd",), "publishes; overridden"),
    Name(NatsFastProducerImpl, "request", ("cmd",), "asks; overridden"),
    Name(NatsJSFastProducer, "publish", ("cmd",), "publishes to streams; overridden"),
    Name(NatsJSFastProducer, "request", ("cmd",), "asks over streams; overridden"),
    Name(TestNatsBroker, "_patch_producer", ("broker",), "as TestKafkaBroker's; overridden"),
    Name(FakeNatsProducer, "_execute_handler", ("msg", "subject", "handler"), "as Kafka's; overridden"),
)


def check(broker: object, names: tuple[Name, ...]) -> None:
    """Raise ConfigurationError unless FastStream has each of these names, in the shape we know."""
    made: dict[type, Any] = {KafkaBroker: broker, NatsBroker: broker}
    for one in names:
        if one.parameters is None:
            if not hasattr(made.get(one.owner, one.owner), one.name) and one.name not in _fields(one.owner):
                raise _changed(one, "is not there")
            continue
        found = getattr(one.owner, one.name, None)  # FastStream's own, which ours overrides
        if not inspect.isfunction(found):
            raise _changed(one, "is no function")
        _, *parameters = inspect.signature(found).parameters
        if tuple(parameters) != one.parameters:
            raise _changed(one, f"takes {tuple(parameters)}, not {one.parameters}")


def _fields(owner: type) -> Mapping[str, Any]:
    """Return the fields of a dataclass, which has those without a default on its instances only."""
    fields: Mapping[str, Any] = vars(owner).get("__dataclass_fields__", {})
    return fields


def _changed(one: Name, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"faststream {version('faststream')}: {one.owner.__name__}.{one.name} {how}; Watchword uses it ({one.why})."
        " Install a version of faststream that watchword[faststream] allows"
    )


def registered(broker: type) -> dict[str, Any]:
    """Return how a class of test brokers says whose it is; before FastStream 0.7.6 there was nothing to say."""
    return {"broker": broker} if "__init_subclass__" in vars(TestBroker) else {}


def consumer_options(config: KafkaBrokerConfig) -> dict[str, Any]:
    """Return the options of the consumers that a broker would make; ConfigurationError where it would make others."""
    builder = config.builder
    if not isinstance(builder, partial) or builder.func is not AIOKafkaConsumer or builder.args:
        raise _changed(KAFKA[1], f"is {builder!r}, not a partial of aiokafka's consumer")
    return dict(builder.keywords)


def connection_options(broker: NatsBroker) -> dict[str, Any]:
    """Return how a broker's client connects."""
    return dict(broker._connection_kwargs)


__all__ = [
    "KAFKA",
    "NATS",
    "FakeKafkaProducer",
    "FakeNatsProducer",
    "check",
    "connection_options",
    "consumer_options",
    "registered",
]
