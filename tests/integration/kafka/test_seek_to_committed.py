"""`seek_to_committed` checks what it is given, ours as aiokafka's."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, IllegalStateError

from tests.integration.kafka.world import World
from tests.support.both import consumer_of, kinds


@kinds
async def test_seek_to_committed_checks_its_arguments(world: World, kind: str) -> None:
    """A string, a partition of another member and a consumer without a group are refused before anything moves."""
    topic = await world.make_topic(2)
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with consumer_of(world, kind, group_id=world.unique("group")) as consumer:
        consumer.assign([one])
        for wrong, error in (("topic", TypeError), ((topic, 0), TypeError), (other, IllegalStateError)):
            with pytest.raises(error):
                await consumer.seek_to_committed(wrong)
            with pytest.raises(error):
                await consumer.seek_to_committed(one, wrong)
        assert await consumer.seek_to_committed(one) == {one: None}
        assert await consumer.seek_to_committed() == {one: None}
    async with consumer_of(world, kind) as consumer:
        consumer.assign([one])
        await consumer.seek_to_beginning(one)
        with pytest.raises(IllegalOperation):
            await consumer.seek_to_committed(one)
