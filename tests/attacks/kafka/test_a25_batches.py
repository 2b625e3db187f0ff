"""A21, A23 and A25 on messages that share a signature, as a producer that has much to send makes them."""

import asyncio
from dataclasses import replace

from aiokafka import TopicPartition

from tests.integration.kafka.world import Captured, World, read, values
from tests.support.patience import PATIENCE
from watchword.envelope import parse
from watchword_adapters.kafka import SigningProducer

NUMBERS = [b"%d" % n for n in range(20)]


def tree_sizes(records: list[Captured]) -> list[int]:
    """Return how many messages share the signature of each record; 0 for a direct one."""
    return [parse(dict(r.headers)["watchword"]).size for r in records]  # type: ignore[arg-type]  # aiokafka promises no bytes


async def send_together(producer: SigningProducer, topic: str, numbers: list[bytes] = NUMBERS) -> None:
    """Send in one loop iteration, and wait until all are stored."""
    sent = await asyncio.gather(*(producer.send(topic, value, partition=0) for value in numbers))
    await asyncio.gather(*sent)


async def test_a25_many_sends_share_a_signature_and_verify_alone(world: World) -> None:
    """What is sent together is one tree, in order; who reads only some gets them; a lone message is signed directly."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        await send_together(producer, topic)
        await producer.send_and_wait(topic, b"alone", partition=0)
    captured = await world.capture(topic, 21)
    assert tree_sizes(captured) == [20] * 20 + [0]
    async with world.consumer(world.reader(), topic) as consumer:
        await read(consumer, 1)
        consumer.seek(TopicPartition(topic, 0), 7)
        assert values(await read(consumer, 14)) == [*NUMBERS[7:], b"alone"]


async def test_a25_what_is_taken_from_a_tree_fits_nowhere_else(world: World) -> None:
    """Envelopes swapped within a tree, altered values, copies elsewhere and again: all dropped, the honest ones not."""
    topic, other = await world.make_topic(2), await world.make_topic()
    async with world.producer() as producer:
        await send_together(producer, topic)
    captured = await world.capture(topic, 20)
    first, second = captured[:2]
    await world.inject(
        topic,
        [
            replace(first, headers=second.headers),
            replace(first, value=b"altered"),
            replace(first, partition=1),
            replace(first, headers=(("watchword", (first.headers[-1][1] or b"")[:-8] + b"AAAAAAAA"),)),
            first,
        ],
    )
    await world.inject(other, captured)
    await world.say(topic, b"end")
    await world.say(other, b"end")
    reader = world.reader()
    async with world.consumer(reader, topic, other) as consumer:
        found = values(await read(consumer, 22))
        await consumer.getmany(timeout_ms=300)
    assert sorted(found) == sorted([*NUMBERS, b"end", b"end"])
    counts = dict(reader.audit.counts)
    assert counts.pop("delivered") == 22
    assert counts.pop("wrong_channel") == 20
    assert counts.pop("wrong_partition") == 1
    assert counts.pop("replayed") == 1
    assert sum(counts.values()) == 3
    assert counts.keys() <= {"altered", "bad_signature", "malformed"}


async def test_a23_a_revoked_key_ends_a_tree_whose_root_is_known(world: World) -> None:
    """Once its key is gone, nothing of a tree is accepted any more, though its signature was found to hold before."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        await send_together(producer, topic)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        found = await consumer.getmany(timeout_ms=PATIENCE * 1000, max_records=5)
        assert len(next(iter(found.values()))) == 5
        world.keys.replace()
        assert await consumer.getmany(timeout_ms=300) == {}
    assert reader.audit.counts == {"delivered": 5, "unknown_key": 15}


async def test_a21_a_flood_of_forged_trees_lets_honest_messages_through(world: World) -> None:
    """Forged members of known and of invented trees are dropped; the honest ones among them arrive, in order."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        await send_together(producer, topic)
        forged = [replace(r, value=b"forged") for r in await world.capture(topic, 20)] * 10
        broken = [replace(r, headers=(("watchword", (r.headers[-1][1] or b"")[:-4] + b"AAAA"),)) for r in forged]
        await world.inject(topic, [*forged, *broken])
        await send_together(producer, topic)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 40)) == NUMBERS * 2
    assert reader.audit.counts["delivered"] == 40
    assert sum(reader.audit.counts.values()) == 440
