"""A key set in a variable: nothing of it changes while a process runs."""

from __future__ import annotations

import asyncio
import os
from typing import Final
from unittest.mock import patch

from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, new_key, seconds_until
from watchword.jwk import to_jwks
from watchword_adapters.keys.environment import keys_in

_PATIENCE: Final = 1.0
_VARIABLE: Final = "AGENT_KEYS"


def measure() -> Figures:
    """Take some seconds."""
    return asyncio.run(_measure())


async def _measure() -> Figures:
    old, new = new_key(), new_key()
    with patch.dict(os.environ, {_VARIABLE: to_jwks([old])}):
        source = keys_in(_VARIABLE)
        os.environ[_VARIABLE] = to_jwks([new])
        return Figures(
            seconds_to_new_key=await seconds_until(source, new, known=True, patience=_PATIENCE),
            seconds_to_revocation=await seconds_until(source, old, known=False, patience=_PATIENCE),
            under_outage="never",
            lookups_for_100000_unknown_ids=await flood(source, PRINCIPAL, lambda: 0),
            measured_with="a process that continues",
        )
