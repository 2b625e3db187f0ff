"""A26: no way into or out of the clients bypasses the interceptors."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.producer.message_accumulator import BatchBuilder

from tests.integration.kafka.world import World, read, values
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, SigningError
from watchword_adapters.kafka import VerifiedRecord

# Decided one by one for aiokafka 0.13 and 0.14: what moves records is overridden, the rest only tells or steers.
# Whatever a producer sends is signed where it waits to be sent, below all of these.
PRODUCER_COVERED = {"send", "send_and_wait", "create_batch", "send_batch"}
PRODUCER_HARMLESS = {
    "start",
    "stop",
    "flush",
    "partitions_for",
    "begin_transaction",
    "commit_transaction",
    "abort_transaction",
    "transaction",
    "send_offsets_to_transaction",
}
CONSUMER_COVERED = {
    "getone",
    "getmany",
    "commit",
    "position",
    "seek",
    "seek_to_beginning",
    "seek_to_end",
    "seek_to_committed",
    "subscribe",
    "start",
    "stop",
}
BELOW = {"seek_to_committed"}
"""Covered below: it is aiokafka's own, and asks its fetcher, which is ours."""
CONSUMER_HARMLESS = {
    "assign",
    "assignment",
    "unsubscribe",
    "subscription",
    "committed",
    "topics",
    "partitions_for_topic",
    "highwater",
    "last_stable_offset",
    "last_poll_timestamp",
    "offsets_for_times",
    "beginning_offsets",
    "end_offsets",
    "pause",
    "paused",
    "resume",
}


@pytest.mark.parametrize(
    ("base", "covered", "harmless"),
    [
        (AIOKafkaProducer, PRODUCER_COVERED, PRODUCER_HARMLESS),
        (AIOKafkaConsumer, CONSUMER_COVERED, CONSUMER_HARMLESS),
    ],
    ids=["producer", "consumer"],
)
def test_a26_every_public_method_was_decided_on(base: type, covered: set[str], harmless: set[str]) -> None:
    """A method that a new aiokafka adds fails here until someone decides whether it is a way round."""
    public = {name for name, _ in inspect.getmembers(base, inspect.isfunction) if not name.startswith("_")}
    assert public == covered | harmless
    from watchword_adapters.kafka import SigningProducer, VerifyingConsumer  # noqa: PLC0415 - beside its use

    ours = SigningProducer if base is AIOKafkaProducer else VerifyingConsumer
    assert covered - vars(ours).keys() == (BELOW if ours is VerifyingConsumer else set())


async def test_a26_every_way_out_is_signed(world: World, unique: Callable[[str], str]) -> None:
    """send, send_and_wait, batches and transactions all give records that verify."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        await (await producer.send(topic, b"send"))
        await producer.send_and_wait(topic, b"send_and_wait")
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"batch")
        await (await producer.send_batch(batch, topic, partition=0))
    async with world.producer(transactional_id=unique("tx")) as producer, producer.transaction():
        await producer.send(topic, b"transaction")
        batch = producer.create_batch(topic=topic)
        batch.append(timestamp=None, key=b"k", value=None)
        batch.close()
        await producer.send_batch(batch, topic, partition=0)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 5)) == [b"send", b"send_and_wait", b"batch", b"transaction", None]
    assert reader.audit.counts == {"delivered": 5}


async def test_a26_what_goes_past_our_methods_is_signed_too(world: World) -> None:
    """The client's own methods, called on our producer past the overriding ones, sign as well."""
    topic = await world.make_topic()
    plain = AIOKafkaProducer
    async with world.producer() as producer:
        await (await plain.send(producer, topic, b"send"))
        await plain.send_and_wait(producer, topic, b"send_and_wait")
        batch = plain.create_batch(producer)
        batch.append(timestamp=None, key=None, value=b"batch")
        await (await plain.send_batch(producer, batch, topic, partition=0))
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 3)) == [b"send", b"send_and_wait", b"batch"]
    assert reader.audit.counts == {"delivered": 3}


async def test_a26_raw_batch_is_refused(world: World) -> None:
    """A batch that was filled behind the interceptor's back is refused, and the error names the covered way."""
    topic = await world.make_topic()
    async with world.producer() as producer:
        waiting: Any = producer._message_accumulator.create_builder()
        with pytest.raises(SigningError, match=r"create_batch\(\)"):
            waiting.append(timestamp=None, key=None, value=b"unsigned", headers=[])
        raw: Any = BatchBuilder(16_384, 0)
        raw.append(timestamp=None, key=None, value=b"unsigned")
        for send_batch in (producer.send_batch, partial(AIOKafkaProducer.send_batch, producer)):
            with pytest.raises(ConfigurationError, match=r"create_batch\(\)"):
                await send_batch(raw, topic, partition=0)
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap) as consumer:
        tp = TopicPartition(topic, 0)
        assert await consumer.end_offsets([tp]) == {tp: 0}


@pytest.mark.parametrize("way", ["getone", "getmany", "async for", "getone of", "getmany of", "anext"])
async def test_a26_every_way_in_is_verified(world: World, way: str) -> None:
    """getone, getmany and the iterator, with partitions named or not, give nothing that does not verify."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"1")
    copies = await world.capture(topic)
    await world.inject(topic, copies)
    await world.say(topic, b"2")
    got: list[object] = []
    async with world.consumer(world.reader(), topic) as consumer:
        while len(got) < 2:
            match way:
                case "getone":
                    record = await consumer.getone()
                case "getone of":
                    record = await consumer.getone(tp)
                case "anext":
                    record = await anext(aiter(consumer))
                case "async for":
                    async for record in consumer:  # noqa: B007 - used below
                        break
                case _:
                    wanted = [tp] if "of" in way else []
                    found = await consumer.getmany(*wanted, timeout_ms=int(PATIENCE * 1000), max_records=1)
                    (record,) = found[tp]
            assert isinstance(record, VerifiedRecord)
            got.append(record.value)
        assert await consumer.getmany(timeout_ms=200) == {}
    assert got == [b"1", b"2"]
