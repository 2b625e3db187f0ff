"""Consumers that wait for no acknowledgement: what could not be judged is judged again in its turn (A38)."""

import asyncio
from collections.abc import Callable

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.slow_keys import slow, slow_agent, stranger
from tests.integration.nats.world import CLOUD, PLANNER, World, until
from watchword import Mode
from watchword_adapters.nats import NatsQuarantine, reader

Unique = Callable[[str], str]
COUNT = 5


async def published(world: World, make_stream: MakeStream) -> str:
    """Make a stream, and let the planner publish to it; return the subject."""
    subject = f"{await make_stream()}.tasks"
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    for number in range(COUNT):
        await planner.publish(subject, b"%d" % number)
    return subject


@pytest.mark.parametrize("way", ["callback", "next_msg", "messages"])
async def test_an_ordered_consumer_waits_for_keys(world: World, make_stream: MakeStream, way: str) -> None:
    """An outage of the key source costs nothing, nor the order; a caller's time-out holds meanwhile."""
    subject, got = await published(world, make_stream), list[bytes]()
    client = await world.client(world.agent(CLOUD, shared=False))

    async def handle(msg: Msg) -> None:
        got.append(msg.data)

    world.keys.down = True
    subscription = await client.jetstream().subscribe(
        subject, ordered_consumer=True, cb=handle if way == "callback" else None
    )

    async def iterate() -> None:
        async for msg in subscription.messages:
            got.append(msg.data)

    reading = asyncio.create_task(iterate()) if way == "messages" else None
    if way == "next_msg":
        with pytest.raises(NatsTimeoutError):
            await subscription.next_msg(timeout=0.2)
    await until(lambda: client.watchword.audit.counts["unavailable"] > 1)
    assert got == []
    world.keys.down = False
    if way == "next_msg":
        got += [(await subscription.next_msg(timeout=20)).data for _ in range(COUNT)]
    await until(lambda: len(got) == COUNT)
    assert got == [b"%d" % number for number in range(COUNT)]
    if reading is not None:
        reading.cancel()


async def test_a_fetch_without_acknowledgements_waits_for_keys(world: World, make_stream: MakeStream) -> None:
    """What one fetch was given is handed over once it can be judged, and nothing of it is left out."""
    subject = await published(world, make_stream)
    client = await world.client(world.agent(CLOUD, shared=False))
    config = ConsumerConfig(ack_policy=AckPolicy.NONE)
    subscription = await client.jetstream().pull_subscribe(subject, config=config)
    world.keys.down = True
    asyncio.get_running_loop().call_later(0.3, vars(world.keys).update, {"down": False})
    found = await subscription.fetch(COUNT, timeout=20)
    assert [msg.data for msg in found] == [b"%d" % number for number in range(COUNT)]


async def test_what_nobody_can_judge_is_let_go_of_with_its_copy(
    world: World, make_stream: MakeStream, unique: Unique
) -> None:
    """After ``max_hold`` the copy is kept first; then the next ones have their turn, and it is no replay of itself."""
    subject, place = await published(world, make_stream), unique("quarantine")
    await make_stream(place)
    agent = world.agent(CLOUD, shared=False, max_hold=0.0)
    quarantine = NatsQuarantine(place, watchword=agent)
    client = await world.client(agent, quarantine=quarantine)
    got: list[bytes] = []

    async def handle(msg: Msg) -> None:
        got.append(msg.data)

    world.keys.down = True
    await client.jetstream().subscribe(subject, ordered_consumer=True, cb=handle)
    await until(lambda: agent.audit.counts["undetermined"] == COUNT)
    world.keys.down = False
    assert got == []
    await (await world.client(world.agent(PLANNER))).jetstream().publish(subject, b"more")
    await until(lambda: got == [b"more"])


@pytest.mark.parametrize("way", ["callback", "next_msg", "fetch"])
async def test_more_than_can_wait_for_their_keys_hold_up_the_others(
    world: World, make_stream: MakeStream, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that takes its time costs no message, nor, but for a fetch, the order, however many come meanwhile."""
    monkeypatch.setattr(reader, "MOST_PARKED", 10)
    subject, count, got = f"{await make_stream()}.tasks", 30, list[bytes]()
    keys, client = await slow(world, 0, shared=False)
    keys.held, keys.slow = asyncio.Event(), {PLANNER}
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    for number in range(count):
        await planner.publish(subject, b"%d" % number)

    async def handle(msg: Msg) -> None:
        got.append(msg.data)

    js, unacked = client.jetstream(), ConsumerConfig(ack_policy=AckPolicy.NONE)
    if way == "fetch":
        pull = await js.pull_subscribe(subject, config=unacked)
        asyncio.get_running_loop().call_later(0.5, keys.held.set)
        while len(got) < count:
            got += [msg.data for msg in await pull.fetch(count, timeout=20)]
    else:
        pushed = await js.subscribe(subject, config=unacked, cb=handle if way == "callback" else None)
        if way == "next_msg":
            with pytest.raises(NatsTimeoutError):
                await pushed.next_msg(timeout=0.5)
        else:
            await asyncio.sleep(0.5)
        keys.held.set()
        while way == "next_msg" and len(got) < count:
            got.append((await pushed.next_msg(timeout=20)).data)
        await until(lambda: len(got) == count)
    if way == "fetch":  # what was found is handed over before what comes back
        got.sort(key=int)
    assert got == [b"%d" % number for number in range(count)]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_a_crowd_that_waits_too_long_is_let_go_of_with_its_copies(
    world: World, make_stream: MakeStream, unique: Unique, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """Beyond ``max_hold`` a source that never answers silences nobody whose key is known."""
    monkeypatch.setattr(reader, "MOST_PARKED", 3)
    subject, place = f"{await make_stream()}.tasks", unique("quarantine")
    await make_stream(place)
    keys, agent = slow_agent(world, 0, shared=False, max_hold=0.0, mode=mode)
    client = await world.client(agent, quarantine=NatsQuarantine(place, watchword=agent))
    keys.held = asyncio.Event()
    got: list[bytes] = []

    async def handle(msg: Msg) -> None:
        got.append(msg.data)

    unknown, planner = await stranger(world, 1), await world.client(world.agent(PLANNER))
    await client.jetstream().subscribe(subject, ordered_consumer=True, cb=handle)
    for number in range(6):
        await unknown.jetstream().publish(subject, b"strange %d" % number)
    await planner.jetstream().publish(subject, b"honest")
    await until(lambda: b"honest" in got)
    assert client.watchword.audit.counts["undetermined"] == (3 if mode is Mode.ENFORCE else 0)
    keys.held.set()


async def test_an_end_is_an_end(world: World, make_stream: MakeStream) -> None:
    """A subscription that is closed waits for no keys any more."""
    subject = await published(world, make_stream)
    client = await world.client(world.agent(CLOUD, shared=False))
    world.keys.down = True
    subscription = await client.jetstream().subscribe(subject, ordered_consumer=True)
    with pytest.raises(NatsTimeoutError):
        await subscription.next_msg(timeout=0.2)
    await subscription.unsubscribe()
    tried = client.watchword.audit.counts["unavailable"]
    await asyncio.sleep(0.3)
    assert client.watchword.audit.counts["unavailable"] <= tried + 1
