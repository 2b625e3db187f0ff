"""``make bench``: measure, print a table, write build/reports/bench.json.

``python -m benchmarks ready`` measures how long a consumer takes after a rebalance, into build/reports/ready.json.
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

from benchmarks import ready
from benchmarks.core import MESSAGES, REPEATS, measure

REPORTS = Path("build/reports")


def main() -> None:
    """Measure and report what is named."""
    match sys.argv[1:]:
        case []:
            _core()
        case ["ready"]:
            _ready()
        case _:
            raise SystemExit("python -m benchmarks, or python -m benchmarks ready")


def _core() -> None:
    figures = measure()
    table = Table(title=f"messages per second on one core, median of {REPEATS} (least to greatest)")
    for name in ("what", "per second", "us each", "spread"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in figures:
        spread = f"{one.least:,.0f} - {one.greatest:,.0f}"
        table.add_row(one.name, f"{one.per_second:,.0f}", f"{1e6 / one.per_second:.1f}", spread)
    report = {"messages": MESSAGES, "repeats": REPEATS, "core": [asdict(one) for one in figures]}
    _write("bench", report, ("watchword", "cryptography", "cbor2"), table)


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
    path.write_text(json.dumps({"machine": machine, **report}, indent=2) + "\n")
    Console().print(table)
    Console().print(f"written to {path}")


if __name__ == "__main__":
    main()
