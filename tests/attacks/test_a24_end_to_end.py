"""A24 from end to end: a valid agent goes bad at machine speed, and an operator stops it while everything runs."""

import time
from collections.abc import Callable
from pathlib import Path

import nats
import pytest

from benchmarks.trust.world import PATIENCE, PLANNER, Member, World, ends, flows
from tests.brokers.broker import Broker
from tests.support.broker_tools import admin_of, delete_topics

RATE = 50


def policy(tasks: str, bus: str) -> str:
    """Return rules by which the planner may give 50 tasks a second, and no orders; what it does counts from 1 s on."""
    return f"""
[policy]
max_skew = "1s"
[[policy.allow]]
principal = "agent://acme/*"
channels = ["{bus}://prod/{tasks}"]
rate = "{RATE}/s"
min_trust = 0.5
"""


@pytest.fixture(
    params=[
        pytest.param("nats", marks=pytest.mark.broker),
        pytest.param("kafka", marks=[pytest.mark.broker, pytest.mark.needs_kafka("topic_ids")]),
    ]
)
def broker(request: pytest.FixtureRequest) -> Broker:
    """Give a broker of each bus."""
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    return found


async def cut_short(world: World) -> None:
    """Take the control log away, and put an empty one in its place: the broker's owner can."""
    if world.bus == "nats":
        client = await nats.connect(world.address)
        await client.jetstream().delete_stream(world.control.replace(".", "-"))
        await client.close()
    else:
        async with admin_of(world.address) as admin:
            await delete_topics(admin, world.control)
    await world.types("control", "init")


async def grows(readers: list[Member], reason: str, by: int) -> None:
    """Wait until each reader has rejected so many more for a reason."""
    for reader in readers:
        before = (counts := await reader.counts()).get(reason, 0)
        end = time.monotonic() + PATIENCE
        while counts.get(reason, 0) < before + by:
            assert time.monotonic() < end, f"{reader.name}: {reason}: {before}, and still {counts}"
            counts = await reader.counts()


async def is_distrusted(readers: list[Member]) -> None:
    """Wait until each reader trusts the planner less."""
    end = time.monotonic() + PATIENCE
    for reader in readers:
        while (score := await reader.trust(PLANNER)) >= 0.9:
            assert time.monotonic() < end, f"{reader.name} trusts it {score}"


async def test_a24_a_valid_agent_goes_bad(broker: Broker, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Limited at once, distrusted for what it alone can have done, contained within a second, and it stays so."""
    bus, name = broker.bus, unique("a24")
    async with World.on(tmp_path, bus, broker.address, name, policy(f"{name}.tasks", bus)) as world:
        await world.give("planner")
        readers = await world.readers()
        agent = await world.member("agent", "planner", world.tasks, 20.0)
        await flows(readers, PLANNER)
        assert [await reader.trust(PLANNER) for reader in readers] == [1.0] * 3
        await agent.end()

        fast = await world.member("agent", "planner", world.tasks, 250.0)
        await grows(readers, "rate_limited", 300)
        astray = await world.member("agent", "planner", world.orders, 50.0)
        await grows(readers, "not_permitted", 20)
        await is_distrusted(readers)

        await world.types("contain", PLANNER, "--why", "INC-24")
        assert await ends(readers, PLANNER) < 1.0
        await grows(readers, "contained", 20)

        await readers[0].end()
        again = [await world.member("reader", "reader-1", f"{world.tasks},{world.orders}"), *readers[1:]]
        await grows(again, "contained", 20)
        await cut_short(world)
        await again[1].end()
        again[1] = await world.member("reader", "reader-2", f"{world.tasks},{world.orders}")
        await grows(again, "contained", 20)
        assert not any(reader.delivered(PLANNER) for reader in again[:2])
        assert await ends(again, PLANNER) == 0.0
        await astray.end()
        await fast.end()
