"""What a server sends faster than a callback handles it."""

import asyncio

import pytest
from nats.aio.msg import Msg

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, until, verified
from watchword import Reason


@pytest.mark.parametrize("stored", [True, False])
async def test_callbacks_get_what_waits_in_its_order(world: World, make_stream: MakeStream, *, stored: bool) -> None:
    """Hundreds of messages that come faster than they are handled are each handed over once, and drained."""
    subject, guard = f"{await make_stream()}.task", world.agent(CLOUD, shared=not stored)
    planner, cloud = await world.client(world.agent(PLANNER)), await world.client(guard)
    payloads, got, copies = [b"%d" % number for number in range(400)], list[bytes](), await world.plain(no_echo=True)

    async def handler(msg: Msg) -> None:
        await asyncio.sleep(0.0005)
        got.append(verified(msg).data)

    async def replay(msg: Msg) -> None:
        if msg.data.endswith(b"7"):
            await copies.publish(subject, msg.data, headers=msg.headers)

    await copies.subscribe(subject, cb=replay)
    await copies.flush()
    reading = cloud.jetstream(sole_reader=True) if stored else cloud
    subscription = await reading.subscribe(subject, cb=handler)
    await cloud.flush()
    for payload in payloads:
        await planner.publish(subject, payload)
    await planner.flush()
    await until(lambda: guard.audit.counts[Reason.REPLAYED] == 40)
    await soon(subscription.drain())  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
    assert got == payloads
    assert guard.audit.counts == {"delivered": 400, Reason.REPLAYED: 40}
