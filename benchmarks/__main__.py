"""``make bench``: measure, print tables, write build/reports/bench.json and build/reports/memory.json.

``python -m benchmarks core`` or ``memory`` measures one of them.
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

from benchmarks import core, memory

REPORTS = Path("build/reports")


def main() -> None:
    """Measure and report what is named, or all."""
    known = {"core": _core, "memory": _memory}
    chosen = sys.argv[1:] or list(known)
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
    if any(one.bytes_per_id > memory.MOST for one in figures):
        raise SystemExit(f"an id takes more than {memory.MOST:.0f} bytes")


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
