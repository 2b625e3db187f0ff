"""A21, A38 on a real server: a key source that takes its time holds up nobody whose key is known, and no caller."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError

from tests.brokers.plugin import MakeStream
from tests.integration.nats.slow_keys import slow, stranger
from tests.integration.nats.world import PLANNER, World, soon, until
from watchword import Mode, Reason

Unique = Callable[[str], str]


@pytest.mark.parametrize("way", ["callback", "next_msg", "fetch"])
async def test_a21_invented_keys_hold_up_no_honest_message(
    world: World, unique: Unique, make_stream: MakeStream, way: str
) -> None:
    """While the keys of strangers are being looked for, messages under known keys are handed over."""
    subject = unique("a21") if way != "fetch" else f"{await make_stream()}.task"
    keys, client = await slow(world, 0.1)
    keys.held = asyncio.Event()
    got: list[bytes] = []

    async def take(msg: Msg) -> None:
        got.append(msg.data)

    if way == "fetch":
        subscription: Any = await client.jetstream().pull_subscribe(subject, durable="worker")
    else:
        subscription = await client.subscribe(subject, cb=take if way == "callback" else None)
    await client.flush()
    strangers = [await stranger(world, number) for number in range(4)]
    planner = await world.client(world.agent(PLANNER))
    asyncio.get_running_loop().call_later(0.3, keys.held.set)  # the first one is waited for: nobody knows better yet
    await strangers[0].publish(subject, b"strange")
    await strangers[0].flush()
    if way != "callback":
        with pytest.raises(NatsTimeoutError):
            await (subscription.fetch(1, timeout=1) if way == "fetch" else subscription.next_msg(timeout=1))
    await until(lambda: keys.held is not None and keys.held.is_set())
    keys.held = asyncio.Event()
    for number in range(12):
        await strangers[number % 4].publish(subject, b"strange")
        await strangers[number % 4].flush()
        await planner.publish(subject, b"%d" % number)
        await planner.flush()
    while len(got) < 12:
        if way == "fetch":
            fetched = await soon(subscription.fetch(5, timeout=15))
            got += [msg.data for msg in fetched]
            for msg in fetched:
                await msg.ack()
        elif way == "next_msg":
            got.append((await soon(subscription.next_msg(timeout=None))).data)
        else:
            await asyncio.sleep(0.005)
    assert got == [b"%d" % number for number in range(12)]
    keys.held.set()
    counts = client.watchword.audit.counts
    if way == "callback":
        await until(lambda: counts[Reason.UNKNOWN_KEY] == 13)
        assert counts["unavailable"] == 0


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_a38_what_waits_for_its_key_is_handed_over_in_order(world: World, unique: Unique, mode: Mode) -> None:
    """A key that takes its time costs nothing: its messages come once it is found, in their order."""
    subject, (keys, client) = unique("a38"), await slow(world, 0.1, mode=mode)
    keys.slow = {PLANNER}
    planner, got = await world.client(world.agent(PLANNER)), []

    async def take(msg: Msg) -> None:
        got.append(msg.data)

    subscription = await client.subscribe(subject, cb=take)
    await client.flush()
    for number in range(30):
        await planner.publish(subject, b"%d" % number)
        if number % 10 == 0:
            await planner.flush()
    await planner.flush()
    await until(lambda: len(got) == 30)
    assert got == [b"%d" % number for number in range(30)]
    assert client.watchword.audit.counts == {"delivered": 30}
    for number in range(3):
        await planner.publish(subject, b"last %d" % number)
    await planner.flush()
    await client.flush()
    await soon(subscription.drain())  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
    assert got[30:] == [b"last 0", b"last 1", b"last 2"], "draining waits for what waits for its key"


@pytest.mark.parametrize("way", ["next_msg", "fetch", "request"])
async def test_a21_a_time_out_holds_while_keys_are_looked_for(
    world: World, unique: Unique, make_stream: MakeStream, way: str
) -> None:
    """A caller who says how long it waits gets its answer in time, and the message with the next call."""
    subject = unique("a21") if way != "fetch" else f"{await make_stream()}.task"
    keys, client = await slow(world, 0.1)
    keys.slow, keys.held = {PLANNER}, asyncio.Event()
    planner = await world.client(world.agent(PLANNER))
    if way == "request":

        async def answer(msg: Msg) -> None:
            await msg.respond(b"answer")

        await planner.subscribe(subject, cb=answer)
        await planner.flush()
        with pytest.raises(NatsTimeoutError):
            await soon(client.request(subject, b"?", timeout=0.2))
        keys.held.set()
        assert (await client.request(subject, b"?", timeout=10)).data == b"answer"
        return
    if way == "fetch":
        subscription: Any = await client.jetstream().pull_subscribe(subject, durable="worker")
    else:
        subscription = await client.subscribe(subject)
    await client.flush()
    await planner.publish(subject, b"x")
    await planner.flush()
    for _ in range(2):
        with pytest.raises(NatsTimeoutError):
            await soon(subscription.fetch(1, timeout=0.2) if way == "fetch" else subscription.next_msg(timeout=0.2))
    keys.held.set()
    if way == "fetch":
        (msg,) = await soon(subscription.fetch(1, timeout=10))
    else:
        msg = await soon(subscription.next_msg(timeout=10))
    assert msg.data == b"x"
    assert client.watchword.audit.counts == {"delivered": 1}


@pytest.mark.parametrize("stored", [True, False])
async def test_a38_a_source_that_never_answers_silences_nobody(
    world: World, unique: Unique, make_stream: MakeStream, *, stored: bool
) -> None:
    """One message under an invented key, of which the source never says anything, holds up no other message."""
    subject = f"{await make_stream()}.task" if stored else unique("a38")
    keys, client = await slow(world, 0.1)
    keys.held = asyncio.Event()
    got: list[bytes] = []

    async def take(msg: Msg) -> None:
        got.append(msg.data)

    await (client.jetstream() if stored else client).subscribe(subject, cb=take)
    await client.flush()
    strange, planner = await stranger(world, 0), await world.client(world.agent(PLANNER))
    await strange.publish(subject, b"strange")
    await strange.flush()
    for number in range(5):
        await planner.publish(subject, b"%d" % number)
    await until(lambda: len(got) == 5)
    assert got == [b"0", b"1", b"2", b"3", b"4"]
