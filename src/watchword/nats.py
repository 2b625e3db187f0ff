"""NATS, with nats-py: ``connect(..., watchword=...)`` replaces ``nats.connect(...)``; other code does not change."""

from watchword.extras import told

try:
    from watchword_adapters.nats import (
        DeliveredMsg,
        NatsQuarantine,
        NotAllowed,
        ObservedMsg,
        Recipient,
        ServerMsg,
        VerifiedMsg,
        VerifyingJetStream,
        VerifyingManager,
        VerifyingPullSubscription,
        WatchwordClient,
        connect,
    )
    from watchword_adapters.nats.redrive import copies, redrive
except ModuleNotFoundError as error:
    raise told(error) from None

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
    "copies",
    "redrive",
]
