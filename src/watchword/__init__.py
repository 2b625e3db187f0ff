"""Watchword: authentication of every message between agents on Kafka and NATS.

The core: it signs and verifies messages, and does no I/O. Clients are wrapped by ``watchword_adapters``.
"""

from watchword.agent import Delivered, Watchword
from watchword.audit import Audit
from watchword.errors import ConfigurationError, Reason, Rejected, SigningError, Unavailable, WatchwordError
from watchword.guard import MemoryReplayStore
from watchword.keys import Algorithm, KeyChain, KeySource, MemoryKeys, SigningBackend, SigningKey, VerificationKey
from watchword.message import Channel, Expected, Message, ObservedMessage, Position, Request, VerifiedMessage
from watchword.policy import Alias, Allow, Mode, Policy, Rate
from watchword.quarantine import Quarantine, QuarantineLimits
from watchword.quarantine_copy import HeaderStyle
from watchword.replay import Admission, Claim, ReplayStore
from watchword.signer import Signed, Signer
from watchword.verifier import Verifier

__all__ = [
    "Admission",
    "Algorithm",
    "Alias",
    "Allow",
    "Audit",
    "Channel",
    "Claim",
    "ConfigurationError",
    "Delivered",
    "Expected",
    "HeaderStyle",
    "KeyChain",
    "KeySource",
    "MemoryKeys",
    "MemoryReplayStore",
    "Message",
    "Mode",
    "ObservedMessage",
    "Policy",
    "Position",
    "Quarantine",
    "QuarantineLimits",
    "Rate",
    "Reason",
    "Rejected",
    "ReplayStore",
    "Request",
    "Signed",
    "Signer",
    "SigningBackend",
    "SigningError",
    "SigningKey",
    "Unavailable",
    "VerificationKey",
    "VerifiedMessage",
    "Verifier",
    "Watchword",
    "WatchwordError",
]
