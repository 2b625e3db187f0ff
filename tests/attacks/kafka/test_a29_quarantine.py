"""A29: the quarantine is no way back in, no oracle and no amplifier."""

from collections import Counter
from dataclasses import replace

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.kafka.quarantining import held, length, pass_through, quarantine_in
from tests.integration.kafka.world import REALM, Captured, World, read, values, without_envelope
from watchword import Rate, Reason, Rejected, Unavailable
from watchword.quarantine import COOL_DOWN
from watchword.quarantine_copy import Copy
from watchword.spi import Channel, Message, Position, QuarantineLimits


async def test_a29_copies_verify_on_no_channel(world: World) -> None:
    """A copy sent to the live topic is unsigned; its envelope put back makes the original, which is a replay there."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"scale up")
    (genuine,) = await world.capture(topic)
    await world.inject(topic, [genuine])  # a replay, with a perfectly good signature
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 2, quarantine) == [True]
    (copy,) = await world.capture(quarantine_topic)
    restored = replace(copy, headers=tuple((n.removeprefix("watchword-original-"), v) for n, v in copy.headers))

    await world.inject(topic, [copy, restored])
    await world.inject(quarantine_topic, [restored])
    await world.say(topic, b"honest")
    reader = world.reader()
    async with world.consumer(reader, topic, quarantine_topic) as consumer:
        assert values(await read(consumer, 2)) == [b"scale up", b"honest"]
        while sum(reader.audit.counts.values()) < 7:
            await consumer.getmany(timeout_ms=100)
    assert reader.audit.counts == {
        "delivered": 2,
        Reason.REPLAYED: 2,  # the replay, and the copy made whole again
        Reason.UNSIGNED: 2,  # the copy on either topic
        Reason.WRONG_CHANNEL: 1,  # the copy made whole again, in the quarantine
    }


async def test_a29_spoofed_headers_do_not_survive(world: World) -> None:
    """An attacker cannot write the story that a copy tells: neither ours nor that of a preset's tools."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    names = ("watchword-reason", "Watchword-Position", "watchword-original-watchword", "kafka_dlt-original-topic")
    await world.inject(topic, [Captured(value=b"x", headers=tuple((name, b"forged") for name in names))])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 1, quarantine) == [True]
    (copy,) = await world.capture(quarantine_topic)
    assert [name for name, value in copy.headers if value == b"forged"] == [
        f"watchword-original-{name}" for name in names
    ]
    (stored,) = await held(world, quarantine_topic)
    assert stored.kept is not None
    assert (stored.kept.reason, stored.kept.position) == ("unsigned", Position(f"{topic}/0", 0))


async def test_a29_a_flood_leaves_few_copies(world: World) -> None:
    """Hundreds of forgeries leave no more copies than the cap, and less bytes than they had."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=bytes(2000)) for _ in range(300)])
    limits = QuarantineLimits(rate=Rate(20, 3600.0), max_size=1024)
    async with quarantine_in(world, quarantine_topic, limits=limits) as quarantine:
        answers = await pass_through(world, topic, 300, quarantine)
        assert quarantine.counts == {"kept": 20, "capped_rejected": 280}
    assert answers == [True] * 20 + [False] * 280
    assert await length(world, quarantine_topic) == 20
    assert all(copy.value == b"" for copy in await world.capture(quarantine_topic, 20))


async def test_a29_a_consumer_that_reads_again_and_again_leaves_one_copy(world: World) -> None:
    """Seeks, rebalances and redeliveries of one forged record multiply nothing."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        for _ in range(5):
            assert await pass_through(world, topic, 1, quarantine) == [True]
    assert await length(world, quarantine_topic) == 1


async def test_a29_a_consumer_of_its_own_quarantine_does_not_loop(world: World) -> None:
    """Reading the quarantine with the consumer that fills it adds nothing to it."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    await world.inject(quarantine_topic, [Captured(value=b"forged")])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 1, quarantine) == [True]
        assert await pass_through(world, quarantine_topic, 2, quarantine) == [True, True]
    assert await length(world, quarantine_topic) == 2


async def test_a29_what_a_plain_tool_reads_is_no_message_of_ours(world: World) -> None:
    """An operator's plain consumer sees value and foreign headers unchanged, and no header named like an envelope."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"scale up", headers=[("content-type", b"text/plain")], key=b"k")
    (genuine,) = await world.capture(topic)
    await world.inject(topic, [without_envelope(genuine)])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        assert await pass_through(world, topic, 2, quarantine) == [True]
    (copy,) = await world.capture(quarantine_topic)
    assert (copy.value, copy.key) == (b"scale up", b"k")
    assert dict(copy.headers)["content-type"] == b"text/plain"
    assert not any(name.lower() == "watchword" for name, _ in copy.headers)


@pytest.mark.needs_kafka("unknown_topic_error")
async def test_a38_a_missing_quarantine_is_no_brake(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the quarantine is broken, forgeries are passed as fast as ever: it is tried once in each cool-down."""
    async with quarantine_in(world, world.unique("missing"), timeout=0.5) as quarantine:
        now, tries = 1_800_000_000.0, Counter[float]()
        write = quarantine.write

        async def counted(copy: Copy) -> bool:
            tries[now] += 1
            return await write(copy)

        monkeypatch.setattr(quarantine, "write", counted)
        monkeypatch.setattr(quarantine, "_clock", lambda: now)
        for round_of in range(3):
            for offset in range(100):
                with pytest.raises(Unavailable, match="quarantine"):
                    await quarantine.put(forged(round_of * 100 + offset), Rejected(Reason.UNSIGNED))
            now += COOL_DOWN
    assert list(tries.values()) == [1, 1, 1]


def forged(offset: int) -> Message:
    """Return what stands at an offset."""
    return Message(channel=Channel("kafka", REALM, "tasks"), value=b"forged", position=Position("tasks/0", offset))


async def test_a29_end_of_quarantine_is_where_it_was(world: World) -> None:
    """Looking at the quarantine and driving it again writes nothing, anywhere."""
    topic, quarantine_topic = await world.make_topic(), await world.make_topic()
    await world.inject(topic, [Captured(value=b"forged")])
    async with quarantine_in(world, quarantine_topic) as quarantine:
        await pass_through(world, topic, 1, quarantine)
    await held(world, quarantine_topic)
    async with AIOKafkaConsumer(topic, quarantine_topic, bootstrap_servers=world.bootstrap) as plain:
        ends = await plain.end_offsets([TopicPartition(name, 0) for name in (topic, quarantine_topic)])
    assert set(ends.values()) == {1}
