"""A43, A46 on a real server: consumers of streams that are recreated, set back, shared in a process, or cut off."""

import asyncio
import time
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from tests.attacks.nats.test_a14_restarts import Stage, stage, taken
from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import MALLORY, PLANNER, World, block, second_begins, soon, until
from tests.support.patience import PATIENCE
from watchword import Mode, Reason, Unavailable, VerifiedMessage
from watchword_adapters.nats import VerifyingJetStream, jetstream_rebuild
from watchword_adapters.nats._seam import asked

WAYS = ["ephemeral pull", "ephemeral push", "ordered", "durable recreated"]


async def begun(set_up: Stage, js: VerifyingJetStream, way: str) -> Any:
    """Subscribe in one of the ways in which a consumer has no past of its own."""
    match way:
        case "ephemeral pull":
            return await js.pull_subscribe(set_up.subject)
        case "ephemeral push":
            return await js.subscribe(set_up.subject)
        case "ordered":
            return await js.subscribe(set_up.subject, ordered_consumer=True)
        case _:
            if [one for one in await set_up.attacker.jetstream().consumers_info(set_up.stream) if one.name == "worker"]:
                await set_up.attacker.jetstream().delete_consumer(set_up.stream, "worker")
            return await set_up.pull(js)


async def got(subscription: Any, count: int) -> list[bytes]:
    """Take messages, however they come."""
    found: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            if hasattr(subscription, "fetch"):
                some = await subscription.fetch(1, timeout=15)
            else:
                some = [await subscription.next_msg(timeout=15)]
            found += [msg.data for msg in some]
            for msg in some:
                if subscription._sub._jsi is None or not subscription._sub._jsi._ordered:
                    await msg.ack()
    return found


