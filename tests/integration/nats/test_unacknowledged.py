"""Consumers that wait for no acknowledgement: what could not be judged is judged again in its turn (A38)."""

import asyncio
from collections.abc import Callable

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, until
from watchword_adapters.nats import NatsQuarantine

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
