"""Observe mode changes nothing that worked before: a call that cannot be covered goes through, with one warning."""

import pickle
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, unacknowledged
from watchword import ConfigurationError, Mode, WatchwordError
from watchword_adapters.nats import ObservedMsg, WatchwordClient

Unique = Callable[[str], str]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the calls that were warned of."""
    return [line for line in caplog.messages if "nats.call_uncovered" in line]


async def publishes_blanks(client: WatchwordClient, subject: str, _: str) -> None:
    """Send a value that clients change on the way."""
    await client.publish(subject, b"x", headers={"kind": " two\r\nlines "})


async def publishes_schedule(client: WatchwordClient, subject: str, _: str) -> None:
    """Send what the server stores to publish it elsewhere."""
    await client.publish(subject, b"x", headers={"Nats-Schedule": "@at 2030-01-01T00:00:00Z"})


async def publishes_nameless(client: WatchwordClient, subject: str, _: str) -> None:
    """Send a header without a name."""
    await client.publish(subject, b"x", headers={"": "x"})


async def publishes_in_utf8(client: WatchwordClient, subject: str, _: str) -> None:
    """Send to a subject beyond ASCII."""
    await client.publish(f"{subject}.tâche", b"x")


async def asks_unsigned(client: WatchwordClient, subject: str, _: str) -> None:
    """Ask with headers that cannot be signed."""
    plain = await client.request(subject, b"x", timeout=10, headers={"kind": "naïve"})
    assert plain.data == b"x"


async def reads_a_bucket(client: WatchwordClient, _: str, stream: str) -> None:
    """Put, get and watch."""
    bucket = await client.jetstream().create_key_value(bucket=stream)
    await bucket.put("key", b"value")
    assert (await bucket.get("key")).value == b"value"
    assert (await (await client.jetstream().key_value(stream)).get("key")).value == b"value"
    await client.jetstream().delete_key_value(stream)


async def reads_objects(client: WatchwordClient, _: str, stream: str) -> None:
    """Put and get."""
    store = await client.jetstream().create_object_store(bucket=stream)
    await store.put("name", b"object")
    assert (await (await client.jetstream().object_store(stream)).get("name")).data == b"object"
    await client.jetstream().delete_object_store(stream)


async def reads_a_message(client: WatchwordClient, _: str, stream: str) -> None:
    """Read what is stored, by its number and by its subject."""
    for manager in (client.jetstream(), client.jsm()):
        assert (await manager.get_msg(stream, seq=1)).data == b"stored"
        assert (await manager.get_last_msg(stream, f"{stream}.a")).data == b"stored"


def fetches(**config: Any) -> Callable[[WatchwordClient, str, str], Awaitable[None]]:
    """Return what reads through a consumer of this kind."""

    async def read(client: WatchwordClient, _: str, stream: str) -> None:
        pull = await client.jetstream().pull_subscribe(f"{stream}.*", stream=stream, config=ConsumerConfig(**config))
        (msg,) = await pull.fetch(1, timeout=10)
        assert isinstance(msg, ObservedMsg)
        await msg.ack()

    return read


CALLS: dict[str, tuple[Callable[[WatchwordClient, str, str], Awaitable[None]], str]] = {
    "blanks": (publishes_blanks, "printable ASCII"),
    "schedule": (publishes_schedule, "when it is due"),
    "nameless": (publishes_nameless, "without a name"),
    "utf8": (publishes_in_utf8, "printable ASCII"),
    "request": (asks_unsigned, "printable ASCII"),
    "bucket": (reads_a_bucket, "Publish to a stream"),
    "objects": (reads_objects, "Publish to a stream"),
    "get_msg": (reads_a_message, "pull_subscribe()"),
    "ack all": (fetches(ack_policy=AckPolicy.ALL), "AckPolicy.EXPLICIT"),
    "headers only": (fetches(headers_only=True), "whole messages"),
    "last": (fetches(deliver_policy=DeliverPolicy.LAST_PER_SUBJECT), "DeliverPolicy.ALL"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_cannot_be_covered_goes_through_while_observing(
    world: World, unique: Unique, make_stream: MakeStream, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """It is refused when enforcing; while observing it does what nats-py does, with one warning for all such calls."""
    call, remedy = CALLS[name]
    stream, subject, plain = await make_stream(), unique("observe"), await world.plain()
    await plain.jetstream().publish(f"{stream}.a", b"stored")

    async def echo(msg: Msg) -> None:
        if msg.reply:
            await plain.publish(msg.reply, msg.data)

    heard = await plain.subscribe(f"{subject}.>")
    await plain.subscribe(subject, cb=echo)
    await plain.flush()
    strict = await world.client(world.agent(CLOUD))
    with pytest.raises(WatchwordError) as refused:
        await call(strict, subject, stream)
    assert remedy in str(refused.value)
    client = await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))
    caplog.clear()
    for _ in range(2):
        await call(client, subject, stream)
    told = [line for line in warnings_of(caplog) if remedy in line]
    assert len(told) == 1
    if name == "utf8":
        assert (await soon(heard.next_msg())).subject == f"{subject}.tâche"


async def test_an_observer_without_a_signer_publishes_unsigned(
    world: World, unique: Unique, make_stream: MakeStream, caplog: pytest.LogCaptureFixture
) -> None:
    """Before keys are given out publishing, asking, storing and answering work as before, with one warning."""
    subject, plain = unique("observe"), await world.plain()
    await make_stream(f"{subject}.stored")
    with pytest.raises(ConfigurationError, match=r"\[signer\]"):
        await (await world.client(world.agent(CLOUD, speaks=False))).publish(subject, b"x")
    client = await world.client(world.agent(CLOUD, speaks=False, mode=Mode.OBSERVE))
    other = await world.client(world.agent(PLANNER))
    inbox = plain.new_inbox()
    heard = await plain.subscribe(inbox)

    async def answer(msg: Msg) -> None:
        await msg.respond(b"answer")

    await client.subscribe(subject, cb=answer)
    await client.flush()
    await plain.flush()
    caplog.clear()
    await client.publish(subject, b"x", reply=inbox)
    assert (await soon(heard.next_msg(timeout=10))).headers is None
    assert (await client.request(subject, b"x", timeout=10)).data == b"answer"
    await client.jetstream().publish(f"{subject}.stored", b"x")
    await (await client.jetstream().publish_async(f"{subject}.stored", b"x"))
    await other.publish(subject, b"signed", reply=inbox)
    assert (await soon(heard.next_msg(timeout=10))).data == b"answer"
    assert len(warnings_of(caplog)) == 1


async def test_an_answer_to_a_stranger_is_not_signed(
    world: World, unique: Unique, make_stream: MakeStream, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise (A45): an unsigned request, on a subject of its choice, is answered there, and nothing is signed."""
    subject, place = unique("observe"), f"{await make_stream()}.payments"
    plain, client = await world.plain(), await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))
    asked = await client.subscribe(subject)
    heard = await plain.subscribe(place)
    await client.flush()
    await plain.publish(subject, b"ask", reply=place)
    await plain.flush()
    msg = await soon(asked.next_msg())
    assert msg.reply == place
    await client.publish(msg.reply, b"answer")
    await client.jetstream().publish(msg.reply, b"stored")
    await msg.respond(b"respond")
    for data in (b"answer", b"stored", b"respond"):
        answer = await soon(heard.next_msg())
        assert (answer.data, "watchword" in (answer.headers or {})) == (data, False)
    caplog.clear()
    await client.publish(subject, b"passed on", reply=msg.reply)
    assert [line for line in warnings_of(caplog) if "reply subject of a request" in line]
    await client.publish(pickle.loads(pickle.dumps(msg.reply)), b"a text of the application's")  # noqa: S301 - our own
    assert "watchword" in ((await soon(heard.next_msg())).headers or {})


