"""The agent that signs statements: it signs as its operator does, and nothing else of the operator's comes with it."""

from __future__ import annotations

from typing import Final

from watchword import Policy, Watchword
from watchword.spi import MemoryReplayStore, Verifier

_STRICT: Final = Policy()
"""It enforces: in observe mode a client sends what cannot be signed without a signature."""


def speaker(watchword: Watchword) -> Watchword:
    """Return an agent that signs with the signer of ``watchword``, reads nothing, and never sends unsigned.

    ConfigurationError where there is no signer.
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
