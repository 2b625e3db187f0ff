"""A connection that is lost, or closed and made again, changes nothing about what a client can do."""

import asyncio
from collections.abc import Callable

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, until

Unique = Callable[[str], str]


async def test_a_client_that_was_closed_and_connected_again_asks_as_before(
    world: World, unique: Unique, make_stream: MakeStream
) -> None:
    """Requests, answers and acknowledgements of streams come in on the second connection as on the first."""
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    subject, stream = unique("core"), await make_stream()

    async def answer(msg: Msg) -> None:
        await msg.respond(b"done")

    for number in (1, 2, 3):
        with pytest.raises(NoRespondersError):
            await planner.request(unique("missing"), timeout=10)
        await cloud.subscribe(subject, cb=answer)
        await cloud.flush()
        assert (await planner.request(subject, b"x", timeout=10)).data == b"done"
        assert (await planner.jetstream().publish(f"{stream}.task", b"x", timeout=10)).seq == number
        for client in (cloud, planner):
            await client.close()
            await client.connect(world.url)


@pytest.mark.parametrize("rounds", range(5))
async def test_a_subscription_hears_at_once_on_the_next_connection(world: World, unique: Unique, rounds: int) -> None:
    """A connection that is lost while a subscription begins delays nothing beyond the next one."""
    cloud = await world.client(world.agent(CLOUD), reconnect_time_wait=0.01)
    planner, subject = await world.client(world.agent(PLANNER)), unique("core")

    async def answer(msg: Msg) -> None:
        await msg.respond(b"done")

    await cloud.subscribe(subject, cb=answer)
    for _ in range(rounds):
        await asyncio.sleep(0)
    await cloud.force_reconnect()
    await until(lambda: cloud.is_connected and cloud.stats["reconnects"] == 1)
    await cloud.flush()
    assert (await planner.request(subject, b"x", timeout=1.5)).data == b"done"
