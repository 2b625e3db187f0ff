"""What one run plays: all that its processes must agree on, as one file, and the schedule that the seed gives."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from watchword import Alias, Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

Bus = Literal["kafka", "nats"]
Deed = Literal[
    "kill",
    "kill between handler and commit",
    "restart",
    "pause",
    "store",
    "keys",
    "clock",
    "roll",
    "seek",
    "lag",
    "away",
    "cut",
    "empty",
    "resubscribe",
    "recreate",
    "step down",
    "leap",
]
Shape = Literal[
    "group",
    "queue",
    "named",
    "plain",
    "requests",
    "durable",
    "sole",
    "push",
    "ephemeral pull",
    "ephemeral push",
    "ordered",
]
"""How workers read: a consumer group of Kafka; core NATS as a queue group, each under a name, or each by itself, and a
queue group that answers requests; JetStream by a shared durable, one whose only reader the worker is (pull or push), or
consumers of each worker's own."""

Store = Literal["memory", "journal", "sqlite", "redis", "nats_kv"]

REALM: Final = "chaos"
READER: Final = "agent://chaos/reader"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A bus as the workers share it, and the replay store with which they do.

    ``outages`` of the key source are played only where the bus offers a message again that could not be judged.
    ``patience`` is how many seconds' worth of messages may wait for the workers before producers pause. ``settings``
    are those of a Plan that differ here. On Kafka, ``stamped`` says that the broker stamps each record with the time
    of its append, ``transactions`` that everybody sends in some and readers wait for their ends, and ``compacted``
    that the topic is compacted.
    """

    bus: Bus
    shape: Shape
    store: Store
    outages: bool
    patience: float
    stamped: bool = True
    transactions: bool = False
    compacted: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_core(self) -> bool:
        """Whether it is played on core NATS, which keeps nothing."""
        return self.shape in {"queue", "named", "plain", "requests"}

    @property
    def is_apart(self) -> bool:
        """Whether each worker is a reader of its own, and is to get everything."""
        return self.shape in {"named", "plain", "ephemeral pull", "ephemeral push", "ordered"}


def _on_kafka(**fields: Any) -> Scenario:
    settings = {"rolls": 1, "seeks": 6, "flood": 300, "crafted": 0.1, "longest_delay": 33.0} | fields.pop(
        "settings", {}
    )
    return Scenario("kafka", "group", "memory", outages=True, settings=settings, **{"patience": 5.0} | fields)


_TRANSACTIONS: Final = {"latest": 180.0, "kills": 3, "restarts": 1, "strangers": 1, "aborts": 0.1, "rate": 600}
_RETENTION: Final = {"latest": 90.0, "kills": 3, "restarts": 1, "cuts": 5, "empties": 1, "rate": 800}
# With max_age at its default of five minutes, 100 seconds would be two hours and five minutes.
_LAG: Final = {
    "latest": 240.0,
    "max_age": 4.0,
    "kills": 2,
    "restarts": 0,
    "pauses": 0,
    "lags": 2,
    "lag_seconds": 40.0,
    "aways": 1,
    "away_seconds": 100.0,
    "longest_delay": 9.0,
    "rate": 500,
    "deadline": 500.0,
}

# How a reader reads, what disturbs it, and what the attacker does beyond sending copies: each scenario composes these.
_RESTLESS: Final[dict[str, Any]] = {"resubscribes": 4}
_FLOOD: Final[dict[str, Any]] = {"flood": 100}
# Nobody else continues meanwhile: so what waits for a worker's next life, and its rebuild, waits for all of that.
_ALONE: Final[dict[str, Any]] = {"workers": 1, "clock_jumps": 0, "store_restarts": 0, "latest": 40.0}
_APART: Final[dict[str, Any]] = {"workers": 2, "clock_jumps": 0, "rolls": 1}
_PURGES: Final[dict[str, Any]] = {"cuts": 3, "empties": 1}
_CLUSTER: Final[dict[str, Any]] = {"servers": 3, "step_downs": 4, "restarts": 3}
_SMALL: Final[dict[str, Any]] = {"limit": 3000, "flood": 300}
# What a kill or a restart of the server costs: the way to the next life of a worker.
_SOON: Final[dict[str, Any]] = {"latest": 5.0}
# ... and ack_wait, until what a killed worker had is offered again.
_AGAIN: Final[dict[str, Any]] = {"latest": 12.0}
# ... and until nats-py has missed the heartbeats of an ordered consumer that went with its server.
_LATER: Final[dict[str, Any]] = {"latest": 30.0}


def _on_core(shape: Shape, store: Store, **settings: Any) -> Scenario:
    return Scenario("nats", shape, store, outages=False, patience=0.5, settings=_FLOOD | _SOON | settings)


def _on_stream(shape: Shape, store: Store, **settings: Any) -> Scenario:
    return Scenario("nats", shape, store, outages=True, patience=5.0, settings=_FLOOD | _AGAIN | settings)


_ON_NATS: Final = {
    "nats_redis": _on_core("queue", "redis"),
    "nats_kv": _on_core("queue", "nats_kv"),
    "nats_sqlite": _on_core("queue", "sqlite", **_RESTLESS),
    "nats_alias": _on_core("queue", "sqlite", aliased=True),
    "nats_named": _on_core("named", "sqlite", aliased=True, **_APART, **_RESTLESS),
    "nats_plain": _on_core("plain", "journal", aliased=True, **_APART, **_RESTLESS),
    "nats_requests": _on_core("requests", "sqlite", rate=200),
    "nats_quarantine": _on_core("plain", "journal", quarantine="slow", **_APART),
    "jetstream": _on_stream("durable", "sqlite", **_RESTLESS),
    "jetstream_alias": _on_stream("durable", "sqlite", aliased=True, recreates=1),
    "jetstream_clock": _on_stream("durable", "sqlite", leaps=3),
    "jetstream_cluster": _on_stream("durable", "sqlite", **_CLUSTER),
    "jetstream_sole": _on_stream("sole", "memory", **_ALONE, **_RESTLESS),
    "jetstream_sole_purge": _on_stream("sole", "memory", **_ALONE, **_PURGES),
    "jetstream_sole_cluster": _on_stream("sole", "memory", **_ALONE, **_CLUSTER),
    "jetstream_push": _on_stream("push", "memory", recreates=1, **_ALONE, **_RESTLESS),
    "jetstream_ephemeral": _on_stream("ephemeral pull", "memory", **_APART, **_RESTLESS, **_PURGES),
    "jetstream_ephemeral_push": _on_stream("ephemeral push", "memory", **_APART, **_RESTLESS),
    "jetstream_ordered": _on_stream("ordered", "memory", **_APART, **_RESTLESS, **_LATER),
    "jetstream_limits": _on_stream("ephemeral pull", "memory", **_APART, **_RESTLESS, **_SMALL),
    "jetstream_quarantine": _on_stream("durable", "sqlite", quarantine="slow"),
    "jetstream_quarantine_full": _on_stream("durable", "sqlite", quarantine="full"),
    "jetstream_quarantine_missing": _on_stream("durable", "sqlite", quarantine="missing"),
}

SCENARIOS: Final = {
    "kafka": _on_kafka(),
    "kafka_create_time": _on_kafka(stamped=False),
    "kafka_transactions": _on_kafka(transactions=True, settings=_TRANSACTIONS),
    "kafka_transactions_create_time": _on_kafka(transactions=True, stamped=False, settings=_TRANSACTIONS),
    "kafka_retention": _on_kafka(compacted=True, settings=_RETENTION),
    "kafka_retention_create_time": _on_kafka(compacted=True, stamped=False, settings=_RETENTION),
    "kafka_lag": _on_kafka(patience=150.0, settings=_LAG),
    "kafka_lag_create_time": _on_kafka(patience=150.0, stamped=False, settings=_LAG),
    **_ON_NATS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One scenario of one run; durations in seconds, ``rate`` in honest messages per second at most.

    ``channel`` names topic, subject or stream; ``store`` holds the options of the replay store. A copy is sent up to
    ``longest_delay`` after its original: half a window after the window has closed, with these values. ``deadline``
    bounds the run from its first message to its last figure.

    A worker that lags reads nothing for ``lag_seconds``; at an ``away`` there are no workers for ``away_seconds``.
    A reader ``resubscribes``; a shared consumer is deleted and recreated at one of the ``recreates``; at ``step_downs``
    the leaders of ``servers`` do so. At a ``leap`` the clock of one worker's store jumps ahead, beyond all that the
    store keeps, and comes back. A stream holds at most ``limit`` messages (0: any number). With ``aliased`` there is a
    second subject to which copies may go. ``quarantine`` is on a stream behind a slow proxy: one that takes everything
    (``slow``), one that is ``missing``, or ``full``. ``latest`` is the bound of ``deliveries_late_ms``, in seconds.

    ``flood`` is how many forged records the attacker adds in a second, ``crafted`` the share of copies that come in
    batches no client would write, ``aborts`` that of the transactions which end so. With ``strangers`` the attacker
    holds transactions open, too.
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
    rolls: int = 0
    seeks: int = 0
    lags: int = 0
    lag_seconds: float = 0.0
    aways: int = 0
    away_seconds: float = 0.0
    cuts: int = 0
    empties: int = 0
    resubscribes: int = 0
    recreates: int = 0
    step_downs: int = 0
    leaps: int = 0
    servers: int = 1
    limit: int = 0
    aliased: bool = False
    quarantine: Literal["", "slow", "missing", "full"] = ""
    quarantine_address: str = ""
    latest: float = 60.0
    flood: int = 0
    crafted: float = 0.0
    strangers: int = 0
    aborts: float = 0.0
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
        channels = [f"nats://{REALM}/{subject}" for subject in self.subjects] if self.aliased else []
        aliases = tuple(Alias(other, channels[0]) for other in channels[1:])
        return Policy(max_age=self.max_age, max_skew=self.max_skew, aliases=aliases)

    @property
    def subjects(self) -> list[str]:
        """The subjects on NATS: where the honest speak, and that of an alias."""
        return [f"{self.channel}.tasks", *([f"{self.channel}.mapped"] if self.aliased else [])]

    @property
    def quarantine_subject(self) -> str:
        """Where copies go of what was refused."""
        return f"quarantine.{self.channel}"

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
    """Something to do once this share of the honest messages was sent, with a worker or for a time.

    ``amount`` is in seconds; of a seek, the number of records to go back, or, below zero, to go forward and come back.
    """

    at: float
    deed: Deed
    worker: int = 0
    amount: float = 0.0


def schedule(plan: Plan) -> list[Event]:
    """Return what happens when, as the seed has it; every second kill comes between handler and commit."""
    chance = plan.random("schedule")
    anyone = range(plan.workers)
    events = [
        Event(
            _spread(chance, number, plan.kills),
            "kill" if number % 2 else "kill between handler and commit",
            worker=chance.choice(anyone),
            amount=chance.uniform(0.1, 1.5),
        )
        for number in range(plan.kills)
    ]
    events += [Event(_spread(chance, number, plan.restarts), "restart") for number in range(plan.restarts)]
    events += [
        Event(_spread(chance, number, plan.pauses), "pause", amount=chance.uniform(0.5, 2.0))
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
    events += [Event(_spread(chance, n, plan.rolls), "roll") for n in range(plan.rolls)]
    events += [
        Event(_spread(chance, n, plan.seeks), "seek", chance.choice(anyone), chance.choice([-1, 1]) * 10 ** (n % 4))
        for n in range(plan.seeks)
    ]
    events += [
        Event(_spread(chance, n, plan.lags), "lag", chance.choice(anyone), plan.lag_seconds) for n in range(plan.lags)
    ]
    events += [Event(_spread(chance, n, plan.aways), "away", amount=plan.away_seconds) for n in range(plan.aways)]
    events += [Event(_spread(chance, n, plan.cuts), "cut") for n in range(plan.cuts)]
    events += [Event(_spread(chance, n, plan.empties), "empty") for n in range(plan.empties)]
    events += [
        Event(_spread(chance, n, plan.resubscribes), "resubscribe", chance.choice(anyone))
        for n in range(plan.resubscribes)
    ]
    events += [Event(_spread(chance, n, plan.recreates), "recreate") for n in range(plan.recreates)]
    events += [Event(_spread(chance, n, plan.step_downs), "step down") for n in range(plan.step_downs)]
    events += [
        Event(_spread(chance, n, plan.leaps), "leap", chance.choice(anyone), plan.policy.longest + 3600)
        for n in range(plan.leaps)
    ]
    return sorted(events)


def _spread(chance: Random, number: int, total: int) -> float:
    """Return a moment in the ``number``-th of ``total`` equal parts of the load, a little before its end."""
    return 0.05 + 0.85 * (number + chance.random()) / total
