"""Rates, and how they are measured: repetitions take turns, so that a slow moment of the machine hits all alike."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Mapping

METHOD: Final = {
    "repetitions": "interleaved (A B A B ...), after one round that does not count; medians, with least and greatest",
    "garbage": "collected before each repetition, what was prepared is frozen; the collector stays on meanwhile",
    "clock": "time.perf_counter, of one machine; for algorithms time.process_time",
    "processes": (
        "fresh ones for each part: one for each engine, one for what it is compared with, on a bus some for each kind"
        " of client; core, peers and scaling on one CPU, where a process can be pinned"
    ),
}

Run: TypeAlias = "Callable[[], float]"
"""One repetition; returns what it did per second."""

AsyncRun: TypeAlias = "Callable[[], Awaitable[float]]"
K = TypeVar("K", bound="Hashable")


@dataclass(frozen=True, slots=True)
class Figure:
    """What was done per second: the median of all repetitions, their least and their greatest."""

    per_second: float
    least: float
    greatest: float

    @classmethod
    def of(cls, rates: list[float]) -> Figure:
        """Sum up repetitions."""
        return cls(median(rates), min(rates), max(rates))

    @property
    def us(self) -> float:
        """Microseconds each."""
        return 1e6 / self.per_second

    def over(self, other: Figure) -> float:
        """Return the quotient of the medians: above 1, this is the faster one."""
        return self.per_second / other.per_second

    def to_json(self) -> dict[str, float]:
        """Return the figure for a report."""
        return {"per_second": self.per_second, "least": self.least, "greatest": self.greatest, "us": self.us}


def take_turns(runs: Mapping[K, Run], repeats: int) -> dict[K, Figure]:
    """Let every run have its turn ``repeats`` times, after a first round that only warms up."""
    rates: dict[K, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            rates[name].append(run())
    return {name: Figure.of(found) for name, found in rates.items()}


def rate(count: int, work: Callable[[], object]) -> float:
    """Do the work once and return how much of it, of which there is ``count``, was done per second."""
    tidy()
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def async_rate(
    count: int, work: Callable[[], Awaitable[object]], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Do as ``rate`` does on an event loop, the start of which does not count."""
    tidy()

    async def timed() -> float:
        begun = clock()
        await work()
        return count / (clock() - begun)

    return asyncio.run(timed())


def tidy() -> None:
    """Collect garbage, and keep what is left out of the collector's next rounds."""
    gc.collect()
    gc.freeze()


def on_one_core() -> int | None:
    """Keep this process, and the threads that it will start, on one CPU; return which, None where it cannot be done."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpu = max(os.sched_getaffinity(0))  # interrupts prefer the first ones
    os.sched_setaffinity(0, {cpu})
    return cpu
