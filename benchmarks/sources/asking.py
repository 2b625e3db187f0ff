"""Asks a key source again and again while what it reads changes, is out of reach, or is flooded about."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from watchword import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.spi import KeySource

UNKNOWN: Final = 100_000
PATIENCE: Final = 60.0
_EVERY: Final = 0.01
"""Seconds between two questions: a reader at a hundred messages a second."""


async def seconds_until(source: KeySource, principal: str, key_id: bytes, *, known: bool) -> float | None:
    """Return how long it takes from now on until a key is known, or is not any more; None where it takes too long."""
    begun = time.perf_counter()
    while (await source.find(principal, key_id) is not None) is not known:
        if time.perf_counter() - begun > PATIENCE:
            return None
        await asyncio.sleep(_EVERY)
    return round(time.perf_counter() - begun, 3)


async def flood(source: KeySource, principal: str, count: Callable[[], int]) -> int:
    """Ask for as many keys that nobody has; return how often what the source reads was asked."""
    before = count()
    for number in range(UNKNOWN):
        assert await source.find(principal, b"unknown-%d" % number) is None  # noqa: S101 - the premise
    return count() - before


async def outage(source: KeySource, principal: str, key_id: bytes, pass_time: Callable[[], None]) -> str:
    """Say in a word what becomes of agents while there is nobody to ask, now and after ``pass_time``.

    ``kept`` if known ones are judged for a stated time and then nobody is, ``closed`` if nobody is at once, ``open`` if
    somebody is called unknown, or known for ever.
    """
    first = await _answer(source, principal, key_id)
    stranger = await _answer(source, principal, b"unknown")
    pass_time()
    last = await _answer(source, principal, key_id)
    if "unknown" in {first, stranger, last} or last != "unavailable":
        return "open"
    return "kept" if first == "known" else "closed"


async def _answer(source: KeySource, principal: str, key_id: bytes) -> str:
    try:
        return "unknown" if await source.find(principal, key_id) is None else "known"
    except Unavailable:
        return "unavailable"
