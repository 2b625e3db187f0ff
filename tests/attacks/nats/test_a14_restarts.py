"""A14, A15, A38, A39 on a real server: what a reader must know stands in the stream, or is asked of a shared store."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import (
    CLOUD,
    PLANNER,
    World,
    nothing_fetched,
    resend,
    second_begins,
    soon,
    until,
    verified,
)
from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from watchword import Allow, ConfigurationError, Rate, Reason, Unavailable, Watchword
from watchword_adapters.nats import VerifyingJetStream, VerifyingPullSubscription
from watchword_adapters.nats import jetstream_rebuild as module

Unique = Callable[[str], str]


class Stage:
    """A stream, who writes to it, and an attacker who has read all of it."""

    def __init__(self, world: World, stream: str, planner: VerifyingJetStream, attacker: Client) -> None:
        self.world = world
        self.stream = stream
        self.subject = f"{stream}.task"
        self.attacker = attacker
        self._planner = planner

    async def say(self, *values: bytes) -> None:
        """Store signed messages."""
        for value in values:
            await self._planner.publish(self.subject, value)

    async def replay(self, *sequences: int) -> None:
        """Store copies without the id that the stream itself would know them by."""
        for sequence in sequences:
            raw = await self.attacker.jetstream().get_msg(self.stream, sequence)
            headers = {name: value for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
            await self.attacker.jetstream().publish(self.subject, raw.data or b"", headers=headers)

    async def reader(self, **options: Any) -> tuple[Watchword, VerifyingJetStream]:
        """Return an agent that begins now, and reads alone."""
        quarantine = options.pop("quarantine", None)
        guard = self.world.agent(CLOUD, shared=False, **options)
        return guard, (await self.world.client(guard, quarantine=quarantine)).jetstream(sole_reader=True)

    async def pull(self, js: VerifyingJetStream, **config: Any) -> VerifyingPullSubscription:
        """Bind the durable consumer."""
        return pulling(await js.pull_subscribe(self.subject, durable="worker", config=ConsumerConfig(**config)))


async def stage(world: World, make_stream: MakeStream, **config: Any) -> Stage:
    """Set it up."""
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    return Stage(world, await make_stream(**config), planner, await world.plain())


def pulling(subscription: object) -> VerifyingPullSubscription:
    """Return a pull subscription as what it is."""
    assert isinstance(subscription, VerifyingPullSubscription)
    return subscription


async def taken(subscription: VerifyingPullSubscription, count: int, *, ack: bool = True) -> list[bytes]:
    """Fetch verified messages until there are so many, and acknowledge them."""
    found: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            for msg in await subscription.fetch(count - len(found), timeout=15):
                found.append(msg.data)
                if ack:
                    await msg.ack_sync()
    return found


async def test_a14_replay_after_a_restart(world: World, make_stream: MakeStream) -> None:
    """What the one worker of a durable was given before it ended is a replay to the worker that comes after it."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1", b"2")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 2) == [b"1", b"2"]
    await set_up.replay(1, 2)
    await set_up.say(b"3")
    guard, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 1) == [b"3"]
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 2}


