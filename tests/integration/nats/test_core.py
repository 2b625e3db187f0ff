"""Every covered way of core NATS, and every refused one, on a real server."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from nats import micro
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, ConnectionDrainingError, Error
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import ServiceUnavailableError

from tests.brokers.broker import Broker
from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, raw, soon, until, verified
from watchword import (
    Algorithm,
    ConfigurationError,
    Mode,
    Reason,
    SigningError,
    Unavailable,
    VerifiedMessage,
    Watchword,
)
from watchword.spi import MemoryReplayStore
from watchword_adapters.nats import ObservedMsg, connect

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

Unique = Callable[[str], str]


async def test_connect_gives_a_client_that_is_one(world: World, unique: Unique) -> None:
    """``connect`` stands for ``nats.connect``, and frameworks that check the type are content."""
    async with await connect(world.url, watchword=world.agent(PLANNER), name="planner", reader="planner") as client:
        assert isinstance(client, Client)
        subscription = await client.subscribe(subject := unique("core"))
        await client.publish(subject, b"x")
        assert verified(await soon(subscription.next_msg(timeout=None))).verified.principal == PLANNER
    assert client.is_closed


async def test_callback_iterator_and_next_msg_deliver_verified_messages(world: World, unique: Unique) -> None:
    """All three ways of a subscription skip a forgery and give a drop-in message that says who wrote it."""
    subject, attacker = unique("core"), await world.plain()
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    got: list[Msg] = []

    async def handler(tag: str, msg: Msg) -> None:
        assert tag == "bound"
        got.append(msg)

    await cloud.subscribe(subject, cb=functools.partial(handler, "bound"))
    iterated, asked = await cloud.subscribe(subject), await cloud.subscribe(subject)
    await cloud.flush()
    await attacker.publish(subject, b"forged")
    await attacker.flush()
    await planner.publish(subject, b"real", headers={"kind": "order"})
    got.append(await soon(anext(aiter(iterated.messages))))
    got.append(await soon(asked.next_msg(timeout=None)))
    await until(lambda: len(got) == 3)
    for msg in got:
        assert isinstance(msg, Msg)
        assert (msg.data, msg.subject, msg.headers, msg.reply) == (b"real", subject, {"kind": "order"}, "")
        assert msg.sid > 0
        assert verified(msg).verified.principal == PLANNER
    with pytest.raises(NatsTimeoutError):
        await asked.next_msg(timeout=0.1)


async def test_iteration_ends_after_max_msgs(world: World, unique: Unique) -> None:
    """A45: a limit counts what was delivered, however many forged messages come before; then the iteration ends."""
    subject, attacker = unique("core"), await world.plain()
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    subscription = await cloud.subscribe(subject, max_msgs=2)
    await cloud.flush()
    for _ in range(3):
        await attacker.publish(subject, b"forged")
    await attacker.flush()
    for data in (b"1", b"2", b"3"):
        await planner.publish(subject, data)
    assert [msg.data async for msg in subscription.messages] == [b"1", b"2"]
    assert subscription.pending_msgs == 0
    with pytest.raises(NatsTimeoutError):
        await subscription.next_msg(timeout=0.01)


async def test_callers_side_by_side_share_a_limit(world: World, unique: Unique) -> None:
    """A maximum of one is one, also where two callers wait and two messages are there."""
    subject = unique("core")
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    subscription = await cloud.subscribe(subject, max_msgs=1)
    await cloud.flush()
    waiting = [asyncio.create_task(subscription.next_msg(timeout=2)) for _ in range(2)]
    world.keys.gate = asyncio.Event()
    for data in (b"1", b"2"):
        await planner.publish(subject, data)
    await until(lambda: subscription.delivered == 2)
    world.keys.gate.set()
    ends = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert sorted(type(end).__name__ for end in ends) == ["TimeoutError", "VerifiedMsg"]


@pytest.mark.parametrize("way", ["callback", "next_msg", "push"])
async def test_a45_forged_messages_use_up_no_limit(
    world: World, unique: Unique, make_stream: MakeStream, way: str
) -> None:
    """A45: only delivered messages count for ``unsubscribe(limit)``; once they have come, the server sends no more."""
    subject, attacker = unique("core"), await world.plain()
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    got: list[bytes] = []

    async def handler(msg: Msg) -> None:
        got.append(msg.data)

    if way == "push":
        await make_stream(subject)
        subscription: Subscription = await cloud.jetstream().subscribe(subject, cb=handler)
    else:
        subscription = await cloud.subscribe(subject, cb=handler if way == "callback" else None)
    await subscription.unsubscribe(limit=2)
    await cloud.flush()
    for _ in range(3):
        await attacker.publish(subject, b"forged")
    await attacker.flush()
    for data in (b"1", b"2", b"3"):
        await planner.publish(subject, data)
    await planner.flush()
    if way == "next_msg":
        got = [(await soon(subscription.next_msg(timeout=None))).data for _ in range(2)]
    await until(lambda: len(got) == 2)
    assert got == [b"1", b"2"]
    await cloud.flush()
    await planner.publish(subject, b"4")
    received = cloud.stats["in_msgs"]
    await planner.flush()
    await cloud.flush()
    assert cloud.stats["in_msgs"] == received, "the server sends nothing more"


@pytest.mark.parametrize("end", ["unsubscribe", "drain", "close"])
async def test_ids_are_forgotten_when_nothing_needs_them(world: World, unique: Unique, end: str) -> None:
    """A closed subscription's memory stays for as long as what it was given is fresh, and leaves then."""
    now = [time.time()]
    guard = world.agent(CLOUD, max_skew=0.0, shared=False, clock=lambda: now[0])
    subject, store = unique("core"), guard.verifier.replay
    assert isinstance(store, MemoryReplayStore)
    cloud, planner = await world.client(guard), await world.client(world.agent(PLANNER, clock=lambda: now[0]))
    subscription = await cloud.subscribe(subject)
    await until(lambda: subscription.reader is not None and subscription.reader.gate.is_open)
    now[0] += 2
    await planner.publish(subject, b"x")
    await soon(subscription.next_msg(timeout=None))
    if end == "close":
        await cloud.close()
    else:
        await getattr(subscription, end)()
    other = await world.client(guard)
    await other.subscribe(unique("core"))
    assert len(store) == 1
    now[0] += guard.verifier.policy.window + 1
    await other.subscribe(unique("core"))
    assert len(store) == 0


