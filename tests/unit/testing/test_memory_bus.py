"""A bus in memory: what producers, consumers, an attacker and a clock can play on it."""

import asyncio
from math import inf

import pytest

from watchword import Allow, Mode, Policy, Reason, Rejected, SigningKey, Unavailable, VerificationKey
from watchword.errors import ConfigurationError
from watchword.kafka import DeserializationError, ObservedRecord, VerifiedRecord
from watchword.nats import ObservedMsg
from watchword.spi import MemoryReplayStore, ReaderBirth, SharedReplayStore
from watchword.testing import Agents, Attacker, Clock, KeyDirectory, MemoryBus, SharedMemoryStore

PLANNER, CLOUD = "agent://acme/planner", "agent://acme/cloud"


class Stage:
    """A bus whose clock stands still, a planner that writes and a cloud agent that reads."""

    def __init__(self, *, policy: Policy | None = None, shared: bool = False) -> None:
        self.bus = MemoryBus(clock=Clock(1_763_928_000))
        self.agents = Agents(realm=self.bus.realm, clock=self.bus.clock)
        self.attacker = Attacker(self.bus)
        self.planner = self.bus.producer(self.agents(PLANNER))
        store = SharedMemoryStore(clock=self.bus.clock) if shared else None
        self.cloud = self.agents(CLOUD, policy=policy, replay=store)
        self.consumer = self.bus.consumer(self.cloud, "tasks")
        self.subscription = self.bus.subscribe(self.cloud, "tasks.>")

    async def values(self) -> list[object]:
        """Return the values of the records that are handed over."""
        return [record.value for record in await self.consumer.take()]

    async def heard(self) -> list[bytes]:
        """Return the payloads of the messages that are handed over."""
        return [msg.data for msg in await self.subscription.take()]

    def reasons(self) -> list[Reason]:
        """Return why messages were dropped, of the topic first."""
        dropped = [*self.consumer.dropped, *self.subscription.dropped]
        return [verdict.reason for verdict in dropped if isinstance(verdict, Rejected)]


async def test_what_is_signed_is_handed_over_once_with_its_principal() -> None:
    """A record and a message arrive as they were sent, and say who wrote them."""
    stage = Stage()
    await stage.planner.send("tasks", b"3", key=b"eu", headers=[("kind", b"order")], partition=0)
    await stage.planner.publish("tasks.scale", b"4", headers={"kind": "order"}, reply="_INBOX.1")
    (record,), (msg,) = await stage.consumer.take(), await stage.subscription.take()
    assert isinstance(record, VerifiedRecord)
    assert (record.value, record.key, record.headers, record.offset) == (b"3", b"eu", (("kind", b"order"),), 0)
    assert (msg.subject, msg.data, msg.headers, msg.reply) == ("tasks.scale", b"4", {"kind": "order"}, "_INBOX.1")
    assert record.verified.principal == PLANNER
    assert msg.verified is not None
    assert msg.verified.principal == PLANNER
    assert (await stage.values(), await stage.heard(), stage.reasons()) == ([], [], [])


@pytest.mark.parametrize("shared", [False, True])
async def test_every_attack_is_dropped_for_its_reason(shared: bool) -> None:  # noqa: FBT001 - a table's column
    """Whatever an attacker does on a topic is rejected, with a memory of its own and with a shared one."""
    stage = Stage(shared=shared)
    attacker = stage.attacker
    await stage.planner.send("tasks", b"pay")
    elsewhere = await stage.planner.send("orders", b"pay")
    (captured,) = attacker.capture("tasks")
    attacker.replay(captured)
    attacker.alter(captured, b"pay more")
    attacker.alter(captured, b"pay", key=b"eu")
    attacker.strip(captured)
    attacker.misdirect(elsewhere, name="tasks")
    attacker.forge(stage.bus.record("tasks", b"pay"), principal=PLANNER)
    attacker.forge(captured, principal="agent://acme/nobody")
    stage.bus.append("tasks", b"pay")
    await stage.planner.send("tasks", b"honest", recipient=CLOUD)
    await stage.planner.send("tasks", b"for another", recipient=PLANNER)
    assert await stage.values() == [b"pay", b"honest"]
    assert stage.reasons() == [
        Reason.REPLAYED,
        Reason.ALTERED,
        Reason.ALTERED,
        Reason.UNSIGNED,
        Reason.WRONG_CHANNEL,
        Reason.UNKNOWN_KEY,
        Reason.UNKNOWN_KEY,
        Reason.UNSIGNED,
        Reason.WRONG_RECIPIENT,
    ]


