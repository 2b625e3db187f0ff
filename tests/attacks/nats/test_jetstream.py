"""A01, A02, A12, A13, A16 to A19, A28 on a real JetStream."""

import asyncio
import json
import time
from collections.abc import Callable

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import (
    CLOUD,
    MALLORY,
    PLANNER,
    World,
    block,
    nothing_fetched,
    raw,
    soon,
    until,
    verified,
)
from watchword import Reason
from watchword.spi import Channel, Message, Signer

Unique = Callable[[str], str]
HOUR = 3600.0


async def next_of(subscription: JetStreamContext.PullSubscription) -> bytes:
    """Fetch the next message that verifies, acknowledge it, and return its payload."""
    (msg,) = await subscription.fetch(timeout=15)
    await msg.ack_sync(timeout=15)
    return msg.data


async def honest(world: World, subject: str, data: bytes = b"honest", **headers: str) -> int:
    """Store an honest message; return its sequence."""
    client = await world.client(world.agent(PLANNER))
    return (await client.jetstream().publish(subject, data, headers=headers or None)).seq


@pytest.mark.parametrize("style", ["pull", "push", "callback", "ordered"])
async def test_a01_a02_forgeries_in_a_stream_reach_no_reader(world: World, make_stream: MakeStream, style: str) -> None:
    """Unsigned and altered messages are dropped by every way of reading a stream."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    await honest(world, subject, b"first")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    await attacker.publish(subject, b"unsigned")
    await attacker.publish(subject, b"altered", headers={"watchword": (stored.headers or {})["watchword"]})
    await attacker.flush()
    await honest(world, subject, b"last")
    js = (await world.client(guard)).jetstream()
    got: list[bytes] = []
    if style == "pull":
        subscription = await js.pull_subscribe(subject)
        while len(got) < 2:
            got += [msg.data for msg in await subscription.fetch(10, timeout=15)]
    elif style == "callback":

        async def handler(msg: object) -> None:
            got.append(msg.data)  # type: ignore[attr-defined]  # a VerifiedMsg

        await js.subscribe(subject, cb=handler)
        await until(lambda: len(got) == 2)
    else:
        push = await js.subscribe(subject, ordered_consumer=style == "ordered")
        got = [(await push.next_msg(timeout=15)).data for _ in range(2)]
    assert got == [b"first", b"last"]
    assert guard.audit.counts == {"delivered": 2, Reason.UNSIGNED: 1, Reason.ALTERED: 1}


async def test_a28_rejected_message_is_terminated_with_its_reason(world: World, make_stream: MakeStream) -> None:
    """A rejected message is not offered again, and the server's advisory carries the reason; it holds nothing up."""
    stream = await make_stream()
    subject, attacker = f"{stream}.task", await world.plain()
    advisories = await attacker.subscribe(f"$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.{stream}.worker")
    await attacker.flush()
    config = ConsumerConfig(ack_wait=0.5, max_ack_pending=1)
    js = (await world.client(guard := world.agent(CLOUD))).jetstream()
    subscription = await js.pull_subscribe(subject, durable="worker", config=config)
    await attacker.publish(subject, b"forged")
    await raw(attacker, subject, b"NATS/1.0\r\nbroken\r\n\r\n", b"forged")
    await honest(world, subject)
    assert await next_of(subscription) == b"honest"
    reasons = [json.loads((await soon(advisories.next_msg(timeout=None))).data)["reason"] for _ in range(2)]
    assert reasons == ["unsigned", "malformed"]
    info = await subscription.consumer_info()
    assert (info.num_ack_pending, info.num_redelivered, info.num_pending) == (0, 0, 0)
    assert guard.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1, Reason.MALFORMED: 1}


