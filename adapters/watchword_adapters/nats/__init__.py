"""NATS through nats-py: a client that signs what it publishes and delivers only verified messages.

``connect(..., watchword=...)`` replaces ``nats.connect(...)``; the rest of a program stays as it is.
"""

from watchword_adapters.nats.client import WatchwordClient, connect
from watchword_adapters.nats.jetstream import VerifyingJetStream, VerifyingManager, VerifyingPullSubscription
from watchword_adapters.nats.message import DeliveredMsg, ObservedMsg, ServerMsg, VerifiedMsg
from watchword_adapters.nats.quarantine import NatsQuarantine
from watchword_adapters.nats.signing import Recipient
from watchword_adapters.nats_rights import NotAllowed

__all__ = [
    "DeliveredMsg",
    "NatsQuarantine",
    "NotAllowed",
    "ObservedMsg",
    "Recipient",
    "ServerMsg",
    "VerifiedMsg",
    "VerifyingJetStream",
    "VerifyingManager",
    "VerifyingPullSubscription",
    "WatchwordClient",
    "connect",
]