async def test_attacks_on_subjects_and_partitions() -> None:
    """A copy is a replay on a subject, too, and a record of one partition is worth nothing in another."""
    stage = Stage()
    sent = await stage.planner.publish("tasks.scale", b"3")
    stage.attacker.replay(sent)
    stage.attacker.misdirect(sent, name="tasks.other")
    stage.attacker.alter(sent, b"3", headers=(("role", b"admin"),))
    stage.bus.publish("tasks.scale", b"4", headers={"kind": "order"})
    stage.attacker.forge(stage.bus.msg("tasks.scale", b"5"), principal=PLANNER)
    assert await stage.heard() == [b"3"]
    moved = stage.attacker.misdirect(await stage.planner.send("tasks", b"3", partition=1), partition=0)
    assert (moved.partition, await stage.values()) == (0, [])
    assert stage.reasons() == [
        Reason.WRONG_PARTITION,
        Reason.REPLAYED,
        Reason.WRONG_CHANNEL,
        Reason.REPLAYED,  # the added header was hidden, and the id was used
        Reason.UNSIGNED,
        Reason.UNKNOWN_KEY,
    ]


async def test_a_hidden_header_stays_hidden() -> None:
    """What was added on the way does not reach the handler."""
    stage = Stage()
    signed = await stage.planner.publish("elsewhere", b"3")
    late = stage.bus.subscribe(stage.cloud, "elsewhere")
    stage.attacker.alter(signed, b"3", headers=(("role", b"admin"),))
    (msg,) = await late.take()
    assert (msg.data, msg.headers) == (b"3", None)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_redelivery_is_no_replay(shared: bool) -> None:  # noqa: FBT001 - a table's column
    """What comes again from its own place is delivered again, as often as it comes, and copies never are."""
    stage = Stage(shared=shared)
    await stage.planner.send("tasks", b"1")
    assert await stage.values() == [b"1"]
    stage.consumer.commit()
    await stage.planner.send("tasks", b"2")
    stage.attacker.replay(stage.attacker.capture("tasks")[0])
    for again in (False, True, True):
        taken = await stage.consumer.take()
        assert [(r.value, r.verified is not None and r.verified.redelivered) for r in taken] == [(b"2", again)]
        stage.consumer.redeliver()
    assert stage.reasons() == [Reason.REPLAYED] * 3


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_redelivery_is_honest_however_late(mode: Mode) -> None:
    """After log time has passed what comes again, the reader starts over there, and loses nothing."""
    stage = Stage(policy=Policy(mode=mode))
    for number in range(3):
        await stage.planner.send("tasks", b"%d" % number)
        stage.bus.clock.advance(600)
    assert await stage.values() == [b"0", b"1", b"2"]
    stage.consumer.redeliver()
    taken = await stage.consumer.take()
    assert [record.value for record in taken] == [b"0", b"1", b"2"]
    assert all(record.verified for record in taken)


async def test_a_restart_forgets_nothing_that_the_log_tells() -> None:
    """A new process delivers what was not committed, and drops copies of what was."""
    stage = Stage()
    await stage.planner.send("tasks", b"1")
    stage.bus.append("tasks", b"unsigned")
    assert await stage.values() == [b"1"]
    stage.consumer.commit()
    await stage.planner.send("tasks", b"2")
    assert await stage.values() == [b"2"]
    stage.attacker.replay(stage.attacker.capture("tasks")[0])
    for _ in range(2):
        stage.consumer.restart()
        assert await stage.values() == [b"2"]
    assert stage.reasons() == [Reason.UNSIGNED, Reason.REPLAYED, Reason.REPLAYED]
    stage.consumer.commit()
    stage.bus.clock.advance(3600)
    stage.consumer.restart()
    assert await stage.values() == []
    stage.attacker.replay(stage.attacker.capture("tasks")[0])
    assert (await stage.values(), stage.reasons()[-1]) == ([], Reason.STALE)


async def test_a_clock_that_is_set_back_opens_no_gap() -> None:
    """What a new process did not read again, since it was too old, is stale even where the clock says otherwise."""
    stage = Stage()
    old = await stage.planner.send("tasks", b"pay")
    assert await stage.values() == [b"pay"]
    stage.consumer.commit()
    stage.bus.clock.advance(3600)
    stage.bus.append("tasks", b"unsigned")
    stage.consumer.restart()
    assert await stage.values() == []
    stage.bus.clock.advance(-3600)
    stage.attacker.replay(old)
    assert (await stage.values(), stage.reasons()) == ([], [Reason.UNSIGNED, Reason.STALE])


