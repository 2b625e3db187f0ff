"""Every covered way of JetStream, and every refused one, on a real server."""

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nats.aio.msg import Msg
from nats.errors import MsgAlreadyAckdError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamManager
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy
from nats.js.errors import APIError, NoStreamResponseError, TooManyStalledMsgsError

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, unacknowledged, until, verified
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Mode, Reason, SigningError, Unavailable, VerifiedMessage, Watchword
from watchword.spi import MemoryReplayStore
from watchword_adapters.nats import ObservedMsg, VerifyingJetStream, jetstream_rebuild
from watchword_adapters.nats.answers import ReplySubject

Unique = Callable[[str], str]


async def streams(world: World, principal: str = CLOUD, *, sole_reader: bool = False) -> VerifyingJetStream:
    """Return the JetStream context of an agent of its own."""
    return (await world.client(world.agent(principal))).jetstream(sole_reader=sole_reader)


def warnings(agent: Watchword) -> list[str]:
    """Return the list to which the names of an agent's warnings are added."""
    warned: list[str] = []
    agent.audit.warn = lambda event, **_: warned.append(event)  # type: ignore[method-assign]  # a tap
    return warned


async def test_published_message_is_bound_to_its_place(world: World, make_stream: MakeStream) -> None:
    """A stored message is delivered with its position; a plain consumer reads its payload unchanged."""
    subject = f"{await make_stream()}.task"
    headers = {"kind": "order"}
    ack = await (await streams(world, PLANNER)).publish(subject, b"x", stream=subject[:-5], headers=headers)
    assert headers == {"kind": "order"}
    (msg,) = await (await (await streams(world)).pull_subscribe(subject)).fetch(timeout=10)
    proof = verified(msg).verified
    assert proof.position is not None
    assert (proof.position.log, proof.position.offset) == (ack.stream, ack.seq)
    assert msg.metadata.sequence.stream == ack.seq
    assert msg.headers == {"kind": "order", "Nats-Expected-Stream": ack.stream}
    (plain,) = await (await (await world.plain()).jetstream().pull_subscribe(subject)).fetch(timeout=10)
    assert plain.data == b"x"
    assert plain.headers is not None
    assert plain.headers["Nats-Msg-Id"] == proof.id
    assert plain.headers["kind"] == "order"


async def test_own_message_id_is_kept_and_covered(world: World, make_stream: MakeStream) -> None:
    """An application's own Nats-Msg-Id de-duplicates as ever, and is shown to the handler."""
    subject, js = f"{await make_stream()}.task", await streams(world, PLANNER)
    first = await js.publish(subject, b"x", headers={"Nats-Msg-Id": "mine"})
    second = await js.publish(subject, b"x", headers={"Nats-Msg-Id": "mine"}, msg_ttl=None)
    assert (first.duplicate, second.duplicate) == (None, True)
    (msg,) = await (await (await streams(world)).pull_subscribe(subject)).fetch(timeout=10)
    assert msg.headers == {"Nats-Msg-Id": "mine"}


async def test_a_stored_message_is_answered_where_a_header_of_its_says(world: World, make_stream: MakeStream) -> None:
    """A stream keeps no reply subject: a publisher that names one otherwise says so, and gets answers bound to it."""
    subject, planner = f"{await make_stream()}.task", await world.client(world.agent(PLANNER))
    inbox = planner.new_inbox()
    answers, answered = await planner.subscribe(inbox), await world.client(world.agent(CLOUD))
    headers = {"reply_to": inbox}
    for answers_at in ("", inbox):
        await planner.jetstream().publish(subject, b"x", headers=headers, answers_at=answers_at)
    for msg in await (await answered.jetstream().pull_subscribe(subject)).fetch(2, timeout=10):
        assert msg.headers is not None
        await answered.publish(ReplySubject.to(msg.headers["reply_to"], verified(msg).verified), msg.data)
    proof = verified(await answers.next_msg(timeout=10)).verified
    assert (proof.principal, proof.in_reply_to is None) == (CLOUD, False)
    assert planner.watchword.audit.counts["wrong_request"] == 1


