"""Makes the agent that signs statements and announcements: it has its owner's signer, but reads nothing."""

from __future__ import annotations

from typing import Final

from watchword import Policy, Watchword
from watchword.spi import MemoryReplayStore, Verifier

_STRICT: Final = Policy()
"""Enforce mode: in observe mode a client would send unsigned what cannot be signed."""


def speaker(watchword: Watchword) -> Watchword:
    """Return an agent that signs with the signer of ``watchword``, reads nothing, and never sends unsigned.

    ConfigurationError if there is no signer.
    """
    signer = watchword.signer
    verifier = Verifier(
        realm=signer.realm,
        principal=signer.principal,
        keys=None,
        replay=MemoryReplayStore(horizon=None),
        policy=_STRICT,
        clock=watchword.clock,
    )
    return Watchword.of(verifier, signer, audit=watchword.audit)
