"""Metrics of agents through OpenTelemetry's API; docs/telemetry.md lists them."""

from __future__ import annotations

import time
from collections import Counter
from importlib.metadata import version
from math import inf
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Observation, get_meter

from watchword.audit import LEFT_OUT, UNDETERMINED
from watchword.spi import Meter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.metrics import MeterProvider

    from watchword import VerificationKey, Watchword
    from watchword.spi import Audit

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
EVENT: Final = "event.name"
VERDICT: Final = "watchword.verdict"
OUTCOME: Final = "watchword.outcome"
PART: Final = "watchword.part"
PRINCIPAL: Final = "watchword.principal"
KEY_ID: Final = "watchword.key_id"
OWN: Final = "watchword.own"

MAX_KEYS: Final = 50
"""Most keys whose end is reported: those that end soonest."""

_PARTS: Final = ("keys", "replay")
_SYSTEMS: Final = {"kafka": {SYSTEM: "kafka"}, "nats": {SYSTEM: "nats"}}
_DAY: Final = 86_400.0
_BRIEF: Final = 7 * _DAY
_SAMPLED: Final = 256
"""Messages per sample of the judging time, to limit its cost."""

_SAMPLED_EVERY: Final = 1.0
"""Seconds after which the next batch is always sampled; so is every batch that takes that long."""

MAX_REBUILDS: Final = 10_000
_JUDGING: Final = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_STARTING: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


class Telemetry(Meter):
    """Measures the agents that it follows, and is their ``Meter``.

    One per process: its agents are summed. ``meter_provider`` defaults to OpenTelemetry's global one. Counts are read
    when the provider collects, in its thread.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        self._agents: WeakSet[Watchword] = WeakSet()
        self._audits: list[Audit] = []  # counts outlive their agents, since a counter never falls
        self._rebuilding: dict[str, float] = {}
        self._unsampled, self._sampled_at = 0, -inf
        meter = get_meter("watchword", version("watchword"), meter_provider)
        self._judging = meter.create_histogram(
            "watchword.judge.duration",
            "s",
            "Time until a batch was judged",
            explicit_bucket_boundaries_advisory=_JUDGING,
        )
        self._starting = meter.create_histogram(
            "watchword.start.duration",
            "s",
            "Time that a client took to start",
            explicit_bucket_boundaries_advisory=_STARTING,
        )
        self._rebuilt = meter.create_histogram(
            "watchword.rebuild.duration",
            "s",
            "Time to reread the ids of one log",
            explicit_bucket_boundaries_advisory=_STARTING,
        )
        counter, gauge = meter.create_observable_counter, meter.create_observable_gauge
        counter("watchword.verdicts", [self._verdicts], "{message}", "Messages judged")
        counter("watchword.events", [self._events], "{event}", "Logged events, without verdicts")
        counter(
            "watchword.quarantine.messages",
            [self._quarantined],
            "{message}",
            "Messages that could not be judged, or without a copy",
        )
        gauge("watchword.outage.age", [self._outages], "s", "How long a part needed for judging has been failing")
        gauge("watchword.floor.remaining", [self._floors], "s", "How long messages may still be stale after a start")
        gauge("watchword.replay.ids", [self._ids], "{id}", "Ids that this process remembers")
        gauge("watchword.keys.known", [self._known], "{key}", "Keys that the sources list")
        gauge("watchword.key.remaining", [self._remaining], "d", "Days until a key ends")

    def follow(self, agent: Watchword) -> None:
        """Measure ``agent`` from now on."""
        self._agents.add(agent)
        self._audits.append(agent.audit)
        agent.audit.meter = self

    # As a Meter

    now = staticmethod(time.perf_counter)

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """See ``Meter``; recording a sample takes as long as judging a message, so most are skipped."""
        self._unsampled += messages
        now = self.now()
        if self._unsampled >= _SAMPLED or now - self._sampled_at >= _SAMPLED_EVERY:
            self._unsampled, self._sampled_at = 0, now
            self._judging.record(seconds, _SYSTEMS[bus])

    def started(self, bus: str, seconds: float) -> None:
        """See ``Meter``."""
        self._starting.record(seconds, _SYSTEMS[bus])

    def told(self, event: str, log: object) -> None:
        """See ``Meter``."""
        name = str(log)
        if event == "replay.rebuilding":
            if len(self._rebuilding) >= MAX_REBUILDS:  # some never end: the partition moves to another member
                del self._rebuilding[next(iter(self._rebuilding))]
            self._rebuilding[name] = self.now()
        elif event == "replay.rebuilt" and name in self._rebuilding:
            self._rebuilt.record(self.now() - self._rebuilding.pop(name))

    # What the provider collects

    def _verdicts(self, _: CallbackOptions) -> Iterator[Observation]:
        total: Counter[tuple[str, str, str]] = Counter()
        for audit in self._audits:
            for bus, channel, verdict, count in audit.tally.counts():
                total[bus, channel, verdict] += count
        for (bus, channel, verdict), count in total.items():
            yield Observation(count, {SYSTEM: bus, DESTINATION: channel, VERDICT: verdict})

    def _events(self, _: CallbackOptions) -> Iterator[Observation]:
        total: Counter[str] = Counter()
        for audit in self._audits:
            total.update(dict(audit.events))
        for event, count in total.items():
            yield Observation(count, {EVENT: event})

    def _quarantined(self, _: CallbackOptions) -> Iterator[Observation]:
        for outcome in (UNDETERMINED, LEFT_OUT):
            yield Observation(sum(audit.counts[outcome] for audit in self._audits), {OUTCOME: outcome})

    def _outages(self, _: CallbackOptions) -> Iterator[Observation]:
        age = dict.fromkeys(_PARTS, 0.0)
        for agent in list(self._agents):
            for part, seconds in agent.audit.outages().items():
                age[part] = max(age.get(part, 0.0), seconds)
        for part, seconds in age.items():
            yield Observation(seconds, {PART: part})

    def _floors(self, _: CallbackOptions) -> Iterator[Observation]:
        yield Observation(max([0.0, *(agent.lives.floor_ends_at - agent.clock() for agent in list(self._agents))]))

    def _ids(self, _: CallbackOptions) -> Iterator[Observation]:
        yield Observation(sum(agent.verifier.ids_held for agent in list(self._agents)))

    def _known(self, _: CallbackOptions) -> Iterator[Observation]:
        yield Observation(len({_name_of(key) for agent in list(self._agents) for key in agent.verifier.known_keys}))

    def _remaining(self, _: CallbackOptions) -> Iterator[Observation]:
        ends: dict[tuple[str, str], tuple[float, bool]] = {}
        for agent in list(self._agents):
            own = agent.signing_as
            for key in agent.verifier.known_keys:
                if key.not_after is not None and key.revoked_at is None and not _is_brief(key):
                    left = (key.not_after - agent.clock()) / _DAY
                    name = _name_of(key)
                    ends[name] = left, (key.principal, key.key_id) == own or ends.get(name, (0, False))[1]
        soonest = sorted(ends.items(), key=lambda one: (not one[1][1], one[1][0]))
        for (principal, key_id), (left, own_key) in soonest[:MAX_KEYS]:
            yield Observation(left, {PRINCIPAL: principal, KEY_ID: key_id, OWN: own_key})


def _name_of(key: VerificationKey) -> tuple[str, str]:
    return key.principal, key.key_id.decode()


def _is_brief(key: VerificationKey) -> bool:
    """Return True if a key lives for days only, and is replaced automatically."""
    return key.not_before is not None and key.not_after is not None and key.not_after - key.not_before < _BRIEF
