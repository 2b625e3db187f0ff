"""The interface for plug-ins and adapters: the ports, the types that they exchange, and the core that adapters drive.

A plug-in implements one of the ports ``KeySource``, ``SigningBackend``, ``ReplayStore`` (or ``SharedReplayStore``),
``Quarantine`` and ``TrustScore``, and registers a factory that takes its options and a ``Context``. An adapter turns
what its client reads into ``Message`` objects with a ``Position``, and delivers or drops each according to the result
of ``Watchword.admit_many``. Everything else under ``watchword`` may change without notice.
"""

from watchword.agent import Delivered
from watchword.audit import Audit, Meter
from watchword.context import Context, Warn
from watchword.guard import MemoryReplayStore
from watchword.keys import (
    KeyChain,
    KeySource,
    KeySwitch,
    ListedKeys,
    NamedBackend,
    RenewableKeys,
    RotatingBackend,
    ShownBackend,
    SigningBackend,
)
from watchword.message import Channel, Expected, Message, ObservedMessage, Position, Request
from watchword.quarantine import Quarantine, QuarantineLimits
from watchword.quarantine_copy import HeaderStyle
from watchword.replay import Admission, Claim, ReaderBirth, ReplayStore, SharedReplayStore
from watchword.signer import Signed, Signer
from watchword.trust import TrustScore
from watchword.verifier import Verifier

__all__ = [
    "Admission",
    "Audit",
    "Channel",
    "Claim",
    "Context",
    "Delivered",
    "Expected",
    "HeaderStyle",
    "KeyChain",
    "KeySource",
    "KeySwitch",
    "ListedKeys",
    "MemoryReplayStore",
    "Message",
    "Meter",
    "NamedBackend",
    "ObservedMessage",
    "Position",
    "Quarantine",
    "QuarantineLimits",
    "ReaderBirth",
    "RenewableKeys",
    "ReplayStore",
    "Request",
    "RotatingBackend",
    "SharedReplayStore",
    "ShownBackend",
    "Signed",
    "Signer",
    "SigningBackend",
    "TrustScore",
    "Verifier",
    "Warn",
]
