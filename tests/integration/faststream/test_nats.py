"""A FastStream service on a real nats-server: handlers get what verified, and answers are bound to their requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

import pytest
from faststream import AckPolicy
from faststream.nats import JStream, NatsMessage, PullSub
from faststream.nats import NatsBroker as PlainBroker
from nats.errors import TimeoutError as NoAnswer
from nats.js.api import ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.faststream.backend import signing_elsewhere
from tests.integration.nats.world import CLOUD, MALLORY, PLANNER, World, resend, second_begins, until
from watchword import ConfigurationError, Mode
from watchword.faststream import NatsBroker, Principal, Principals, Verified
from watchword_adapters.faststream import holding


@asynccontextmanager
async def running(*brokers: Any) -> AsyncIterator[None]:
    """Start brokers, so that the server knows their subscriptions, and stop them."""
    for broker in brokers:
        await broker.start()
        await (await broker.connect()).flush()
    try:
        yield
    finally:
        for broker in brokers:
            await broker.stop()


def service(world: World, principal: str = CLOUD, **options: Any) -> NatsBroker:
    """Return a broker of ours; ``options`` are the agent's and the broker's."""
    agent = {name: options.pop(name) for name in ("mode", "max_hold", "shared") if name in options}
    return NatsBroker(world.url, watchword=world.agent(principal, **agent), **{"reader": token_hex(4)} | options)


async def test_a_handler_gets_neither_unsigned_nor_forged_nor_replayed_messages(nats: World, unique: Any) -> None:
    """A plain handler on the same subject acts on all of them: the attack works where nobody verifies."""
    subject, plain, ours, planner = unique("tasks"), PlainBroker(nats.url), service(nats), service(nats, PLANNER)
    taken: list[Any] = []
    seen: list[tuple[str, str | None]] = []

    @plain.subscriber(subject)
    async def act(message: NatsMessage) -> None:
        taken.append(message.raw_message)

    @ours.subscriber(subject)
    async def handle(body: str, who: Principal) -> None:
        seen.append((body, who))

    attacker = await nats.plain()
    async with running(plain, ours, planner):
        await planner.publish("scale up", subject)
        await until(lambda: taken and seen)
        await attacker.publish(subject, b"unsigned")
        await resend(attacker, taken[0], data=b"scale down")
        await resend(attacker, taken[0])
        await planner.publish("last", subject)
        await until(lambda: len(taken) == 5 and len(seen) == 2)
    assert seen == [("scale up", PLANNER), ("last", PLANNER)]
    counts = ours.watchword.audit.counts
    assert [counts[reason] for reason in ("unsigned", "altered", "replayed")] == [1, 1, 1]


async def test_a_request_gets_the_answer_to_it_and_no_other(nats: World, unique: Any) -> None:
    """An attacker that answers first is not heard, and the handler's answer is its agent's, to this request."""
    subject, ours, planner = unique("ask"), service(nats), service(nats, PLANNER)
    asked: list[str] = []

    @ours.subscriber(subject)
    async def handle(body: str, verified: Verified) -> str:
        assert verified is not None
        asked.append(verified.id)
        return body.upper()

    attacker = await nats.plain()

    async def forge(msg: Any) -> None:
        await attacker.publish(msg.reply, b"forged")

    await attacker.subscribe(subject, cb=forge)
    await attacker.flush()
    async with running(ours, planner):
        answer: Any = await planner.request("ready", subject, timeout=10)
    verified = answer.raw_message.verified
    assert (answer.body, verified.principal) == (b"READY", CLOUD)
    assert [verified.in_reply_to] == asked


async def test_a_request_over_a_stream_is_answered(nats: World, unique: Any, make_stream: MakeStream) -> None:
    """A stream keeps no reply subject, so a header names it: the answer is bound to the request all the same."""
    subject = unique("ask")
    stream = JStream(await make_stream(subject), declare=False)
    ours, planner = service(nats), service(nats, PLANNER)
    asked: list[str] = []

    @ours.subscriber(subject, stream=stream, pull_sub=True)
    async def handle(body: str, verified: Verified) -> str:
        assert verified is not None
        asked.append(verified.id)
        return body.upper()

    async with running(ours, planner):
        answer: Any = await planner.request("ready", subject, stream=stream.name, timeout=10)
    verified = answer.raw_message.verified
    assert (answer.body, verified.principal) == (b"READY", CLOUD)
    assert [verified.in_reply_to] == asked


async def test_an_answer_that_a_stream_was_asked_for_can_be_drawn_by_nobody_else(
    nats: World, unique: Any, make_stream: MakeStream
) -> None:
    """What goes to a subject that a message's header named is an answer to that message: no other reader takes it."""
    subject, payments = unique("ask"), unique("payments")
    stream = JStream(await make_stream(subject), declare=False)
    ours, mallory, bank = service(nats), service(nats, MALLORY), service(nats, PLANNER)
    drawn: list[str] = []
    own: list[str | None] = []

    @ours.subscriber(subject, stream=stream, pull_sub=True)
    async def handle(body: str) -> str:
        return body.upper()

    @bank.subscriber(payments)
    async def pay(body: str) -> None:
        drawn.append(body)

    @mallory.subscriber(payments)
    async def answered(who: Principal) -> None:
        own.append(who)

    async with running(ours, mallory, bank):
        await mallory.publish("pay mallory", subject, stream=stream.name, reply_to=payments)
        await until(lambda: own and bank.watchword.audit.counts["wrong_recipient"])
    assert (own, drawn) == ([CLOUD], [])


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("asks", ["agent", "stranger"])
async def test_no_header_makes_a_handler_give_orders_to_the_server(
    nats: World, unique: Any, make_stream: MakeStream, mode: Mode, asks: str
) -> None:
    """Promise (A45): a message of a stream that wants its answer under ``$`` gets none, no matter who sent it."""
    subject = unique("ask")
    victim = await make_stream()
    stream = JStream(await make_stream(subject), declare=False)
    ours, mallory, stranger = service(nats, mode=mode), service(nats, MALLORY), await nats.plain()
    await stranger.jetstream().publish(f"{victim}.x", b"kept")
    order, seen = f"$JS.API.STREAM.PURGE.{victim}", list[str]()

    @ours.subscriber(subject, stream=stream, pull_sub=True)
    async def handle(body: str) -> str:
        seen.append(body)
        return ""

    async with running(ours, mallory):
        await stranger.publish(subject, b"order", headers={"reply_to": order} if asks == "stranger" else None)
        await stranger.flush()
        await mallory.publish("order", subject, headers={"reply_to": order} if asks == "agent" else None)
        await mallory.publish("last", subject)
        await until(lambda: "last" in seen)
    assert seen.count("order") == (2 if mode is Mode.OBSERVE else 1)
    assert (await stranger.jetstream().stream_info(victim)).state.messages == 1


