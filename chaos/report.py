"""The figures of a run as JSON and as a table."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from chaos.accounting import MUST_BE_ZERO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos.accounting import Figures
    from chaos.plan import Plan
    from tests.brokers.broker import Broker

_ABREAST = 3
_ROWS = (
    "honest_sent",
    "honest_lost",
    "honest_rejected_as_replay",
    "replays_offered",
    "replays_delivered",
    "redeliveries",
    "kills",
    "broker_restarts",
    "honest_lost_by_bus",
    "honest_lost_unavailable",
    "copies_came_first",
    "forged_offered",
    "forged_delivered",
    "aborted_delivered",
    "delivered_elsewhere",
    "delivered_out_of_turn",
    "honest_lost_behind_cut",
    "answers_wrong",
    "unexcused",
    "deliveries_late_ms",
    "seconds",
)


class Report:
    """What came of every scenario; ``faults`` are sentences."""

    def __init__(self, seed: int, honest: int) -> None:
        self._honest = honest
        self._report: dict[str, Any] = {
            "seed": seed,
            "machine": {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()},
        }
        self._scenarios: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []

    def add(self, plan: Plan, figures: Figures, broker: Broker, store: Broker | None, seconds: float) -> None:
        """Add a scenario that was played."""
        self._scenarios[plan.scenario] = asdict(figures) | {
            "seconds": round(seconds, 1),
            "broker": str(broker),
            "store": f"{plan.scene.store}, {store}" if store is not None else plan.scene.store,
            "settings": {name: value for name, value in asdict(plan).items() if isinstance(value, int | float)},
        }
        for name in MUST_BE_ZERO:
            if found := getattr(figures, name):
                self.faults.append(f"{plan.scenario}: {name} is {found:,}")
        if plan.scene.shape == "group" and figures.copies_came_first:  # a partition is judged in its order
            self.faults.append(f"{plan.scenario}: copies_came_first is {figures.copies_came_first:,}")
        if figures.deliveries_late_ms > 1000 * plan.latest:
            self.faults.append(
                f"{plan.scenario}: deliveries_late_ms is {figures.deliveries_late_ms:,}, over {1000 * plan.latest:,.0f}"
            )
        if figures.honest_sent < self._honest:
            self.faults.append(f"{plan.scenario}: the deadline came after {figures.honest_sent:,} honest messages")
        if figures.replays_offered < figures.honest_sent:
            self.faults.append(f"{plan.scenario}: only {figures.replays_offered:,} replays were offered")
        for name, wanted in (("kills", plan.kills), ("broker_restarts", plan.restarts)):
            if getattr(figures, name) < wanted:
                self.faults.append(f"{plan.scenario}: {name} is {getattr(figures, name)}, not {wanted}")

    def write(self, path: Path) -> None:
        """Write what there is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self._report | self._scenarios, indent=2) + "\n")

    def tables(self) -> Iterator[Table]:
        """Return tables with one column for each scenario, as many as a narrow terminal shows beside one another."""
        names = list(self._scenarios)
        for at in range(0, len(names), _ABREAST):
            shown = {name: self._scenarios[name] for name in names[at : at + _ABREAST]}
            table = Table(title="exactly the honest messages?")
            table.add_column("", no_wrap=True)
            for scenario in shown:
                table.add_column(scenario.replace("_", " "), justify="right")
            for name in _ROWS:
                table.add_row(name, *(f"{found[name]:,}" for found in shown.values()))
            yield table