async def test_what_observing_hands_over_can_be_passed_on(
    world: World, unique: Unique, make_stream: MakeStream
) -> None:
    """``headers=msg.headers`` works with every message, from a stream too; a ``Nats-Msg-Id`` of the caller stays."""
    subject, onward = unique("observe"), unique("onward")
    await make_stream(subject)
    planner, plain = await world.client(world.agent(PLANNER)), await world.plain()
    js = planner.jetstream()
    await js.publish(subject, b"ours", headers={"kind": "a"})
    await js.publish(subject, b"theirs", headers={"Nats-Msg-Id": "0" * 32})
    await plain.jetstream().publish(subject, b"plain", headers={"Nats-Msg-Id": "1" * 32})
    await plain.jetstream().publish(subject, b"forged", headers={"WatchWord": "x", "Nats-Msg-Id": "2" * 32})
    await plain.jetstream().publish(subject, b"bare")
    client = await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))
    pull = await client.jetstream().pull_subscribe(subject)
    heard = await plain.subscribe(onward)
    await plain.flush()
    got: list[Msg] = []
    while len(got) < 5:
        got += await pull.fetch(5, timeout=10)
    expected: list[dict[str, str] | None] = [
        {"kind": "a"},
        {"Nats-Msg-Id": "0" * 32},
        {"Nats-Msg-Id": "1" * 32},
        None,
        None,
    ]
    assert [msg.headers for msg in got] == expected
    for msg in got:
        await client.publish(onward, msg.data, headers=msg.headers)
        assert "watchword" in ((await soon(heard.next_msg(timeout=10))).headers or {})


