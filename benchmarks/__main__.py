"""``make bench``: measure, print a table, write build/reports/bench.json."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.core import MESSAGES, REPEATS, measure

REPORT = Path("build/reports/bench.json")


def main() -> None:
    """Measure and report."""
    figures = measure()
    machine = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("watchword", "cryptography", "cbor2")},
    }
    report = {"machine": machine, "messages": MESSAGES, "repeats": REPEATS, "core": [asdict(one) for one in figures]}
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=2) + "\n")
    table = Table(title=f"messages per second on one core, median of {REPEATS} (least to greatest)")
    for name in ("what", "per second", "us each", "spread"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in figures:
        spread = f"{one.least:,.0f} - {one.greatest:,.0f}"
        table.add_row(one.name, f"{one.per_second:,.0f}", f"{1e6 / one.per_second:.1f}", spread)
    Console().print(table)
    Console().print(f"written to {REPORT}")


if __name__ == "__main__":
    main()
