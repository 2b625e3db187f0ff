"""Checks signatures concurrently on a separate thread pool, off the event loop."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FEW: Final = 12
"""Signatures checked without threads: they take about a millisecond, hardly longer than starting a thread."""


class Threads:
    """A checker for the verifier, with as many threads as this process has processors.

    ``cryptography`` releases the interpreter's lock while it checks. The threads are not shared (handlers may occupy
    the event loop's own for long), and end when this object is garbage-collected.
    """

    def __init__(self) -> None:
        self._count = _processors()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="watchword")

    async def __call__(self, jobs: Sequence[Callable[[], bool]]) -> list[bool]:
        """Return the jobs' results, in order; a few jobs run directly."""
        if len(jobs) <= FEW:
            return _all_of(jobs)
        loop = asyncio.get_running_loop()
        shares = [jobs[first :: self._count] for first in range(min(self._count, len(jobs)))]
        verdicts = [False] * len(jobs)
        for first, found in enumerate(
            await asyncio.gather(*(loop.run_in_executor(self._pool, _all_of, share) for share in shares))
        ):
            verdicts[first :: self._count] = found
        return verdicts


def _all_of(jobs: Sequence[Callable[[], bool]]) -> list[bool]:
    return [job() for job in jobs]


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
