"""What is measured of any key source: by asking it, while what it reads changes, breaks, or is flooded about."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypedDict

from watchword import SigningKey, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import VerificationKey
    from watchword.spi import KeySource

PRINCIPAL: Final = "agent://bench/planner"
UNKNOWN: Final = 100_000
PATIENCE: Final = 60.0
"""Seconds after which a key is given up that does not become known, or does not go."""

_EVERY: Final = 0.01
"""Seconds between two questions: a reader at a hundred messages a second."""


class Figures(TypedDict):
    """What is found of one source.

    Times are in seconds, None where they do not come while a process runs. ``under_outage`` is ``kept`` if known agents
    are judged for a stated time, nobody is called unknown, and then nobody is judged; ``believed`` if what is not known
    is called unknown for that time; ``closed`` if nobody is judged at once; ``open`` if someone is known forever, or
    known ones are forgotten; ``never`` if it has no outages.
    """

    seconds_to_new_key: float | None
    seconds_to_revocation: float | None
    under_outage: str
    lookups_for_100000_unknown_ids: int
    measured_with: str


def new_key() -> VerificationKey:
    """Return a key of the agent that is asked about."""
    return SigningKey.generate().verification_key(PRINCIPAL)


async def seconds_until(
    source: KeySource, key: VerificationKey, *, known: bool, patience: float = PATIENCE
) -> float | None:
    """Ask again and again until a key is known, or is gone or revoked; return how long it took, None if too long."""
    begun = time.perf_counter()
    while await _is_known(source, key) is not known:
        if time.perf_counter() - begun > patience:
            return None
        await asyncio.sleep(_EVERY)
    return round(time.perf_counter() - begun, 3)


async def _is_known(source: KeySource, key: VerificationKey) -> bool:
    found = await source.find(key.principal, key.key_id)
    return found is not None and found.revoked_at is None


async def flood(source: KeySource, principal: str, count: Callable[[], int]) -> int:
    """Ask for as many keys that nobody has; return how often what the source reads was asked."""
    before = count()
    for number in range(UNKNOWN):
        assert await source.find(principal, b"unknown-%d" % number) is None  # noqa: S101 - the premise
    return count() - before


async def outage(source: KeySource, known: VerificationKey, pass_time: Callable[[], None]) -> str:
    """Say in a word what becomes of agents while there is nobody to ask, now and after ``pass_time``."""
    first = await _answer(source, known.principal, known.key_id)
    stranger = await _answer(source, known.principal, b"unknown")
    pass_time()
    last = await _answer(source, known.principal, known.key_id)
    return {
        ("known", "unavailable", "unavailable"): "kept",
        ("known", "unknown", "unavailable"): "believed",
        ("unavailable", "unavailable", "unavailable"): "closed",
    }.get((first, stranger, last), "open")


async def _answer(source: KeySource, principal: str, key_id: bytes) -> str:
    try:
        return "unknown" if await source.find(principal, key_id) is None else "known"
    except Unavailable:
        return "unavailable"