async def test_a12_replay_into_a_stream_is_dropped_each_time(world: World, make_stream: MakeStream) -> None:
    """The same bytes stored again, past the stream's own de-duplication, are dropped exactly once each."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    await honest(world, subject, b"once")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    headers = {name: value for name, value in (stored.headers or {}).items() if name != "Nats-Msg-Id"}
    for _ in range(5):
        await attacker.publish(subject, b"once", headers=headers)
    await attacker.flush()
    await honest(world, subject, b"last")
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    assert [await next_of(subscription), await next_of(subscription)] == [b"once", b"last"]
    assert guard.audit.counts == {"delivered": 2, Reason.REPLAYED: 5}


async def test_a12_stream_itself_drops_an_exact_repeat(world: World, make_stream: MakeStream) -> None:
    """The id goes along as Nats-Msg-Id, so that an exact copy is not even stored."""
    stream = await make_stream()
    subject, attacker = f"{stream}.task", await world.plain()
    await honest(world, subject, b"once")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    again = await attacker.jetstream().publish(subject, b"once", headers=stored.headers)
    assert again.duplicate


async def test_a13_message_of_another_subject_of_the_stream_is_dropped(world: World, make_stream: MakeStream) -> None:
    """What was signed for one subject of a stream is worth nothing on another."""
    stream = await make_stream()
    guard, attacker = world.agent(CLOUD), await world.plain()
    await honest(world, f"{stream}.scale", b"once")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    await attacker.publish(f"{stream}.drain", b"once", headers={"watchword": (stored.headers or {})["watchword"]})
    await attacker.flush()
    await honest(world, f"{stream}.drain", b"last")
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(f"{stream}.*")
    assert [await next_of(subscription), await next_of(subscription)] == [b"once", b"last"]
    assert guard.audit.counts == {"delivered": 2, Reason.WRONG_CHANNEL: 1}


@pytest.mark.parametrize(("shift", "reason"), [(-HOUR, Reason.STALE), (HOUR, Reason.FROM_FUTURE)])
async def test_a16_message_stored_at_another_time_than_signed_is_dropped(
    world: World, make_stream: MakeStream, shift: float, reason: Reason
) -> None:
    """What was signed long before it was stored, or dated ahead, is dropped by the server's time, not the reader's."""
    stream = await make_stream()
    subject, guard = f"{stream}.task", world.agent(CLOUD, clock=lambda: time.time() + shift)
    displaced = await world.client(world.agent(PLANNER, clock=lambda: time.time() + shift))
    await displaced.jetstream().publish(subject, b"displaced")
    await honest(world, subject)
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    assert await next_of(subscription) == b"honest"
    assert guard.audit.counts == {"delivered": 1, reason: 1}


async def test_a17_nak_is_delivered_again(world: World, make_stream: MakeStream) -> None:
    """What the handler gave back comes again, marked as a redelivery, and is never called a replay."""
    stream = await make_stream()
    subject, guard = f"{stream}.task", world.agent(CLOUD)
    await honest(world, subject)
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject, durable="worker")
    for attempt in range(3):
        (msg,) = await subscription.fetch(timeout=15)
        assert verified(msg).verified.redelivered is (attempt > 0)
        assert msg.metadata.num_delivered == attempt + 1
        await msg.nak(delay=0.05)
    assert guard.audit.counts == {"delivered": 3}


async def test_a17_ack_timeout_beyond_the_freshness_window_is_delivered_again(
    world: World, make_stream: MakeStream
) -> None:
    """A message that was not acknowledged comes again, also when its window has long closed in log time."""
    stream = await make_stream()
    subject = f"{stream}.task"
    guard = world.agent(CLOUD, max_age=1, max_skew=0.5)
    config = ConsumerConfig(ack_wait=3)
    await honest(world, subject, b"slow")
    js = (await world.client(guard)).jetstream()
    subscription = await js.pull_subscribe(subject, durable="worker", config=config)
    (slow,) = await subscription.fetch(timeout=15)
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    passed = 0.0
    while passed < 2.5:  # log time passes with honest messages only
        await planner.publish(subject, b"tick")
        (tick,) = await subscription.fetch(timeout=15)
        if tick.data != b"slow":  # which comes again every three seconds
            passed = (tick.metadata.timestamp - slow.metadata.timestamp).total_seconds()
            await tick.ack()
    while True:
        (again,) = await subscription.fetch(timeout=15)
        await again.ack_sync()
        if again.data == b"slow":
            break
    assert verified(again).verified.redelivered
    assert guard.audit.counts.keys() == {"delivered"}


async def test_a17_an_acknowledged_id_ages_and_its_replay_is_stale(world: World, make_stream: MakeStream) -> None:
    """Acknowledging lets an id age: memory does not grow, and a late copy is stale by the server's time."""
    stream = await make_stream()
    subject = f"{stream}.task"
    guard = world.agent(CLOUD, max_age=1, max_skew=0.5)
    planner, attacker = (await world.client(world.agent(PLANNER))).jetstream(), await world.plain()
    js = (await world.client(guard)).jetstream()
    subscription = await js.pull_subscribe(subject)
    first = time.time()
    await planner.publish(subject, b"first")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    assert await next_of(subscription) == b"first"
    ticks = 0
    while time.time() < first + 3.5:
        await planner.publish(subject, b"tick")
        assert await next_of(subscription) == b"tick"
        ticks += 1
    await attacker.publish(subject, b"first", headers={"watchword": (stored.headers or {})["watchword"]})
    await attacker.flush()
    await planner.publish(subject, b"last")
    assert await next_of(subscription) == b"last"
    assert guard.audit.counts == {"delivered": ticks + 2, Reason.STALE: 1}
    assert len(guard.verifier.replay) < ticks + 2  # type: ignore[arg-type]  # the store in memory


