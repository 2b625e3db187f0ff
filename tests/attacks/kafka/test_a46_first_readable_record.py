"""A46: a log whose first record cannot be read: it was aborted, or it is a transaction's marker.

The log's start then lies before the first offset that any reader gets to see. A group that is new here has read
nothing, and loses nothing for it.
"""

import pytest
from aiokafka import TopicPartition

from tests.brokers.plugin import TimestampType
from tests.integration.kafka.world import World
from tests.support.broker_tools import delete_before, ends_of
from tests.support.raw_kafka import Batch, Raw, RawClient
from tests.support.readers import END, judged, until

pytestmark = pytest.mark.needs_kafka("raw_batches")


@pytest.mark.parametrize("kind", ["LogAppendTime", "CreateTime"])
@pytest.mark.parametrize("begins_with", ["an aborted record", "a marker", "nothing readable"])
@pytest.mark.parametrize("grouped", [True, False], ids=["new group", "no group"])
async def test_a46_a_new_reader_loses_nothing(
    world: World, kind: TimestampType, begins_with: str, *, grouped: bool
) -> None:
    """Honest messages behind what cannot be read, sent a moment ago, are delivered to a reader that begins there."""
    topic = await world.make_topic(timestamp_type=kind)
    group = world.unique("group") if grouped else None
    await world.say(topic, b"to be deleted")
    async with RawClient(world.bootstrap) as raw, raw.transaction(world.unique("stranger"), topic) as held:
        await held.send(topic, Batch(records=[Raw(), Raw()]))
        await held.abort()
    if begins_with != "nothing readable":
        await world.say(topic, b"0", b"1")
    await delete_before(world.bootstrap, topic, 3 if begins_with == "a marker" else 1)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, isolation_level="read_committed") as consumer:
        wanted = [b"0", b"1", END]
        if begins_with == "nothing readable":
            assert await consumer.getmany(timeout_ms=500) == {}
            await world.say(topic, b"0", b"1")
        await world.say(topic, END)
        assert await until(consumer) == wanted
    assert judged(reader)["delivered"] == 3
    assert (await ends_of(world.bootstrap, TopicPartition(topic, 0)))[0] == (3 if begins_with == "a marker" else 1)