async def test_a_restart_without_keys_loses_nothing() -> None:
    """While the log cannot be recalled nothing is handed over, and then everything is."""
    stage = Stage()
    await stage.planner.send("tasks", b"1")
    assert await stage.values() == [b"1"]
    stage.consumer.commit()
    await stage.planner.send("tasks", b"2")
    stage.consumer.restart()
    stage.agents.keys.down_for.add(PLANNER)
    with pytest.raises(Unavailable):
        await stage.consumer.take()
    stage.agents.keys.down_for.clear()
    stage.attacker.replay(stage.attacker.capture("tasks")[0])
    assert (await stage.values(), stage.reasons()) == ([b"2"], [Reason.REPLAYED])


async def test_a_subscription_that_restarts_takes_nothing_from_before() -> None:
    """Core subjects keep nothing: what was issued by then is stale, and what comes behind the skew is not."""
    stage = Stage()
    sent = await stage.planner.publish("tasks.scale", b"1")
    stage.subscription.restart()
    stage.attacker.replay(sent)
    assert (await stage.heard(), stage.reasons()) == ([], [Reason.STALE])
    stage.bus.clock.advance(6)
    await stage.planner.publish("tasks.scale", b"2")
    assert await stage.heard() == [b"2"]


async def test_time_passes_by_the_test_own_clock() -> None:
    """A message that is delivered late on a subject is stale; one that waits in a topic is not."""
    stage = Stage()
    await stage.planner.publish("tasks.scale", b"late")
    await stage.planner.send("tasks", b"kept")
    stage.bus.clock.advance(600)
    assert (await stage.heard(), await stage.values()) == ([], [b"kept"])
    assert stage.reasons() == [Reason.STALE]
    stage.bus.clock.advance(-3600)
    assert stage.bus.clock() == 1_763_928_000 - 3000


async def test_an_outage_holds_a_topic_and_empties_a_subject() -> None:
    """What cannot be judged comes again on a topic, and is lost on a core subject; its copies are lost, too."""
    stage = Stage()
    for number in range(2):
        await stage.planner.send("tasks", b"%d" % number)
    sent = await stage.planner.publish("tasks.scale", b"lost")
    assert [r.value for r in await stage.consumer.take(1)] == [b"0"]
    stage.agents.keys.failures = 2
    with pytest.raises(Unavailable):
        await stage.consumer.take()
    assert await stage.heard() == []
    assert isinstance(stage.subscription.dropped[0], Unavailable)
    stage.attacker.replay(sent)
    assert (await stage.values(), await stage.heard(), stage.reasons()) == ([b"1"], [], [Reason.REPLAYED])


async def test_what_was_verified_before_an_outage_is_handed_over() -> None:
    """As with a broker's consumer, messages verified before an outage come first; the next call raises Unavailable."""
    stage = Stage()
    await stage.planner.send("tasks", b"1")
    await stage.bus.producer(stage.agents("agent://acme/auditor")).send("tasks", b"2")
    stage.agents.keys.down_for.add("agent://acme/auditor")
    assert await stage.values() == [b"1"]
    with pytest.raises(Unavailable):
        await stage.consumer.take()
    stage.agents.keys.down_for.clear()
    assert await stage.values() == [b"2"]


async def test_observing_hands_everything_over() -> None:
    """Nothing is dropped while it is only observed, and each has its verdict."""
    stage = Stage(policy=Policy(mode=Mode.OBSERVE))
    stage.bus.append("tasks", b"1")
    stage.bus.publish("tasks.scale", b"2")
    (record,), (msg,) = await stage.consumer.take(), await stage.subscription.take(1)
    assert isinstance(record, ObservedRecord)
    assert isinstance(msg, ObservedMsg)
    assert (record.verified, msg.verified) == (None, None)
    stage.agents.keys.failures = 1
    await stage.planner.send("tasks", b"3")
    (record,) = await stage.consumer.take()
    assert isinstance(record, ObservedRecord)
    assert isinstance(record.verdict, Unavailable)


async def test_a_policy_is_in_force() -> None:
    """Who may speak where is judged as anywhere."""
    stage = Stage(policy=Policy(allow=(Allow(PLANNER, ("nats://test/tasks.>",)),)))
    await stage.planner.send("tasks", b"1")
    await stage.planner.publish("tasks.scale", b"2")
    assert (await stage.values(), await stage.heard()) == ([], [b"2"])
    assert stage.reasons() == [Reason.NOT_PERMITTED]


