"""The seam to FastStream: every private name that Watchword uses is listed here once, with the reason.

FastStream has no option for the client that a broker uses, so the method that creates the clients is overridden. Names
that are overridden or only written are checked when a broker is created: if one were renamed, FastStream would bypass
us. Even then no message reaches a handler unverified: ``Judged`` (senders.py) refuses it.
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
    """One name: its class, the parameters of a function (None for an attribute), and why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


KAFKA: Final = (
    Name(KafkaBroker, "_connect", (), "creates the clients, where ours verify; overridden"),
    Name(KafkaBrokerConfig, "builder", None, "creates each subscriber's consumer, where ours verify; written"),
    Name(LogicSubscriber, "builder", None, "reads the builder that we write"),
    Name(
        AioKafkaFastProducerImpl,
        "connect",
        ("producer", "serializer", "codec"),
        "receives the producer before it starts, where ours signs; overridden",
    ),
    Name(AioKafkaFastProducerImpl, "publish", ("cmd",), "ours waits while the signing back-end is down; overridden"),
    Name(AioKafkaFastProducerImpl, "publish_batch", ("cmd",), "as publish; overridden"),
    Name(TestKafkaBroker, "_patch_producer", ("broker",), "creates a test's producer, where ours signs; overridden"),
    Name(
        FakeKafkaProducer,
        "_execute_handler",
        ("msg", "topic", "handler"),
        "passes a test's message to a handler, after ours has verified it; overridden",
    ),
)
NATS: Final = (
    Name(NatsBroker, "_connect", (), "creates the client, where ours signs and verifies; overridden"),
    Name(NatsBroker, "_connection_kwargs", None, "holds the client's options"),
    Name(NatsBrokerConfig, "producer", None, "publishes, and binds answers to their requests; written"),
    Name(NatsBrokerConfig, "js_producer", None, "as producer, for streams; written"),
    Name(NatsBrokerConfig, "connect", ("connection",), "passes the client to publishers and subscribers"),
    Name(NatsFastProducerImpl, "publish", ("cmd",), "publishes; overridden"),
    Name(NatsFastProducerImpl, "request", ("cmd",), "sends requests; overridden"),
    Name(NatsJSFastProducer, "publish", ("cmd",), "publishes to streams; overridden"),
    Name(NatsJSFastProducer, "request", ("cmd",), "sends requests over streams; overridden"),
    Name(TestNatsBroker, "_patch_producer", ("broker",), "as TestKafkaBroker's; overridden"),
    Name(FakeNatsProducer, "_execute_handler", ("msg", "subject", "handler"), "as Kafka's; overridden"),
)


def check(broker: object, names: tuple[Name, ...]) -> None:
    """Raise ConfigurationError unless FastStream has each of these names, with the parameters we expect."""
    made: dict[type, Any] = {KafkaBroker: broker, NatsBroker: broker}
    for one in names:
        if one.parameters is None:
            if not hasattr(made.get(one.owner, one.owner), one.name) and one.name not in _fields(one.owner):
                raise _changed(one, "does not exist")
            continue
        found = getattr(one.owner, one.name, None)  # FastStream's own, not our override
        if not inspect.isfunction(found):
            raise _changed(one, "is not a function")
        _, *parameters = inspect.signature(found).parameters
        if tuple(parameters) != one.parameters:
            raise _changed(one, f"takes {tuple(parameters)}, not {one.parameters}")


def _fields(owner: type) -> Mapping[str, Any]:
    """Return the fields of a dataclass; those without a default exist only on its instances."""
    fields: Mapping[str, Any] = vars(owner).get("__dataclass_fields__", {})
    return fields


def _changed(one: Name, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"faststream {version('faststream')}: {one.owner.__name__}.{one.name} {how}; Watchword uses it ({one.why})."
        " Install a version of faststream that watchword[faststream] allows"
    )


def registered(broker: type) -> dict[str, Any]:
    """Return the class arguments that register a test broker; FastStream has none before 0.7.6."""
    return {"broker": broker} if "__init_subclass__" in vars(TestBroker) else {}


def consumer_options(config: KafkaBrokerConfig) -> dict[str, Any]:
    """Return the options of a broker's consumers; ConfigurationError unless these are aiokafka's."""
    builder = config.builder
    if not isinstance(builder, partial) or builder.func is not AIOKafkaConsumer or builder.args:
        raise _changed(KAFKA[1], f"is {builder!r}, not a partial of aiokafka's consumer")
    return dict(builder.keywords)


def connection_options(broker: NatsBroker) -> dict[str, Any]:
    """Return the connection options of a broker's client."""
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
