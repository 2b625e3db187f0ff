"""Times of issue above the floor of a store, and below that of its next birth, however slow the machine is."""

import asyncio
import time
from math import floor
from typing import Final

from watchword import Policy
from watchword_adapters.stores.batched import BatchedReplayStore

POLICY: Final = Policy(max_age=60, max_skew=1, max_lag=600)

LATER: Final = 600
"""Seconds after which a message is issued that is above the floor of any store that is born in the test."""


def later() -> int:
    """Return an issue time above the floor of a store that is yet to be born."""
    return floor(time.time()) + LATER


async def first_after_birth(store: BatchedReplayStore) -> int:
    """Let a store be born, and return the first issue time above its floor."""
    await store.start()
    return floor(time.time() + POLICY.max_skew) + 1


async def reached(issued: int) -> None:
    """Wait until a store that is born from now on cannot vouch for what was issued then."""
    await asyncio.sleep(max(0.0, issued - time.time()))
