"""One scenario from its brokers to its entry in the report."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos import stores
from chaos.cluster import cluster
from chaos.driver import play
from chaos.plan import SCENARIOS, Plan
from tests.brokers.start import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.accounting import Figures
    from chaos.report import Report
    from tests.brokers.broker import Broker

    Say = Callable[[str], None]


def play_one(scenario: str, *, seed: int, honest: int, evidence: Path, report: Report, say: Say) -> None:
    """Start what the scenario needs, play it, and add what came of it to the report.

    What the processes write down is left in the directory ``evidence``.
    """
    with _broker(scenario) as broker:
        began = time.monotonic()
        plan, figures, server = play_on(
            broker, scenario, seed=seed, honest=honest, evidence=evidence, say=lambda text: say(f"{scenario}: {text}")
        )
        report.add(plan, figures, broker, server, time.monotonic() - began)


def play_on(
    broker: Broker, scenario: str, *, seed: int, honest: int, evidence: Path, say: Say, **settings: Any
) -> tuple[Plan, Figures, Broker | None]:
    """Play a scenario on a broker; return the plan, what came of it, and the store's server; ``settings`` are a Plan's.

    The broker is neither restarted nor paused where this run cannot do that.
    """
    shutil.rmtree(evidence, ignore_errors=True)
    evidence.mkdir(parents=True)
    channel = f"chaos-{secrets.token_hex(4)}"
    able = {} if broker.host is not None else {"restarts": 0, "pauses": 0}
    with (
        tempfile.TemporaryDirectory(prefix="watchword-chaos-") as scratch,
        stores.home(SCENARIOS[scenario], Path(scratch, "store"), channel) as (store, server),
    ):
        plan = Plan(
            scenario=scenario,
            seed=seed,
            honest=honest,
            directory=str(evidence.absolute()),
            address=broker.address,
            channel=channel,
            store=store,
            **{**SCENARIOS[scenario].settings, **settings, **able},
        )
        say(str(broker) + (f", ids in {server}" if server is not None else ""))
        began = time.monotonic()
        return plan, play(plan, broker, server, lambda text: say(f"{time.monotonic() - began:5.1f} s: {text}")), server


@contextmanager
def _broker(scenario: str) -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="watchword-chaos-") as directory:
        if SCENARIOS[scenario].settings.get("servers", 1) > 1:
            with cluster(Path(directory)) as broker:
                yield broker
            return
        broker, _ = start(SCENARIOS[scenario].bus, Path(directory), required=False)
        try:
            yield broker
        finally:
            broker.stop()
