"""A16, A17, A18, A19, A34, A36 on a real broker: time, redelivery, backlog, identity."""

import time
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import CONTROLLER, INTERN, PLANNER, Captured, World, eventually, read, values
from watchword import SigningError
from watchword.envelope import parse
from watchword.spi import Channel, Message


async def test_a16_captured_record_sent_after_the_window(world: World) -> None:
    """A record that was held back until its window closed is stale by the broker's own stamp."""
    topic = await world.make_topic()
    await world.inject(topic, [await world.sign(topic, b"late", clock=lambda: time.time() - 10)])
    await world.say(topic, b"now")
    reader, patient = world.reader(max_age=2, max_skew=1), world.reader(max_age=20, max_skew=1)
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 1)) == [b"now"]
    async with world.consumer(patient, topic) as consumer:
        assert values(await read(consumer, 2)) == [b"late", b"now"]
    assert reader.audit.counts == {"delivered": 1, "stale": 1}


async def test_a16_record_dated_in_the_future(world: World) -> None:
    """A record dated ahead, to live longer, is dropped."""
    topic = await world.make_topic()
    await world.inject(topic, [await world.sign(topic, b"ahead", clock=lambda: time.time() + 100)])
    await world.say(topic, b"now")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 1)) == [b"now"]
    assert reader.audit.counts == {"delivered": 1, "from_future": 1}


async def test_a16_record_timestamp_set_by_an_attacker(world: World) -> None:
    """On a CreateTime topic a record's own timestamp must be its time of issue, and cannot make old look new."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    old = await world.sign(topic, b"old", clock=lambda: time.time() - 10)
    now = int(time.time() * 1000)
    await world.inject(topic, [replace(old, timestamp_ms=now), replace(old, timestamp_ms=now - 10_000)])
    reader = world.reader(max_age=60, max_skew=1)
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 1)) == [b"old"]
    assert reader.audit.counts == {"delivered": 1, "altered": 1}


async def test_a17_going_back_is_no_replay(world: World) -> None:
    """A reader that seeks back, or starts over, gets the same records again, also long after their window closed."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    issued = (await world.capture(topic))[0].timestamp_ms or 0

    async def window_closed() -> bool:
        return time.time() > issued / 1000 + 3.5

    await eventually(window_closed)
    await world.say(topic, b"2")  # by now the id of the first may be forgotten, and what is as old is stale
    reader = world.reader(max_age=1, max_skew=1)
    tp = TopicPartition(topic, 0)
    async with world.consumer(reader, topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
        consumer.seek(tp, 0)
        assert values(await read(consumer, 2)) == [b"1", b"2"]
        await consumer.seek_to_beginning()
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    async with world.consumer(reader, topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    assert reader.audit.counts == {"delivered": 8}


@pytest.mark.parametrize("timestamp_type", ["LogAppendTime", "CreateTime"])
async def test_a18_backlog_is_delivered(world: World, timestamp_type: Any) -> None:
    """A consumer that lags far beyond max_age loses nothing, no matter who stamps the records."""
    topic = await world.make_topic(timestamp_type=timestamp_type)
    await world.say(topic, *(b"%d" % n for n in range(20)))
    late = world.reader(max_age=1, max_skew=1, clock=lambda: time.time() + 3600)
    async with world.consumer(late, topic) as consumer:
        assert values(await read(consumer, 20)) == [b"%d" % n for n in range(20)]
    assert late.audit.counts == {"delivered": 20}


async def test_a19_id_used_first_by_another(world: World) -> None:
    """A forged message, or one that the intern signed, with the id of a real one does not keep the real one out."""
    topic = await world.make_topic()
    real = await world.sign(topic, b"real")
    envelope = parse(real.headers[0][1] or b"")
    intern = world.speaker(INTERN)
    message = Message(channel=Channel("kafka", "test", topic), value=b"decoy", partition=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda _: envelope.id)
        decoy = await intern.signer.sign(message)
    assert decoy.id == envelope.id
    forged = replace(real, value=b"forged")
    await world.inject(topic, [forged, Captured(value=b"decoy", headers=(decoy.header,)), real])
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        got = await read(consumer, 2)
    assert [(r.value, r.verified.principal) for r in got] == [(b"decoy", INTERN), (b"real", PLANNER)]
    assert got[0].verified.id == got[1].verified.id
    assert reader.audit.counts == {"altered": 1, "delivered": 2}


async def test_a34_clocks_within_the_skew(world: World) -> None:
    """Signers whose clocks differ from the broker's by nearly the skew lose nothing; replays are dropped even so."""
    topic = await world.make_topic()
    drift = [-4.0, 4.0, -2.0, 0.0]
    records = [await world.sign(topic, b"%g" % d, clock=lambda d=d: time.time() + d) for d in drift]  # type: ignore[misc]
    await world.inject(topic, records + records)
    await world.say(topic, b"end")
    reader = world.reader(max_age=2, max_skew=5)
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 5)) == [b"-4", b"4", b"-2", b"0", b"end"]
    assert reader.audit.counts == {"delivered": 5, "replayed": 4}


async def test_a36_message_addressed_to_another_agent(world: World) -> None:
    """On a shared topic each agent gets what is addressed to it or to nobody; the hook names the addressee."""
    topic = await world.make_topic()

    def addressee(_: Channel, key: bytes | None, __: object) -> str | None:
        return key.decode() if key else None

    async with world.producer(recipient=addressee) as producer:
        for key in (CONTROLLER, INTERN, None):
            await producer.send_and_wait(topic, b"to %s" % (key or "all").encode(), key and key.encode())
    for principal in (CONTROLLER, INTERN):
        reader = world.reader(principal=principal)
        async with world.consumer(reader, topic) as consumer:
            assert values(await read(consumer, 2)) == [b"to " + principal.encode(), b"to all"]
        assert reader.audit.counts == {"delivered": 2, "wrong_recipient": 1}


async def test_a16_callers_own_timestamp_is_held_to_the_skew(world: World) -> None:
    """A sender's own record timestamp may differ by the skew; beyond it nothing is sent, and the error says why."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    async with world.producer() as producer:
        near = int(time.time() * 1000) - 5_000
        await producer.send_and_wait(topic, b"near", timestamp_ms=near)
        with pytest.raises(SigningError, match="omit it"):
            await producer.send_and_wait(topic, b"far", timestamp_ms=1_000)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        (record,) = await read(consumer, 1)
    assert (record.value, record.timestamp) == (b"near", near)
