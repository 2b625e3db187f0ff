"""What remembering an id costs: bytes and time, at a million ids of a thousand principals."""

from __future__ import annotations

import os
import resource
import sys
import time
import tracemalloc
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from watchword import Policy
from watchword.quota import Bounds
from watchword.spi import Admission, Claim, MemoryReplayStore, Position

from .processes import apart, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator

IDS: Final = 1_000_000
PRINCIPALS: Final = 1000
LOGS: Final = (1, 12)
MOST: Final = 24.0
"""Bytes that an id may take."""

_SPAN: Final = 300
"""Seconds of log time in which the ids are issued: all of them are in the window at the end."""

_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
_NOW: Final = 1_800_000_000


@dataclass(frozen=True, slots=True)
class Memory:
    """One measurement.

    ``bytes_per_id`` is what Python's allocator says is held at the end (tracemalloc), ``peak_bytes_per_id`` was held at
    most meanwhile. ``rss_bytes_per_id`` is by how much the greatest resident size of a process of its own grew, in
    which ``claims_per_second`` and ``slowest_claim_ms`` were measured too, without tracemalloc; they are of processor
    time, so that other work on the machine does not count.
    """

    logs: int
    bytes_per_id: float
    peak_bytes_per_id: float
    rss_bytes_per_id: float
    claims_per_second: float
    slowest_claim_ms: float


def measure(*, small: bool) -> dict[str, Any]:
    """Measure one log and several, each twice in a fresh process: once for bytes, once for time and resident size."""
    ids = 2000 if small else IDS
    figures = []
    traced = side_by_side(_traced, [(logs, ids) for logs in LOGS])
    for logs, (held, peak) in zip(LOGS, traced, strict=True):
        resident, rate, slowest = apart(_timed, logs, ids)
        figures.append(asdict(Memory(logs, held, peak, resident, rate, slowest)))
    return {"memory": {"ids": ids, "principals": PRINCIPALS, "allowed_bytes_per_id": MOST, "memory": figures}}


def _traced(logs: int, ids: int) -> tuple[float, float]:
    store = _store(ids)
    tracemalloc.start()
    for claim in _claims(logs, ids):
        _offer(store, claim)
    held, peak = tracemalloc.get_traced_memory()
    return held / len(store), peak / len(store)


def _timed(logs: int, ids: int) -> tuple[float, float, float]:
    store, spent, slowest = _store(ids), 0.0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for claim in _claims(logs, ids):
        started = time.process_time()
        _offer(store, claim)
        took = time.process_time() - started
        spent += took
        slowest = max(slowest, took)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return grown * _RSS_UNIT / len(store), len(store) / spent, slowest * 1000


def _store(ids: int) -> MemoryReplayStore:
    return MemoryReplayStore(horizon=Policy().horizon, bounds=Bounds(per_principal=ids, in_all=ids + 1, unverified=ids))


def _offer(store: MemoryReplayStore, claim: Claim) -> None:
    try:
        store.claim(claim).send(None)  # it never waits, so no event loop blurs the figures
    except StopIteration as done:
        if done.value is not Admission.FIRST:
            raise AssertionError(done.value) from None


def _claims(logs: int, ids: int) -> Iterator[Claim]:
    """Make claims as a verifier does: every name is read from a message, and so an object of its own."""
    for number in range(ids):
        at = _NOW + _SPAN * number // ids
        yield Claim(
            scope="kafka://bench/tasks#group",
            log=f"group#tasks/{number // PRINCIPALS % logs}",
            principal=f"agent://acme/agent-{number % PRINCIPALS}",
            key_id=b"key-%013d" % (number % PRINCIPALS),
            id=os.urandom(16),
            digest=os.urandom(32),
            place=(Position("tasks/0", number), at + 0.5),
            issued_at=at,
            reference=at + 0.5,
            keep_until=at + 1e6,
        )
