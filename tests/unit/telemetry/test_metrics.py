"""Metrics as OpenTelemetry's own reader collects them."""

import pytest

from tests.support.measured import Labels, Measured
from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    NOW,
    World,
    at_once,
    ed_key,
    kafka,
    nats,
    press,
    public,
)
from watchword import MemoryKeys, Reason, Rejected, Unavailable, VerificationKey, Watchword
from watchword_adapters.telemetry.metrics import MAX_KEYS

DAY = 86_400


@pytest.fixture
def stage() -> Measured:
    """Return a stage of its own."""
    return Measured()


def _verdict(bus: str, channel: str, verdict: str) -> Labels:
    return (("messaging.system", bus), ("messaging.destination.name", channel), ("watchword.verdict", verdict))


def test_verdicts_by_bus_channel_and_reason_over_all_agents(stage: Measured) -> None:
    """Promise: the counter has every verdict of the agents that are followed, and keeps those of agents that ended."""
    one = stage.follow(Watchword.of(World().verifier))
    at_once(one.admit_many([press(nats())]))
    at_once(one.admit_many([nats()]))
    other = stage.follow(Watchword.of(World(shared_replay=True).verifier))
    at_once(other.admit_many([press(nats()), kafka()]))
    expected = {
        _verdict("nats", "tasks.scale", "delivered"): 2,
        _verdict("nats", "tasks.scale", "unsigned"): 1,
        _verdict("kafka", "tasks", "unsigned"): 1,
    }
    assert stage.values("watchword.verdicts") == expected
    del one, other
    assert stage.values("watchword.verdicts") == expected