async def test_draining_the_client_delivers_what_came(world: World, unique: Unique) -> None:
    """Drain handles what is pending, then closes; afterwards nothing can be published or subscribed."""
    subject, got, hold = unique("core"), list[bytes](), asyncio.Event()
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))

    async def handler(msg: Msg) -> None:
        await hold.wait()
        got.append(msg.data)

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    for _ in range(10):
        await planner.publish(subject, b"x")
    await planner.flush()
    draining = asyncio.create_task(cloud.drain())
    await until(lambda: cloud.is_draining)
    with pytest.raises(ConnectionDrainingError):
        await cloud.subscribe(subject)
    hold.set()
    await soon(draining)
    assert got == [b"x"] * 10
    for late in (cloud.subscribe(subject), cloud.publish(subject, b"x"), cloud.request(subject, b"x")):
        with pytest.raises((ConnectionClosedError, ConnectionDrainingError)):
            await late


async def test_a17_cancelled_next_msg_loses_nothing(world: World, unique: Unique) -> None:
    """Who is cancelled while a message is judged leaves it to the next caller."""
    subject = unique("core")
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    subscription = await cloud.subscribe(subject)
    await cloud.flush()
    world.keys.gate = asyncio.Event()
    await planner.publish(subject, b"x")
    waiting = asyncio.create_task(subscription.next_msg(timeout=None))
    await soon(world.keys.question.wait())
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    world.keys.gate.set()
    assert (await soon(subscription.next_msg(timeout=None))).data == b"x"


async def test_slow_key_source_does_not_deafen_the_client(world: World, unique: Unique) -> None:
    """While one reader waits for a key, the client still answers pings, asks, and serves other requests."""
    subject = unique("core")
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    await cloud.subscribe(subject)
    waiting = asyncio.create_task((await cloud.subscribe(subject)).next_msg(timeout=None))
    await cloud.flush()
    world.keys.gate = asyncio.Event()
    await planner.publish(subject, b"x")
    await soon(world.keys.question.wait())
    await soon(cloud.flush())
    with pytest.raises(Error):
        await soon(cloud.request(unique("nobody"), b"x", timeout=10))
    assert (await soon(cloud.jetstream().account_info())).streams >= 0
    world.keys.gate.set()
    assert (await soon(waiting)).data == b"x"


async def test_outage_is_counted_and_dropped(world: World, unique: Unique) -> None:
    """On core NATS what cannot be judged is audited and gone, and the subscription continues; so do requests."""
    duel = await world.duel(unique("core"))
    world.keys.down = True
    await duel.planner.publish(duel.subject, b"lost")
    await until(lambda: duel.guard.audit.counts["unavailable"] == 1)
    world.keys.down = False
    await duel.capture(b"honest")
    assert [msg.data for msg in duel.delivered] == [b"honest"]


