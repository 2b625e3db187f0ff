"""What a pull subscription fetches is judged together, and comes to what it would come to one by one."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from nats.errors import SlowConsumerError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import (
    CLOUD,
    MALLORY,
    PLANNER,
    REALM,
    World,
    nothing_fetched,
    raw,
    second_begins,
    soon,
    until,
    verified,
)
from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from watchword import Mode, Policy, Reason, Unavailable, VerifiedMessage, Watchword
from watchword.spi import Admission, Claim
from watchword.testing import SharedMemoryStore
from watchword_adapters.nats import ObservedMsg, VerifyingPullSubscription, jetstream_reader
from watchword_adapters.stores.sqlite import SqliteReplayStore

ALL = range(30)


async def publish(world: World, subject: str, count: int = len(ALL), principal: str = PLANNER) -> list[bytes]:
    """Store messages of one agent, in trees, and return their payloads."""
    js = (await world.client(world.agent(principal))).jetstream()
    payloads = [f"{principal[-6:]}-{number}".encode() for number in range(count)]
    await asyncio.gather(*(js.publish(subject, payload) for payload in payloads))
    return payloads


async def pulling(
    world: World,
    agent: Watchword,
    subject: str,
    *,
    durable: str | None = None,
    ack_wait: float = 30.0,
    **options: object,
) -> VerifyingPullSubscription:
    """Return a pull subscription of an agent: with a shared store that of one worker of several, else its own."""
    durable = durable or ("workers" if agent.verifier.shared_replay else None)
    js = (await world.client(agent, **options)).jetstream()
    config = ConsumerConfig(ack_wait=ack_wait)
    subscription: VerifyingPullSubscription = await js.pull_subscribe(subject, durable, config=config)
    return subscription


async def fetched(subscription: VerifyingPullSubscription, count: int) -> list[bytes]:
    """Fetch until ``count`` messages were delivered, acknowledge each, and return their payloads."""
    got: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < count:
            for msg in await subscription.fetch(100, timeout=10):
                got.append(verified(msg).data)
                await msg.ack()
    return got


@pytest.mark.parametrize("shared", [True, False])
async def test_forgeries_in_between_cost_no_honest_message(
    world: World, make_stream: MakeStream, *, shared: bool
) -> None:
    """Honest messages come in their order; what is forged among them goes to quarantine, and is terminated."""
    stream = await make_stream()
    subject, guard, kept = f"{stream}.task", world.agent(CLOUD, shared=shared), Kept()
    attacker, planner = await world.plain(), (await world.client(world.agent(PLANNER))).jetstream()
    for number in range(10):
        await planner.publish(subject, b"%d" % number)
        stored = await attacker.jetstream().get_msg(stream, seq=3 * number + 1)
        await attacker.publish(subject, b"forged", headers={"watchword": (stored.headers or {})["watchword"]})
        await raw(attacker, subject, b"NATS/1.0\r\nbroken\r\n\r\n", b"broken")
    subscription = await pulling(world, guard, subject, ack_wait=1.0, quarantine=kept)
    assert await fetched(subscription, 10) == [b"%d" % number for number in range(10)]
    assert guard.audit.counts == {"delivered": 10, Reason.ALTERED: 10, Reason.MALFORMED: 10}
    await until(lambda: len(kept.copies) == 20)
    assert sorted(set(kept.copies)) == [(b"broken", "malformed"), (b"forged", "altered")]
    with pytest.raises(NatsTimeoutError):
        await subscription.fetch(30, timeout=1.5)


async def test_observing_hands_on_everything_with_its_verdict(world: World, make_stream: MakeStream) -> None:
    """In observe mode a bulk drops nothing, whatever the verdict."""
    subject = f"{await make_stream()}.task"
    attacker = await world.plain()
    keys = world.keys
    guard = world.agent(CLOUD, mode=Mode.OBSERVE)
    await publish(world, subject, 2)
    await raw(attacker, subject, b"NATS/1.0\r\nbroken\r\n\r\n", b"broken")
    await publish(world, subject, 1, MALLORY)
    await attacker.publish(subject, b"unsigned")
    await attacker.flush()
    keys.down_for.add(MALLORY)
    messages = await (await pulling(world, guard, subject)).fetch(5, timeout=10)
    observed = [msg for msg in messages if isinstance(msg, ObservedMsg)]
    verdicts = [getattr(msg.verdict, "reason", type(msg.verdict)) for msg in observed]
    assert verdicts == [VerifiedMessage, VerifiedMessage, Reason.MALFORMED, Unavailable, Reason.UNSIGNED]


@pytest.mark.parametrize("shared", [True, False])
async def test_an_outage_in_between_holds_up_nothing_else(
    world: World, make_stream: MakeStream, *, shared: bool
) -> None:
    """What cannot be judged is asked for again; what lies behind it is delivered at once."""
    keys = world.keys
    subject, guard = f"{await make_stream()}.task", world.agent(CLOUD, shared=shared)
    honest = await publish(world, subject, 5)
    stuck = await publish(world, subject, 3, MALLORY)
    honest += await publish(world, subject, 5)
    keys.down_for.add(MALLORY)
    subscription = await pulling(world, guard, subject, ack_wait=1.0)
    assert await fetched(subscription, 10) == honest
    assert guard.audit.counts["unavailable"] >= 3
    keys.down_for.clear()
    assert sorted(await fetched(subscription, 3)) == sorted(stuck)
    assert guard.audit.counts["delivered"] == 13


@pytest.mark.parametrize("shared", [True, False])
async def test_a_whole_outage_costs_no_more_than_there_are_messages(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch, *, shared: bool
) -> None:
    """Where nothing can be judged each message is tried once, and not again with each of the others."""
    monkeypatch.setattr(jetstream_reader, "FIRST_DELAY", 3600.0)  # until it is offered again
    keys = world.keys
    subject, guard = f"{await make_stream()}.task", world.agent(CLOUD, shared=shared)
    await publish(world, subject, 40)
    keys.down_for.add(PLANNER)
    subscription = await pulling(world, guard, subject)
    await nothing_fetched(subscription, 40, guard.audit.counts, 40)
    assert guard.audit.counts == {"unavailable": 40}
    assert keys.asked == 40


class Broken(SharedMemoryStore):
    """A shared store that is down and takes a while to fail; it counts what it is asked, and how much at once."""

    def __init__(self) -> None:
        super().__init__(open_to_all=True)
        self.claims = self.most = self.out = 0

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        await self.claim_many([claim])
        raise AssertionError

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission]:
        """See ``BulkStore.claim_many``."""
        self.claims += len(claims)
        self.out += 1
        self.most = max(self.most, self.out)
        await asyncio.sleep(0.01)
        self.out -= 1
        raise ConnectionError("the store is down")


async def test_a_store_that_is_down_is_asked_at_most_twice_for_each(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an outage of the shared store no message asks for all behind it, nor waits for those before it to time out."""
    monkeypatch.setattr(jetstream_reader, "FIRST_DELAY", 3600.0)  # until it is offered again
    subject, store = f"{await make_stream()}.task", Broken()
    guard = Watchword(realm=REALM, principal=CLOUD, keys=world.keys, replay=store)
    await publish(world, subject, 40)
    subscription = await pulling(world, guard, subject)
    await nothing_fetched(subscription, 40, guard.audit.counts, 40)
    assert guard.audit.counts == {"unavailable": 40}
    assert store.claims <= 80
    assert store.most == 39