@pytest.mark.parametrize("style", ["pull", "ordered"])
async def test_a18_honest_backlog_is_delivered(world: World, make_stream: MakeStream, style: str) -> None:
    """A reader hours behind loses nothing: freshness is judged when the server stored a message."""
    stream = await make_stream()
    subject = f"{stream}.task"
    guard = world.agent(CLOUD, max_age=1, max_skew=0.5, clock=lambda: time.time() + 5 * HOUR)
    planner = (await world.client(world.agent(PLANNER))).jetstream()
    for number in range(50):
        await planner.publish(subject, b"%d" % number)
    js = (await world.client(guard)).jetstream()
    if style == "pull":
        subscription = await js.pull_subscribe(subject)
        got = [await next_of(subscription) for _ in range(50)]
    else:
        ordered = await js.subscribe(subject, ordered_consumer=True)
        got = [(await ordered.next_msg(timeout=15)).data for _ in range(50)]
    assert got == [b"%d" % number for number in range(50)]
    assert guard.audit.counts == {"delivered": 50}


async def test_a19_guessed_message_id_does_not_displace_the_real_one(world: World, make_stream: MakeStream) -> None:
    """An id cannot be squatted: it is drawn at publication, and an id that the attacker copied proves nothing."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    for number in range(20):
        await attacker.jetstream().publish(subject, b"squat", headers={"Nats-Msg-Id": f"{number:032x}"})
    await honest(world, subject)
    stored = await attacker.jetstream().get_msg(stream, seq=21)
    assert (stored.headers or {})["Nats-Msg-Id"] not in {f"{number:032x}" for number in range(20)}
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    assert await next_of(subscription) == b"honest"
    assert guard.audit.counts == {"delivered": 1, Reason.UNSIGNED: 20}


@pytest.mark.parametrize("by", ["nobody", MALLORY])
async def test_a19_copied_id_sent_first_does_not_poison_the_real_one(
    world: World, make_stream: MakeStream, by: str
) -> None:
    """A forgery, or another agent's message, that bears the id of a real one and comes first takes nothing from it."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    planner = world.agent(PLANNER)
    channel = Channel("nats", "prod", subject)
    real = await planner.signer.sign(Message(channel=channel, value=b"real"))
    if by == MALLORY:
        thief = Signer(realm="prod", principal=MALLORY, key=world.signing[MALLORY], clock=time.time)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("watchword.unsigned.os.urandom", lambda _: real.id)
            header = (await thief.sign(Message(channel=channel, value=b"fake"))).header
    else:
        header = real.header
    # Beside the signature stands the stream's own de-duplication: the real one must not be taken for a copy there.
    await attacker.publish(subject, b"fake", headers={"watchword": (header[1] or b"").decode()})
    envelope = {"watchword": (real.header[1] or b"").decode(), "Nats-Msg-Id": real.id.hex()}
    await attacker.publish(subject, b"real", headers=envelope)
    await attacker.flush()
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    got = [await next_of(subscription) for _ in range(2 if by == MALLORY else 1)]
    assert got[-1] == b"real"
    assert guard.audit.counts["replayed"] == 0