@pytest.mark.parametrize("how", ["purge", "limits", "flood", "delete"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("again", ["restart", "resubscribe"])
async def test_a43_the_original_is_gone(world: World, make_stream: MakeStream, way: str, how: str, again: str) -> None:
    """Whatever took an original out of the stream, its copy is not new to a consumer that begins after that."""
    set_up = await stage(world, make_stream, **({"max_msgs": 3} if how in {"limits", "flood"} else {}))
    guard, js = await set_up.reader(max_skew=0.5)
    subscription = await begun(set_up, js, way)
    await set_up.say(b"scale up")
    assert await got(subscription, 1) == [b"scale up"]
    raw = await set_up.attacker.jetstream().get_msg(set_up.stream, 1)
    headers = {name: value for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
    await subscription.unsubscribe()
    if how == "purge":
        await set_up.attacker.jetstream().purge_stream(set_up.stream)
    elif how == "delete":
        await set_up.say(b"between")
        await set_up.attacker.jetstream().delete_msg(set_up.stream, 1)
    else:
        for _ in range(3):
            await (
                set_up.say(b"more") if how == "limits" else set_up.attacker.jetstream().publish(set_up.subject, b"junk")
            )
    if again == "restart":
        guard, js = await set_up.reader(max_skew=0.5)
    subscription = await begun(set_up, js, way)
    await set_up.attacker.jetstream().publish(set_up.subject, raw.data or b"", headers=headers)
    await second_begins()
    await second_begins()
    await set_up.say(b"end")
    found: list[bytes] = []
    while b"end" not in found:
        found += await got(subscription, 1)
    assert b"scale up" not in found
    assert guard.audit.counts[Reason.STALE] + guard.audit.counts[Reason.REPLAYED] >= 1


@pytest.mark.parametrize(
    ("way", "how", "begun_with"),
    [
        (way, how, begun_with)
        for way in ("ephemeral pull", "durable recreated", "durable reset")
        for how in ("purge", "limits", "delete")
        for begun_with in (0, 1)
    ]
    + [("ephemeral push", "limits", 0), ("ephemeral push", "delete", 0)],
)
async def test_a43_the_original_goes_before_its_turn_comes_again(
    world: World, make_stream: MakeStream, way: str, how: str, begun_with: int
) -> None:
    """A reader that works off what an earlier one was given notices what the stream loses before it gets there."""
    set_up = await stage(world, make_stream)

    async def subscribed(js: VerifyingJetStream) -> Any:
        if way == "ephemeral push":
            one_at_a_time = ConsumerConfig(max_ack_pending=1)
            return await js.subscribe(set_up.subject, config=one_at_a_time, manual_ack=True)
        return await set_up.pull(js) if way == "durable reset" else await begun(set_up, js, way)

    _, js = await set_up.reader(max_skew=0.5)
    subscription = await subscribed(js)
    await set_up.say(b"first", b"scale up", b"last")
    assert await got(subscription, 3) == [b"first", b"scale up", b"last"]
    await subscription.unsubscribe()
    await set_up.replay(2)
    manager = set_up.attacker.jetstream()
    if way == "durable reset":
        await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    guard, js = await set_up.reader(max_skew=0.5)
    subscription = await subscribed(js)
    if begun_with:
        assert await got(subscription, 1) == [b"first"]
    if how == "purge":
        await manager.purge_stream(set_up.stream, seq=4)
    elif how == "delete":
        await manager.delete_msg(set_up.stream, 2)
    else:
        config = (await manager.stream_info(set_up.stream)).config
        await manager.update_stream(config.evolve(max_msgs=1))

    async def all_until_the_end() -> list[bytes]:
        found: list[bytes] = []
        while b"end" not in found:
            found += await got(subscription, 1)
        return found

    reading = asyncio.create_task(all_until_the_end())
    await until(lambda: guard.audit.counts[Reason.STALE] >= 1)
    await second_begins()
    await second_begins()
    await set_up.say(b"end")
    assert b"scale up" not in await soon(reading)
    assert guard.audit.events["replay.cut"] == 1


async def test_a46_others_messages_in_a_backlog_cost_nothing(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gaps in what a filter lets through are looked into together, and nothing is stale where nothing has gone."""
    set_up, questions = await stage(world, make_stream), list[str]()

    async def counting(jsm: Any, what: str, question: dict[str, Any]) -> dict[str, Any]:
        questions.append(what)
        return await asked(jsm, what, question)

    monkeypatch.setattr(jetstream_rebuild, "asked", counting)
    values = [b"%d" % number for number in range(30)]
    for value in values:
        await set_up.say(value)
        await set_up.attacker.jetstream().publish(f"{set_up.stream}.other", b"")
    guard, js = await set_up.reader()
    subscription = await begun(set_up, js, "ephemeral pull")
    questions.clear()
    assert await got(subscription, 5) == values[:5]
    fetched = await subscription.fetch(25, timeout=15)
    assert [msg.data for msg in fetched] == values[5:]
    assert guard.audit.counts == {"delivered": 30}
    assert len(questions) <= 6  # one for each fetch, at most


async def test_a46_a_consumer_of_a_stream_that_lost_nothing_has_no_floor(world: World, make_stream: MakeStream) -> None:
    """The first consumer of a stream, and one made later, are given all that the stream ever held."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1", b"2")
    for way in WAYS:
        guard, js = await set_up.reader()
        assert await got(await begun(set_up, js, way), 2) == [b"1", b"2"]
        assert guard.audit.counts == {"delivered": 2}


async def test_a46_an_emptied_stream_costs_no_more_than_the_skew(world: World, make_stream: MakeStream) -> None:
    """A stream that was emptied long ago loses nothing at a restart, and is not taken for emptied just now."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"1")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 1) == [b"1"]
    await set_up.attacker.jetstream().purge_stream(set_up.stream)
    await asyncio.sleep(2.1)
    guard, js = await set_up.reader(max_skew=1.0)
    subscription = await set_up.pull(js)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    assert guard.audit.counts == {"delivered": 1}


async def test_a43_two_subscriptions_of_one_durable(world: World, make_stream: MakeStream) -> None:
    """What either of them was given is known to both, though two clients of this process hold them."""
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader()
    other = (await world.client(guard)).jetstream(sole_reader=True)
    both = [await set_up.pull(js), await set_up.pull(other)]
    for number in range(20):
        await set_up.say(b"%d" % number)
        assert await taken(both[number % 2], 1) == [b"%d" % number]
    await set_up.replay(*range(1, 21))
    await set_up.say(b"end")
    found: list[bytes] = []
    turn = 0
    while b"end" not in found:
        turn += 1
        try:
            found += await taken_once(both[turn % 2])
        except TimeoutError:
            continue
    assert found == [b"end"]
    assert guard.audit.counts[Reason.REPLAYED] == 20


async def test_a17_a_copy_that_comes_first_at_another_subscription_takes_nothing(
    world: World, make_stream: MakeStream
) -> None:
    """While one subscription waits for a key, a copy at another one is a replay; the original comes again as ever."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"scale up")
    await set_up.replay(1)
    guard, js = await set_up.reader()
    slow, quick = [await set_up.pull(js, ack_wait=3) for _ in range(2)]
    world.keys.question.clear()
    held = world.keys.gate = asyncio.Event()
    fetching = asyncio.create_task(slow.fetch(1, timeout=10))  # the original, while the key source is slow
    await soon(world.keys.question.wait())
    world.keys.gate = asyncio.Event()
    world.keys.gate.set()
    with pytest.raises(TimeoutError):
        await quick.fetch(1, timeout=1)
    held.set()
    assert [msg.data for msg in await fetching] == [b"scale up"]  # and no ack
    await until(lambda: guard.audit.counts[Reason.REPLAYED] == 1)
    assert guard.audit.counts["delivered"] == 1
    await js._nc.close()
    _, js = await set_up.reader()
    assert await soon(taken(await set_up.pull(js, ack_wait=3), 1)) == [b"scale up"]


async def taken_once(subscription: Any) -> list[bytes]:
    """Fetch once."""
    fetched = await subscription.fetch(10, timeout=1)
    for msg in fetched:
        await msg.ack()
    return [msg.data for msg in fetched]


@pytest.mark.parametrize(
    ("how", "acks"),
    [("recreated", AckPolicy.EXPLICIT), ("reset", AckPolicy.EXPLICIT), ("reset", AckPolicy.NONE)],
)
async def test_a43_a_durable_that_is_set_back_under_a_live_reader(
    world: World, make_stream: MakeStream, how: str, acks: AckPolicy
) -> None:
    """It delivers again what it had delivered; nothing of that is stale, and a copy is still a replay.

    So it is where nothing is waited for, and the server takes all that it has delivered for acknowledged.
    """
    set_up, ack = await stage(world, make_stream), acks is not AckPolicy.NONE
    guard, js = await set_up.reader(max_age=1.0, max_skew=0.5)
    subscription = await set_up.pull(js, ack_policy=acks)
    await set_up.say(b"1", b"2")
    assert await taken(subscription, 2, ack=ack) == [b"1", b"2"]
    await asyncio.sleep(3)
    await set_up.say(b"3")
    await set_up.replay(3)
    assert await taken(subscription, 1, ack=ack) == [b"3"]  # by now log time has passed the first two
    manager = set_up.attacker.jetstream()
    if how == "recreated":
        await manager.delete_consumer(set_up.stream, "worker")
        await manager.add_consumer(
            set_up.stream,
            ConsumerConfig(durable_name="worker", filter_subject=set_up.subject, ack_policy=AckPolicy.EXPLICIT),
        )
    else:
        await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    assert await taken(subscription, 3, ack=ack) == [b"1", b"2", b"3"]
    assert guard.audit.counts[Reason.STALE] == 0
    await set_up.say(b"end")
    assert await taken(subscription, 1, ack=ack) == [b"end"]
    assert guard.audit.counts[Reason.REPLAYED] >= 1


@pytest.mark.parametrize("by", ["publishing", "the last attempt"])
async def test_a20_ids_of_what_does_not_come_again_age(world: World, make_stream: MakeStream, by: str) -> None:
    """What was acknowledged by a bare publish, or is never offered again, is pinned no longer."""
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader()
    subscription = await set_up.pull(js, **({"max_deliver": 1} if by == "the last attempt" else {}))
    await set_up.say(*[b"x"] * 5)
    fetched = await subscription.fetch(5, timeout=10)
    assert len(fetched) == 5
    if by == "publishing":
        for msg, payload in zip(fetched, [b"+ACK", b"", b"+TERM done", b"+ACK", b"+ACK"], strict=True):
            await js._client.publish(msg.reply, payload)
    store: Any = guard.verifier.replay
    await until(lambda: not any(log.pins.by_key for log in store._logs.values()))


async def test_a46_a_hole_in_what_was_not_delivered_costs_nothing(world: World, make_stream: MakeStream) -> None:
    """What is deleted behind a consumer's position hides no original: the backlog around it is delivered."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"0")
    _, js = await set_up.reader()
    assert await taken(await set_up.pull(js), 1) == [b"0"]
    values = [b"%d" % number for number in range(1, 9)]
    await set_up.say(*values)
    await set_up.attacker.jetstream().delete_msg(set_up.stream, 5)
    guard, js = await set_up.reader()
    expected = [value for value in values if value != b"4"]
    assert await taken(await set_up.pull(js), 7) == expected
    assert guard.audit.counts == {"delivered": 7}


async def test_a46_deliver_policy_new_begins_at_the_end(world: World, make_stream: MakeStream) -> None:
    """A consumer that asks for what is new gets it at once, however long the stream is."""
    set_up = await stage(world, make_stream)
    await set_up.say(b"old")
    guard, js = await set_up.reader()
    push = await js.subscribe(set_up.subject, deliver_policy=DeliverPolicy.NEW)
    await set_up.say(b"new")
    assert (await push.next_msg(timeout=10)).data == b"new"
    assert guard.audit.counts == {"delivered": 1}


async def test_a43_a_copy_that_is_judged_before_its_original(world: World, make_stream: MakeStream) -> None:
    """It is no first sight: a delivery was lost on its way, and what stands before the copy is read first.

    Else a restarted process, which reads the stream in its order, would deliver the original too.
    """
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader()
    subscription = await set_up.pull(js, ack_wait=2)
    await set_up.say(b"1")
    following = f"$JS.API.CONSUMER.MSG.NEXT.{set_up.stream}.worker"
    lost = await set_up.attacker.request(following, b"1", timeout=5, old_style=True)
    assert lost.data == b"1"
    await set_up.replay(1)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    assert guard.audit.counts == {"delivered": 1, Reason.REPLAYED: 1}
    _, js = await set_up.reader()
    again = await set_up.pull(js)
    await set_up.say(b"3")
    assert sorted(await taken(again, 2)) == [b"1", b"3"]


async def test_a43_an_ordered_consumer_that_is_made_anew_keeps_its_memory(
    world: World, make_stream: MakeStream
) -> None:
    """When deliveries were lost it continues behind the last one; a copy of what came before that is a replay."""
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader()
    push = await js.subscribe(set_up.subject, ordered_consumer=True)
    await set_up.say(b"1", b"2")
    assert await got(push, 2) == [b"1", b"2"]
    first, state = (await push.consumer_info()).name, push._sub._jsi
    assert state is not None
    state._dseq = 99  # as if deliveries had been dropped on the way
    await set_up.replay(1, 2)
    await set_up.say(b"3")
    assert await got(push, 1) == [b"3"]
    assert (await push.consumer_info()).name != first
    assert guard.audit.counts == {"delivered": 3, Reason.REPLAYED: 2}


@pytest.mark.parametrize("most", [jetstream_rebuild.MOST_DELETED, 0])
@pytest.mark.parametrize("way", WAYS)
async def test_a43_the_original_is_gone_from_the_middle(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch, way: str, most: int
) -> None:
    """What was issued before a deleted message is stale where that stood; where too many are deleted, everything is."""
    monkeypatch.setattr(jetstream_rebuild, "MOST_DELETED", most)
    set_up = await stage(world, make_stream)
    _, js = await set_up.reader(max_skew=0.5)
    subscription = await begun(set_up, js, way)
    await set_up.say(b"before", b"scale up", b"behind")
    assert await got(subscription, 3) == [b"before", b"scale up", b"behind"]
    await subscription.unsubscribe()
    raw = await set_up.attacker.jetstream().get_msg(set_up.stream, 2)
    headers = {name: value for name, value in (raw.headers or {}).items() if name != "Nats-Msg-Id"}
    await set_up.attacker.jetstream().delete_msg(set_up.stream, 2)
    guard, js = await set_up.reader(max_skew=0.5)
    subscription = await begun(set_up, js, way)
    await set_up.attacker.jetstream().publish(set_up.subject, raw.data or b"", headers=headers)
    await second_begins()
    await second_begins()
    await set_up.say(b"end")
    found: list[bytes] = []
    while b"end" not in found:
        found += await got(subscription, 1)
    assert b"scale up" not in found
    assert guard.audit.counts[Reason.STALE] >= 1


async def test_a35_a_stream_that_cannot_be_read_again_for_a_while(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is judged meanwhile and nothing is lost; a subscription that could not even look is refused."""
    monkeypatch.setattr(jetstream_rebuild, "FIRST_DELAY", 0.01)
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader(max_age=1.0, max_skew=0.5)
    subscription = await set_up.pull(js)
    await set_up.say(b"1")
    assert await taken(subscription, 1) == [b"1"]
    await asyncio.sleep(3)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    look, failures, warned = jetstream_rebuild.StreamMemory._look, [NatsError("away"), TimeoutError()], list[str]()

    async def failing(self: jetstream_rebuild.StreamMemory) -> Any:
        if failures:
            raise failures.pop()
        return await look(self)

    monkeypatch.setattr(jetstream_rebuild.StreamMemory, "_look", failing)
    guard.audit.warn = lambda event, **_: warned.append(event)  # type: ignore[method-assign]  # to listen
    await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    assert await taken(subscription, 2) == [b"1", b"2"]
    assert warned.count("replay.unreadable") == 2
    failures.append(TimeoutError())
    with pytest.raises(Unavailable, match="cannot be reread"):
        await js.subscribe(set_up.subject)


@pytest.mark.parametrize("style", ["fetch", "callback"])
async def test_a35_a_consumer_that_is_gone_ends_the_wait_for_it(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """What only its memory could judge is not judged; the subscription hears of it as nats-py reports it."""
    monkeypatch.setattr(jetstream_rebuild, "FIRST_DELAY", 0.01)
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader(max_age=1.0, max_skew=0.5, max_hold=0.5)
    found, errors, warned = list[bytes](), list[Exception](), list[tuple[str, Any]]()

    async def take(msg: Msg) -> None:
        found.append(msg.data)
        await msg.ack()

    async def fail(error: Exception) -> None:
        errors.append(error)

    if style == "callback":
        js._client._error_cb = fail
        await js.subscribe(set_up.subject, durable="worker", cb=take)
    else:
        subscription = await set_up.pull(js)
    for value in (b"1", b"2"):
        await set_up.say(value)
        if style == "callback":
            await until(lambda: value in found)  # noqa: B023 - it ends in this turn
        else:
            assert await taken(subscription, 1) == [value]
        await asyncio.sleep(3)
    look, manager = jetstream_rebuild.StreamMemory._look, set_up.attacker.jetstream()

    async def too_late(self: jetstream_rebuild.StreamMemory) -> Any:
        if await manager.consumers_info(set_up.stream):
            await manager.delete_consumer(set_up.stream, "worker")
        return await look(self)

    monkeypatch.setattr(jetstream_rebuild.StreamMemory, "_look", too_late)
    guard.audit.warn = lambda event, **fields: warned.append((event, fields))  # type: ignore[method-assign]  # to listen
    await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    if style == "callback":
        await until(lambda: len(found) == 3)  # what the memory can judge still is
        assert ([type(error) for error in errors], found) == ([NotFoundError], [b"1", b"2", b"2"])
    else:
        with pytest.raises(NotFoundError):
            await soon(subscription.fetch(10, timeout=None))
    told = [fields for event, fields in warned if event == "replay.consumer_gone"]
    assert [fields["remedy"] for fields in told] == ["subscribe again, to an existing consumer"]
    assert guard.audit.counts[Reason.STALE] == 0


async def test_a35_nothing_is_read_again_by_a_client_that_has_closed(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for its memory hears that, and does not ask forever."""
    set_up = await stage(world, make_stream)
    _, js = await set_up.reader(max_age=1.0, max_skew=0.5)
    subscription = await set_up.pull(js)
    await set_up.say(b"1")
    assert await taken(subscription, 1) == [b"1"]
    await asyncio.sleep(3)
    await set_up.say(b"2")
    assert await taken(subscription, 1) == [b"2"]
    look = jetstream_rebuild.StreamMemory._look

    async def closing(self: jetstream_rebuild.StreamMemory) -> Any:
        await js._client.close()
        return await look(self)

    monkeypatch.setattr(jetstream_rebuild.StreamMemory, "_look", closing)
    await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    with pytest.raises(ConnectionClosedError):
        await soon(subscription.fetch(10, timeout=None))


@pytest.mark.parametrize("style", ["pull", "push"])
async def test_a43_a_durable_that_is_set_back_under_an_observer(
    world: World, make_stream: MakeStream, style: str
) -> None:
    """What it delivers again is verified in observe mode too."""
    set_up = await stage(world, make_stream)
    _, js = await set_up.reader(mode=Mode.OBSERVE, max_age=1.0, max_skew=0.5)
    if style == "pull":
        subscription: Any = await set_up.pull(js)
    else:
        subscription = await js.subscribe(set_up.subject, durable="worker")
    await set_up.say(b"1")
    assert await got(subscription, 1) == [b"1"]
    await asyncio.sleep(3)
    await set_up.say(b"2")
    assert await got(subscription, 1) == [b"2"]
    await set_up.attacker.request(f"$JS.API.CONSUMER.RESET.{set_up.stream}.worker", b'{"seq":1}', timeout=5)
    again = (await subscription.fetch(1, timeout=15))[0] if style == "pull" else await subscription.next_msg(timeout=15)
    assert again.data == b"1"
    assert isinstance(again.verdict, VerifiedMessage)


async def widened(set_up: Stage, *subjects: str) -> None:
    """Let the durable read these subjects from now on, as an operator may while it runs."""
    js = set_up.attacker.jetstream()
    config = (await js.consumer_info(set_up.stream, "worker")).config
    await js.add_consumer(set_up.stream, config.evolve(filter_subject=None, filter_subjects=list(subjects)))


@pytest.mark.parametrize(
    ("way", "again"),
    [(way, again) for way in ("pull", "push") for again in ("running", "resubscribed", "restarted")]
    + [("pull", "second")],
)
async def test_a43_a_filter_that_is_widened(world: World, make_stream: MakeStream, way: str, again: str) -> None:
    """What a durable was given on a subject that it then left out for a time is a replay when it reads that again."""
    set_up = await stage(world, make_stream)
    other = f"{set_up.stream}.other"

    async def bound(js: VerifyingJetStream) -> Any:
        if way == "pull":
            return await js.pull_subscribe_bind("worker", set_up.stream)
        return await js.subscribe(other, durable="worker", stream=set_up.stream, manual_ack=True)

    config = ConsumerConfig(
        durable_name="worker", filter_subjects=[set_up.subject, other], ack_policy=AckPolicy.EXPLICIT
    )
    if way == "push":
        config.deliver_subject = f"deliver.{set_up.stream}"
    await set_up.attacker.jetstream().add_consumer(set_up.stream, config)
    _, js = await set_up.reader()
    subscription = await bound(js)
    await set_up.say(b"scale up")
    assert await got(subscription, 1) == [b"scale up"]
    await subscription.unsubscribe()
    await widened(set_up, other)
    guard, js = await set_up.reader()
    subscription = await bound(js)
    speak = (await world.client(world.agent(PLANNER))).jetstream()
    await speak.publish(other, b"other")
    assert await got(subscription, 1) == [b"other"]
    if again == "resubscribed":
        await subscription.unsubscribe()
    await widened(set_up, other, set_up.subject)
    match again:
        case "resubscribed":
            subscription = await bound(js)
        case "second":
            subscription = await bound((await world.client(guard)).jetstream(sole_reader=True))
        case "restarted":
            await subscription.unsubscribe()
            guard, js = await set_up.reader()
            subscription = await bound(js)
    await set_up.replay(1)
    await set_up.say(b"new")
    await speak.publish(other, b"end")
    assert await got(subscription, 2) == [b"new", b"end"]
    assert guard.audit.counts[Reason.REPLAYED] == 1


async def test_a43_what_is_first_after_a_filter_was_widened_is_no_redelivery(
    world: World, make_stream: MakeStream
) -> None:
    """The stream is read again, no message is marked as redelivered, and the widened filter is noted only once."""
    set_up = await stage(world, make_stream)
    guard, js = await set_up.reader()
    noted: list[str] = []
    guard.audit.note = lambda event, **_: noted.append(event)  # type: ignore[method-assign]  # a tap
    await set_up.say(b"before")
    other = f"{set_up.stream}.other"
    subscription = await js.pull_subscribe(other, durable="worker")
    await widened(set_up, f"{set_up.stream}.>")
    await set_up.say(b"1", b"2", b"3")
    msgs = await soon(subscription.fetch(4, timeout=5))
    assert [(msg.data, msg.verified.redelivered) for msg in msgs] == [
        (value, False) for value in (b"before", b"1", b"2", b"3")
    ]
    assert noted.count("replay.widened") == 1


async def test_a27_what_is_published_to_where_a_consumer_delivers(world: World, make_stream: MakeStream) -> None:
    """Signed for that very subject, and with a forged place in the stream, it is still not from the stream."""
    set_up = await stage(world, make_stream)
    deliver = f"deliver.{set_up.stream}"
    config = ConsumerConfig(durable_name="worker", filter_subject=set_up.subject, deliver_subject=deliver)
    config.ack_policy = AckPolicy.EXPLICIT
    await set_up.attacker.jetstream().add_consumer(set_up.stream, config)
    guard, js = await set_up.reader()
    subscription = await js.subscribe(set_up.subject, durable="worker", stream=set_up.stream, manual_ack=True)
    heard = await set_up.attacker.subscribe(deliver)
    await set_up.attacker.flush()
    await (await world.client(world.agent(MALLORY))).publish(deliver, b"forged")
    raw = await soon(heard.next_msg(timeout=10))
    place = f"$JS.ACK.{set_up.stream}.worker.1.7.7.{time.time_ns()}.0".encode()
    headers = block(*(raw.headers or {}).items())  # as a server hands it on that lets anyone name such a reply subject
    await js._client._process_msg(subscription._sub._id, deliver.encode(), place, raw.data, headers)
    await set_up.say(b"end")
    assert await got(subscription, 1) == [b"end"]
    assert guard.audit.counts == {"delivered": 1, Reason.WRONG_DELIVERY: 2}
