"""Driving quarantined records again, on a real Kafka."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from tests.integration.kafka.quarantining import held, pass_through, quarantine_in
from tests.integration.kafka.world import CONTROLLER, PLANNER, REALM, Captured, World, committed
from tests.support.broker_tools import delete_before
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Reason, Rejected, Unavailable, VerifiedMessage, Watchword
from watchword.quarantine_copy import HeaderStyle, make_copy
from watchword.spi import Channel, Message, Position
from watchword_adapters.kafka.redrive import copies, redrive
from watchword_adapters.redriving import ANY, Choice, Redriven

UNDETERMINED = Unavailable("keys")


async def driven(
    world: World, topic: str, agent: Watchword | None = None, *, only: Choice = ANY, patience: float = 20.0
) -> list[Redriven]:
    """Drive everything in a quarantine again."""
    agent = agent or world.reader()
    found = redrive(topic, watchword=agent, bootstrap_servers=world.bootstrap, only=only, patience=patience, limit=100)
    return [redriven async for redriven in found]


async def keep(world: World, topic: str, *messages: Message, verdict: Rejected | Unavailable = UNDETERMINED) -> None:
    """Put messages into a quarantine."""
    async with quarantine_in(world, topic) as quarantine:
        for message in messages:
            assert await quarantine.put(message, verdict)


def message(topic: str, captured: Captured, offset: int | None = 0) -> Message:
    """Return a captured record as read from partition 0."""
    position = None if offset is None else Position(f"{topic}/0", offset)
    channel = Channel("kafka", REALM, topic)
    return Message(
        channel=channel,
        value=captured.value,
        key=captured.key,
        headers=captured.headers,
        partition=0,
        position=position,
        appended_at=time.time(),
    )


def told(results: Iterable[Redriven]) -> list[tuple[str, str]]:
    """Return what was read, and the verdicts in short."""
    return [(one.read, short(one.verdict)) for one in results]


def short(verdict: VerifiedMessage | Rejected | Unavailable) -> str:
    """Return a verdict in a word."""
    if isinstance(verdict, VerifiedMessage):
        return (verdict.value or b"").decode()
    return str(verdict.reason) if isinstance(verdict, Rejected) else verdict.what


async def test_the_undetermined_are_delivered_when_the_key_is_there(world: World) -> None:
    """What an outage left behind is read again at its position and verifies; nobody's offset moves (A38)."""
    topic, quarantine_topic, group = await world.make_topic(), await world.make_topic(), world.unique("group")
    await world.say(topic, b"one", b"two", key=b"k", headers=[("kind", b"order")])
    world.keys.failures = 2
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 2, quarantine) == [True, True]
    results = await driven(world, quarantine_topic)
    assert told(results) == [("original", "one"), ("original", "two")]
    found = results[1].verdict
    assert isinstance(found, VerifiedMessage)
    assert (found.principal, found.position) == (PLANNER, Position(f"{topic}/0", 1))
    assert (found.key, found.headers) == (b"k", (("kind", b"order"),))
    assert results[1].kept.reason == "undetermined"
    assert told(await driven(world, quarantine_topic)) == told(results)  # at least once, each time it is driven
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        await committed(consumer, TopicPartition(topic, 0), None)


async def test_the_rejected_stay_rejected(world: World) -> None:
    """A forgery is a forgery at its position too, and its value is not handed out."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 1, quarantine) == [True]
    (result,) = await driven(world, quarantine_topic)
    assert told([result]) == [("original", "unsigned")]
    assert result.to_json() == {"copy": "0/0", "read": "original", "verdict": "rejected", "reason": "unsigned"}


async def test_a_replay_is_told_from_the_original(world: World) -> None:
    """The guard knows what stands before the copy's position, so a redriven replay is still one (A29)."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"scale up")
    await world.inject(topic, await world.capture(topic))
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 2, quarantine) == [True]
    assert told(await driven(world, quarantine_topic)) == [("original", "replayed")]


async def test_what_retention_took_is_judged_from_the_copy(world: World) -> None:
    """Where the log no longer has it, a copy that is still fresh verifies, and one that is not is stale."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"fresh")
    fresh, old = (await world.capture(topic))[0], await world.sign(topic, b"old", clock=lambda: time.time() - 3600)
    await keep(world, quarantine_topic, message(topic, fresh), message(topic, old, 1))
    await delete_before(world.bootstrap, topic, 1)
    assert told(await driven(world, quarantine_topic)) == [("copy", "fresh"), ("copy", "stale")]


async def test_a_topic_that_is_gone_leaves_the_copy(world: World) -> None:
    """A deleted topic is no outage: the copy is judged, at once."""
    quarantine_topic, gone = await world.make_topic(), world.unique("gone")
    await keep(world, quarantine_topic, message(gone, await world.sign(gone, b"x")))
    async with asyncio.timeout(PATIENCE):
        assert told(await driven(world, quarantine_topic)) == [("copy", "x")]


async def test_another_message_at_that_position_is_not_taken_for_it(world: World) -> None:
    """After a topic was recreated, what stands at the position now is someone else's, and is not delivered."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"another")
    await keep(world, quarantine_topic, message(topic, await world.sign(topic, b"meant")))
    assert told(await driven(world, quarantine_topic)) == [("copy", "meant")]