async def test_a19_foreign_message_id_is_an_alteration(world: World, make_stream: MakeStream) -> None:
    """A Nats-Msg-Id that is not the message's own id, and was not covered, is an alteration."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    await honest(world, subject, b"real")
    stored = await attacker.jetstream().get_msg(stream, seq=1)
    await attacker.publish(subject, b"real", headers={**(stored.headers or {}), "Nats-Msg-Id": "f" * 32})
    await attacker.flush()
    await honest(world, subject, b"last")
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    assert [await next_of(subscription), await next_of(subscription)] == [b"real", b"last"]
    assert guard.audit.counts == {"delivered": 2, Reason.ALTERED: 1}


@pytest.mark.parametrize("acks", [AckPolicy.EXPLICIT, AckPolicy.NONE])
async def test_a17_delivery_by_a_consumer_that_was_not_bound_is_wrong(
    world: World, make_stream: MakeStream, acks: AckPolicy
) -> None:
    """What another consumer is made to deliver to a victim's inbox is dropped, and not terminated there."""
    stream = await make_stream()
    subject, guard, attacker = f"{stream}.task", world.agent(CLOUD), await world.plain()
    js = (await world.client(guard)).jetstream()
    push = await js.subscribe(subject, config=ConsumerConfig(ack_policy=acks))
    await honest(world, subject, b"first")
    assert (await push.next_msg(timeout=15)).data == b"first"
    redelivering = ConsumerConfig(name="thief", deliver_subject=push.subject, ack_policy=AckPolicy.EXPLICIT)
    await attacker.jetstream().add_consumer(stream, redelivering)
    await honest(world, subject, b"last")
    assert (await push.next_msg(timeout=15)).data == b"last"
    while guard.audit.counts.total() < 4:
        with pytest.raises(NatsTimeoutError):
            await push.next_msg(timeout=0.3)
    assert guard.audit.counts == {"delivered": 2, Reason.WRONG_DELIVERY: 2}
    assert (await attacker.jetstream().consumer_info(stream, "thief")).num_ack_pending == 2


async def test_a28_message_without_an_ack_subject_in_a_stream_reader_is_wrong(
    world: World, make_stream: MakeStream
) -> None:
    """What is published straight to a push consumer's subject has no position, and is no delivery."""
    stream = await make_stream()
    guard, attacker = world.agent(CLOUD), await world.plain()
    victim = await world.client(guard)
    config = ConsumerConfig(deliver_subject=f"deliver.{stream}")
    push = await victim.jetstream().subscribe(f"{stream}.task", config=config)
    await victim.flush()
    planner = await world.client(world.agent(PLANNER))
    await planner.publish(f"deliver.{stream}", b"direct")
    await planner.publish(f"deliver.{stream}", b"direct", reply="nothing.here")
    await planner.flush()
    await raw(attacker, f"deliver.{stream}", block(("a", "b")), b"x")
    await honest(world, f"{stream}.task")
    assert (await push.next_msg(timeout=15)).data == b"honest"
    assert guard.audit.counts == {"delivered": 1, Reason.WRONG_DELIVERY: 2, Reason.UNSIGNED: 1}


