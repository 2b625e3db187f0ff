"""Replay stores on a server that comes back."""

import asyncio
from typing import Any

from tests.support.patience import PATIENCE
from watchword.spi import Admission, ReplayStore
from watchword_adapters.contract.replay_store import make_claim


async def answer(store: ReplayStore, *args: Any, **fields: Any) -> Admission:
    """Claim until the server is there again; the arguments are those of ``make_claim``."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return await store.claim(make_claim(*args, **fields))
            except Exception:  # noqa: BLE001 - whatever a server that starts may say
                await asyncio.sleep(0.05)
