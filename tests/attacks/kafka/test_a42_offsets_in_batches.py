"""A42: an offset that a record's publisher made up moves no position, no commit and nobody else's message."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.attacks.kafka.test_a27_a28_poison import send_bytes
from tests.integration.kafka.world import World, read, values
from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from tests.unit.kafka.batches import HEADER_BYTES, batch, reframed

FAR = 60
"""The largest offset delta that takes a single byte, so that it can be written over another one."""


def hostile() -> bytes:
    """Build a batch of three records, the second of which claims to stand far beyond the batch."""
    raw, at = bytearray(batch(["a", "b", "c"])), HEADER_BYTES
    at += 1 + (raw[at] >> 1)  # behind the first record
    raw[at + 3] = FAR << 1
    return reframed(bytes(raw))


@pytest.mark.parametrize("way", ["getone", "getmany"])
async def test_a42_an_offset_outside_its_batch_swallows_nothing(world: World, way: str) -> None:
    """What is sent behind such a record is delivered, positions and commits stay within the log."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"before")
    await send_bytes(world, topic, 0, hostile())
    await world.say(topic, b"after")
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap, auto_offset_reset="earliest") as plain:
        plain.assign([tp])
        seen = [(await asyncio.wait_for(plain.getone(), PATIENCE)).offset for _ in range(3)]
    assert seen[-1] == 1 + FAR  # the attack works: the broker has stored it, and the client believes it
    kept = Kept()
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, quarantine=kept) as consumer:
        if way == "getone":
            assert values(await read(consumer, 1)) == [b"before"]
            assert values(await read(consumer, 1)) == [b"after"]
        else:
            found: list[bytes] = []
            async with asyncio.timeout(PATIENCE):
                while len(found) < 2:
                    found += values((await consumer.getmany(tp, timeout_ms=100)).get(tp, []))
            assert found == [b"before", b"after"]
        assert await consumer.position(tp) == 5
        await consumer.commit()
        assert await consumer.committed(tp) == 5
    assert reader.audit.counts == {"delivered": 2, "malformed": 1, "unsigned": 2}
    assert sorted(reason for _, reason in kept.copies) == ["malformed", "unsigned", "unsigned"]


async def test_a42_nothing_is_delivered_twice_over_restarts(world: World) -> None:
    """A reader that restarts at each commit behind such records gets every message once."""
    topic, group = await world.make_topic(), world.unique("group")
    sent = []
    for round_ in range(4):
        await send_bytes(world, topic, 0, hostile())
        sent += [b"%d" % round_, b"%d again" % round_]
        await world.say(topic, *sent[-2:])
    got: list[bytes] = []
    while len(got) < len(sent):
        async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
            got += values(await read(consumer, 1))
            await consumer.commit()
    assert got == sent