async def test_publish_async_signs_and_confirms(world: World, make_stream: MakeStream) -> None:
    """Publishing without waiting signs too; what cannot be signed is refused and takes no slot."""
    stream = await make_stream(allow_msg_ttl=True)
    js = await streams(world, PLANNER)
    with pytest.raises(SigningError):
        await js.publish_async(f"{stream}.task", b"x", headers={"watchword": "forged"})
    futures = [await js.publish_async(f"{stream}.task", b"%d" % n, stream=stream, msg_ttl=60) for n in range(10)]
    await soon(js.publish_async_completed())
    assert js.publish_async_pending() == 0
    assert [(await future).seq for future in futures] == list(range(1, 11))
    guard = world.agent(CLOUD)
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(f"{stream}.task")
    assert len(await subscription.fetch(10, timeout=10)) == 10
    assert guard.audit.counts == {"delivered": 10}


async def test_publish_async_waits_for_a_slot_no_longer_than_asked(world: World) -> None:
    """If no slot is free, the call raises an error after ``wait_stall`` seconds."""
    js = (await world.client(world.agent(PLANNER))).jetstream(publish_async_max_pending=0)
    with pytest.raises(TooManyStalledMsgsError):
        await js.publish_async("anything", b"x", wait_stall=0.05)


async def test_publish_errors_are_the_clients_own(world: World, make_stream: MakeStream, unique: Unique) -> None:
    """A missing stream, and a refusal by the stream, raise nats-py's own errors; a bad header raises SigningError."""
    stream, js = await make_stream(), await streams(world, PLANNER)
    with pytest.raises(NoStreamResponseError):
        await js.publish(unique("nowhere"), b"x", timeout=10)
    with pytest.raises(APIError):
        await js.publish(f"{stream}.task", b"x", stream="another")
    with pytest.raises(SigningError):
        await js.publish(f"{stream}.task", b"x", headers={"kind": "a\r\nb"})


async def test_push_callback_acknowledges_after_the_handler(world: World, make_stream: MakeStream) -> None:
    """An asynchronous push subscriber acknowledges by itself, but not when its handler failed."""
    stream = await make_stream()
    errors: list[Exception] = []

    async def report(error: Exception) -> None:
        errors.append(error)

    js = (await world.client(world.agent(CLOUD), error_cb=report)).jetstream(sole_reader=True)
    got: list[bool] = []

    async def handler(msg: Msg) -> None:
        got.append(verified(msg).verified.redelivered)
        if len(got) == 1:
            raise ValueError("first time")

    config = ConsumerConfig(ack_wait=0.5)
    push = await js.subscribe(f"{stream}.task", durable="worker", cb=handler, config=config)
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    await until(lambda: len(got) == 2)
    assert got == [False, True]
    assert len(errors) == 1
    info = await unacknowledged(push.consumer_info, 0)
    assert info.ack_floor is not None
    assert info.ack_floor.stream_seq == 1
    await push.unsubscribe()


async def test_queue_push_shares_the_work(world: World, make_stream: MakeStream) -> None:
    """Members of a deliver group get each message once in all."""
    stream, got = await make_stream(), list[bytes]()
    guard = world.agent(CLOUD)

    async def handler(msg: Msg) -> None:
        got.append(msg.data)

    for _ in range(2):
        await (await world.client(guard)).jetstream().subscribe(f"{stream}.task", queue="workers", cb=handler)
    planner = await streams(world, PLANNER)
    for number in range(20):
        await planner.publish(f"{stream}.task", b"%d" % number)
    await until(lambda: len(got) == 20)
    assert len(set(got)) == 20


