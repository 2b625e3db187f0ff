"""What a consumer on a real broker is measured by."""

from tests.integration.kafka.world import Captured, World, read, values
from tests.support.measured import Measured


async def test_starts_rebuilds_and_verdicts_of_a_consumer(world: World) -> None:
    """A consumer that continues after a restart is measured in starting, in rebuilding and in judging."""
    measured, topic, group = Measured(), await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"0", b"1"]
    await world.inject(topic, [Captured(value=b"forged")])
    await world.say(topic, b"2")
    agent = measured.follow(world.reader())
    async with world.consumer(agent, topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"2"]
        assert measured.value("watchword.replay.ids") == 3
    kafka = ("messaging.system", "kafka")
    verdicts = {dict(labels)["watchword.verdict"]: n for labels, n in measured.values("watchword.verdicts").items()}
    assert verdicts == {"delivered": 1, "unsigned": 1}
    assert {labels[:2] for labels in measured.values("watchword.verdicts")} == {
        (kafka, ("messaging.destination.name", topic))
    }
    assert measured.histogram("watchword.start.duration")[kafka,].count == 1
    assert measured.histogram("watchword.rebuild.duration")[()].count == 1
    assert measured.histogram("watchword.judge.duration")[kafka,].count >= 1
