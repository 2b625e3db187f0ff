"""`send_batch(partition=None)`: the client picks a partition, and what arrives there verifies."""

from typing import Any

from tests.integration.kafka.world import World, read, values
from tests.support.readers import judged

NO_PARTITION: Any = None
"""aiokafka takes it, whatever an annotation says."""


async def test_readers_get_what_the_sender_was_told_is_sent(world: World) -> None:
    """A batch for no partition in particular is signed for the one that it goes to, or refused; never lost."""
    topic = await world.make_topic(3)
    async with world.producer() as producer:
        wanted: list[bytes] = []
        for number in range(6):
            batch = producer.create_batch()
            batch.append(timestamp=None, key=None, value=b"%d" % number)
            batch.append(timestamp=None, key=b"k", value=b"%d again" % number)
            await (await producer.send_batch(batch, topic, partition=NO_PARTITION))
            wanted += [b"%d" % number, b"%d again" % number]
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert sorted(values(await read(consumer, len(wanted)))) == sorted(wanted)
    assert set(judged(reader)) == {"delivered"}


async def test_it_stays_in_one_partition_and_in_order(world: World) -> None:
    """The whole batch goes to one partition, at the offset that its future tells."""
    topic = await world.make_topic(3)
    async with world.producer() as producer:
        batch = producer.create_batch()
        for number in range(3):
            batch.append(timestamp=None, key=None, value=b"%d" % number)
        told = await (await producer.send_batch(batch, topic, partition=NO_PARTITION))
    async with world.consumer(world.reader(), topic) as consumer:
        records = await read(consumer, 3)
    assert [(r.partition, r.offset) for r in records] == [(told.partition, told.offset + n) for n in range(3)]
    assert values(records) == [b"0", b"1", b"2"]
