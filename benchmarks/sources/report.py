"""``make sources-report``: what keys cost, from each kind of source and holder, measured here.

``build/reports/sources.json`` has ``sources`` (see ``measuring.Figures``), ``backends`` and ``on_buses`` (see
``backends``).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.sources import backends, cards, control, environment, files, jwks, nkeys, spiffe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.sources.measuring import Figures

REPORT: Final = Path("build/reports/sources.json")

SOURCES: Final[Mapping[str, Callable[[], Figures]]] = {
    "file": files.measure,
    "directory": files.measure_directory,
    "environment": environment.measure,
    "jwks": jwks.measure,
    "web_bot_auth": jwks.measure_directory,
    "a2a_card": cards.measure,
    "nats_users": nkeys.measure,
    "spiffe": spiffe.measure,
    "control_log": control.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; takes some minutes."""
    parser = argparse.ArgumentParser(prog="benchmarks.sources.report", description="what keys cost")
    parser.add_argument("--source", action="append", choices=SOURCES, help="this source, and no back-end")
    parser.add_argument("--output", type=Path, default=REPORT)
    chosen = parser.parse_args(arguments)
    logging.getLogger("nats").setLevel(logging.CRITICAL)  # outages are made here on purpose
    found: dict[str, Any] = {"sources": {}}
    for name in chosen.source or SOURCES:
        say(f"==> source: {name}")
        begun = time.perf_counter()
        found["sources"][name] = SOURCES[name]()
        say(f"{json.dumps(found['sources'][name])} ({time.perf_counter() - begun:.0f} s)")
    if chosen.source is None:
        say("==> back-ends")
        found["backends"] = backends.measure()
        found["on_buses"] = backends.on_buses()
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(json.dumps(found, indent=2) + "\n")
    say(json.dumps(found, indent=2))
    say(f"==> {chosen.output}")
    return 0


def say(text: str) -> None:
    """Print a line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