async def test_ordered_consumer_gives_each_message_once_while_the_stream_is_read_again(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives while an ordered consumer's stream is read again counts for its order: nothing comes twice."""
    stream, guard = await make_stream(), world.agent(CLOUD)
    planner = await streams(world, PLANNER)
    client = await world.client(guard)
    first = jetstream_rebuild._first

    async def after_deliveries(*asked: Any) -> tuple[int, float] | None:
        await until(lambda: any(sub.pending_msgs for sub in client._subs.values()))
        return await first(*asked)

    monkeypatch.setattr(jetstream_rebuild, "_first", after_deliveries)
    await planner.publish(f"{stream}.task", b"early")
    push = await client.jetstream().subscribe(f"{stream}.task", ordered_consumer=True)
    await planner.publish(f"{stream}.task", b"late")
    got = [(await push.next_msg(timeout=15)).data for _ in range(2)]
    await client.flush()
    assert got == [b"early", b"late"]
    assert guard.audit.counts == {"delivered": 2}


async def test_ordered_consumer_survives_a_gap(world: World, make_stream: MakeStream) -> None:
    """When deliveries were lost, the consumer is recreated; nothing is lost, repeated, or called a wrong delivery."""
    stream = await make_stream()
    guard = world.agent(CLOUD)
    client = await world.client(guard)
    push = await client.jetstream().subscribe(f"{stream}.task", ordered_consumer=True)
    planner = await streams(world, PLANNER)
    for number in range(5):
        await planner.publish(f"{stream}.task", b"%d" % number)
    assert [(await push.next_msg(timeout=10)).data for _ in range(3)] == [b"0", b"1", b"2"]
    first = (await push.consumer_info()).name
    assert push._sub._jsi is not None
    push._sub._jsi._dseq = 99  # as if deliveries had been dropped on the way
    for number in range(5, 10):
        await planner.publish(f"{stream}.task", b"%d" % number)
    assert [(await push.next_msg(timeout=15)).data for _ in range(7)] == [b"%d" % number for number in range(3, 10)]
    assert (await push.consumer_info()).name != first
    assert guard.audit.counts == {"delivered": 10}
    await push.unsubscribe()
    assert len(guard.verifier.replay) == 0  # type: ignore[arg-type]  # the store in memory


@pytest.mark.parametrize("end", ["ack", "ack_sync", "term"])
async def test_ends_of_a_delivery_settle_its_id(world: World, make_stream: MakeStream, end: str) -> None:
    """Whatever ends redelivery lets the id age; a second end is refused as nats-py refuses it."""
    stream = await make_stream()
    guard = world.agent(CLOUD)
    settled: list[int] = []
    settle = guard.verifier.acknowledge_at

    def tap(log: str, offset: int) -> None:
        settled.append(offset)
        settle(log, offset)

    guard.verifier.acknowledge_at = tap  # type: ignore[method-assign]  # to listen in
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(f"{stream}.task", durable="worker")
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    (msg,) = await subscription.fetch(timeout=10)
    await msg.in_progress()
    assert settled == []
    await getattr(msg, end)()
    assert settled == [1]
    assert msg.is_acked
    with pytest.raises(MsgAlreadyAckdError):
        await msg.ack()


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_ack_policy_none_needs_no_settling(world: World, make_stream: MakeStream, how: str) -> None:
    """Where nobody acknowledges, ids age from delivery on, and a forgery is simply dropped."""
    stream, attacker = await make_stream(), await world.plain()
    guard = world.agent(CLOUD, shared=False)
    js, config = (await world.client(guard)).jetstream(), ConsumerConfig(ack_policy=AckPolicy.NONE)
    store = guard.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    await attacker.publish(f"{stream}.task", b"forged")
    await attacker.flush()
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    if how == "pull":
        got = (await (await js.pull_subscribe(f"{stream}.task", config=config)).fetch(timeout=10))[0]
    else:
        got = await (await js.subscribe(f"{stream}.task", config=config)).next_msg(timeout=10)
    assert got.data == b"x"
    assert guard.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1}
    assert len(store) == 1
    assert not any(log.pins.by_key for log in store._logs.values())


@pytest.mark.parametrize("how", ["pull", "push"])
async def test_outage_is_asked_for_again(world: World, make_stream: MakeStream, how: str) -> None:
    """What cannot be judged comes again later and later, and is delivered once the key source is back."""
    stream = await make_stream()
    guard = world.agent(CLOUD)
    js = (await world.client(guard)).jetstream()
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    world.keys.down = True
    if how == "pull":
        pull = await js.pull_subscribe(f"{stream}.task")
    else:
        push = await js.subscribe(f"{stream}.task")
    while not guard.audit.counts:
        with pytest.raises(NatsTimeoutError):
            await (pull.fetch(timeout=0.3) if how == "pull" else push.next_msg(timeout=0.3))
    assert set(guard.audit.counts) == {"unavailable"}
    world.keys.down = False
    got = (await pull.fetch(timeout=10))[0] if how == "pull" else await push.next_msg(timeout=10)
    assert (got.data, got.metadata.num_delivered) == (b"x", guard.audit.counts["unavailable"] + 1)
    assert not verified(got).verified.redelivered