@pytest.mark.parametrize("stored", [False, True])
async def test_an_answer_to_a_stranger_is_not_signed(
    nats: World,
    unique: Any,
    make_stream: MakeStream,
    stored: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """While observing, who asks unsigned is answered unsigned: a signed answer would be worth something elsewhere."""
    subject, payments = unique("ask"), unique("payments")
    stream = JStream(await make_stream(subject), declare=False) if stored else None
    ours, bank, stranger = service(nats, mode=Mode.OBSERVE), service(nats, PLANNER), await nats.plain()
    drawn: list[str] = []

    @ours.subscriber(subject, stream=stream, pull_sub=stored)
    async def handle(body: str) -> str:
        return body.upper()

    @bank.subscriber(payments)
    async def pay(body: str) -> None:
        drawn.append(body)

    answers = await stranger.subscribe(payments)
    await stranger.flush()
    async with running(ours, bank):
        asked = {"headers": {"reply_to": payments}} if stored else {"reply": payments}
        await stranger.publish(subject, b"pay mallory", **asked)
        answer = await answers.next_msg(timeout=10)
        await until(lambda: bank.watchword.audit.counts["unsigned"])
    assert (answer.data, drawn) == (b"PAY MALLORY", [])


async def test_a_durable_goes_on_where_it_was(nats: World, unique: Any, make_stream: MakeStream) -> None:
    """After a restart what was published meanwhile is handed over; what is forged or acknowledged is not."""
    subject, durable = unique("tasks"), unique("durable")
    stream = JStream(await make_stream(subject), declare=False)
    planner, attacker = service(nats, PLANNER), await nats.plain()
    seen: list[tuple[str, str | None]] = []

    def reader() -> NatsBroker:
        broker = service(nats, shared=False, sole_reader=True)

        @broker.subscriber(subject, stream=stream, durable=durable, pull_sub=True)
        async def handle(body: str, who: Principal) -> None:
            seen.append((body, who))

        return broker

    async with running(planner):
        async with running(reader()):
            await planner.publish("one", subject, stream=stream.name)
            await until(lambda: seen)
        await planner.publish("two", subject, stream=stream.name)
        await attacker.jetstream().publish(subject, b"forged")
        async with running(reader()):
            await planner.publish("three", subject, stream=stream.name)
            await until(lambda: len(seen) == 3)
    assert seen == [("one", PLANNER), ("two", PLANNER), ("three", PLANNER)]


async def test_a_durable_that_others_may_read_needs_a_store(nats: World, unique: Any, make_stream: MakeStream) -> None:
    """Without sole_reader=True and without a store it does not start, and says what to write."""
    subject = unique("tasks")
    stream = JStream(await make_stream(subject), declare=False)
    ours = service(nats, shared=False)

    @ours.subscriber(subject, stream=stream, durable=unique("durable"), pull_sub=True)
    async def handle(body: str) -> None:
        raise AssertionError(body)

    async with ours:
        with pytest.raises(ConfigurationError, match=r"sole_reader=True.*\[replay\] store"):
            await ours.start()


async def test_batches_of_a_stream_have_a_sender_each(nats: World, unique: Any, make_stream: MakeStream) -> None:
    """A pull subscriber's batch is of verified messages, and is acknowledged as one."""
    subject = unique("tasks")
    stream = JStream(await make_stream(subject), declare=False)
    ours, planner = service(nats), service(nats, PLANNER)
    seen: list[tuple[str, str | None]] = []

    @ours.subscriber(subject, stream=stream, pull_sub=PullSub(10, timeout=0.5, batch=True))
    async def handle(bodies: list[str], who: Principals) -> None:
        seen.extend(zip(bodies, who, strict=True))

    attacker = await nats.plain()
    async with running(ours, planner):
        await planner.publish("one", subject, stream=stream.name)
        await attacker.jetstream().publish(subject, b"forged")
        await planner.publish("two", subject, stream=stream.name)
        await until(lambda: len(seen) == 2)
    assert seen == [("one", PLANNER), ("two", PLANNER)]


@pytest.mark.parametrize("policy", [AckPolicy.NACK_ON_ERROR, AckPolicy.REJECT_ON_ERROR, AckPolicy.ACK])
@pytest.mark.parametrize("pull", [{"pull_sub": True}, {}], ids=["pull", "push"])
async def test_ack_policies_do_what_they_say(
    nats: World, unique: Any, make_stream: MakeStream, policy: AckPolicy, pull: dict[str, Any]
) -> None:
    """A message whose handler failed comes again only by NACK_ON_ERROR, as a redelivery."""
    subject = unique("tasks")
    stream = JStream(await make_stream(subject), declare=False)
    ours, planner = service(nats), service(nats, PLANNER)
    seen: list[tuple[str, bool]] = []

    async def handle(body: str, verified: Verified) -> None:
        assert verified is not None
        seen.append((body, verified.redelivered))
        if len(seen) == 1:
            raise ValueError(body)

    ours.subscriber(subject, stream=stream, ack_policy=policy, **pull)(handle)
    async with running(ours, planner):
        await planner.publish("one", subject, stream=stream.name)
        await until(lambda: seen)
        expected = [("one", False)] + [("one", True)] * (policy is AckPolicy.NACK_ON_ERROR)
        await until(lambda: len(seen) == len(expected))
        await planner.publish("two", subject, stream=stream.name)
        await until(lambda: ("two", False) in seen)
    assert seen == [*expected, ("two", False)]


@pytest.mark.parametrize("pull", [{"pull_sub": True}, {}], ids=["pull", "push"])
async def test_a_message_that_cannot_be_judged_comes_again(
    nats: World, unique: Any, make_stream: MakeStream, pull: dict[str, Any]
) -> None:
    """While the key source is down a message of a stream is given back with a delay, and handed over when it is up."""
    subject = unique("tasks")
    stream = JStream(await make_stream(subject), declare=False)
    ours, planner = service(nats, max_hold=600.0), service(nats, PLANNER)
    seen: list[str] = []
    config = ConsumerConfig(filter_subjects=[], max_deliver=100)

    async def handle(body: str) -> None:
        seen.append(body)

    ours.subscriber(subject, stream=stream, config=config, **pull)(handle)
    async with running(ours, planner):
        nats.keys.down = True
        await planner.publish("one", subject, stream=stream.name)
        await until(lambda: ours.watchword.audit.counts["unavailable"])
        assert seen == []
        nats.keys.down = False
        await until(lambda: seen)
    assert seen == ["one"]


@pytest.mark.parametrize("over", ["core", "stream"])
async def test_a_handler_whose_messages_cannot_be_signed_waits(
    nats: World, unique: Any, make_stream: MakeStream, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    """What a handler asks, publishes and answers while its key is away goes out when the key is back."""
    monkeypatch.setattr(holding, "SHORTEST", 0.01)
    ask, deeper, log = unique("ask"), unique("deeper"), unique("log")
    name = await make_stream(deeper, log)
    stream = JStream(name, declare=False) if over == "stream" else None
    backend, agent = signing_elsewhere(nats.agent(CLOUD), nats.signing[CLOUD])
    middle = NatsBroker(nats.url, watchword=agent, reader=token_hex(4))
    expert, planner = service(nats, MALLORY), service(nats, PLANNER)
    asked: list[str] = []
    logged: list[str] = []
    through: Any = {"stream": name} if over == "stream" else {}

    async def know(body: str) -> str:
        return body.upper()

    async def read(body: str) -> None:
        logged.append(body)

    for subject, handler in ((deeper, know), (log, read)):
        pulled: Any = {"stream": stream, "pull_sub": True} if stream else {}
        subscribe: Any = expert.subscriber(subject, **pulled)
        subscribe(handler)

    @middle.subscriber(ask)
    async def handle(body: str) -> str:
        asked.append(body)
        backend.failures = 2
        answer: Any = await middle.request(body, deeper, timeout=10, **through)
        backend.failures = 2
        await middle.publish(body, log, **through)
        backend.failures = 2
        return str(await answer.decode())

    async with running(expert, middle, planner):
        answer: Any = await planner.request("ready", ask, timeout=10)
        await until(lambda: logged)
    assert (asked, answer.body, logged) == (["ready"], b"READY", ["ready"])


async def test_queue_groups_need_a_store_and_share_the_work(nats: World, unique: Any) -> None:
    """Two members get each message once between them, a replay neither; without a store a group is refused."""
    subject, planner = unique("tasks"), service(nats, PLANNER)
    guard = nats.agent(CLOUD)
    members = [NatsBroker(nats.url, watchword=guard, reader=unique("member")) for _ in range(2)]
    alone = service(nats, shared=False)
    seen: list[str] = []
    for member in [*members, alone]:

        @member.subscriber(subject, queue="workers")
        async def handle(body: str) -> None:
            seen.append(body)

    async with alone:
        with pytest.raises(ConfigurationError, match="queue group workers shares the work"):
            await alone.start()
    heard: list[Any] = []

    async def hear(msg: Any) -> None:
        heard.append(msg)

    attacker = await nats.plain()
    await attacker.subscribe(subject, cb=hear)
    async with running(planner, *members):
        await second_begins()
        for number in range(6):
            await planner.publish(str(number), subject)
        await until(lambda: len(seen) == 6)
        for msg in tuple(heard):
            await resend(attacker, msg)
        await until(lambda: guard.audit.counts["replayed"] == 6)
    assert sorted(seen) == [str(number) for number in range(6)]


async def test_an_observer_hands_over_all_and_says_what_it_is(nats: World, unique: Any) -> None:
    """While observing, a service works as before: the sender of what does not verify is None, and it is answered."""
    subject, ours, planner = unique("tasks"), service(nats, mode=Mode.OBSERVE), service(nats, PLANNER)
    seen: list[tuple[str, str | None]] = []

    @ours.subscriber(subject)
    async def handle(body: str, who: Principal) -> str:
        seen.append((body, who))
        return "done"

    client = await nats.plain()
    async with running(ours, planner):
        await planner.publish("real", subject)
        await until(lambda: seen)
        answer = await client.request(subject, b"plain", timeout=10)
    assert seen == [("real", PLANNER), ("plain", None)]
    assert answer.data == b"done"


async def test_nobody_answers_who_was_not_verified(nats: World, unique: Any) -> None:
    """An unsigned request reaches no handler, so that it runs into its time-out."""
    subject, ours = unique("ask"), service(nats)

    @ours.subscriber(subject)
    async def handle(body: str) -> None:
        raise AssertionError(body)

    client = await nats.plain()
    async with running(ours):
        with pytest.raises(NoAnswer):
            await client.request(subject, b"plain", timeout=0.3)
        await until(lambda: ours.watchword.audit.counts["unsigned"])
