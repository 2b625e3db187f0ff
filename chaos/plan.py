"""What one run plays: all that its processes must agree on, as one file, and the schedule that the seed gives."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, Self

from watchword import Policy

Bus = Literal["kafka", "nats"]
Deed = Literal["kill", "kill between handler and commit", "restart", "pause", "store", "keys", "clock"]

REALM: Final = "chaos"
READER: Final = "agent://chaos/reader"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A bus as the workers share it, and the replay store with which they do.

    ``outages`` of the key source are played only where the bus offers a message again that could not be judged.
    ``patience`` is how many seconds' worth of messages may wait for the workers before producers pause.
    """

    bus: Bus
    shape: Literal["group", "durable", "queue"]
    store: Literal["memory", "sqlite", "redis", "nats_kv"]
    outages: bool
    patience: float


SCENARIOS: Final = {
    "kafka": Scenario("kafka", "group", "memory", outages=True, patience=5.0),
    "jetstream": Scenario("nats", "durable", "sqlite", outages=True, patience=5.0),
    "nats_redis": Scenario("nats", "queue", "redis", outages=False, patience=0.5),
    "nats_kv": Scenario("nats", "queue", "nats_kv", outages=False, patience=0.5),
    "nats_sqlite": Scenario("nats", "queue", "sqlite", outages=False, patience=0.5),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One scenario of one run; durations in seconds, ``rate`` in honest messages per second at most.

    ``channel`` names topic, subject or stream; ``store`` holds the options of the replay store. A copy is sent up to
    ``longest_delay`` after its original: half a window after the window has closed, with these values. ``deadline``
    bounds the run from its first message to its last figure.
    """

    scenario: str
    seed: int
    honest: int
    directory: str
    address: str
    channel: str
    store: dict[str, Any] = field(default_factory=dict)
    rate: int = 1500
    principals: int = 4
    workers: int = 3
    kills: int = 5
    restarts: int = 2
    pauses: int = 1
    store_restarts: int = 1
    key_outages: int = 1
    clock_jumps: int = 4
    max_age: float = 20.0
    max_skew: float = 1.0
    longest_delay: float = 33.0
    deadline: float = 300.0

    @property
    def scene(self) -> Scenario:
        """The scenario's own description."""
        return SCENARIOS[self.scenario]

    @property
    def policy(self) -> Policy:
        """What the workers demand."""
        return Policy(max_age=self.max_age, max_skew=self.max_skew)

    def speakers(self) -> list[str]:
        """Return the principals that send."""
        return [f"agent://chaos/speaker-{number}" for number in range(self.principals)]

    def random(self, role: str) -> Random:
        """Return the role's own source of chance."""
        return Random(f"{self.seed}/{self.scenario}/{role}")  # noqa: S311 - a schedule that can be played again

    def save(self) -> Path:
        """Write the plan where the processes read it."""
        path = Path(self.directory, "plan.json")
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: str) -> Self:
        """Read a plan."""
        return cls(**json.loads(Path(path).read_text()))


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """Something to do once this share of the honest messages was sent, with a worker or for some seconds."""

    at: float
    deed: Deed
    worker: int = 0
    seconds: float = 0.0


def schedule(plan: Plan) -> list[Event]:
    """Return what happens when, as the seed has it; every second kill comes between handler and commit."""
    chance = plan.random("schedule")
    anyone = range(plan.workers)
    events = [
        Event(
            _spread(chance, number, plan.kills),
            "kill" if number % 2 else "kill between handler and commit",
            worker=chance.choice(anyone),
            seconds=chance.uniform(0.1, 1.5),
        )
        for number in range(plan.kills)
    ]
    events += [Event(_spread(chance, number, plan.restarts), "restart") for number in range(plan.restarts)]
    events += [
        Event(_spread(chance, number, plan.pauses), "pause", seconds=chance.uniform(0.5, 2.0))
        for number in range(plan.pauses)
    ]
    if plan.scene.store in {"redis", "nats_kv"}:
        events += [Event(_spread(chance, n, plan.store_restarts), "store") for n in range(plan.store_restarts)]
    if plan.scene.outages:
        events += [
            Event(_spread(chance, n, plan.key_outages), "keys", chance.choice(anyone), chance.uniform(1.0, 3.0))
            for n in range(plan.key_outages)
        ]
    events += [
        # Two clocks may differ by the skew: one worker's is moved at a time, the others stay.
        Event(_spread(chance, n, plan.clock_jumps), "clock", 0, chance.uniform(-0.9, 0.9) * plan.max_skew)
        for n in range(plan.clock_jumps)
    ]
    return sorted(events)


def _spread(chance: Random, number: int, total: int) -> float:
    """Return a moment in the ``number``-th of ``total`` equal parts of the load, a little before its end."""
    return 0.05 + 0.85 * (number + chance.random()) / total
