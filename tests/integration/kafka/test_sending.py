"""What the signing producer sends, and what it refuses, before anything is sent."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation

from tests.integration.kafka.world import World, committed, read, values
from tests.support.kept import Kept
from watchword import Algorithm, ConfigurationError, Unavailable
from watchword_adapters.kafka import SendTypeError, SigningProducer, VerifyingConsumer, wrap


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
async def test_every_compression_verifies(world: World, compression: str | None) -> None:
    """Whatever the batches are packed with, messages and batches verify."""
    topic = await world.make_topic()
    async with world.producer(compression_type=compression) as producer:
        for n in range(10):
            await producer.send(topic, b"%d" % n * 100, partition=0)
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"batch")
        await (await producer.send_batch(batch, topic, partition=0))
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert values(await read(consumer, 11)) == [*(b"%d" % n * 100 for n in range(10)), b"batch"]


async def test_the_clients_own_partitioner_decides(world: World) -> None:
    """Messages go where aiokafka would have put them, by the serialized key, and the partition is signed."""
    topic = await world.make_topic(5)
    keys = [b"%d" % n for n in range(20)]
    async with world.producer(key_serializer=lambda key: b"%d" % key) as producer:
        signed = [(await producer.send_and_wait(topic, b"v", n)).partition for n in range(20)]
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap) as plain:
        expected = [(await plain.send_and_wait(topic, b"v", key)).partition for key in keys]
    assert signed == expected
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        await read(consumer, 20)


@pytest.mark.parametrize("partitions", [1, 5])
async def test_a_batch_for_any_partition_is_signed_for_the_one_it_goes_to(world: World, partitions: int) -> None:
    """send_batch(partition=None) lets the client choose, as aiokafka does, and a reader gets what the sender sent."""
    topic = await world.make_topic(partitions)
    async with world.producer() as producer:
        for number in range(5):
            batch = producer.create_batch()
            batch.append(timestamp=None, key=None, value=b"%d" % number)
            await (await producer.send_batch(batch, topic, partition=None))
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        assert sorted(values(await read(consumer, 5))) == [b"%d" % number for number in range(5)]
    assert reader.audit.counts == {"delivered": 5}


class Number:
    """A whole number of a library's own, such as numpy's."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        """Return it as Python's own."""
        return self.number

    def __eq__(self, other: object) -> bool:
        """Compare as numbers do."""
        return self.number == other

    def __hash__(self) -> int:
        """Hash as numbers do."""
        return hash(self.number)


async def test_whatever_chooses_the_partition_it_is_signed(world: World) -> None:
    """A partitioner may return any kind of whole number; one that returns something else is refused by name."""
    topic = await world.make_topic(3)
    chosen: list[Any] = [Number(2), True, None, 1.0]
    async with world.producer(partitioner=lambda *_: chosen.pop(0)) as producer:
        await producer.send_and_wait(topic, b"2")
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"1")
        await (await producer.send_batch(batch, topic, partition=None))
        for wrong in ("None", "1.0"):
            with pytest.raises(SendTypeError, match=f"partition {wrong} of topic .*: the partitioner must return"):
                await producer.send(topic, b"nowhere")
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        found = {record.partition: record.value for record in await read(consumer, 2)}
    assert found == {2: b"2", 1: b"1"}
    assert reader.audit.counts == {"delivered": 2}


