"""``make chaos``: play the scenarios, print a table, write build/reports/chaos.json; 1 if a promise did not hold."""

from __future__ import annotations

import argparse
import logging
import secrets
import signal
import sys
from pathlib import Path

from rich.console import Console

from chaos.plan import SCENARIOS
from chaos.report import Report
from chaos.run import play_one

REPORT = Path("build/reports/chaos.json")
EVIDENCE = Path("build/chaos")


def main() -> int:
    """Play and report."""
    options = _options()
    # Either signal ends our processes first; a shell lets what it starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that the broker is away is what is played
    console = Console(highlight=False)
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    console.print(f"seed {seed}: give it back with SEED={seed}")
    report = Report(seed, options.honest)
    for scenario in options.scenarios or options.buses:
        evidence = EVIDENCE / scenario
        try:
            play_one(scenario, seed=seed, honest=options.honest, evidence=evidence, report=report, say=console.print)
        except Exception as error:  # noqa: BLE001 - the other scenarios are still worth playing
            report.faults.append(f"{scenario}: {type(error).__name__}: {error}")
        report.write(REPORT)
    for table in report.tables():
        console.print(table)
    for fault in report.faults:
        console.print(f"FAILED {fault}", markup=False)
    console.print(f"written to {REPORT}; what it was counted from is in {EVIDENCE}")
    return 1 if report.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument(
        "--buses", type=_families, default=list(SCENARIOS), help="play the scenarios whose names begin so: kafka,nats"
    )
    parser.add_argument("--scenarios", type=_scenarios, help=f"play these only, of {','.join(SCENARIOS)}")
    parser.add_argument("--seed", type=int, help="play the schedule of an earlier run again")
    parser.add_argument("--honest", type=int, default=100_000, help="honest messages for each scenario")
    return parser.parse_args()


def _scenarios(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - SCENARIOS.keys()
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose of {', '.join(SCENARIOS)}")
    return names


def _families(text: str) -> list[str]:
    families = text.split(",")
    found = {family: [name for name in SCENARIOS if f"{name}_".startswith(f"{family}_")] for family in families}
    unknown = [family for family, names in found.items() if not names]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose of {', '.join(SCENARIOS)}, or kafka, nats")
    return [name for name in SCENARIOS if any(name in names for names in found.values())]


if __name__ == "__main__":
    sys.exit(main())
