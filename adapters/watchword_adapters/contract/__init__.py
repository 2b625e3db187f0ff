"""Contract suites for pytest: what every plug-in or adapter of one kind must do.

Import it as ``from watchword.testing import contracts``.

Subclass a suite as ``TestMine``, implement its abstract methods, and run it with pytest-asyncio.
"""

import pytest

_ROOMS = ("bus", "key_source", "quarantine", "replay_store", "shared_replay_store", "signing_backend")
pytest.register_assert_rewrite(*(f"{__name__}.{room}" for room in _ROOMS))  # a failure shows what was compared

from watchword_adapters.contract.bus import BusContract, BusHarness, Intake, Received, Tap, Wire
from watchword_adapters.contract.key_source import (
    ChangingKeySourceContract,
    FailingKeySourceContract,
    KeyFault,
    KeySourceContract,
    LimitedKeySourceContract,
    faulty_set,
)
from watchword_adapters.contract.quarantine import Fault, QuarantineContract
from watchword_adapters.contract.replay_store import HORIZON, ReplayStoreContract, make_claim
from watchword_adapters.contract.shared_replay_store import PER_PRINCIPAL, POLICY, SharedReplayStoreContract
from watchword_adapters.contract.signing_backend import HeldElsewhereContract, SigningBackendContract, Trouble

__all__ = [
    "HORIZON",
    "PER_PRINCIPAL",
    "POLICY",
    "BusContract",
    "BusHarness",
    "ChangingKeySourceContract",
    "FailingKeySourceContract",
    "Fault",
    "HeldElsewhereContract",
    "Intake",
    "KeyFault",
    "KeySourceContract",
    "LimitedKeySourceContract",
    "QuarantineContract",
    "Received",
    "ReplayStoreContract",
    "SharedReplayStoreContract",
    "SigningBackendContract",
    "Tap",
    "Trouble",
    "Wire",
    "faulty_set",
    "make_claim",
]