@pytest.mark.parametrize("ordered", [True, False])
async def test_a14_replay_to_a_reader_that_begins_at_the_end(
    world: World, make_stream: MakeStream, *, ordered: bool
) -> None:
    """Ordered and other unnamed consumers know what stands before their first message."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1", b"2")
    guard, js = await set_up.reader()
    push = await js.subscribe(set_up.subject, ordered_consumer=ordered, deliver_policy=DeliverPolicy.NEW)
    await set_up.replay(1, 2)
    await set_up.say(b"3")
    assert (await push.next_msg(timeout=10)).data == b"3"
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 2}


async def test_a14_several_filters_are_read_again(world: World, make_stream: MakeStream) -> None:
    """A consumer of several subjects remembers what passed on each, and nothing of the others."""
    set_up = await stage(world, make_stream)
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    subjects = [f"{set_up.stream}.a", f"{set_up.stream}.b"]
    for subject in [*subjects, f"{set_up.stream}.other"]:
        await planner.publish(subject, b"x")
    for left in (2, 0):
        guard, js = await set_up.reader()
        config = ConsumerConfig(filter_subjects=subjects)
        subscription = pulling(await js.pull_subscribe("", stream=set_up.stream, durable="worker", config=config))
        if left:
            assert await taken(subscription, 2) == [b"x", b"x"]
    for sequence in (1, 2):
        raw = await set_up.attacker.jetstream().get_msg(set_up.stream, sequence)
        headers = {name: value for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
        await set_up.attacker.jetstream().publish(raw.subject or "", b"x", headers=headers)
    await planner.publish(subjects[0], b"end")
    assert await taken(subscription, 1) == [b"end"]
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 2}


async def test_a17_what_was_not_acknowledged_comes_again_after_a_restart(world: World, make_stream: MakeStream) -> None:
    """Acknowledged out of order, the rest comes again however late, as a redelivery; its copy is a replay."""
    set_up = await stage(world, make_stream)
    window = {"max_age": 1.0, "max_skew": 0.0}
    await set_up.say(b"1", b"2", b"3")
    _, js = await set_up.reader(**window)
    for msg in await (await set_up.pull(js, ack_wait=3)).fetch(3, timeout=10):
        if msg.data == b"2":
            await msg.ack_sync()
    await set_up.replay(1)
    guard, js = await set_up.reader(**window)
    subscription = await set_up.pull(js)
    await second_begins()
    await second_begins()
    await set_up.say(b"4")  # by now log time has passed the window of the first three
    found: dict[bytes, bool] = {}
    async with asyncio.timeout(PATIENCE):
        while len(found) < 3:
            for msg in await subscription.fetch(3, timeout=10):
                found[msg.data] = verified(msg).verified.redelivered
                await msg.ack_sync()
    assert found == {b"4": False, b"1": True, b"3": True}
    counts = guard.audit.counts  # the copy is stale, where it took a while to write it
    assert (counts["delivered"], counts[Reason.REPLAYED] + counts[Reason.STALE]) == (3, 1)


async def test_a39_a_stream_that_lost_the_window(world: World, make_stream: MakeStream) -> None:
    """Where originals were purged, what may have stood there is stale to the durable that had read them."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1", b"2")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 2) == [b"1", b"2"]
    await set_up.replay(1)
    await set_up.attacker.jetstream().purge_stream(set_up.stream, keep=2)
    guard, js = await set_up.reader(max_skew=0.5)
    subscription = await set_up.pull(js)
    await second_begins()
    await second_begins()
    await set_up.say(b"4")
    assert await taken(subscription, 1) == [b"4"]
    assert guard.audit.counts == {"delivered": 1, Reason.STALE: 1}


