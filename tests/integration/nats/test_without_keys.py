"""A process without a key source may publish; it reads only where it observes, for nothing would verify."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.js.api import ConsumerConfig

from tests.integration.nats.world import CLOUD, PLANNER, REALM, World, soon, verified
from watchword import ConfigurationError, Mode, Policy, Reason, Rejected, Watchword
from watchword.testing import SharedMemoryStore
from watchword_adapters.nats import ObservedMsg, WatchwordClient

READS: dict[str, Callable[[WatchwordClient, str], Awaitable[Any]]] = {
    "subscribe": lambda client, subject: client.subscribe(subject),
    "queue group": lambda client, subject: client.subscribe(subject, "workers"),
    "push": lambda client, subject: client.jetstream().subscribe(subject, ordered_consumer=True),
    "pull": lambda client, subject: client.jetstream().pull_subscribe(subject, config=ConsumerConfig()),
    "bound": lambda client, subject: client.jetstream().pull_subscribe_bind("workers", subject),
}


def keyless(world: World, mode: Mode = Mode.ENFORCE) -> Watchword:
    """Return an agent that signs, and has no key source."""
    store = SharedMemoryStore(open_to_all=True)
    return Watchword(realm=REALM, principal=CLOUD, key=world.signing[CLOUD], policy=Policy(mode=mode), replay=store)


@pytest.fixture
async def subject(world: World, unique: Callable[[str], str]) -> str:
    """Return the subject of a stream of that name."""
    name = unique("keyless")
    await (await world.plain()).jetstream().add_stream(name=name, subjects=[name])
    return name


@pytest.mark.parametrize("way", READS)
async def test_who_reads_without_a_key_source_is_refused(world: World, subject: str, way: str) -> None:
    """It would drop every message: the error says what to write. An observer is let in."""
    client = await world.client(keyless(world))
    with pytest.raises(ConfigurationError, match=r"no key source.*\[\[keys\]\]"):
        await READS[way](client, subject)
    observer = await world.client(keyless(world, Mode.OBSERVE))
    if way != "bound":
        await READS[way](observer, subject)


async def test_who_asks_without_a_key_source_is_refused(world: World, subject: str) -> None:
    """It would drop every answer: nothing is sent."""
    asked = await (await world.plain()).subscribe(subject)
    client = await world.client(keyless(world))
    with pytest.raises(ConfigurationError, match=r"no key source.*\[\[keys\]\]"):
        await client.request(subject)
    await client.flush()
    assert not asked.pending_msgs


async def test_who_only_publishes_needs_no_key_source(world: World, subject: str) -> None:
    """On core NATS and to a stream, whose own answers nobody signs."""
    reader = await world.client(world.agent(PLANNER))
    subscription = await reader.subscribe(subject)
    await reader.flush()
    client = await world.client(keyless(world))
    await client.publish(subject, b"1")
    assert (await client.jetstream().publish(subject, b"2")).seq == 2
    for value in (b"1", b"2"):
        assert verified(await soon(subscription.next_msg(timeout=None))).data == value


async def test_an_observer_without_a_key_source_gets_everything(world: World, subject: str) -> None:
    """It sees what is sent, and that nothing would be delivered yet."""
    observer = await world.client(keyless(world, Mode.OBSERVE))
    subscription = await observer.subscribe(subject)
    await observer.flush()
    await (await world.client(world.agent(PLANNER))).publish(subject, b"1")
    msg = await soon(subscription.next_msg(timeout=None))
    assert isinstance(msg, ObservedMsg)
    assert isinstance(msg.verdict, Rejected)
    assert (msg.data, msg.verdict.reason) == (b"1", Reason.UNKNOWN_KEY)