async def test_bare_publish_to_a_requests_inbox_is_its_answer(world: World, unique: Unique) -> None:
    """``nc.publish(msg.reply, ...)``, as many programs answer, is bound to the request."""
    subject = unique("core")
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))

    async def handler(msg: Msg) -> None:
        await cloud.publish(msg.reply, b"answer", headers={"kind": "answer"})

    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    answer = verified(await planner.request(subject, b"x", timeout=10))
    assert (answer.data, answer.headers, answer.verified.recipient) == (b"answer", {"kind": "answer"}, PLANNER)


async def test_many_answers_to_one_published_request(world: World, unique: Unique) -> None:
    """``publish(reply=inbox)`` gathers one answer of each service; the inbox takes nothing that answers nothing."""
    subject, guard = unique("core"), world.agent(PLANNER)
    planner = await world.client(guard)
    services = [await world.client(world.agent(CLOUD)) for _ in range(3)]
    for service in services:

        async def handler(msg: Msg) -> None:
            await verified(msg).respond(b"here", headers={"n": "1"})

        await service.subscribe(subject, cb=handler)
        await service.flush()
    inbox = planner.new_inbox()
    answers = await planner.subscribe(inbox)
    await planner.flush()
    await services[0].publish(inbox, b"unasked")
    await services[0].flush()
    await planner.publish(subject, b"who?", reply=inbox)
    got = [await soon(answers.next_msg(timeout=None)) for _ in services]
    assert [msg.data for msg in got] == [b"here"] * 3
    assert guard.audit.counts == {"delivered": 3, Reason.WRONG_REQUEST: 1}


async def test_requests_by_one_inbox_are_bounded(world: World, unique: Unique) -> None:
    """An inbox under which one asks forever remembers the latest thousand requests."""
    planner = await world.client(world.agent(PLANNER))
    inbox = planner.new_inbox()
    for _ in range(1005):
        await planner.publish(unique("core"), b"x", reply=inbox)
    assert len(planner.requests.expectation(planner.inbox_prefix)(inbox).requests) == 1000


async def test_micro_services_are_served_and_bound(world: World, unique: Unique) -> None:
    """A ``nats.micro`` service gets verified requests only, and its answers and errors verify at the requester."""
    subject, attacker = unique("core"), await world.plain()
    guard = world.agent(CLOUD)
    cloud, planner = await world.client(guard), await world.client(world.agent(PLANNER))
    handled: list[bytes] = []

    async def handler(request: micro.request.Request) -> None:
        handled.append(request.data)
        if request.data == b"fail":
            raise ValueError("no")
        await request.respond(b"done", headers={"kind": "answer"})

    async with await micro.add_service(cloud, name="scaler", version="1.0.0") as service:
        await service.add_endpoint(name="scale", subject=subject, handler=handler)
        await cloud.flush()
        with pytest.raises(NatsTimeoutError):
            await attacker.request(subject, b"forged", timeout=0.3)
        answer = verified(await planner.request(subject, b"go", timeout=10))
        failed = verified(await planner.request(subject, b"fail", timeout=10))
    assert (answer.data, answer.headers) == (b"done", {"kind": "answer"})
    assert (failed.headers or {})["Nats-Service-Error-Code"] == "500"
    assert handled == [b"go", b"fail"]
    assert guard.audit.counts == {"delivered": 2, Reason.UNSIGNED: 1}


async def test_recipient_hook_names_whom_a_message_is_for(world: World, unique: Unique) -> None:
    """The client's hook addresses messages by channel and headers; a call's own ``recipient`` goes before it."""
    subject = unique("core")
    asked: list[object] = []

    def recipient(channel: object, key: bytes | None, headers: object) -> str:
        asked.append((str(channel), key, headers))
        return CLOUD

    planner = await world.client(world.agent(PLANNER), recipient=recipient)
    cloud = await world.client(guard := world.agent(CLOUD))
    subscription = await cloud.subscribe(subject)
    await cloud.flush()
    await planner.publish(subject, b"other", recipient="agent://acme/other")
    await planner.publish(subject, b"mine", headers={"kind": "order"})
    msg = verified(await soon(subscription.next_msg(timeout=None)))
    assert (msg.data, msg.verified.recipient) == (b"mine", CLOUD)
    assert asked == [(f"nats://prod/{subject}", None, (("kind", b"order"),))]
    assert guard.audit.counts == {"delivered": 1, Reason.WRONG_RECIPIENT: 1}


async def test_headers_of_the_caller_are_left_alone(world: World, unique: Unique) -> None:
    """The dict that a caller gives can be used again."""
    headers = {"kind": "order"}
    planner = await world.client(world.agent(PLANNER))
    await planner.publish(unique("core"), b"x", headers=headers)
    assert headers == {"kind": "order"}


