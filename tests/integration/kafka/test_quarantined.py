"""A consumer with a quarantine, end to end on a real Kafka."""

from tests.integration.kafka.quarantining import held
from tests.integration.kafka.world import Captured, World, read, values
from watchword.settings import QuarantineSettings
from watchword_adapters.kafka import KafkaQuarantine


async def test_a_rejected_record_is_kept_and_passed_over(world: World) -> None:
    """The consumer lends its connection, keeps the forgery, delivers what is behind it, and closes what it opened."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    await world.say(topic, b"honest")
    agent = world.reader()
    quarantine = KafkaQuarantine(quarantine_topic, watchword=agent)
    async with world.consumer(agent, topic, quarantine=quarantine) as consumer:
        assert values(await read(consumer, 1)) == [b"honest"]
    (stored,) = await held(world, quarantine_topic)
    assert stored.kept is not None
    assert (stored.kept.reason, stored.kept.message.value) == ("unsigned", b"forged")
    assert quarantine._own is None


async def test_settings_alone_are_enough(world: World) -> None:
    """``[quarantine] kafka`` in the settings makes every consumer of this process keep what it rejects."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    await world.say(topic, b"honest")
    agent = world.reader()
    agent.quarantine = QuarantineSettings(kafka=quarantine_topic)
    async with world.consumer(agent, topic) as consumer:
        await read(consumer, 1)
    assert len(await held(world, quarantine_topic)) == 1


async def test_a_missing_quarantine_does_not_stop_the_consumer(world: World) -> None:
    """Where copies cannot be written records are rejected all the same, and the offset advances."""
    topic = await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged") for _ in range(20)])
    await world.say(topic, b"honest")
    agent = world.reader()
    quarantine = KafkaQuarantine(world.unique("missing"), watchword=agent, timeout=0.5)
    async with world.consumer(agent, topic, quarantine=quarantine) as consumer:
        assert values(await read(consumer, 1)) == [b"honest"]
