"""From observing to enforcing on live traffic, without a restart: nothing honest is lost, and counts agree."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, until
from watchword import ConfigurationError, MemoryKeys, Mode, Policy, Watchword
from watchword.policy import ChannelRule
from watchword_adapters.nats import WatchwordClient
from watchword_adapters.stores.sqlite import SqliteReplayStore

EACH = 40
Handler = Callable[[Msg], Awaitable[None]]
Reading = Callable[[WatchwordClient, str, Handler], Awaitable[None]]


async def plainly(client: WatchwordClient, subject: str, handle: Handler) -> None:
    """Read by a subscription."""
    await client.subscribe(subject, cb=handle)


async def in_a_group(client: WatchwordClient, subject: str, handle: Handler) -> None:
    """Read by two members of a queue group."""
    for _ in range(2):
        await client.subscribe(subject, queue="workers", cb=handle)


async def by_push(client: WatchwordClient, subject: str, handle: Handler) -> None:
    """Read by an ephemeral push consumer."""
    await client.jetstream().subscribe(subject, cb=handle)


async def by_a_durable(client: WatchwordClient, subject: str, handle: Handler) -> None:
    """Read by a durable push consumer that others may share."""
    await client.jetstream().subscribe(subject, durable="workers", cb=handle)


WAYS: dict[str, tuple[Reading, bool]] = {
    "core": (plainly, False),
    "queue group": (in_a_group, True),
    "ephemeral": (by_push, False),
    "durable": (by_a_durable, True),
}


def observer(world: World, store: Any) -> Watchword:
    """Return the cloud controller, which only watches as yet."""
    return world.agent(CLOUD, mode=Mode.OBSERVE, shared=store is not None, store=store, max_skew=0.0)


@pytest.mark.parametrize("way", WAYS)
async def test_every_honest_message_is_delivered_once_through_the_switch(
    world: World, make_stream: MakeStream, tmp_path: Path, way: str
) -> None:
    """Before it all is handed over, marked; then forgeries are dropped, and copies of earlier messages too."""
    read, is_shared = WAYS[way]
    subject = f"{await make_stream()}.tasks"
    store = SqliteReplayStore(tmp_path / "ids.db", policy=Policy(max_skew=0.0), clock=time.time) if is_shared else None
    agent = observer(world, store)
    planner, plain, client = await world.client(world.agent(PLANNER)), await world.plain(), await world.client(agent)
    got: list[tuple[bytes, bool]] = []

    async def handle(msg: Msg) -> None:
        verdict = getattr(msg, "verified", None)
        got.append((msg.data, verdict is not None))

    captured: list[Msg] = []

    async def capture(msg: Msg) -> None:
        captured.append(msg)

    await plain.subscribe(subject, cb=capture)
    await plain.flush()
    await read(client, subject, handle)
    await client.ready()
    await client.flush()

    async def speak(first: int) -> None:
        for number in range(first, first + EACH):
            await planner.publish(subject, b"%d" % number)
            await plain.publish(subject, b"forged %d" % number)
        await planner.flush()
        await plain.flush()

    await speak(0)
    await until(lambda: len(got) == 2 * EACH)
    assert sum(is_verified for _, is_verified in got) == EACH
    agent.switch(Policy(max_skew=0.0), agent.verifier.keys)
    before = len(got)
    await speak(EACH)
    for msg in [one for one in captured if not one.data.startswith(b"forged")]:
        await plain.publish(subject, msg.data, headers=msg.headers)
    await plain.flush()
    await speak(2 * EACH)
    await until(lambda: len(got) - before >= 2 * EACH)
    honest = [data for data, is_verified in got if is_verified]
    assert sorted(honest, key=int) == [b"%d" % number for number in range(3 * EACH)]
    assert [data for data, is_verified in got[before:] if not is_verified] == []
    await until(lambda: agent.audit.counts["unsigned"] == 3 * EACH)
    await until(lambda: agent.audit.counts["replayed"] == 2 * EACH)
    assert agent.audit.counts["delivered"] == 3 * EACH
    if store is not None:
        await client.close()
        await store.close()


@pytest.mark.parametrize("mode", Mode)
async def test_a_key_that_comes_late_brings_no_copy_to_a_group(
    world: World, unique: Callable[[str], str], tmp_path: Path, mode: Mode
) -> None:
    """A39: what a queue group dropped, or was handed unverified, for want of a key is never delivered from a copy."""
    subject, policy = unique("late"), Policy(max_skew=0.0)
    store = SqliteReplayStore(tmp_path / "ids.db", policy=policy, clock=time.time)
    agent = world.agent(CLOUD, mode=mode, store=store, max_skew=0.0)
    planner, plain = await world.client(world.agent(PLANNER)), await world.plain()
    agent.switch(Policy(mode=mode, max_skew=0.0), MemoryKeys())
    client, got, captured = await world.client(agent), list[tuple[bytes, bool]](), list[Msg]()

    async def handle(msg: Msg) -> None:
        got.append((msg.data, getattr(msg, "verified", None) is not None))

    async def capture(msg: Msg) -> None:
        captured.append(msg)

    await plain.subscribe(subject, cb=capture)
    await plain.flush()
    await in_a_group(client, subject, handle)
    await client.ready()
    await client.flush()
    await planner.publish(subject, b"early")
    await planner.flush()
    await until(lambda: agent.audit.counts["unknown_key"] + len(got) and captured)
    assert got == ([(b"early", False)] if mode is Mode.OBSERVE else [])
    agent.switch(policy, world.keys)
    await plain.publish(subject, captured[0].data, headers=captured[0].headers)
    await plain.flush()
    await until(lambda: agent.audit.counts["replayed"])
    await planner.publish(subject, b"late")
    await until(lambda: (b"late", True) in got)
    assert [data for data, is_verified in got if is_verified] == [b"late"]
    await client.close()
    await store.close()


async def test_a_pattern_reads_channels_of_both_modes(world: World, unique: Callable[[str], str]) -> None:
    """One subscription drops what is unsigned on the channel that is enforced, and marks it on the others."""
    prefix, plain = unique("both"), await world.plain()
    agent = world.agent(CLOUD, mode=Mode.OBSERVE)
    rule = ChannelRule(f"nats://{agent.realm}/{prefix}.orders.>", Mode.ENFORCE)
    agent.switch(Policy(mode=Mode.OBSERVE, max_skew=30.0, channels=(rule,)), agent.verifier.keys)
    client, planner = await world.client(agent), await world.client(world.agent(PLANNER))
    got: list[str] = []

    async def handle(msg: Msg) -> None:
        got.append(f"{msg.subject.removeprefix(prefix)} {msg.data.decode()}")

    await client.subscribe(f"{prefix}.>", cb=handle)
    await client.ready()
    await client.flush()
    for subject in ("orders.new", "other"):
        await plain.publish(f"{prefix}.{subject}", b"forged")
        await plain.flush()
        await planner.publish(f"{prefix}.{subject}", b"signed")
        await planner.flush()
    await until(lambda: len(got) >= 3)
    assert got == [".orders.new signed", ".other forged", ".other signed"]


async def test_what_cannot_be_enforced_keeps_being_observed(world: World, unique: Callable[[str], str]) -> None:
    """A queue group without a store reads on while observing; a switch is refused, and says what it needs."""
    agent = world.agent(CLOUD, mode=Mode.OBSERVE, shared=False)
    client = await world.client(agent)
    await client.subscribe(unique("group"), queue="workers")
    with pytest.raises(ConfigurationError, match=r"queue group workers .*configure a store"):
        agent.switch(Policy(), agent.verifier.keys)
    assert agent.observing


async def test_a_consumer_that_leaves_the_payload_out_keeps_being_observed(
    world: World, make_stream: MakeStream
) -> None:
    """What a stream's consumer was let do while observing stands in the way of enforcing on that stream alone."""
    stream, agent = await make_stream(), world.agent(CLOUD, mode=Mode.OBSERVE, shared=False)
    client = await world.client(agent)
    await client.jetstream().pull_subscribe(f"{stream}.>", stream=stream, config=ConsumerConfig(headers_only=True))
    with pytest.raises(ConfigurationError, match="headers_only omits the signed payload"):
        agent.switch(Policy(), agent.verifier.keys)
    elsewhere = ChannelRule(f"nats://{agent.realm}/elsewhere.>", Mode.ENFORCE)
    agent.switch(Policy(mode=Mode.OBSERVE, channels=(elsewhere,)), agent.verifier.keys)