@pytest.mark.parametrize("named", ["reply", "stalled"])
async def test_a28_forged_flow_control_makes_no_signed_message(
    world: World, make_stream: MakeStream, named: str
) -> None:
    """A flow control message that names an application subject does not make this agent publish there, signed."""
    stream = await make_stream()
    target, attacker = f"{stream}-target", await world.plain()
    seen = await attacker.subscribe(target)
    await attacker.flush()
    guard = world.agent(CLOUD)
    victim = await world.client(guard)
    js = victim.jetstream()
    config = ConsumerConfig(deliver_subject=f"deliver.{stream}")
    push = await js.subscribe(f"{stream}.task", config=config, idle_heartbeat=5, flow_control=True)
    await victim.flush()
    if named == "reply":
        await raw(attacker, f"deliver.{stream}", b"NATS/1.0 100 FlowControl Request\r\n\r\n", reply=target)
    else:
        line = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Consumer-Stalled: " + target.encode() + b"\r\n\r\n"
        await raw(attacker, f"deliver.{stream}", line)
    await honest(world, f"{stream}.task")
    assert (await push.next_msg(timeout=15)).data == b"honest"
    assert guard.audit.counts == {"delivered": 1, Reason.MALFORMED: 1}
    await attacker.publish(target, b"own")
    assert (await soon(seen.next_msg(timeout=None))).data == b"own"


async def test_a28_status_with_a_payload_ends_no_fetch(world: World, make_stream: MakeStream) -> None:
    """A forged status line on a pull consumer's inbox does not reach the caller, nor end its fetch."""
    stream = await make_stream()
    guard, attacker = world.agent(CLOUD), await world.plain()
    victim = await world.client(guard)
    subscription = await victim.jetstream().pull_subscribe(f"{stream}.task")
    await victim.flush()
    fetching = asyncio.create_task(subscription.fetch(timeout=15))
    await raw(attacker, subscription._deliver, b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"payload")
    await until(lambda: guard.audit.counts[Reason.MALFORMED] == 1)
    await honest(world, f"{stream}.task")
    assert [msg.data for msg in await fetching] == [b"honest"]


async def test_rejected_messages_do_not_shorten_a_fetch(world: World, make_stream: MakeStream) -> None:
    """A fetch that finds forgeries only continues until its own time-out, as on an empty stream."""
    stream = await make_stream()
    subject, attacker = f"{stream}.task", await world.plain()
    for _ in range(5):
        await attacker.publish(subject, b"forged")
    await attacker.flush()
    guard = world.agent(CLOUD)
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(subject)
    await nothing_fetched(subscription, 10, guard.audit.counts, 5)
    assert guard.audit.counts == {Reason.UNSIGNED: 5}
    await honest(world, subject)
    assert await next_of(subscription) == b"honest"


@pytest.mark.parametrize("line", [b"100 Idle Heartbeat", b"408 Request Timeout", b"503"])
async def test_a28_stored_status_line_is_terminated(world: World, make_stream: MakeStream, line: bytes) -> None:
    """A status line at a stream position, as older servers store it, is malformed and holds no later message up.

    This server takes the status off before it stores, so the delivery is handed to the client.
    """
    stream = await make_stream()
    guard, attacker = world.agent(CLOUD), await world.plain()
    config = ConsumerConfig(deliver_subject=f"deliver.{stream}", durable_name="worker")
    victim = await world.client(guard)
    push = await victim.jetstream().subscribe(f"{stream}.task", config=config)
    await victim.flush()
    ack = f"$JS.ACK.{stream}.worker.1.1.1.{time.time_ns()}.0"
    told = await attacker.subscribe(ack)
    await attacker.flush()
    number, header = push._sub._id, b"NATS/1.0 " + line + b"\r\n\r\n"
    await victim._process_msg(number, f"{stream}.task".encode(), ack.encode(), b"", header)
    await honest(world, f"{stream}.task")
    assert (await push.next_msg(timeout=15)).data == b"honest"
    assert guard.audit.counts == {"delivered": 1, Reason.MALFORMED: 1}
    assert (await soon(told.next_msg(timeout=None))).data == b"+TERM malformed"