async def test_observe_mode_leaves_a_stream_as_it_is(world: World, make_stream: MakeStream) -> None:
    """While observing nothing is terminated: the handler gets all and acknowledges all."""
    stream, plain = await make_stream(), await world.plain()
    guard = world.agent(CLOUD, mode=Mode.OBSERVE)
    js = (await world.client(guard)).jetstream()
    await plain.jetstream().publish(f"{stream}.task", b"unsigned")
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"signed")
    subscription = await js.pull_subscribe(f"{stream}.task", durable="worker")
    got = await subscription.fetch(2, timeout=10)
    assert [msg.data for msg in got] == [b"unsigned", b"signed"]
    unsigned, signed = got
    assert isinstance(unsigned, ObservedMsg)
    assert isinstance(signed, ObservedMsg)
    assert isinstance(signed.verdict, VerifiedMessage)
    for msg in got:
        await msg.ack_sync()
    await unsigned.respond(b"nobody asked")  # which goes nowhere: there is no subject but the server's own
    assert (await subscription.consumer_info()).num_ack_pending == 0
    assert guard.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1}


async def test_request_that_a_stream_captured_can_be_answered(world: World, make_stream: MakeStream) -> None:
    """``respond`` in a stream goes to the signed reply subject, never to the ack subject."""
    stream = await make_stream()
    planner = await world.client(world.agent(PLANNER))
    inbox = planner.new_inbox()
    answers = await planner.subscribe(inbox)
    await planner.publish(f"{stream}.task", b"x", reply=inbox)
    # The stream's own PubAck comes to that inbox first: unsigned, and dropped.
    (msg,) = await (await (await streams(world)).pull_subscribe(f"{stream}.task")).fetch(timeout=10)
    await verified(msg).respond(b"done")
    assert (await soon(answers.next_msg(timeout=None))).data == b"done"
    assert planner.watchword.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1}


async def test_a15_shared_scopes_are_refused(world: World, make_stream: MakeStream) -> None:
    """Durables and streams that forget do not start without a store; one's own do, and observing with a warning."""
    limits, work = await make_stream(duplicate_window=1000), await make_stream(retention=RetentionPolicy.WORK_QUEUE)
    last, rolled = await make_stream(max_msgs_per_subject=1), await make_stream(allow_rollup_hdrs=True)
    brief = await make_stream(allow_msg_ttl=True)
    for stream, durable, sole, reason in (
        (limits, "one", False, r"others may read one too; .* jetstream\(sole_reader=True\)"),
        (limits, "two", True, None),
        (limits, None, False, None),
        (work, "three", True, "deletes acknowledged messages"),
        (last, "four", True, "max_msgs_per_subject"),
        (rolled, "five", True, "allow_rollup_hdrs"),
        (brief, "six", True, "allow_msg_ttl"),
        (brief, None, False, "allow_msg_ttl"),
    ):
        for mode in Mode:
            agent = world.agent(CLOUD, mode=mode, shared=False)
            warned = warnings(agent)
            js = (await world.client(agent)).jetstream(sole_reader=sole)
            subscribing = js.pull_subscribe(f"{stream}.task", durable=durable)
            if reason is not None and mode is Mode.ENFORCE:
                with pytest.raises(ConfigurationError, match=rf"{reason}.*configure a store"):
                    await subscribing
                continue
            assert (await subscribing).pending_msgs == 0
            assert ("replay.scope_shared" in warned) == (reason is not None)
            assert ("nats.duplicate_window_short" in warned) == (stream != limits)
        js = (await world.client(world.agent(CLOUD))).jetstream(sole_reader=sole)
        assert (await js.pull_subscribe(f"{stream}.task", durable=durable)).pending_msgs == 0