async def test_a_pointer_without_the_message_needs_the_original(world: World) -> None:
    """A large message is read at its position; where it is gone, its bare pointer is nothing that verifies."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    large = b"x" * 300_000
    await world.say(topic, large)
    (captured,) = await world.capture(topic)
    await keep(world, quarantine_topic, message(topic, captured), message(topic, captured, 5))
    assert told(await driven(world, quarantine_topic)) == [("original", large.decode()), ("copy", "altered")]


async def test_an_outage_during_the_redrive_is_no_verdict(world: World) -> None:
    """While keys cannot be looked up nothing is called rejected: the copy stays, and can be redriven."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"x")
    await keep(world, quarantine_topic, message(topic, (await world.capture(topic))[0]))
    world.keys.failures = 1
    (result,) = await driven(world, quarantine_topic)
    assert result.to_json() == {"copy": "0/0", "read": "original", "verdict": "unavailable", "what": "keys"}
    assert told(await driven(world, quarantine_topic)) == [("original", "x")]


async def test_what_is_in_an_open_transaction_must_wait(world: World) -> None:
    """A record that may yet be aborted is not delivered, and one that was aborted is not read at its position."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    async with world.producer(transactional_id=world.unique("tx")) as producer:
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"x", partition=0)
        (captured,) = await world.capture(topic)
        await keep(world, quarantine_topic, message(topic, captured))
        (result,) = await driven(world, quarantine_topic)
        assert told([result]) == [("original", "log")]
        await producer.abort_transaction()
    (result,) = await driven(world, quarantine_topic, patience=1.0)
    assert result.read == "copy"


async def test_what_points_nowhere_is_only_judged(world: World) -> None:
    """Anyone who writes to the quarantine can lead the redrive to no other place, and make it fail at nothing."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"secret")
    good = message(topic, (await world.capture(topic))[0])
    copy = make_copy(good, UNDETERMINED, now=1.0, style=HeaderStyle.WATCHWORD)
    lies: list[tuple[str, bytes]] = [
        ("watchword-position", f"{topic}/7@0".encode()),
        ("watchword-position", f"{topic}/0@999999".encode()),
        ("watchword-position", b"other/0@0"),
        ("watchword-channel", b"kafka://test/../etc"),
        ("watchword-channel", b"nats://test/a"),
        ("watchword-channel", b"kafka://elsewhere/" + topic.encode()),
    ]
    forged = [
        Captured(value=b"lie", headers=tuple((dict(copy.headers) | {name: value}).items())) for name, value in lies
    ]
    await world.inject(quarantine_topic, [Captured(value=b"no copy"), *forged])
    results = await driven(world, quarantine_topic)
    assert len(results) == len(forged)
    assert all(isinstance(result.verdict, Rejected) and result.read == "copy" for result in results)
    assert next(stored.kept for stored in await held(world, quarantine_topic)) is None


async def test_only_some_are_driven(world: World) -> None:
    """Ids, reasons and channels choose, and only what all of them take is judged."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"a", b"b", b"c")
    a, b, c = (message(topic, captured, at) for at, captured in enumerate(await world.capture(topic, 3)))
    await keep(world, quarantine_topic, a, b)
    await keep(world, quarantine_topic, c, verdict=Rejected(Reason.STALE))
    uri = a.channel.uri

    async def chosen(**only: Any) -> list[str]:
        return [short(result.verdict) for result in await driven(world, quarantine_topic, only=Choice(**only))]

    assert await chosen(ids={"0/0", "0/2"}) == ["a", "c"]
    assert await chosen(reasons={"undetermined"}, channels={uri}) == ["a", "b"]
    assert await chosen(channels={"kafka://test/other"}) == []
    assert await chosen(ids={"0/0"}, reasons={"stale"}) == []


async def test_a_missing_quarantine_is_named(world: World) -> None:
    """A slip in the topic's name is an error that says so, not an empty list."""
    with pytest.raises(ConfigurationError, match="does not exist"):
        await held(world, world.unique("missing"))


async def test_the_latest_are_looked_at(world: World) -> None:
    """A limit keeps a long quarantine readable: the newest of each partition, in order."""
    quarantine_topic = await world.make_topic()
    await world.inject(quarantine_topic, [Captured(value=b"%d" % number) for number in range(5)])
    assert await driven(world, quarantine_topic) == []
    found = await copies(quarantine_topic, watchword=world.reader(), limit=3, bootstrap_servers=world.bootstrap)
    assert [stored.id for stored in found] == ["0/2", "0/3", "0/4"]
    assert {stored.fault for stored in found} == {"no reason or no channel: not a copy"}


async def test_a_message_for_somebody_else_stays_theirs(world: World) -> None:
    """The redriver is the principal of the settings, and gets nothing that is addressed to another."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    async with world.producer(recipient=lambda *_: CONTROLLER) as producer:
        await producer.send_and_wait(topic, b"x", partition=0)
    await keep(world, quarantine_topic, message(topic, (await world.capture(topic))[0]))
    assert told(await driven(world, quarantine_topic)) == [("original", "x")]
    stranger = world.reader(principal=PLANNER)
    assert told(await driven(world, quarantine_topic, stranger)) == [("original", "wrong_recipient")]
