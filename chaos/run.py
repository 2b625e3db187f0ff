"""One scenario from its brokers to its entry in the report."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import stores
from chaos.driver import play
from chaos.plan import SCENARIOS, Plan
from tests.brokers.start import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.report import Report


def play_one(
    scenario: str,
    *,
    seed: int,
    honest: int,
    evidence: Path,
    report: Report,
    say: Callable[[str], None],
    **settings: Any,
) -> None:
    """Start what the scenario needs, play it, and add what came of it to the report.

    What the processes write down is left in the directory ``evidence``; ``settings`` are a Plan's.
    """
    shutil.rmtree(evidence, ignore_errors=True)
    evidence.mkdir(parents=True)
    scene, channel = SCENARIOS[scenario], f"chaos-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="watchword-chaos-") as scratch:
        place = Path(scratch)
        (place / "broker").mkdir()
        broker, _ = start(scene.bus, place / "broker", required=False)
        try:
            with stores.home(scene, place / "store", channel) as (store, server):
                plan = Plan(
                    scenario=scenario,
                    seed=seed,
                    honest=honest,
                    directory=str(evidence.absolute()),
                    address=broker.address,
                    channel=channel,
                    store=store,
                    **({"restarts": 0, "pauses": 0} if "restart" in broker.lacks else {}) | settings,
                )
                say(f"{scenario}: {broker}" + (f", ids in {server}" if server is not None else ""))
                began = time.monotonic()
                figures = play(
                    plan, broker, server, lambda text: say(f"{scenario} {time.monotonic() - began:5.1f} s: {text}")
                )
                report.add(plan, figures, broker, server, time.monotonic() - began)
        finally:
            broker.stop()
