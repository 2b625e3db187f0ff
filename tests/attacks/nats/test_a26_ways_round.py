"""A26 on a real nats-server: every way round the interceptors is covered, or refused by an error that names one."""

import asyncio
import inspect
from collections.abc import Callable

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import CLOUD, PLANNER, World, soon, until, verified
from watchword import ConfigurationError, Reason
from watchword_adapters.nats import VerifyingPullSubscription, WatchwordClient

Unique = Callable[[str], str]


async def test_a26_a_future_gets_what_was_verified(world: World, unique: Unique) -> None:
    """``subscribe(future=)`` and old-style requests take the covered way: the first message that verifies."""
    subject, attacker = unique("core"), await world.plain()
    agent = world.agent(CLOUD)
    client, planner = await world.client(agent), await world.client(world.agent(PLANNER))
    future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
    subscription = await client.subscribe(subject, future=future, max_msgs=2)
    await client.flush()
    await attacker.publish(subject, b"forged")
    await attacker.flush()
    await planner.publish(subject, b"real")
    await planner.publish(subject, b"second")
    assert verified(await soon(future)).data == b"real"
    await until(lambda: agent.audit.counts["delivered"] == 2)
    await subscription.unsubscribe()
    assert agent.audit.counts[Reason.UNSIGNED] == 1

    async def handler(msg: Msg) -> None:
        await attacker.publish(msg.reply, b"forged")
        await attacker.flush()
        await msg.respond(b"real")

    await client.subscribe(subject, cb=handler)
    await client.flush()
    assert verified(await planner.request(subject, b"x", old_style=True, timeout=10)).data == b"real"


async def test_a26_a_callback_that_is_no_coroutine_is_refused(world: World, unique: Unique) -> None:
    """As with nats-py."""
    client = await world.client(world.agent(CLOUD))
    with pytest.raises(Error, match="coroutine"):
        await client.subscribe(unique("core"), cb=lambda msg: msg)  # type: ignore[arg-type, return-value]  # the mistake


def test_a26_every_public_method_of_the_client_was_looked_at() -> None:
    """A method that a later nats-py adds makes this fail, until someone says whether it is covered."""
    ours = {"publish", "request", "subscribe", "jetstream", "jsm"}  # signed, judged or refused
    harmless = {"close", "connect", "drain", "flush", "force_reconnect", "new_inbox", "rtt", "set_server_pool"}
    found = {name for name, _ in inspect.getmembers(Client, inspect.isroutine) if not name.startswith("_")}
    assert found == ours | harmless
    assert ours <= {name for room in WatchwordClient.__mro__[:3] for name in vars(room)}


@pytest.mark.parametrize(
    ("config", "advice"),
    [
        (ConsumerConfig(ack_policy=AckPolicy.ALL), "EXPLICIT"),
        (ConsumerConfig(headers_only=True), "whole messages"),
    ],
)
async def test_a26_consumers_that_cannot_be_judged_are_refused(
    world: World, make_stream: MakeStream, config: ConsumerConfig, advice: str
) -> None:
    """A consumer whose acks speak for unjudged messages, or which leaves out what was signed, is refused."""
    stream, js = await make_stream(), (await world.client(world.agent(CLOUD))).jetstream()
    with pytest.raises(ConfigurationError, match=advice):
        await js.pull_subscribe(f"{stream}.task", config=config)


async def test_a26_ways_round_verification_are_refused(world: World, make_stream: MakeStream) -> None:
    """Buckets and raw reads are refused by an error that names what to do; management goes through."""
    stream, client = await make_stream(), await world.client(world.agent(CLOUD))
    js = client.jetstream()
    for call in (js.key_value, js.create_key_value, js.object_store, js.create_object_store):
        with pytest.raises(ConfigurationError, match="subscribe to it"):
            await call(bucket="b")
    for manager in (js, client.jsm()):
        with pytest.raises(ConfigurationError, match="pull_subscribe"):
            await manager.get_msg(stream, seq=1)
        with pytest.raises(ConfigurationError, match="pull_subscribe"):
            await manager.get_last_msg(stream, f"{stream}.task")
        assert (await manager.stream_info(stream)).config.name == stream
    with pytest.raises(ConfigurationError, match="domain"):
        client.jetstream(prefix="foreign.API")
    with pytest.raises(ConfigurationError, match="stream and consumer"):
        await js.pull_subscribe_bind("worker")
    with pytest.raises(ConfigurationError, match="pull_subscribe_bind"):
        await js.subscribe_bind(stream, ConsumerConfig(), "worker")


def test_a26_every_public_method_of_the_context_was_looked_at() -> None:
    """A method that a later nats-py adds makes this fail, until someone says whether it is covered."""
    judged = {"publish", "publish_async", "subscribe", "subscribe_bind", "pull_subscribe", "pull_subscribe_bind"}
    refused = {"get_msg", "get_last_msg", "key_value", "create_key_value", "object_store", "create_object_store"}
    asked = {"publish_async_completed", "publish_async_pending", "is_status_msg", "account_info"}
    found = {name for name, _ in inspect.getmembers(JetStreamContext, inspect.isroutine) if not name.startswith("_")}
    verbs, things = {"add", "delete", "update", "purge", "pause", "resume", "reset"}, {"stream", "consumer", "msg"}
    managed = {f"{verb}_{thing}" for verb in verbs for thing in things}
    managed |= {"delete_key_value", "delete_object_store", "find_stream_name_by_subject", "streams_info_iterator"}
    managed |= {"stream_info", "streams_info", "consumer_info", "consumers_info"}
    assert found - judged - refused - asked <= managed
    covered = {name for name, _ in inspect.getmembers(VerifyingPullSubscription, inspect.isroutine)}
    base = inspect.getmembers(JetStreamContext.PullSubscription, inspect.isroutine)
    assert (
        {name for name, _ in base if not name.startswith("_")} == {"consumer_info", "fetch", "unsubscribe"} <= covered
    )