async def test_deserializers_see_verified_bytes_only() -> None:
    """As with a consumer of a broker, one that fails does not hold the partition."""
    stage = Stage()
    consumer = stage.bus.consumer(stage.cloud, "tasks", group="other", value_deserializer=lambda raw: int(raw or b""))
    stage.bus.append("tasks", b"bomb")
    await stage.planner.send("tasks", b"three")
    await stage.planner.send("tasks", b"3")
    with pytest.raises(DeserializationError):
        await consumer.take()
    assert [record.value for record in await consumer.take()] == [3]


async def test_a_subscription_hears_its_pattern_while_it_is_open() -> None:
    """Two of one subject are two readers, and one that is closed hears nothing."""
    stage = Stage()
    other = stage.bus.subscribe(stage.cloud, "tasks.>")
    await stage.planner.publish("elsewhere", b"0")
    await stage.planner.publish("tasks.scale", b"1")
    other.close()
    await stage.planner.publish("tasks.scale", b"2")
    assert [msg.data for msg in await other.take()] == [b"1"]
    assert await stage.heard() == [b"1", b"2"]


async def test_a_shared_store_serves_several_processes() -> None:
    """Two processes of one group share what was used, and neither delivers the other's."""
    stage = Stage(shared=True)
    again = stage.agents(CLOUD, replay=stage.cloud.verifier.replay)
    second = stage.bus.consumer(again, "tasks")
    await stage.planner.send("tasks", b"1")
    assert await stage.values() == [b"1"]
    stage.consumer.restart()
    assert [r.verified and r.verified.redelivered for r in await stage.consumer.take()] == [True]
    assert [r.verified and r.verified.redelivered for r in await second.take()] == [True]


def test_a_shared_store_says_so_by_its_type() -> None:
    """So a Kafka message needs no signed partition there, and no attribute has to be found by luck."""
    assert isinstance(SharedMemoryStore(), SharedReplayStore)
    assert not isinstance(MemoryReplayStore(horizon=None), SharedReplayStore)


async def test_a_store_can_admit_every_reader() -> None:
    """Where births are of no interest, a store knows all readers from the start, and their birth can be replaced."""
    store, never = SharedMemoryStore(open_to_all=True), ReaderBirth(floor=-inf)
    assert await store.birth("anyone") == never
    assert await store.admit_reader("anyone", ReaderBirth(floor=7.0)) == never
    assert await store.admit_reader("anyone", ReaderBirth(floor=7.0), replace=True) == ReaderBirth(floor=7.0)


async def test_keys_come_and_go_and_fail() -> None:
    """A key source for tests behaves as instructed, and counts the look-ups."""
    key, other = SigningKey.generate(), SigningKey.generate()
    keys = KeyDirectory([key.verification_key(PLANNER)])
    keys.add(other.verification_key(CLOUD))
    assert await keys.find(PLANNER, key.key_id) == key.verification_key(PLANNER)
    with pytest.raises(ConfigurationError, match="one public key for"):
        keys.add(VerificationKey.from_public_key(key.public, principal=CLOUD, key_id=b"stolen"))
    keys.unknown = {PLANNER}
    assert await keys.find(PLANNER, key.key_id) is None
    keys.failures = 1
    with pytest.raises(ConnectionError):
        await keys.find(CLOUD, other.key_id)
    keys.down_for = {CLOUD}
    with pytest.raises(ConnectionError, match=CLOUD):
        await keys.find(CLOUD, other.key_id)
    keys.down, keys.down_for = True, set()
    with pytest.raises(ConnectionError):
        await keys.find(CLOUD, other.key_id)
    assert keys.asked == 5


async def test_a_key_source_can_be_slow() -> None:
    """While its gate is closed nobody is answered, and a test can wait for the question."""
    key = SigningKey.generate()
    keys = KeyDirectory([key.verification_key(PLANNER)])
    keys.gate.clear()
    asking = asyncio.create_task(keys.find(PLANNER, key.key_id))
    await keys.question.wait()
    assert not asking.done()
    keys.gate.set()
    assert await asking == key.verification_key(PLANNER)


def test_an_agent_has_one_key_in_all_its_processes() -> None:
    """Made twice it is two processes of one agent, which sign by one key and remember each for itself."""
    agents = Agents()
    one, two = agents(PLANNER), agents(PLANNER)
    assert one is not two
    assert one.verifier.replay is not two.verifier.replay
    assert agents.key(PLANNER) is agents.key(PLANNER)


def test_a_clock_runs_on_unless_it_is_told_when_to_begin() -> None:
    """One stands still, the other goes with the machine's; both can be moved."""
    stands, runs = Clock(100.0), Clock()
    stands.advance(5.5)
    assert (stands(), stands()) == (105.5, 105.5)
    before = runs()
    runs.advance(3600)
    assert runs() >= before + 3600