async def test_observe_mode_reads_unsigned_traffic_and_counts(world: World, unique: Unique) -> None:
    """While rolling out nothing is dropped or changed: reply and headers as they came, the verdict beside them."""
    subject, plain = unique("core"), await world.plain()
    guard = world.agent(CLOUD, mode=Mode.OBSERVE)
    cloud, planner = await world.client(guard), await world.client(world.agent(PLANNER))
    subscription = await cloud.subscribe(subject)
    await cloud.flush()
    asking = asyncio.create_task(plain.request(subject, b"unsigned", headers={"kind": "order"}, timeout=10))
    unsigned: Any = await soon(subscription.next_msg(timeout=None))
    await planner.publish(subject, b"signed")
    signed: Any = await soon(subscription.next_msg(timeout=None))
    await raw(plain, subject, b"NATS/1.0\r\nbad\r\n\r\n")
    broken: Any = await soon(subscription.next_msg(timeout=None))
    assert isinstance(unsigned, ObservedMsg)
    assert isinstance(signed, ObservedMsg)
    assert isinstance(broken, ObservedMsg)
    assert (unsigned.data, unsigned.headers) == (b"unsigned", {"kind": "order"})
    assert isinstance(signed.verdict, VerifiedMessage)
    assert [msg.verified and msg.verified.principal for msg in (unsigned, signed, broken)] == [None, PLANNER, None]
    assert "malformed" in str(broken.verdict)
    assert guard.audit.counts == {"delivered": 1, Reason.UNSIGNED: 1, Reason.MALFORMED: 1}
    await unsigned.respond(b"answer")
    assert (await soon(asking)).data == b"answer"
    with pytest.raises(Error):
        await signed.respond(b"nobody asked")


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_queue_group_shares_the_work(world: World, unique: Unique, mode: Mode) -> None:
    """With a store that they share, or only observing, members of a queue group handle every message once."""
    subject, got, warned = unique("core"), list[bytes](), list[str | float | None]()
    guard = world.agent(CLOUD, mode=mode, shared=mode is Mode.ENFORCE)
    guard.audit.warn = lambda _, **fields: warned.append(fields["scope"])  # type: ignore[method-assign]  # a tap
    cloud, planner = await world.client(guard), await world.client(world.agent(PLANNER))

    async def handler(msg: Msg) -> None:
        got.append(msg.data)

    for _ in range(2):
        await cloud.subscribe(subject, "workers", handler)
    await cloud.flush()
    for number in range(20):
        await planner.publish(subject, b"%d" % number)
    await until(lambda: len(got) == 20)
    assert sorted(got) == sorted(b"%d" % number for number in range(20))
    assert warned == (["queue group workers shares the work"] if mode is Mode.OBSERVE else [])


@pytest.mark.needs_nats("restart")
async def test_verification_goes_on_after_a_reconnect(world: World, unique: Unique, nats_broker: Broker) -> None:
    """After the server was restarted, subscriptions, requests and replay memory work on."""
    guard, subject = world.agent(CLOUD), unique("core")
    options = {"reconnect_time_wait": 0.1, "max_reconnect_attempts": -1, "error_cb": silent}
    cloud = await world.client(guard, **options)
    planner, attacker = await world.client(world.agent(PLANNER), **options), await world.plain(**options)
    served: list[Msg] = []

    async def handler(msg: Msg) -> None:
        served.append(msg)
        await msg.respond(b"done")

    seen = await attacker.subscribe(subject)
    await attacker.flush()
    await cloud.subscribe(subject, cb=handler)
    await cloud.flush()
    await planner.request(subject, b"before", timeout=10)
    captured = await soon(seen.next_msg(timeout=None))
    await asyncio.to_thread(nats_broker.restart)
    await until(lambda: all(c.is_connected and c.stats["reconnects"] for c in (cloud, planner, attacker)))
    for client in (cloud, attacker, planner):
        await client.flush()
    await attacker.publish(subject, captured.data, reply=captured.reply, headers=captured.headers)
    await attacker.flush()
    assert (await planner.request(subject, b"after", timeout=10)).data == b"done"
    assert [msg.data for msg in served] == [b"before", b"after"]
    assert guard.audit.counts == {"delivered": 2, Reason.REPLAYED: 1}


async def silent(_: Exception) -> None:
    """Expect what happens while the server is away."""


