"""FastStream: drop-in brokers whose handlers receive verified messages only, and whose messages are signed."""

from watchword_adapters.faststream.kafka_broker import KafkaBroker
from watchword_adapters.faststream.kafka_testing import TestKafkaBroker
from watchword_adapters.faststream.nats_broker import NatsBroker
from watchword_adapters.faststream.nats_testing import TestNatsBroker
from watchword_adapters.faststream.senders import Principal, Principals, Verified, VerifiedBatch, verified_of

__all__ = [
    "KafkaBroker",
    "NatsBroker",
    "Principal",
    "Principals",
    "TestKafkaBroker",
    "TestNatsBroker",
    "Verified",
    "VerifiedBatch",
    "verified_of",
]
