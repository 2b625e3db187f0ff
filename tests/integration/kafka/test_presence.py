"""A55 on a real broker: announcements on a topic, and reports of records."""

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from tests.brokers.plugin import MakeTopic
from tests.integration.kafka.world import CONTROLLER, INTERN, PLANNER, Captured, World, read
from tests.support.broker_tools import admin_of, settings_of
from watchword import ConfigurationError
from watchword.presence import CONTENT_TYPE, MAX_BYTES, Announcement, Presence
from watchword.spi import Message
from watchword_adapters.kafka import SigningProducer
from watchword_adapters.kafka import presence as channels
from watchword_adapters.kafka.presence import KafkaPresence
from watchword_adapters.redriving import judge


def said(number: int = 1, **members: Any) -> Announcement:
    """Return an announcement."""
    return Announcement(instance=f"{number:016x}", number=1, version="1", buses=("kafka",), started=0, **members)


async def messages(channel: KafkaPresence, since: float) -> list[Message]:
    """Return what stands on the topic."""
    return [one async for one in channel.read(since=since, listen=0.0)]


async def test_what_is_announced_is_read_from_a_time_on(world: World, make_topic: MakeTopic) -> None:
    """All partitions are read to the end, from the time that was asked for; each is judged like any record."""
    topic = await make_topic(partitions=3)
    options = {"bootstrap_servers": world.bootstrap}
    reader = world.reader()
    async with KafkaPresence(topic, watchword=world.speaker(), **options) as channel:
        for number in range(6):
            await channel.announce(said(number).to_json(), {"content-type": CONTENT_TYPE})
        found = await messages(channel, 0.0)
        assert len(found) == 6
        last = max(one.appended_at or 0.0 for one in found)
        assert await messages(channel, last + 3600.0) == []
        copied = Captured(
            value=found[0].value, headers=found[0].headers, partition=found[0].partition or 0, timestamp_ms=None
        )
        await world.inject(topic, [copied, Captured(value=said(99).to_json())])
        presence, dropped, judging = Presence(), [], judge(reader)
        for one in await messages(channel, 0.0):
            try:
                presence.hear(await judging.verifier.verify(one))
            except Exception as verdict:  # noqa: BLE001 - each is looked at below
                dropped.append(str(verdict).partition(":")[0])
        assert sorted(dropped) == ["replayed", "unsigned"]
        (present,) = presence.look(since=0.0, is_contained=lambda _: False)
        assert (present.principal, len(present.instances)) == (PLANNER, 6)


async def test_what_is_made_takes_no_megabytes(world: World, unique: Callable[[str], str]) -> None:
    """A55: the topic keeps the longest announcement, nothing longer, and as many as a day has."""
    topic = unique("presence")
    async with KafkaPresence(topic, watchword=world.speaker(), bootstrap_servers=world.bootstrap) as channel:
        assert await channel.make()
        assert not await channel.make()
        async with admin_of(world.bootstrap) as admin:
            settings = await settings_of(admin, topic)
        assert (settings["retention.bytes"], settings["retention.ms"]) == (str(1 << 30), "86400000")
        async with AIOKafkaProducer(bootstrap_servers=world.bootstrap) as stranger:
            with pytest.raises(MessageSizeTooLargeError):
                await stranger.send_and_wait(topic, bytes(64 * 1024))
        await channel.announce(bytes(MAX_BYTES), {"content-type": CONTENT_TYPE})
        (found,) = await messages(channel, 0.0)
        assert found.value == bytes(MAX_BYTES)


async def test_an_announcement_is_acknowledged_by_all_replicas(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Otherwise it could be lost with the topic's leader, and would not be read back at once."""
    asked: list[Any] = []

    class Opened(SigningProducer):
        def __init__(self, **options: Any) -> None:
            asked.append(options["acks"])
            super().__init__(**options)

    monkeypatch.setattr(channels, "SigningProducer", Opened)
    async with KafkaPresence("presence", watchword=world.speaker(), bootstrap_servers="127.0.0.1:1") as channel:
        with pytest.raises(KafkaConnectionError):
            await channel.announce(said(0).to_json(), {"content-type": CONTENT_TYPE})
    assert asked == ["all"]


async def test_a_topic_that_is_missing_is_told(world: World, unique: Callable[[str], str]) -> None:
    """Reading a topic that does not exist raises an error that says so."""
    async with KafkaPresence(unique("none"), watchword=world.speaker(), bootstrap_servers=world.bootstrap) as channel:
        with pytest.raises(ConfigurationError, match="does not exist on the broker"):
            await messages(channel, 0.0)


async def test_clients_say_that_they_are_connected(world: World, make_topic: MakeTopic) -> None:
    """A process is announced once a producer or a consumer of its has started."""
    topic = await make_topic()
    told: list[str] = []
    speaking, reading = world.speaker(), world.reader()
    for agent in (speaking, reading):
        agent.when_connected(told.append)
    async with world.producer(speaking), world.consumer(reading, topic):
        assert told == ["kafka", "kafka"]


async def test_a_record_is_reported_once(world: World, make_topic: MakeTopic) -> None:
    """A handler may report the record that it was given; it counts once, against the one who signed it."""
    topic = await make_topic()
    await world.say(topic, b"scale to 1000", principal=INTERN)
    agent = world.reader()
    async with world.consumer(agent, topic, group_id=world.unique("group")) as consumer:
        (record,) = await read(consumer, 1)
    assert agent.report(record, 0.5, why="too many")
    assert not agent.report(record)
    assert not agent.report(record.verified)
    assert agent.trust(INTERN) == pytest.approx(0.951, abs=0.001)
    assert agent.trust(PLANNER) == agent.trust(CONTROLLER) == 1.0