async def test_request_while_the_server_is_away_is_no_hang(world: World, unique: Unique) -> None:
    """A request that nobody reads ends at its time-out."""
    cloud, planner = await world.client(world.agent(CLOUD)), await world.client(world.agent(PLANNER))
    subject = unique("core")
    await cloud.subscribe(subject)
    await cloud.flush()
    with pytest.raises(NatsTimeoutError):
        await planner.request(subject, b"x", timeout=0.2)
    assert planner.requests._waiting == {}


@pytest.mark.parametrize(
    ("status", "error"), [(Client.RECONNECTING, NatsTimeoutError), (Client.DRAINING_PUBS, ConnectionDrainingError)]
)
async def test_request_without_a_connection_ends(
    world: World, unique: Unique, monkeypatch: pytest.MonkeyPatch, status: int, error: type
) -> None:
    """A request while reconnecting waits no longer than asked, one while draining is refused; both leave nothing."""

    async def answered(future: asyncio.Future[bool]) -> None:
        future.set_result(True)

    planner = await world.client(world.agent(PLANNER))
    await planner.jetstream().account_info()
    planner._status = status
    with pytest.raises(error):
        await planner.request(unique("core"), b"x", timeout=0.1)
    assert planner.requests._waiting == {}
    planner._status = Client.RECONNECTING
    monkeypatch.setattr(planner, "_send_ping", answered)  # the base reads no answer while it has this status
    await planner.flush()  # as the base does at the end of its own reconnecting
    planner._status = Client.CONNECTED


async def test_consumer_without_a_key_cannot_publish(world: World, unique: Unique) -> None:
    """A process that only verifies gets an error if it publishes, and its JetStream control traffic still works."""
    cloud = await world.client(world.agent(CLOUD, speaks=False))
    with pytest.raises(ConfigurationError, match="only verifies"):
        await cloud.publish(unique("core"), b"x")
    assert (await cloud.jetstream().account_info()).streams >= 0


async def test_signing_back_end_that_is_away_is_unavailable(world: World, unique: Unique) -> None:
    """When the key cannot sign, the caller hears it and nothing is sent."""
    agent: Watchword = world.agent(PLANNER)

    class Away:
        key_id, algorithm = agent.signer.key_id, Algorithm.ED25519

        async def sign(self, data: bytes) -> bytes:
            raise ConnectionError(len(data))

    agent.signer.switch(Away())
    planner = await world.client(agent)
    with pytest.raises(Unavailable):
        await planner.publish(unique("core"), b"x")


async def test_header_value_must_be_text(world: World, unique: Unique) -> None:
    """Bytes as a header value are not guessed at."""
    planner = await world.client(world.agent(PLANNER))
    with pytest.raises(SigningError, match="base64"):
        await planner.publish(unique("core"), b"x", headers={"kind": b"order"})  # type: ignore[dict-item]  # the mistake


async def test_control_request_without_an_answer_says_so(world: World) -> None:
    """A request to an API that nobody serves ends as with nats-py."""
    client = await world.client(world.agent(CLOUD))
    with pytest.raises(ServiceUnavailableError):
        await client.jetstream(domain="nowhere").account_info()


async def test_a_connection_that_is_lost_while_it_closes_leaves_nothing_open(world: World, unique: Unique) -> None:
    """nats-py raises an error for what it could not send, and leaves everything else open; here it is closed first."""
    ended = asyncio.Event()

    async def closed() -> None:
        ended.set()

    async def handler(_: Msg) -> None:
        pass

    client = await world.client(world.agent(CLOUD, shared=False), closed_cb=closed)
    subscription = await client.subscribe(unique("core"), cb=handler)
    await client.flush()
    handling: Any = subscription._wait_for_msgs_task
    client._transport._io_writer.transport.abort()  # type: ignore[union-attr]  # it is connected
    client._pending, client._pending_data_size = [b"PING\r\n"], 6
    with pytest.raises(ConnectionResetError):
        await client.close()
    assert client.is_closed
    assert ended.is_set()
    assert not client.watchword.lives._lives
    await soon(asyncio.wait((handling,)))
    assert handling.done()


async def test_a_callback_that_fails_at_the_close_is_called_once(world: World, unique: Unique) -> None:
    """An error of the user's own callback is raised, as by nats-py, and nothing is closed a second time."""
    calls: list[str] = []

    async def closed() -> None:
        calls.append("closed")
        raise ConnectionError("the user's own")

    async def handler(_: Msg) -> None:
        pass

    client = await world.client(world.agent(CLOUD, shared=False), closed_cb=closed)
    await client.subscribe(unique("core"), cb=handler)
    await client.flush()
    with pytest.raises(ConnectionError, match="the user's own"):
        await client.close()
    assert calls == ["closed"]
    assert not client.watchword.lives._lives