def test_the_time_of_judging_is_sampled_by_batch(stage: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: one batch is timed for every 256 messages, whatever their number in each, and what took a second."""
    time = [100.0]
    monkeypatch.setattr(stage.telemetry, "now", lambda: time[0])
    for _ in range(257):
        stage.telemetry.judged("nats", 1, 0.002)
    label = (("messaging.system", "nats"),)
    assert stage.histogram("watchword.judge.duration")[label].count == 2
    stage.telemetry.judged("nats", 256, 0.004)
    assert stage.histogram("watchword.judge.duration")[label].count == 3
    time[0] += 1.5
    stage.telemetry.judged("nats", 1, 1.5)
    point = stage.histogram("watchword.judge.duration")[label]
    assert (point.count, point.max) == (4, 1.5)
    assert point.sum == pytest.approx(1.508)


def test_an_agent_s_own_judging_is_timed(stage: Measured) -> None:
    """Promise: the time is taken around the judging, for each bus."""
    agent = stage.follow(Watchword.of(World().verifier))
    at_once(agent.admit_many([press(nats())]))
    point = stage.histogram("watchword.judge.duration")[("messaging.system", "nats"),]
    assert 0 < point.sum < 10


def test_rebuilds_are_timed_from_event_to_event(stage: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: each log's rebuild is timed by itself; one that began and never ended is not taken for another."""
    time = [0.0]
    monkeypatch.setattr(stage.telemetry, "now", lambda: time[0])
    audit = stage.follow(Watchword.of(World().verifier)).audit
    audit.note("replay.rebuilding", log="tasks/0")
    time[0] = 1.0
    audit.note("replay.rebuilding", log="tasks/1")
    audit.note("replay.rebuilding", log="tasks/0")
    time[0] = 3.0
    audit.note("replay.rebuilt", log="tasks/0")
    audit.note("replay.rebuilt", log="tasks/2")
    point = stage.histogram("watchword.rebuild.duration")[()]
    assert (point.count, point.sum) == (1, 2.0)
    assert stage.values("watchword.events") == {
        (("event.name", "replay.rebuilding"),): 3,
        (("event.name", "replay.rebuilt"),): 2,
    }


def test_logs_that_never_end_their_rebuild_do_not_fill_memory(stage: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what is kept of rebuilds is bounded, and the latest ones are those that are timed."""
    monkeypatch.setattr("watchword_adapters.telemetry.metrics.MAX_REBUILDS", 3)
    for number in range(10):
        stage.telemetry.told("replay.rebuilding", f"tasks/{number}")
    for number in range(7, 10):
        stage.telemetry.told("replay.rebuilt", f"tasks/{number}")
    assert stage.histogram("watchword.rebuild.duration")[()].count == 3


def test_starts_are_timed(stage: Measured) -> None:
    """Promise: how long clients take to start is there by bus."""
    stage.telemetry.started("kafka", 2.0)
    assert stage.histogram("watchword.start.duration")[("messaging.system", "kafka"),].sum == 2.0


def test_what_nobody_could_judge_and_what_left_no_copy(stage: Measured) -> None:
    """Promise: both are there from the beginning, so that an alert on their increase misses none."""
    audit = stage.follow(Watchword.of(World().verifier)).audit
    assert set(stage.values("watchword.quarantine.messages").values()) == {0}
    audit.undetermined()
    audit.left_out()
    audit.left_out()
    assert stage.values("watchword.quarantine.messages") == {
        (("watchword.outcome", "undetermined"),): 1,
        (("watchword.outcome", "left_out"),): 2,
    }


class Down:
    """A key source that does not answer."""

    async def find(self, *_: object) -> VerificationKey | None:
        """Fail."""
        raise OSError


def test_how_long_a_source_or_store_fails(stage: Measured) -> None:
    """Promise: health of key sources and store is 0, or the age of the outage, however many messages it holds."""
    world = World()
    agent = stage.follow(Watchword.of(world.verifier))
    keys, replay = (("watchword.part", "keys"),), (("watchword.part", "replay"),)
    assert stage.values("watchword.outage.age") == {keys: 0, replay: 0}
    source, world.keys.source = world.keys.source, Down()
    for _ in range(2):
        with pytest.raises(Unavailable):
            at_once(agent.admit(press(nats())))
        world.now += 5
    assert stage.values("watchword.outage.age") == {keys: 10, replay: 0}
    world.keys.source = source
    at_once(agent.admit(press(nats())))
    assert stage.values("watchword.outage.age") == {keys: 0, replay: 0}


def test_how_long_a_start_still_costs(stage: Measured) -> None:
    """Promise: while a floor stands above what is fresh, the gauge says for how long; then it is 0."""
    world = World()
    agent = stage.follow(Watchword.of(world.verifier))
    assert stage.value("watchword.floor.remaining") == 0
    agent.lives.announce("sub", world.now + 9, remedy="")
    assert 9 <= stage.value("watchword.floor.remaining") <= 10
    world.now += 20
    assert stage.value("watchword.floor.remaining") == 0


def test_ids_in_memory(stage: Measured) -> None:
    """Promise: the gauge is how many ids the agents remember together."""
    agents = [Watchword(realm="prod", keys=[public(ALICE_KEY, ALICE)], clock=lambda: NOW + 1.0) for _ in range(2)]
    for agent in agents:
        stage.telemetry.follow(agent)
        at_once(agent.admit(press(nats())))
    assert stage.value("watchword.replay.ids") == 2


def test_days_until_keys_end(stage: Measured) -> None:
    """Promise: own and known keys that have an end are there with the days left, negative once it has passed."""
    alice, bob = public(ALICE_KEY, ALICE, not_after=NOW + 10 * DAY), public(BOB_KEY, BOB, not_after=NOW - DAY)
    endless = public(ed_key(9, kid=b"endless"), MALLORY)
    revoked = public(ed_key(10, kid=b"revoked"), MALLORY, not_after=NOW + DAY, revoked_at=NOW)
    agent = Watchword(
        realm="prod",
        principal=ALICE,
        key=ALICE_KEY,
        keys=MemoryKeys([alice, bob, endless, revoked]),
        clock=lambda: float(NOW),
    )
    stage.telemetry.follow(agent)
    assert stage.values("watchword.key.remaining") == {
        (("watchword.principal", ALICE), ("watchword.key_id", "alice-1"), ("watchword.own", True)): 10,
        (("watchword.principal", BOB), ("watchword.key_id", "bob-1"), ("watchword.own", False)): -1,
    }
    assert stage.value("watchword.keys.known") == 4


def test_of_many_keys_those_that_end_soonest_are_told_and_one_s_own(stage: Measured) -> None:
    """Promise: a directory of thousands makes a bounded number of series, with what needs someone's attention."""
    keys = [
        public(ed_key(20 + number, kid=b"%d" % number), f"agent://{number}", not_after=NOW + (number + 1) * DAY)
        for number in range(MAX_KEYS + 5)
    ]
    own = public(ALICE_KEY, ALICE, not_after=NOW + 900 * DAY)
    agent = Watchword(realm="prod", principal=ALICE, key=ALICE_KEY, keys=[*keys, own], clock=lambda: float(NOW))
    stage.telemetry.follow(agent)
    left = sorted(stage.values("watchword.key.remaining").values())
    assert left == [*range(1, MAX_KEYS), 900]


def test_labels_are_bounded_whatever_is_sent(stage: Measured) -> None:
    """Promise (A31): no principal, key id or subject of an unverified message becomes a label."""
    agent = stage.follow(Watchword.of(World().verifier))
    for number in range(50):
        forged = press(nats(), c1=f"agent://{number}", c=f"nats://prod/{number}")
        with pytest.raises(Rejected):
            at_once(agent.admit(forged))
    agent.audit.refused_raw(Rejected(Reason.MALFORMED, "x"), channel="nats://prod/\x1b")
    assert stage.values("watchword.verdicts") == {
        _verdict("nats", "_OTHER", "wrong_channel"): 50,
        _verdict("nats", "_OTHER", "malformed"): 1,
    }
