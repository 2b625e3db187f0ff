"""A program that catches nats-py's errors catches ours: each call that fails with nats-py fails with the same error."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import errors as js_errors

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, World
from watchword import ConfigurationError, SigningError
from watchword_adapters.nats import errors as both

BAD_HEADER = getattr(errors, "BadHeaderError", errors.Error)
"""nats-py looks at headers, and at subjects to publish to, from 2.16 on."""

Unique = Callable[[str], str]
Call = Callable[[Client, str], Awaitable[Any]]


async def _nothing(_: Msg) -> None:
    pass


async def _twice(client: Client, subject: str, end: str) -> None:
    subscription = await client.subscribe(subject)
    await getattr(subscription, end)()
    await getattr(subscription, end)()


async def _next_with_callback(client: Client, subject: str) -> None:
    await (await client.subscribe(subject, cb=_nothing)).next_msg()


async def _messages_with_callback(client: Client, subject: str) -> None:
    async for _ in (await client.subscribe(subject, cb=_nothing)).messages:
        pass


async def _next_when_closed(client: Client, subject: str) -> None:
    subscription = await client.subscribe(subject)
    waiting = asyncio.ensure_future(subscription.next_msg(timeout=10))
    await asyncio.sleep(0)
    await client.close()
    await waiting


async def _closed(client: Client, call: Awaitable[Any]) -> None:
    await client.close()
    await call


async def _fetches(client: Client, subject: str, *, batch: int = 1, seconds: float = 0.05, after: str = "") -> None:
    pull = await client.jetstream().pull_subscribe(subject)
    if after:
        await getattr(pull, after)()
    await pull.fetch(batch, timeout=seconds)


async def _fetches_when_closed(client: Client, subject: str) -> None:
    pull = await client.jetstream().pull_subscribe(subject)
    await client.close()
    await pull.fetch(1)


async def _ack_of_core(client: Client, subject: str) -> None:
    await Msg(client, subject).ack()


CALLS: dict[str, tuple[Call, type[BaseException]]] = {
    "publish nowhere": (lambda nc, _: nc.publish("", b"x"), errors.BadSubjectError),
    "publish to a blank": (lambda nc, s: nc.publish(f"{s} x", b"x"), errors.BadSubjectError),
    "publish with a bad reply": (lambda nc, s: nc.publish(s, b"x", reply="a b"), errors.BadSubjectError),
    "publish a bad header": (lambda nc, s: nc.publish(s, b"x", headers={"a b": "x"}), BAD_HEADER),
    "publish too much": (lambda nc, s: nc.publish(s, b"x" * (nc.max_payload + 1)), errors.MaxPayloadError),
    "publish when closed": (lambda nc, s: _closed(nc, nc.publish(s, b"x")), errors.ConnectionClosedError),
    "request nowhere": (lambda nc, _: nc.request("", b"x"), errors.BadSubjectError),
    "request a bad header": (lambda nc, s: nc.request(s, b"x", headers={"a:b": "x"}), BAD_HEADER),
    "request too much": (lambda nc, s: nc.request(s, b"x" * (nc.max_payload + 1)), errors.MaxPayloadError),
    "request nobody": (lambda nc, s: nc.request(s, b"x", timeout=10), errors.NoRespondersError),
    "request when closed": (lambda nc, s: _closed(nc, nc.request(s, b"x")), errors.ConnectionClosedError),
    "subscribe to a blank": (lambda nc, s: nc.subscribe(f"{s} x"), errors.BadSubjectError),
    "subscribe to half a token": (lambda nc, s: nc.subscribe(f"{s}*"), errors.BadSubjectError),
    "subscribe in a bad queue": (lambda nc, s: nc.subscribe(s, queue="a b"), errors.BadSubjectError),
    "subscribe when closed": (lambda nc, s: _closed(nc, nc.subscribe(s)), errors.ConnectionClosedError),
    "subscribe a function": (lambda nc, s: nc.subscribe(s, cb=lambda _: None), errors.Error),  # type: ignore[arg-type, return-value]
    "next_msg with a callback": (_next_with_callback, errors.Error),
    "messages with a callback": (_messages_with_callback, errors.Error),
    "next_msg when closed": (_next_when_closed, errors.ConnectionClosedError),
    "unsubscribe twice": (lambda nc, s: _twice(nc, s, "unsubscribe"), errors.BadSubscriptionError),
    "drain twice": (lambda nc, s: _twice(nc, s, "drain"), errors.BadSubscriptionError),
    "flush in no time": (lambda nc, _: nc.flush(timeout=0), errors.BadTimeoutError),
    "drain when closed": (lambda nc, _: _closed(nc, nc.drain()), errors.ConnectionClosedError),
    "ack what no stream delivered": (_ack_of_core, errors.NotJSMessageError),
    "store where no stream is": (lambda nc, s: nc.jetstream().publish(f"x{s}", b"x"), js_errors.NoStreamResponseError),
    "store in another stream": (lambda nc, s: nc.jetstream().publish(s, b"x", stream="other"), js_errors.APIError),
    "store too much": (lambda nc, s: nc.jetstream().publish(s, b"x" * (nc.max_payload + 1)), errors.MaxPayloadError),
    "fetch nothing": (_fetches, errors.TimeoutError),
    "fetch none": (lambda nc, s: _fetches(nc, s, batch=0), ValueError),
    "fetch in no time": (lambda nc, s: _fetches(nc, s, seconds=0), ValueError),
    "fetch when unsubscribed": (lambda nc, s: _fetches(nc, s, after="unsubscribe"), errors.Error),
    "fetch when closed": (_fetches_when_closed, errors.ConnectionClosedError),
    "read no stream": (lambda nc, s: nc.jetstream().pull_subscribe(f"x{s}"), js_errors.NotFoundError),
}


@pytest.mark.parametrize("name", CALLS)
async def test_what_fails_with_the_plain_client_fails_alike(
    world: World, unique: Unique, make_stream: MakeStream, name: str
) -> None:
    """``except nats.errors.X`` around a call catches with our client what it catches with nats-py's."""
    call, error = CALLS[name]
    clients: list[Client] = [await world.client(world.agent(CLOUD))]
    if hasattr(errors, "BadHeaderError") or error not in {errors.BadSubjectError, BAD_HEADER}:
        clients.append(await world.plain())
    for client in clients:
        subject = unique("errors")
        if "nobody" not in name:
            await make_stream(subject)
        with pytest.raises(error) as raised:
            await call(client, subject)
        assert str(raised.value)