@pytest.mark.parametrize("when", ["before", "before looking", "before reading"])
async def test_a39_a_stream_that_was_emptied(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Where nothing is left, were it purged under the rebuild, what was issued until now and the skew is stale."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 1) == [b"1"]
    raw = await set_up.attacker.jetstream().get_msg(set_up.stream, 1)
    headers = {name: value for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}

    async def purge() -> None:
        monkeypatch.undo()
        await set_up.attacker.jetstream().purge_stream(set_up.stream)

    async def copy() -> None:
        await set_up.attacker.jetstream().publish(set_up.subject, raw.data or b"", headers=headers)

    def purging(real: Callable[..., Any]) -> Callable[..., Any]:
        async def late(*arguments: Any, **options: Any) -> Any:
            await purge()
            await copy()
            return await real(*arguments, **options)

        return late

    if when == "before":
        await purge()
    else:
        owner, name = (module, "_first") if when == "before looking" else (module.StreamMemory, "_recall")
        monkeypatch.setattr(owner, name, purging(getattr(owner, name)))
    guard, js = await set_up.reader(max_skew=0.5)
    subscription = await set_up.pull(js)
    if when == "before":
        await copy()
    await second_begins()
    await second_begins()
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    assert guard.audit.counts == {"delivered": 1, Reason.STALE: 1}


async def test_a39_key_that_becomes_known_after_its_message_passed(world: World, make_stream: MakeStream) -> None:
    """What passed for want of a key is a replay when it comes again under the key, live and after a restart."""
    set_up = await stage(world, make_stream)
    world.keys.unknown.add(PLANNER)
    await set_up.say(b"early")
    guard, js = await set_up.reader()
    subscription = await set_up.pull(js)
    fetching = asyncio.create_task(taken(subscription, 1))
    await until(lambda: guard.audit.counts[Reason.UNKNOWN_KEY] == 1)
    world.keys.unknown.clear()
    await set_up.replay(1)
    await set_up.say(b"1")
    assert await fetching == [b"1"]
    world.keys.unknown.add(PLANNER)
    again, js = await set_up.reader()
    subscription = await set_up.pull(js)
    world.keys.unknown.clear()
    await set_up.replay(1)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    assert guard.audit.counts == {"delivered": 1, Reason.UNKNOWN_KEY: 1, Reason.REPLAYED: 1}
    assert again.audit.counts == {"delivered": 1, Reason.REPLAYED: 1}


async def test_a38_an_outage_holds_the_rebuild_once(world: World, make_stream: MakeStream) -> None:
    """While the key source is down a reader starts after max_hold, and what it could not judge is remembered."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 1) == [b"1"]
    world.keys.down = True
    guard, js = await set_up.reader(max_hold=0.3)
    subscription = await set_up.pull(js)
    world.keys.down = False
    await set_up.replay(1)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 1}


async def test_a38_the_undetermined_are_kept_and_ended(world: World, make_stream: MakeStream) -> None:
    """After max_hold what cannot be judged goes into quarantine; while that is full or down it is asked for again."""
    set_up = await stage(world, make_stream)
    kept = Kept()
    kept.full = True
    guard, js = await set_up.reader(max_hold=0.0, quarantine=kept)
    subscription = await set_up.pull(js, ack_wait=1)
    world.keys.down = True
    await set_up.say(b"x")
    fetching = asyncio.create_task(taken(subscription, 1))
    await until(lambda: guard.audit.counts["unavailable"] == 1)
    kept.full, kept.down = False, True
    await until(lambda: guard.audit.counts["unavailable"] == 2)
    kept.down = False
    await until(lambda: guard.audit.counts["undetermined"] == 1)
    world.keys.down = False
    await set_up.replay(1)
    await set_up.say(b"y")
    assert await fetching == [b"y"]
    assert kept.copies == [(b"x", "undetermined"), (b"x", "replayed")]


async def test_a40_what_came_too_fast_does_not_come_back(world: World, make_stream: MakeStream) -> None:
    """A message over the rate is ended though no copy can be written: coming again it would count as let in."""
    set_up = await stage(world, make_stream)
    kept = Kept()
    kept.down = True
    allow = (Allow(PLANNER, (f"nats://prod/{set_up.stream}.>",), Rate(1, 3600.0)),)
    guard, js = await set_up.reader(quarantine=kept, allow=allow)
    subscription = await set_up.pull(js)
    await set_up.say(b"1", b"too fast")
    assert await taken(subscription, 1) == [b"1"]
    await nothing_fetched(subscription, 1, guard.audit.counts, 3)
    assert guard.audit.counts == {"delivered": 1, Reason.RATE_LIMITED: 1, "left_out": 1}


async def test_a26_what_the_server_says_of_a_consumer_counts(world: World, make_stream: MakeStream) -> None:
    """A durable push consumer is no less shared for being bound by a configuration that does not say so."""
    set_up = await stage(world, make_stream)
    alone = (await world.client(world.agent(CLOUD, shared=False))).jetstream()
    inbox = set_up.attacker.new_inbox()
    manager = set_up.attacker.jetstream()
    await manager.add_consumer(set_up.stream, ConsumerConfig(durable_name="push", deliver_subject=inbox))
    with pytest.raises(ConfigurationError, match="others may read push too"):
        await alone.subscribe_bind(set_up.stream, ConsumerConfig(deliver_subject=inbox), "push")


async def test_a15_a_consumer_bound_by_its_name_may_be_another_s_too(world: World, make_stream: MakeStream) -> None:
    """Who binds an ephemeral consumer by its name does not read alone unless he says so."""
    set_up = await stage(world, make_stream)
    config = ConsumerConfig(name="known", inactive_threshold=60)
    await set_up.attacker.jetstream().add_consumer(set_up.stream, config)
    js = (await world.client(world.agent(CLOUD, shared=False))).jetstream()
    with pytest.raises(ConfigurationError, match="others may read known too"):
        await js.pull_subscribe_bind("known", set_up.stream)
    _, sole = await set_up.reader()
    await set_up.say(b"1")
    assert await taken(pulling(await sole.pull_subscribe_bind("known", set_up.stream)), 1) == [b"1"]


async def test_a14_a_replay_does_not_become_the_last_message(world: World, make_stream: MakeStream) -> None:
    """A copy that stands last on its subject is still a replay to who reads the last only; of several it is refused."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1", b"2")
    await set_up.replay(1)
    guard, js = await set_up.reader()
    last = DeliverPolicy.LAST_PER_SUBJECT
    for subject in (f"{set_up.stream}.*", f"{set_up.stream}.>"):
        with pytest.raises(ConfigurationError, match="LAST_PER_SUBJECT over several subjects"):
            await js.subscribe(subject, deliver_policy=last)
    several = ConsumerConfig(filter_subjects=[f"{set_up.stream}.{name}" for name in "ab"], deliver_policy=last)
    with pytest.raises(ConfigurationError, match="LAST_PER_SUBJECT over several subjects"):
        await js.pull_subscribe("", stream=set_up.stream, config=several)
    push = await js.subscribe(set_up.subject, deliver_policy=last)
    await set_up.say(b"3")
    assert (await push.next_msg(timeout=10)).data == b"3"
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 1}


