"""The chaos report's own run in small: the same processes, brokers and account, a few hundred messages."""

from pathlib import Path
from typing import Any

import pytest

from chaos.cluster import cluster
from chaos.plan import SCENARIOS, Plan, schedule
from chaos.run import play_on
from tests.brokers.broker import Broker

pytestmark = pytest.mark.usefixtures("children_not_traced")

HONEST = 300

SETTINGS: dict[str, dict[str, float]] = {
    "kafka": {"kills": 1, "restarts": 1, "seeks": 1, "clock_jumps": 1},
    "kafka_transactions_create_time": {"rolls": 1, "cuts": 1, "seeks": 1, "lags": 1, "lag_seconds": 2.0},
}
NEEDS = ("killed_member", "raw_batches")
MARKS = {
    "kafka": pytest.mark.needs_kafka(*NEEDS, "restart"),
    "kafka_transactions_create_time": pytest.mark.needs_kafka(*NEEDS),
}
OTHERS: dict[str, float] = {"kills": 1, "restarts": 1}
FEWER = ("clock_jumps", "resubscribes", "recreates", "step_downs", "leaps", "cuts", "empties", "rolls")
"""What a scenario has several times in a full run is done once."""


@pytest.mark.broker
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(name, marks=MARKS.get(name, ()))
        for name in [*SETTINGS, *(name for name, scene in SCENARIOS.items() if scene.bus != "kafka")]
    ],
)
def test_exactly_the_honest_messages_are_delivered(
    scenario: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Through kills, restarts, seeks, aborts and crafted batches, replays die and nothing honest does."""
    broker = _broker(scenario, request)
    said: list[str] = []
    nothing_else = dict.fromkeys(("kills", "restarts", "pauses", "clock_jumps", "rolls", "seeks", "cuts", "empties"), 0)
    whole = Plan(
        scenario=scenario, seed=7, honest=1, directory="", address="", channel="", **SCENARIOS[scenario].settings
    )
    once = {name: min(1, getattr(whole, name)) for name in FEWER}
    settings: dict[str, Any] = {
        "rate": 150,
        "principals": 2,
        "store_restarts": 0,
        "max_age": 120.0,  # more than a busy machine needs to restart a broker
        "longest_delay": 3.0,
        "deadline": 400.0,  # reached only by a run that hangs: senders stop at 70 % of it, whatever they have sent
    }
    plan, figures, _ = play_on(
        broker,
        scenario,
        seed=7,
        honest=HONEST,
        evidence=tmp_path / "run",
        say=said.append,
        **nothing_else | settings | (SETTINGS.get(scenario) or OTHERS | once),
    )
    assert figures.holds, (figures, said)
    assert figures.honest_sent == HONEST
    assert figures.replays_offered >= HONEST
    assert (figures.kills, figures.broker_restarts) == (plan.kills, plan.restarts)


def _broker(scenario: str, request: pytest.FixtureRequest) -> Broker:
    """Give the run's broker; a scenario for several servers has its own."""
    if SCENARIOS[scenario].settings.get("servers", 1) == 1:
        broker: Broker = request.getfixturevalue(f"{SCENARIOS[scenario].bus}_broker")
        return broker
    servers = cluster(request.getfixturevalue("tmp_path_factory").mktemp("cluster"))
    broker = servers.__enter__()
    request.addfinalizer(lambda: servers.__exit__(None, None, None))
    return broker


def test_a_seed_gives_the_same_schedule_again(tmp_path: Path) -> None:
    """Anyone who has the seed of a run can play it again; another seed gives another run."""
    plans = [
        Plan(scenario="kafka", seed=seed, honest=1, directory=str(tmp_path), address="", channel="")
        for seed in (1, 1, 2)
    ]
    first, again, other = map(schedule, plans)
    assert first == again != other
    assert Plan.load(str(plans[0].save())) == plans[0]
