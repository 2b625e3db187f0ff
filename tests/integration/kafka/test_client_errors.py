"""What the producer refuses, beside aiokafka's own: each wrong call raises what its users expect, and sends nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, MessageSizeTooLargeError, ProducerClosed

from tests.integration.kafka.world import World, read
from watchword import ConfigurationError, SigningError
from watchword_adapters.kafka import SendTypeError, SendValueError, SigningProducer, TooLargeError

Call = Callable[[AIOKafkaProducer, str], Awaitable[object]]


def sends(**call: Any) -> Call:
    """Call ``send_and_wait`` so; it sends ``b"v"`` unless a value is given."""
    return lambda producer, topic: producer.send_and_wait(**{"topic": topic, "value": b"v"} | call)


def appends(*, partition: Any = 0, **call: Any) -> Call:
    """Append so to a batch, and send that."""

    async def append(producer: AIOKafkaProducer, topic: str) -> object:
        batch = producer.create_batch()
        batch.append(**{"timestamp": None, "key": None, "value": b"v"} | call)
        return await (await producer.send_batch(batch, topic, partition=partition))

    return append


async def in_transaction(producer: AIOKafkaProducer, *, offsets: Any, group: Any) -> None:
    """Send offsets in a transaction."""
    async with producer.transaction():
        await producer.send_offsets_to_transaction(offsets, group)


async def after_stop(producer: AIOKafkaProducer, topic: str) -> object:
    """Send when the producer is stopped, and knows the topic."""
    await producer.partitions_for(topic)
    await producer.stop()
    return await producer.send(topic, b"v")


SAME: dict[str, tuple[Call, type[Exception] | None]] = {
    "neither key nor value": (sends(value=None), AssertionError),
    "text for a value": (sends(value="text"), TypeError),
    "number for a key": (sends(key=1), TypeError),
    "bytes in other shapes": (sends(value=bytearray(b"v"), key=memoryview(b"k")), None),
    "headers in a tuple": (sends(headers=(("h", b"v"),)), TypeError),
    "headers in a dict": (sends(headers={"h": b"v"}), TypeError),
    "text for a header": (sends(headers=[("h", "v")]), TypeError),
    "name of a header in bytes": (sends(headers=[(b"h", b"v")]), TypeError),
    "no name of a header": (sends(headers=[(None, b"v")]), AttributeError),
    "three parts of a header": (sends(headers=[("h", b"v", b"v")]), ValueError),
    "name of a header that is no text": (sends(headers=[("\ud800", b"v")]), UnicodeEncodeError),
    "absent value of a header": (sends(headers=[("h", None)]), None),
    "no such partition": (sends(partition=7), AssertionError),
    "a partition below 0": (sends(partition=-1), AssertionError),
    "text for a partition": (sends(partition="0"), TypeError),
    "a partition like 1": (sends(partition=True), None),
    "text for a timestamp": (sends(timestamp_ms="1"), TypeError),
    "a timestamp in a float": (
        lambda producer, topic: producer.send_and_wait(topic, b"v", timestamp_ms=time.time() * 1000), None
    ),
    "too large": (sends(value=bytes(2_000_000)), MessageSizeTooLargeError),
    "no topic of that name": (sends(topic="no/topic"), KafkaError),
    "batch: text for a value": (appends(value="text"), TypeError),
    "batch: number for a key": (appends(key=1), TypeError),
    "batch: headers in a tuple": (appends(headers=(("h", b"v"),)), TypeError),
    "batch: text for a header": (appends(headers=[("h", "v")]), TypeError),
    "batch: no headers": (appends(headers=None), None),
    "batch: text for a timestamp": (appends(timestamp="1"), TypeError),
    "batch: neither key nor value": (appends(value=None), None),
    "batch: no such partition": (appends(partition=7), AssertionError),
    "batch: a partition below 0": (appends(partition=-1), AssertionError),
    "batch: text for a partition": (appends(partition="0"), TypeError),
    "batch: any partition": (appends(partition=None), None),
    "a transaction without an id": (lambda producer, _: producer.begin_transaction(), IllegalOperation),
    "offsets outside a transaction": (
        lambda producer, _: producer.send_offsets_to_transaction({}, "group"), IllegalOperation
    ),
    "after stop": (after_stop, ProducerClosed),
}  # fmt: skip
"""Calls, and what aiokafka makes of them: an error, or None where it takes them."""

IN_TRANSACTIONS: dict[str, tuple[Call, type[Exception] | None]] = {
    "send outside": (sends(), IllegalOperation),
    "batch outside": (appends(), IllegalOperation),
    "no group": (lambda producer, _: in_transaction(producer, offsets={}, group=""), ValueError),
    "no offsets": (
        lambda producer, topic: in_transaction(producer, offsets={topic: 1}, group="group"), TypeError
    ),
}  # fmt: skip

OURS: dict[str, tuple[Call, type[Exception]]] = {
    "a partition that is no whole number": (sends(partition=0.0), SendTypeError),
    "a timestamp of 1970": (sends(timestamp_ms=1), SendValueError),
    "batch: a timestamp of 1970": (appends(timestamp=1), SendValueError),
    "an envelope of someone else's": (sends(headers=[("Watchword", b"")]), SigningError),
    "too large with the envelope": (sends(value=bytes(1_048_000)), TooLargeError),
    "a batch that was made elsewhere": (
        lambda producer, topic: producer.send_batch(object(), topic, partition=0), ConfigurationError
    ),
}  # fmt: skip
"""Calls that aiokafka takes, some of them to its own ruin, and that no reader would ever take."""


async def outcome(producer: AIOKafkaProducer, call: Call, topic: str) -> Exception | None:
    """Start the producer, call it, and return the error."""
    async with producer:
        try:
            await call(producer, topic)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is compared
            return error
    return None


async def records_in(world: World, topic: str) -> int:
    """Count what stands in the topic."""
    async with AIOKafkaConsumer(bootstrap_servers=world.bootstrap) as consumer:
        ends = await consumer.end_offsets([TopicPartition(topic, partition) for partition in (0, 1)])
    return sum(ends.values())


@pytest.mark.parametrize("case", [*SAME, *IN_TRANSACTIONS])
async def test_a_wrong_call_raises_what_aiokafka_raises(world: World, case: str) -> None:
    """Each call ends as plain aiokafka ends it: with an error of that class, or sent and verified."""
    call, expected = (SAME | IN_TRANSACTIONS)[case]
    plain_topic, topic = await world.make_topic(2), await world.make_topic(2)
    options: dict[str, Any] = {"bootstrap_servers": world.bootstrap}
    if case == "no topic of that name":  # which ends as late as a request
        options["request_timeout_ms"] = 2000
    if case in IN_TRANSACTIONS:
        options["transactional_id"] = world.unique("tx")
    plain = await outcome(AIOKafkaProducer(**options), call, plain_topic)
    ours = await outcome(SigningProducer(watchword=world.speaker(), **options), call, topic)
    if expected is not None:
        assert isinstance(plain, expected)
        assert isinstance(ours, type(plain))
        assert not await records_in(world, topic)
    else:
        assert (plain, ours) == (None, None)
        async with world.consumer(world.reader(), topic) as consumer:
            await read(consumer, 1)


@pytest.mark.parametrize("case", OURS)
async def test_what_no_reader_would_take_is_refused(world: World, case: str) -> None:
    """What cannot be signed, or would not verify, is an error before anything is sent, and harms no later message."""
    call, expected = OURS[case]
    topic = await world.make_topic(2)

    async def and_then_another(producer: AIOKafkaProducer, topic: str) -> object:
        with pytest.raises(expected) as raised:
            await call(producer, topic)
        assert isinstance(raised.value, SigningError | ConfigurationError)
        return await producer.send_and_wait(topic, b"v")

    producer = SigningProducer(watchword=world.speaker(), bootstrap_servers=world.bootstrap)
    assert await outcome(producer, and_then_another, topic) is None
    assert await records_in(world, topic) == 1


async def test_an_error_of_ours_is_the_clients_too(world: World) -> None:
    """Errors that aiokafka has a class for are of that class and of ours, and say what to do."""
    topic = await world.make_topic()
    async with world.producer(max_request_size=1_000) as producer:
        await producer.send_and_wait(topic, bytes(200))
        with pytest.raises(MessageSizeTooLargeError, match="max_request_size is 1000") as too_large:
            await producer.send(topic, bytes(900))  # fits alone, not with its envelope
        assert isinstance(too_large.value, SigningError)
        with pytest.raises(ValueError, match="more than 30 s from now, so readers would reject the message"):
            await producer.send(topic, b"v", timestamp_ms=1)


@pytest.mark.parametrize("started", [False, True])
async def test_a_producer_that_was_never_stopped_says_so(world: World, *, started: bool) -> None:
    """A dropped producer warns as aiokafka's does, at once and not when memory is tidied up; a stopped one does not."""
    topic = await world.make_topic()
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    for make in (AIOKafkaProducer, partial(SigningProducer, watchword=world.speaker())):
        producer = make(bootstrap_servers=world.bootstrap)
        client, sender = producer.client, producer._sender
        if started:
            await producer.start()
            await producer.send_and_wait(topic, b"v")
        with pytest.warns(ResourceWarning, match="Unclosed AIOKafkaProducer"):
            del producer
        await sender.close()
        await client.close()
    assert said == ["Unclosed AIOKafkaProducer"] * 2
    async with world.producer() as stopped:
        await stopped.send_and_wait(topic, b"v")
    del stopped
    with pytest.raises(ConfigurationError, match="only verifies"):
        SigningProducer(bootstrap_servers=world.bootstrap, watchword=world.reader())
    assert len(said) == 2
