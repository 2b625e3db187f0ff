"""A27, A28: what is in a message neither reaches a deserializer unverified nor stops a partition."""

import asyncio
import pickle

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.integration.kafka.world import Captured, World, observe, read, values
from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from tests.unit.kafka.batches import POISON, batch, reframed
from watchword import Mode

BOMBED: list[str] = []


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return detonate, ("bang",)


def detonate(noise: str) -> None:
    """Show that code ran."""
    BOMBED.append(noise)


async def test_a27_pickle_bomb_reaches_no_deserializer(world: World) -> None:
    """A pickle that runs code goes off in a plain consumer; behind Watchword no deserializer sees it."""
    topic = await world.make_topic()
    bomb = pickle.dumps(Bomb())
    await world.inject(topic, [Captured(value=bomb, key=bomb)])
    await world.say(topic, pickle.dumps("harmless"), key=pickle.dumps("key"))
    loads = {"key_deserializer": pickle.loads, "value_deserializer": pickle.loads}
    BOMBED.clear()
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest", **loads
    ) as plain:
        await asyncio.wait_for(plain.getone(), PATIENCE)
    assert BOMBED  # the attack works
    BOMBED.clear()
    async with world.consumer(world.reader(), topic, **loads) as consumer:
        (record,) = await read(consumer, 1)
    assert (record.key, record.value, BOMBED) == ("key", "harmless", [])


async def send_bytes(world: World, topic: str, partition: int, raw: bytes) -> None:
    """Send a record batch as it is."""
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap) as producer:
        builder = producer.create_batch()
        builder.append(timestamp=None, key=None, value=b"")
        builder.close()
        builder._buffer = bytearray(raw)
        await (await producer.send_batch(builder, topic, partition=partition))


@pytest.mark.parametrize("codec", [0, 1, 4], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("way", ["getone", "getmany"])
async def test_a28_header_name_that_is_no_utf8(world: World, way: str, codec: int) -> None:
    """Records that make aiokafka itself raise are counted once each, and the partition and its neighbour go on."""
    topic = await world.make_topic(2)
    await world.say(topic, b"before")
    await send_bytes(world, topic, 0, batch([POISON, "unsigned", POISON], codec=codec))
    await world.say(topic, b"after")
    async with world.producer() as producer:
        await producer.send_and_wait(topic, b"neighbour", partition=1)
    plain = AIOKafkaConsumer(bootstrap_servers=world.bootstrap)
    async with plain:
        plain.assign([TopicPartition(topic, 0)])
        plain.seek(TopicPartition(topic, 0), 1)
        for _ in range(2):  # without the check it is stuck
            with pytest.raises(UnicodeDecodeError):
                await asyncio.wait_for(plain.getone(), PATIENCE)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=world.unique("group")) as consumer:
        got: list[bytes] = []
        while len(got) < 3:
            if way == "getone":
                got += values(await read(consumer, 1))
            else:
                for records in (await consumer.getmany(timeout_ms=20_000)).values():
                    got += values(records)
        await consumer.commit()
        assert await consumer.committed(TopicPartition(topic, 0)) == 5
    assert sorted(got) == [b"after", b"before", b"neighbour"]
    assert reader.audit.counts == {"delivered": 3, "malformed": 2, "unsigned": 1}


async def test_a28_poison_at_the_end_of_the_log_and_in_observe_mode(world: World) -> None:
    """A partition whose last records are poison is passed to its end; observing shows their places, empty."""
    topic = await world.make_topic()
    await world.say(topic, b"first")
    await send_bytes(world, topic, 0, batch([POISON, POISON]))
    tp = TopicPartition(topic, 0)
    reader = world.reader(mode=Mode.OBSERVE)
    async with world.consumer(reader, topic) as consumer:
        assert values(await observe(consumer, 1)) == [b"first"]
        poison = await observe(consumer, 2)
        assert [(record.offset, record.key, record.value) for record in poison] == [(1, None, None), (2, None, None)]
        assert await consumer.position(tp) == 3
        await consumer.seek_to_beginning()
        assert values(await observe(consumer, 3)) == [b"first", None, None]
    assert reader.audit.counts == {"delivered": 2, "malformed": 4}


async def test_a28_poison_leaves_its_position_in_quarantine(world: World) -> None:
    """What nobody can read is put into quarantine by its position alone, what is rejected as it is."""
    topic = await world.make_topic()
    await send_bytes(world, topic, 0, batch([POISON, "unsigned"]))
    await world.say(topic, b"honest", b"again")
    kept = Kept()
    async with world.consumer(world.reader(), topic, quarantine=kept) as consumer:
        assert values(await read(consumer, 2)) == [b"honest", b"again"]
    assert sorted(reason for _, reason in kept.copies) == ["malformed", "unsigned"]


async def test_a28_flood_of_poison_does_not_stop_honest_traffic(world: World) -> None:
    """Thousands of poison records between honest ones cost one pass, not one fetch each."""
    topic = await world.make_topic()
    await send_bytes(world, topic, 0, batch([POISON, "unsigned"] * 2_000))
    await world.say(topic, b"honest")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer, asyncio.timeout(PATIENCE):
        assert values(await read(consumer, 1)) == [b"honest"]
    assert reader.audit.counts == {"delivered": 1, "malformed": 2_000, "unsigned": 2_000}


def test_reframing_without_poison_changes_nothing() -> None:
    """The attacker's tool builds what aiokafka builds, so that only the poison makes the difference."""
    good = batch(["a"])
    assert reframed(good) == good
