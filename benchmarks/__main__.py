"""``make bench``: measure, print tables, write build/reports/bench.json and build/reports/stores.json.

``python -m benchmarks core`` or ``stores`` measures one of them.
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

from benchmarks import core, stores

REPORTS = Path("build/reports")


def main() -> None:
    """Measure and report what is named, or all."""
    known = {"core": _core, "stores": _stores}
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