async def test_a14_a_rebuild_outlives_an_outage_in_its_middle(world: World, make_stream: MakeStream) -> None:
    """A stream is read again in bulk, past what could not be judged at once, and all of it is known afterwards."""
    stream = await make_stream()
    subject, attacker = f"{stream}.task", await world.plain()
    keys = world.keys
    for principal in (PLANNER, MALLORY, PLANNER):
        await publish(world, subject, 3, principal)
    before = await world.client(world.agent(CLOUD, shared=False))
    first = await before.jetstream(sole_reader=True).pull_subscribe(subject, "alone")
    for msg in (await first.fetch(7, timeout=10))[:6]:
        await msg.ack()
    await before.close()
    keys.down_for.add(MALLORY)
    guard = world.agent(CLOUD, shared=False)
    client = await world.client(guard)
    keys.asked = 0
    binding = asyncio.create_task(client.jetstream(sole_reader=True).pull_subscribe(subject, "alone"))
    await until(lambda: keys.asked > 2)
    assert not binding.done()
    keys.down_for.clear()
    second = await soon(binding)
    for sequence in range(1, 8):
        stored = await attacker.jetstream().get_msg(stream, seq=sequence)
        await attacker.publish(subject, stored.data or b"", headers={"watchword": (stored.headers or {})["watchword"]})
    await attacker.flush()
    assert len(await fetched(second, 2)) == 2
    await until(lambda: sum(guard.audit.counts.values()) >= 2)
    await nothing_fetched(second, 10, guard.audit.counts, 9)
    assert guard.audit.counts == {"delivered": 2, Reason.REPLAYED: 7}