async def test_errors_of_both_say_what_to_write(world: World, unique: Unique) -> None:
    """Each bears our text, is a SigningError, and has what nats-py's has."""
    client, subject = await world.client(world.agent(CLOUD)), unique("errors")
    with pytest.raises(both.BadHeader, match="letters, digits") as header:
        await client.publish(subject, b"x", headers={"a/b": "x"})
    assert header.value.key == "a/b"
    with pytest.raises(both.BadHeader, match="when it is due") as schedule:
        await client.publish(subject, b"x", headers={"nats-schedule-target": "x"})
    assert schedule.value.key == "nats-schedule-target"
    with pytest.raises(both.BadHeader, match="without a name"):
        await client.publish(subject, b"x", headers={" ": "x"})
    with pytest.raises(both.BadHeader, match="printable ASCII") as value:
        await client.publish(subject, b"x", headers={"a": "é"})
    assert value.value.key == ""
    with pytest.raises(both.BadSubject, match="printable ASCII"):
        await client.publish(f"{subject}.é", b"x")
    with pytest.raises(both.PayloadTooLarge, match="this server accepts"):
        await client.publish(subject, b"x" * client.max_payload)
    with pytest.raises(SigningError, match="recipient"):
        await client.publish(subject, b"x", recipient="\n")
    with pytest.raises(SigningError, match="printable ASCII"):
        await client.publish(subject, b"x", headers=["a"])  # type: ignore[arg-type]  # the mistake
    with pytest.raises(both.BadName, match="names of stream"):
        await client.jetstream().pull_subscribe_bind("worker")
    assert issubclass(both.BadName, ConfigurationError)
    assert issubclass(both.BadName, ValueError)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"recipient": 5}, "recipient of type int: write the principal"),
        ({"recipient": ["agent://acme/cloud"]}, "recipient of type list: write the principal"),
        ({"recipient": ""}, "recipient '' is not a principal"),
        ({"expires_at": 60}, r"write whole seconds since the epoch, as int\(time.time\(\)\) \+ 60"),
        ({"expires_at": "soon"}, r"write whole seconds since the epoch, as int\(time.time\(\)\) \+ 60"),
    ],
)
@pytest.mark.parametrize("way", ["publish", "request", "stream", "stream_async"])
async def test_what_is_no_recipient_and_no_end_is_refused(
    world: World, unique: Unique, way: str, given: dict[str, Any], why: str
) -> None:
    """Whatever sends says what to write instead, and sends nothing."""
    client, subject = await world.client(world.agent(CLOUD)), unique("errors")
    js = client.jetstream()
    ways: dict[str, Callable[..., Awaitable[Any]]] = {
        "publish": client.publish,
        "request": client.request,
        "stream": js.publish,
        "stream_async": js.publish_async,
    }
    before = client.stats["out_msgs"]
    with pytest.raises(SigningError, match=why):
        await ways[way](subject, b"x", **given)
    await client.flush()
    assert client.stats["out_msgs"] == before