async def test_a14_a_push_consumer_delivers_nothing_before_the_stream_was_read_again(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server pushes while the stream is read again waits for that."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1")
    guard, got, seen = world.agent(CLOUD, shared=False), asyncio.Queue[Msg](), list[tuple[int, int]]()
    client, first = await world.client(guard), module._first

    async def late(*arguments: Any) -> Any:
        await until(lambda: any(sub._received for sub in client._subs.values() if getattr(sub, "reader", None)))
        for _ in range(3):
            await client.flush()
        seen.append((got.qsize(), guard.audit.counts["delivered"]))
        return await first(*arguments)

    monkeypatch.setattr(module, "_first", late)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE)
    await client.jetstream().subscribe(set_up.subject, cb=got.put, config=config)
    assert (await soon(got.get())).data == b"1"
    assert seen == [(0, 0)]


async def test_a_stream_that_cannot_be_read_again_delivers_nothing(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server does not answer, subscribing ends Unavailable, and nothing is delivered."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1")
    _, js = await set_up.reader()

    async def denied(*_: object, **__: object) -> None:
        raise APIError(code=503, description="jetstream is down")

    monkeypatch.setattr(module, "_first", denied)
    got: list[Msg] = []

    async def handler(msg: Msg) -> None:
        got.append(msg)

    with pytest.raises(Unavailable, match="the stream cannot be reread: jetstream is down"):
        await js.subscribe(set_up.subject, cb=handler, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
    with pytest.raises(Unavailable, match="jetstream is down"):
        await set_up.pull(js)
    assert got == []


async def test_a14_core_subscription_begins_with_a_floor(world: World, unique: Unique) -> None:
    """Core NATS keeps nothing, so what was issued before a subscription began is stale to it; replies are not."""
    subject = unique("core")
    guard = world.agent(CLOUD, max_skew=0.5, shared=False)
    planner, attacker = await world.client(world.agent(PLANNER)), await world.plain()
    seen: asyncio.Queue[Msg] = asyncio.Queue()
    await attacker.subscribe(subject, cb=seen.put)
    await attacker.flush()
    await planner.publish(subject, b"before")
    before = await soon(seen.get())
    cloud = await world.client(guard)
    subscription = await cloud.subscribe(subject)
    await cloud.flush()
    await resend(attacker, before)
    await planner.subscribe(f"{subject}.ask", cb=answer)
    await planner.flush()
    assert (await cloud.request(f"{subject}.ask", b"?", timeout=5)).data == b"!"
    await second_begins()
    await second_begins()
    await planner.publish(subject, b"after")
    assert (await soon(subscription.next_msg(timeout=None))).data == b"after"
    assert guard.audit.counts == {"delivered": 2, Reason.STALE: 1}


async def answer(msg: Msg) -> None:
    """Answer a request."""
    await msg.respond(b"!")


async def test_a15_queue_groups_need_a_store(world: World, unique: Unique) -> None:
    """Without a store that the members share a queue group does not start; with one a replay to another is seen."""
    subject = unique("core")
    alone = await world.client(world.agent(CLOUD, shared=False))
    with pytest.raises(
        ConfigurationError, match=r"queue group workers shares the work: .* configure a store, .*sqlite"
    ):
        await alone.subscribe(subject, queue="workers")
    guard, got = world.agent(CLOUD), list[bytes]()

    async def handler(msg: Msg) -> None:
        got.append(msg.data)

    for _ in range(3):
        member = await world.client(guard)
        await member.subscribe(subject, queue="workers", cb=handler)
        await member.flush()
    planner, attacker = await world.client(world.agent(PLANNER)), await world.plain()
    seen: asyncio.Queue[Msg] = asyncio.Queue()
    await attacker.subscribe(subject, cb=seen.put)
    await attacker.flush()
    await planner.publish(subject, b"1")
    first = await soon(seen.get())
    for _ in range(9):
        await resend(attacker, first)
    await planner.publish(subject, b"2")
    await until(lambda: guard.audit.counts[Reason.REPLAYED] == 9 and len(got) == 2)
    assert sorted(got) == [b"1", b"2"]


async def test_a_restarted_instance_goes_on_with_its_name(world: World, unique: Unique) -> None:
    """With a store and a name of its own an instance has no floor, and knows after a restart what it was given."""
    subject, name = unique("core"), unique("instance")
    guard = world.agent(CLOUD)
    planner, attacker = await world.client(world.agent(PLANNER)), await world.plain()
    seen: asyncio.Queue[Msg] = asyncio.Queue()
    await attacker.subscribe(subject, cb=seen.put)
    await attacker.flush()
    captured: list[Msg] = []
    for value in (b"1", b"2"):
        cloud = await world.client(guard, reader=name)
        both = [await cloud.subscribe(subject) for _ in range(2)]
        await cloud.flush()
        for msg in captured:
            await resend(attacker, msg)
            await soon(seen.get())
        await planner.publish(subject, value)
        captured.append(await soon(seen.get()))
        for subscription in both:
            assert (await soon(subscription.next_msg(timeout=None))).data == value
        await cloud.close()
    assert guard.audit.counts == {"delivered": 4, Reason.REPLAYED: 2}