async def test_a15_workers_that_share_a_store_deliver_each_id_once(
    world: World, make_stream: MakeStream, tmp_path: Path
) -> None:
    """Two workers that fetch at once hand on each message once, and a replay neither of them."""
    stream = await make_stream()
    subject, attacker = f"{stream}.task", await world.plain()
    policy = Policy(max_skew=0.0)

    def worker() -> Watchword:
        store = SqliteReplayStore(tmp_path / "ids.db", policy=policy, clock=time.time)
        world.stack.push_async_callback(store.close)
        return Watchword(realm=REALM, principal=CLOUD, keys=world.keys, policy=policy, replay=store)

    js = (await world.client(world.agent(PLANNER))).jetstream()
    payloads = [b"%d" % number for number in range(60)]
    guards = [worker(), worker()]
    workers = [await pulling(world, guard, subject, durable="workers") for guard in guards]
    await second_begins()  # the store vouches for nothing that was issued before its birth
    await asyncio.gather(*(js.publish(subject, payload) for payload in payloads))
    for sequence in range(1, 61):
        stored = await attacker.jetstream().get_msg(stream, seq=sequence)
        await attacker.publish(subject, stored.data or b"", headers={"watchword": (stored.headers or {})["watchword"]})
    await attacker.flush()
    got: list[bytes] = []

    async def work(subscription: VerifyingPullSubscription) -> None:
        while sum(sum(guard.audit.counts.values()) for guard in guards) < 120:
            try:
                for msg in await subscription.fetch(25, timeout=0.5):
                    got.append(verified(msg).data)
                    await msg.ack()
            except NatsTimeoutError:
                continue

    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(work(subscription) for subscription in workers))
    assert sorted(got) == sorted(payloads)
    assert sum(guard.audit.counts[Reason.REPLAYED] for guard in guards) == 60


@pytest.mark.parametrize("shared", [True, False])
async def test_what_a_cancelled_fetch_took_comes_again(world: World, make_stream: MakeStream, *, shared: bool) -> None:
    """Who gives up a fetch while it judges loses nothing: the server offers it again, and that is no replay (A17)."""
    subject, guard = f"{await make_stream()}.task", world.agent(CLOUD, shared=shared)
    honest = await publish(world, subject, 20)
    subscription = await pulling(world, guard, subject, ack_wait=1.0)
    world.keys.question.clear()
    world.keys.gate = asyncio.Event()
    fetching = asyncio.create_task(subscription.fetch(20, timeout=10))
    await soon(world.keys.question.wait())
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    world.keys.gate.set()
    assert await fetched(subscription, 20) == honest


async def test_a23_revoked_key_ends_what_its_verified_trees_still_hold(world: World, make_stream: MakeStream) -> None:
    """Once a key is revoked nothing more of a tree is delivered, though its root was verified before."""
    subject, guard = f"{await make_stream()}.task", world.agent(CLOUD)
    honest = await publish(world, subject)
    subscription = await pulling(world, guard, subject)
    assert [msg.data for msg in await subscription.fetch(10, timeout=10)] == honest[:10]
    key = world.signing[PLANNER].verification_key(PLANNER)
    world.keys.replace(replace(key, revoked_at=int(time.time())))
    await nothing_fetched(subscription, 20, guard.audit.counts, 30)
    assert guard.audit.counts == {"delivered": 10, Reason.KEY_REVOKED: 20}


async def test_a21_flood_of_forged_trees_keeps_no_honest_message(world: World, make_stream: MakeStream) -> None:
    """Hundreds of messages with signatures that do not hold, each a tree of its own, leave the honest ones flowing."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    await publish(world, subject, 2)
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    envelope = (stored.headers or {})["watchword"]
    for number in range(300):
        forged = f"{envelope[:-40]}{number:04d}{envelope[-36:]}"
        await attacker.publish(subject, b"PLANNER-0", headers={"watchword": forged})
    await attacker.flush()
    honest = await publish(world, subject, 20)
    subscription = await pulling(world, guard, subject)
    assert (await fetched(subscription, 22))[2:] == honest
    assert guard.audit.counts[Reason.BAD_SIGNATURE] == 300
    await until(lambda: guard.audit.counts["delivered"] == 22)


async def test_a_fetch_hands_over_what_came_in_its_time(world: World, make_stream: MakeStream) -> None:
    """A fetch that waits in vain for the rest returns what it has at the end of its time, as nats-py's does."""
    subject, told = f"{await make_stream()}.task", []

    async def dropped(error: Exception) -> None:
        told.append(type(error))
        world.keys.gate.set()

    js = (await world.client(world.agent(CLOUD), error_cb=dropped)).jetstream()
    subscription = await js.pull_subscribe(subject, pending_msgs_limit=50)
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    for _ in range(100):
        await planner.publish(subject, b"x")
    world.keys.gate.clear()  # nothing is judged until more have come than may wait
    messages = await subscription.fetch(100, timeout=2)
    assert 1 <= len(messages) < 100
    assert set(told) == {SlowConsumerError}