async def test_whatever_is_handed_over_bears_verified(world: World, unique: Unique) -> None:
    """``.verified`` says who wrote it, and is None for a forged message while observing, and for the server's words."""
    subject, plain = unique("observe"), await world.plain()
    client = await world.client(world.agent(CLOUD, mode=Mode.OBSERVE))
    planner = await world.client(world.agent(PLANNER))
    subscription = await client.subscribe(subject)
    await client.flush()
    await plain.publish(subject, b"forged")
    await plain.flush()
    await planner.publish(subject, b"real")
    got: list[Any] = [await soon(subscription.next_msg(timeout=None)) for _ in range(2)]
    assert [msg.verified and msg.verified.principal for msg in got] == [None, PLANNER]
    server: Any = await client.request("$JS.API.INFO", timeout=10)
    assert server.verified is None
    with pytest.raises(Error, match="no reply subject"):
        await server.respond(b"x")


async def test_stream_acks_by_hand_are_heard(world: World, unique: Unique, make_stream: MakeStream) -> None:
    """A17: what the server takes for the end of a delivery ends it for us, from any publisher; nothing else does."""
    subject = unique("acked")
    stream = await make_stream(subject)
    client = await world.client(world.agent(CLOUD))
    js = client.jetstream()
    pull = await js.pull_subscribe(subject, durable="worker", config=ConsumerConfig(ack_wait=30))
    heard: list[int] = []

    def hear(stream_name: str, consumer: str, sequence: int) -> None:
        if (stream_name, consumer) == (stream, "worker"):
            heard.append(sequence)

    client.watchword.lives.acknowledged_at = hear  # type: ignore[method-assign, assignment]  # to listen in
    ends, others = [b"", b"+ACK", b"+OK", b"+TERM", b"+TERM why", b"+NXT"], [b"+WPI", b'-NAK {"delay": 60000000000}']
    payloads = [*ends, *others, b"-NAK", b"?"]
    for payload in payloads:
        await js.publish(subject, payload)
    fetched = [(await pull.fetch(1, timeout=10))[0] for _ in payloads]
    for msg in fetched:
        await client.publish(msg.reply, msg.data)
    await client.publish("$JS.ACK.nothing", b"+ACK")
    await client.publish(fetched[0].reply.replace(stream, "other"), b"+ACK")
    await client.flush()
    assert heard == [1, 2, 3, 4, 5, 6]
    info = await unacknowledged(partial(js.consumer_info, stream, "worker"), len(payloads) - len(heard))
    assert info.ack_floor is not None
    assert info.ack_floor.stream_seq == 6
    await fetched[9].ack_sync(timeout=10)
    assert heard[-1] == 10
