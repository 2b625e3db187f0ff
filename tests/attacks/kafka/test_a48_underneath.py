"""A48: tools that read below the public methods, and a consumer that is wrapped while a task already waits in it.

Frameworks take records from `consumer._fetcher` (faust-streaming does). They are refused with the way that is covered,
or get what verified; nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.integration.kafka.world import Captured, World
from tests.support.kafka_api import VerifiedRecord, VerifyingConsumer, wrap
from tests.support.patience import PATIENCE
from tests.support.readers import END, until
from watchword import ConfigurationError

FORGED = Captured(value=b"forged")

BELOW: dict[str, Callable[[Any, TopicPartition], Awaitable[Any]]] = {
    "fetched_records": lambda c, tp: c._fetcher.fetched_records([tp], timeout=2.0, max_records=10),
    "fetched_records of all": lambda c, _: c._fetcher.fetched_records([], timeout=2.0),
    "next_record": lambda c, tp: c._fetcher.next_record([tp]),
    "next_record of all": lambda c, _: c._fetcher.next_record([]),
    "the base's getone": lambda c, _: AIOKafkaConsumer.getone(c),
    "the base's getmany": lambda c, _: AIOKafkaConsumer.getmany(c, timeout_ms=2_000),
}


async def attempt(consumer: Any, tp: TopicPartition, call: str) -> list[Any]:
    """Return what a call below the public methods gives; nothing if it is refused with the covered way named."""
    return await records_or_refusal(asyncio.wait_for(BELOW[call](consumer, tp), PATIENCE), named="getmany")


async def records_or_refusal(call: Awaitable[Any], *, named: str) -> list[Any]:
    """Return the records of a call, in whatever shape; nothing if a ConfigurationError says what is wanted."""
    refusal, found = "", None
    try:
        found = await call
    except ConfigurationError as error:
        refusal = str(error)
    if refusal:
        assert named in refusal
        return []
    if isinstance(found, dict):
        return [record for some in found.values() for record in some]
    return [found]


def forged_among(records: list[Any]) -> list[Any]:
    """Return the values of records that nobody verified."""
    return [record.value for record in records if not isinstance(record, VerifiedRecord)]


@pytest.mark.parametrize("call", BELOW)
@pytest.mark.parametrize("made", ["by its class", "by wrap", "by wrap after start"])
async def test_a48_reads_below_the_public_methods(world: World, made: str, call: str) -> None:
    """No call below getone and getmany gives a forged record, and after it the covered ways lose nothing."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.inject(topic, [FORGED])
    await world.say(topic, b"0", END)
    options: dict[str, Any] = {"bootstrap_servers": world.bootstrap, "auto_offset_reset": "earliest"}
    if made == "by its class":
        consumer: Any = VerifyingConsumer(topic, watchword=world.reader(), **options)
        await consumer.start()
    else:
        consumer = AIOKafkaConsumer(topic, **options)
        if made == "by wrap":
            consumer = wrap(consumer, watchword=world.reader())
        await consumer.start()
        if made == "by wrap after start":
            consumer = wrap(consumer, watchword=world.reader())
    try:
        taken = await attempt(consumer, tp, call)
        assert forged_among(taken) == []
        got = [record.value for record in taken]
        if END not in got:
            got += await until(consumer)
        assert got == [b"0", END]
    finally:
        await consumer.stop()


@pytest.mark.parametrize("call", [call for call in BELOW if "base" not in call])
async def test_a48_reads_by_a_reference_from_before_wrapping(world: World, call: str) -> None:
    """Who took the client's fetcher before it was wrapped, as a framework may, reads what verified from it too."""
    topic = await world.make_topic()
    tp = TopicPartition(topic, 0)
    await world.inject(topic, [FORGED])
    plain = AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest")
    async with plain as consumer, asyncio.timeout(PATIENCE):
        framework = SimpleNamespace(_fetcher=consumer._fetcher)
        assert (await consumer.getone()).value == b"forged"  # plain as yet
        wrapped = wrap(consumer, watchword=world.reader())
        await world.inject(topic, [FORGED])
        await world.say(topic, b"0", END)
        taken = await attempt(framework, tp, call)
        assert forged_among(taken) == []
        got = [record.value for record in taken]
        if END not in got:
            got += await until(wrapped)
        assert got == [b"0", END]


@pytest.mark.parametrize("call", ["getone", "getmany", "async for", "next_record", "fetched_records"])
async def test_a48_wrapped_while_a_task_waits(world: World, call: str) -> None:
    """A task that waits in the client when it is wrapped gets no forged record; or wrap() refuses, and says why."""
    topic = await world.make_topic()
    plain = AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest")
    async with plain as consumer, asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(_waited(consumer, call))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        refusal = ""
        try:
            wrapped = wrap(consumer, watchword=world.reader())
        except ConfigurationError as error:
            refusal = str(error)
        if refusal:
            assert "wait" in refusal  # what stands in the way
            assert type(consumer) is AIOKafkaConsumer
            waiting.cancel()
            return
        await world.inject(topic, [FORGED])
        await world.say(topic, b"0", END)
        taken = await records_or_refusal(waiting, named="getmany")
        assert forged_among(taken) == []
        got = [record.value for record in taken]
        if END not in got:
            got += await until(wrapped)
        assert got == [b"0", END]


async def _waited(consumer: Any, call: str) -> Any:
    match call:
        case "next_record":
            return await consumer._fetcher.next_record([])
        case "fetched_records":
            return await consumer._fetcher.fetched_records([], timeout=9.0)
        case "getone":
            return await consumer.getone()
        case "getmany":
            return await consumer.getmany(timeout_ms=9_000)
        case _:
            return await anext(aiter(consumer))


@pytest.mark.parametrize("call", ["getone", "getmany"])
async def test_a48_wrapped_with_records_at_hand(world: World, call: str) -> None:
    """What the client fetched before it was wrapped, and had not handed out yet, is judged like anything else."""
    topic = await world.make_topic()
    await world.inject(topic, [FORGED])
    await world.say(topic, b"0")
    plain = AIOKafkaConsumer(topic, bootstrap_servers=world.bootstrap, auto_offset_reset="earliest")
    async with plain as consumer, asyncio.timeout(PATIENCE):
        assert (await consumer.getone()).value == b"forged"  # plain as yet; the other is at hand
        wrapped = wrap(consumer, watchword=world.reader())
        await world.inject(topic, [FORGED])
        await world.say(topic, END)
        assert await until(wrapped, way=call) == [b"0", END]
