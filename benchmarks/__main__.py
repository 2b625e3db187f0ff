"""``make bench``: measure, print tables, write build/reports/bench.json, memory.json and stores.json.

``python -m benchmarks core``, ``memory``, ``stores`` or ``ready`` measures one of them; ``ready``, which takes minutes,
tells how long a consumer takes after a rebalance.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import core, memory, ready, stores

REPORTS = Path("build/reports")


def main() -> None:
    """Measure and report what is named, or all that is quick."""
    known = {"core": _core, "memory": _memory, "stores": _stores, "ready": _ready}
    chosen = sys.argv[1:] or ["core", "memory", "stores"]
    if unknown := set(chosen) - set(known):
        raise SystemExit(f"{', '.join(sorted(unknown))}: unknown; choose from {', '.join(known)}")
    for name in chosen:
        known[name]()


def _core() -> None:
    figures = core.measure()
    table = Table(title=f"messages per second on one core, median of {core.REPEATS} (least to greatest)")
    for name in ("what", "per second", "us each", "spread"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in figures:
        spread = f"{one.least:,.0f} - {one.greatest:,.0f}"
        table.add_row(one.name, f"{one.per_second:,.0f}", f"{1e6 / one.per_second:.1f}", spread)
    packages = ("watchword", "cryptography", "cbor2")
    report = {"messages": core.MESSAGES, "repeats": core.REPEATS, "core": [asdict(one) for one in figures]}
    _write("bench", report, packages, table)


def _memory() -> None:
    figures = memory.measure()
    table = Table(title=f"{memory.IDS:,} ids of {memory.PRINCIPALS:,} principals in memory")
    for name in ("logs", "bytes an id", "at most", "resident", "claims/s", "slowest"):
        table.add_column(name, justify="right")
    for one in figures:
        held = (f"{size:.1f}" for size in (one.bytes_per_id, one.peak_bytes_per_id, one.rss_bytes_per_id))
        table.add_row(str(one.logs), *held, f"{one.claims_per_second:,.0f}", f"{one.slowest_claim_ms:.1f} ms")
    report = {"ids": memory.IDS, "principals": memory.PRINCIPALS, "allowed_bytes_per_id": memory.MOST}
    _write("memory", report | {"memory": [asdict(one) for one in figures]}, ("watchword",), table)


def _stores() -> None:
    figures = stores.measure()
    table = Table(title=f"claims per second, {stores.IN_FLIGHT} in flight, median of {stores.REPEATS}")
    for name in ("store", "claims/s", "raw/s", "share", "lone claim", "raw is", "on"):
        table.add_column(name, justify="left" if name in {"store", "raw is", "on"} else "right")
    for one in figures:
        raw = ("", "") if one.raw_per_second is None else (
            f"{one.raw_per_second:,.0f}", f"{one.claims_per_second / one.raw_per_second:.0%}"
        )  # fmt: skip
        lone = f"{one.lone_claim_us:,.0f} us"
        table.add_row(one.name, f"{one.claims_per_second:,.0f}", *raw, lone, one.raw, one.server)
    report = {"claims": stores.CLAIMS, "in_flight": stores.IN_FLIGHT, "repeats": stores.REPEATS}
    packages = ("watchword", "redis", "nats-py")
    _write("stores", report | {"stores": [asdict(one) for one in figures]}, packages, table)


def _ready() -> None:
    figures, broker = ready.measure()
    table = Table(title=f"time until ready after a rebalance, {ready.RATE:,} messages/s in the partition, {broker}")
    for name in ("window", "messages read again", "seconds", "bare consumer", "read again per second"):
        table.add_column(name, justify="right")
    for one in figures:
        seconds = f"{one.seconds:.1f}", f"{one.bare_seconds:.1f}"
        table.add_row(f"{one.window} s", f"{one.messages:,}", *seconds, f"{one.per_second:,.0f}")
    rows = [asdict(one) | {"per_second": one.per_second} for one in figures]
    report = {"rate": ready.RATE, "broker": broker, "ready": rows}
    _write("ready", report, ("watchword", "cryptography", "aiokafka"), table)


def _write(name: str, report: dict[str, Any], packages: tuple[str, ...], table: Table) -> None:
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **{package: version(package) for package in packages},
    }
    path = REPORTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine} | report, indent=2) + "\n")
    Console().print(table)
    Console().print(f"written to {path}")


if __name__ == "__main__":
    main()