async def test_bind_where_the_consumer_may_not_be_looked_at(
    world: World, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that may only fetch binds all the same, on the cautious assumption."""
    stream, plain = await make_stream(), await world.plain()
    await plain.jetstream().add_consumer(stream, ConsumerConfig(durable_name="worker"))

    async def denied(*_: object, **__: object) -> None:
        raise NatsTimeoutError

    monkeypatch.setattr(JetStreamManager, "consumer_info", denied)
    monkeypatch.setattr(JetStreamManager, "stream_info", denied)
    js = (await world.client(world.agent(CLOUD, shared=False))).jetstream(sole_reader=True)
    with pytest.raises(Unavailable, match="cannot be read: nats: timeout"):
        await js.pull_subscribe_bind("worker", stream)
    js = (await world.client(world.agent(CLOUD))).jetstream(sole_reader=True)
    subscription = await js.pull_subscribe_bind("worker", stream, inbox_prefix=b"_INBOX.mine.")
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    (msg,) = await subscription.fetch(timeout=10)
    assert msg.data == b"x"
    assert subscription._deliver.startswith("_INBOX.mine.")
    await subscription.unsubscribe()


@pytest.mark.parametrize("mode", Mode)
async def test_a_name_that_nobody_has_is_told_as_such(world: World, make_stream: MakeStream, mode: Mode) -> None:
    """A consumer, or a stream, that is not there is no reason to configure a store."""
    stream, agent = await make_stream(), world.agent(CLOUD, mode=mode, shared=False)
    warned: list[str] = []
    agent.audit.warn = lambda _, **fields: warned.append(str(fields.get("remedy")))  # type: ignore[method-assign]
    js = (await world.client(agent)).jetstream(sole_reader=True)
    for where, what in ((stream, "consumer not found"), (f"{stream}-other", "stream not found")):
        try:
            await js.pull_subscribe_bind("nobody", where)
        except ConfigurationError as error:
            warned.append(str(error))
        assert f"consumer nobody of stream {where}: {what}; create it first, or correct the name" in warned
        assert not any("store =" in told for told in warned)


async def test_fetch_without_a_time_limit(world: World, make_stream: MakeStream) -> None:
    """``timeout=None`` waits past a forgery until something verifies."""
    stream, attacker = await make_stream(), await world.plain()
    guard = world.agent(CLOUD)
    subscription = await (await world.client(guard)).jetstream().pull_subscribe(f"{stream}.task")
    fetching = asyncio.create_task(subscription.fetch(1, timeout=None))
    await attacker.publish(f"{stream}.task", b"forged")
    await until(lambda: guard.audit.counts[Reason.UNSIGNED] == 1)
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"x")
    assert [msg.data for msg in await soon(fetching)] == [b"x"]


WORKER = """
import asyncio, sys
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from nats.js.api import ConsumerConfig
from watchword import VerificationKey, Watchword
from watchword_adapters.nats import connect

async def main(url, subject, principal, key_id, pem):
    public = load_pem_public_key(pem.encode())
    key = VerificationKey.from_public_key(public, principal=principal, key_id=key_id.encode())
    client = await connect(url, watchword=Watchword(realm="prod", keys=[key]))
    js = client.jetstream(sole_reader=True)
    subscription = await js.pull_subscribe(subject, durable="worker", config=ConsumerConfig(ack_wait=1))
    (msg,) = await subscription.fetch(timeout=20)
    print("handled", msg.data.decode(), flush=True)
    await asyncio.sleep(3600)  # killed here: after the handler, before the ack

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a17_killed_between_handler_and_ack_gets_the_message_again(
    world: World, make_stream: MakeStream, tmp_path: Path
) -> None:
    """A worker killed before it acknowledged loses nothing: its successor gets the message, and it is no replay."""
    stream, script = await make_stream(), tmp_path / "worker.py"
    script.write_text(WORKER)
    await (await streams(world, PLANNER)).publish(f"{stream}.task", b"job")
    key = world.signing[PLANNER]
    pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    arguments = [str(script), world.url, f"{stream}.task", PLANNER, key.key_id.decode(), pem]
    worker = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = b""
            while not line.startswith(b"handled"):
                line = await worker.stdout.readline()
                assert line, "the worker ended by itself"
    finally:
        worker.send_signal(signal.SIGKILL)
        await worker.wait()
    assert line == b"handled job\n"
    guard = world.agent(CLOUD, shared=False)
    js = (await world.client(guard)).jetstream(sole_reader=True)
    subscription = await js.pull_subscribe(f"{stream}.task", durable="worker")
    (msg,) = await subscription.fetch(timeout=15)
    assert (msg.data, msg.metadata.num_delivered) == (b"job", 2)
    await msg.ack_sync()
    assert guard.audit.counts == {"delivered": 1}