async def test_records_carry_the_time_of_issue(world: World) -> None:
    """On a CreateTime topic the record's timestamp is the time of issue, to the millisecond, as the sender sees it."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    tp = TopicPartition(topic, 0)
    async with world.producer() as producer:
        sent = []
        for number in range(3):
            before = int(time.time() * 1000)
            metadata = await producer.send_and_wait(topic, b"%d" % number, partition=0)
            assert before <= metadata.timestamp <= time.time() * 1000
            sent.append(metadata.timestamp)
            await asyncio.sleep(0.002)  # the next one is of another millisecond
    async with world.consumer(world.reader(), topic) as consumer:
        records = await read(consumer, 3)
        # Records of the same second are distinguished: a look-up of a time finds that record, not the second's first.
        found = [
            place and place.offset
            for stamp in sent
            for place in (await consumer.offsets_for_times({tp: stamp})).values()
        ]
    assert [record.timestamp for record in records] == sent
    assert [record.verified.issued_at for record in records] == [stamp // 1000 for stamp in sent]
    assert found == [0, 1, 2]


@pytest.mark.needs_kafka("duplicate_headers")
async def test_headers_reach_the_reader_in_order(world: World) -> None:
    """Repeated names, order, empty and absent header values survive, and a tombstone stays one."""
    topic = await world.make_topic()
    headers: Any = [("b", b"1"), ("a", b""), ("b", None), ("c", b"2")]
    async with world.producer() as producer:
        await producer.send_and_wait(topic, None, memoryview(b"key"), headers=headers)
    async with world.consumer(world.reader(), topic) as consumer:
        (record,) = await read(consumer, 1)
    assert (record.key, record.value) == (b"key", None)
    assert record.headers == (("b", b"1"), ("a", b""), ("b", None), ("c", b"2"))
    assert len(headers) == 4  # the caller's list is left alone


async def test_committed_transactions_arrive_and_aborted_ones_do_not(
    world: World, unique: Callable[[str], str]
) -> None:
    """With read_committed a reader gets what was committed, offsets go with the transaction, nothing is lost."""
    source, target, group = await world.make_topic(), await world.make_topic(), unique("group")
    await world.say(source, b"task")
    tp = TopicPartition(source, 0)
    async with (
        world.producer(transactional_id=unique("tx")) as producer,
        world.consumer(world.reader(), source, group_id=group, enable_auto_commit=False) as worker,
    ):
        (task,) = await read(worker, 1)

        async def fail() -> None:
            async with producer.transaction():
                await producer.send_and_wait(target, b"aborted")
                await producer.send_offsets_to_transaction({tp: task.offset + 1}, group)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async with producer.transaction():
            await producer.send(target, b"committed")
            await producer.send_offsets_to_transaction({tp: task.offset + 1}, group)
        await committed(worker, tp, 1)
        with pytest.raises(IllegalOperation):
            await producer.send(target, b"outside")
    reader = world.reader()
    async with world.consumer(reader, target, isolation_level="read_committed") as consumer:
        assert values(await read(consumer, 1)) == [b"committed"]
        assert await consumer.getmany(timeout_ms=200) == {}
    assert reader.audit.counts == {"delivered": 1}


async def test_a_full_batch_still_fits_when_it_is_signed(world: World) -> None:
    """A batch takes no more than it can hold signed, for any topic; naming the topic makes more fit."""
    topic = await world.make_topic()
    async with world.producer(recipient=lambda *_: None, key_serializer=str.encode) as producer:
        counts = []
        for named in (None, topic):
            batch = producer.create_batch(topic=named)
            while batch.append(timestamp=None, key="k", value=b"v" * 50, headers=[("name", b"x")]):
                pass
            assert batch.closed()
            assert batch.append(timestamp=None, key="k", value=b"v") is None
            counts.append(batch.record_count())
            assert batch.size() <= 16_384
            metadata = await (await producer.send_batch(batch, topic, partition=0))
            assert metadata.topic == topic
        with pytest.raises(ConfigurationError, match="create another"):
            await producer.send_batch(producer.create_batch(topic=topic), await world.make_topic(), partition=0)
    assert counts[1] > counts[0] > 10
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        await read(consumer, sum(counts))


async def test_a_failed_signing_back_end_sends_nothing(world: World) -> None:
    """Where the signer is unavailable the caller gets Unavailable, and nothing goes out unsigned."""
    topic = await world.make_topic()
    speaker = world.speaker()

    class Broken:
        key_id, algorithm = speaker.signer.key_id, Algorithm.ED25519

        async def sign(self, data: bytes) -> bytes:
            raise ConnectionError(len(data))

    speaker.signer.switch(Broken())
    async with world.producer(speaker) as producer:
        with pytest.raises(Unavailable, match="signing"):
            await producer.send(topic, b"v")
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap) as consumer:
        assert await consumer.end_offsets([TopicPartition(topic, 0)]) == {TopicPartition(topic, 0): 0}


async def test_wrapped_clients_are_covered(world: World) -> None:
    """wrap() makes clients that someone else created sign and verify, started or not, serializers included."""
    topic, group = await world.make_topic(), world.unique("group")
    fresh = wrap(
        AIOKafkaProducer(bootstrap_servers=world.bootstrap, value_serializer=str.encode),
        watchword=world.speaker(),
        recipient=lambda *_: None,
    )
    async with fresh:
        await fresh.send_and_wait(topic, "1")
    serializers = {"key_serializer": b"%d".__mod__, "value_serializer": str.encode}
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap, **serializers) as running:
        wrapped = wrap(running, watchword=world.speaker())
        assert wrapped is running
        await wrapped.send_and_wait(topic, "2", 2)
        batch = wrapped.create_batch()
        batch.append(timestamp=None, key=3, value="3")
        await (await wrapped.send_batch(batch, topic, partition=0))
    await world.inject(topic, await world.capture(topic))
    before = wrap(
        AIOKafkaConsumer(
            topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest", value_deserializer=bytes.decode
        ),
        watchword=world.reader(),
    )
    async with before:
        records = await read(before, 3)
        assert [(record.key, record.value) for record in records] == [(None, "1"), (b"2", "2"), (b"3", "3")]
    options = {"group_id": group, "auto_offset_reset": "earliest", "auto_commit_interval_ms": 10}
    async with AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, **options) as base:
        assert (await base.getone()).value == b"1"
        kept = Kept()
        after = wrap(base, watchword=world.reader(), quarantine=kept)
        assert not base._coordinator._enable_auto_commit  # or aiokafka would commit what nobody has judged
        # What was read before wrap() nobody judged; it stands in the log, so its copy is a replay all the same.
        assert values(await read(after, 2)) == [b"2", b"3"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(after.getone(), 0.2)
        await committed(after, TopicPartition(topic, 0), 4)
        assert kept.copies == [(b"1", "replayed")]


@pytest.mark.parametrize("offset", [0, 1, 2, None])
async def test_a_wrapped_consumer_goes_on_where_it_stands(world: World, offset: int | None) -> None:
    """wrap() of a started consumer reads on from its position, whatever its group has committed by then."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    async with world.producer() as producer:
        for value in (b"1", b"2", b"3"):
            await producer.send_and_wait(topic, value)
    options = {"group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    async with AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, **options) as base:
        assert (await base.getone()).value == b"1"
        if offset is not None:
            await base.commit({tp: offset})
        after = wrap(base, watchword=world.reader())
        assert await after.position(tp) == 1
        assert values(await read(after, 2)) == [b"2", b"3"]


async def test_wrap_refuses_what_it_cannot_cover(world: World) -> None:
    """A started consumer with deserializers, a subclass, and a stranger are refused with what to do instead."""
    topic = await world.make_topic()
    async with AIOKafkaProducer(bootstrap_servers=world.bootstrap) as producer:
        with pytest.raises(ConfigurationError, match="rejects nothing"):
            wrap(producer, watchword=world.speaker(), quarantine=Kept())
    options = {"bootstrap_servers": world.bootstrap, "value_deserializer": bytes.decode}
    async with AIOKafkaConsumer(topic, **options) as consumer:
        with pytest.raises(ConfigurationError, match=r"before start\(\)"):
            wrap(consumer, watchword=world.reader())
        with pytest.raises(ConfigurationError, match="recipient"):
            wrap(consumer, watchword=world.reader(), recipient=lambda *_: None)

    class Own(AIOKafkaConsumer):
        pass

    async with Own(topic, bootstrap_servers=world.bootstrap) as own:
        with pytest.raises(ConfigurationError, match="inherit from SigningProducer or VerifyingConsumer"):
            wrap(own, watchword=world.reader())


async def test_a_pure_consumer_cannot_make_a_producer(world: World) -> None:
    """Without a signer the producer is refused when it is made, not at the first message."""
    with pytest.raises(ConfigurationError, match="only verifies"):
        SigningProducer(bootstrap_servers=world.bootstrap, watchword=world.reader())
    plain = AIOKafkaProducer(bootstrap_servers=world.bootstrap)
    with pytest.raises(ConfigurationError, match="only verifies"):
        wrap(plain, watchword=world.reader())
    assert type(plain) is AIOKafkaProducer
    await plain.stop()


async def test_nothing_is_said_of_clients_as_aiokafka_makes_them(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever stamps the records, and however the producer is set up: there is nothing to warn of."""
    topic = await world.make_topic(timestamp_type="CreateTime")
    async with world.producer(enable_idempotence=False) as producer:
        await producer.send_and_wait(topic, b"v")
    async with world.consumer(world.reader(), topic) as consumer:
        assert values(await read(consumer, 1)) == [b"v"]
    assert not [record for record in caplog.records if record.name == "watchword"]


async def test_use_before_start_is_one_clear_error(world: World) -> None:
    """A client that was not started says so instead of failing inside or waiting in vain."""
    producer = SigningProducer(bootstrap_servers=world.bootstrap, watchword=world.speaker())
    with pytest.raises(ConfigurationError, match=r"await producer.start\(\)"):
        await producer.send("topic", b"v")
    await producer.stop()
    consumer = VerifyingConsumer("topic", bootstrap_servers=world.bootstrap, watchword=world.reader())
    with pytest.raises(ConfigurationError, match=r"await consumer.start\(\)"):
        await consumer.getone()
    with pytest.raises(TypeError):
        await consumer.getmany("topic")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"await consumer.start\(\)"):
        consumer.seek(TopicPartition("topic", 0), 0)
    with pytest.raises(ConfigurationError, match=r"await consumer.start\(\)"):
        await consumer.seek_to_beginning()
    await consumer.stop()
    await consumer.stop()


@pytest.mark.parametrize("way", ["flush", "stop", "commit", "abort"])
async def test_whatever_ends_a_batch_drains_it_signed(world: World, way: str) -> None:
    """What was sent and not awaited is signed and stored by flush, stop and commit; an aborted one is not delivered."""
    topic = await world.make_topic()
    options: dict[str, Any] = {"transactional_id": world.unique("tx")} if way in {"commit", "abort"} else {}
    async with world.producer(**options) as producer:
        if options:
            await producer.begin_transaction()
        futures = [await producer.send(topic, b"%d" % n, partition=0) for n in range(5)]
        ends: dict[str, Any] = {
            "flush": producer.flush,
            "stop": producer.stop,
            "commit": producer.commit_transaction,
            "abort": producer.abort_transaction,
        }
        await ends[way]()
        assert all(future.done() for future in futures)
    await world.say(topic, b"end")
    async with world.consumer(world.reader(), topic, isolation_level="read_committed") as consumer:
        sent = [] if way == "abort" else [b"%d" % n for n in range(5)]
        assert values(await read(consumer, len(sent) + 1)) == [*sent, b"end"]
