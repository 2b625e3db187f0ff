"""What plug-ins and adapters build on: the ports, what crosses them, and the core that adapters drive.

A plug-in implements one of the ports: ``KeySource``, ``SigningBackend``, ``ReplayStore`` (or ``SharedReplayStore``),
``Quarantine``, ``TrustScore``, and registers a factory that takes its options and a ``Context``. An adapter turns what
its client reads into a ``Message`` with its ``Position``, and carries out what ``Watchword.admit_many`` says.
Everything else under ``watchword`` may change without a word.
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
