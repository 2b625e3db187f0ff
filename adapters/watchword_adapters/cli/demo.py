"""``watchword demo``: runs the cloud scenario, and prints a table or JSON."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from watchword_adapters.cli import OK
from watchword_adapters.demo.play import play

if TYPE_CHECKING:
    from watchword_adapters.demo.play import Bus
    from watchword_adapters.demo.scenario import Outcome, Result

ATTACK_CAME_THROUGH = 1


def run_demo(bus: Bus, *, servers: str | None, as_json: bool) -> int:
    """Run and show the demo; return the exit code: 1 if an attack reached a handler or an honest message was lost."""
    # The table shows what happened; the audit trail and the plain clients' logs would bury it.
    logging.getLogger().addHandler(logging.NullHandler())
    # For the time between acts, which handle signals themselves: SIGTERM would leave our broker running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    narrator = Console(stderr=True, highlight=False)
    result = play(bus, address=servers, told=lambda line: narrator.print(line, style="dim"))
    if as_json:
        sys.stdout.write(json.dumps(result.to_json(), indent=2) + "\n")
    else:
        _show(result)
    return OK if result.holds else ATTACK_CAME_THROUGH


def _show(result: Result) -> None:
    table = Table(title=f"An attacker without a key, on {result.bus} ({result.broker})")
    for name in ("", "attack", "without Watchword", "with Watchword"):
        table.add_column(name, no_wrap=name != "attack")
    before = {(one.id, one.attack): one for one in result.without.outcomes}
    for one in result.guarded.outcomes:
        table.add_row(one.id, one.attack, _effect(before[one.id, one.attack]), _effect(one))
    console = Console()
    console.print(table)
    console.print(
        f"without Watchword: the planner asked for {result.without.wanted} instances, "
        f"[bold red]{result.without.instances:,} were started[/bold red]"
    )
    lost = result.guarded.sent - result.guarded.delivered
    console.print(
        f"with Watchword:    the planner asked for {result.guarded.wanted} instances, "
        f"[bold green]{result.guarded.instances:,} were started[/bold green]; "
        f"{result.guarded.delivered} of {result.guarded.sent} honest messages delivered, {lost} lost"
        + (f"; {result.guarded.answered} of {result.guarded.asked} requests answered" if result.guarded.asked else "")
    )


def _effect(outcome: Outcome) -> str:
    if outcome.client_died:
        return "[red]client killed[/red]"
    if outcome.instances:
        return f"[red]{outcome.instances:,} instances[/red]"
    if outcome.reached_handler:
        return "[red]reached handler[/red]"
    return f"[green]{outcome.reason or 'ignored'}[/green]"
