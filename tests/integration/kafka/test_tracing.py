"""A48: tracing that wraps the client's classes sees each send, and of what is read verified messages, once each."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.integration.kafka.world import PLANNER, Captured, World, observe, read, values
from tests.support.both import consumer_of, kinds, producer_of
from tests.support.kafka_api import VerifiedRecord
from tests.support.readers import END, until
from tests.support.tracing import TRACEPARENT, Tracing
from watchword import Mode
from watchword.telemetry import consume_hook

moments = pytest.mark.parametrize("moment", ["before the client is made", "after it was started"])


@kinds
@moments
async def test_each_send_has_a_span(world: World, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str) -> None:
    """The send hook is called once a message, with what the caller gave, and its context reaches the reader."""
    topic, tracing = await world.make_topic(), Tracing()
    if moment.startswith("before"):
        tracing.install(monkeypatch)
    async with producer_of(world, kind) as producer:
        if moment.startswith("after"):
            tracing.install(monkeypatch)
        await producer.send_and_wait(topic, b"0", partition=0)
        await (await producer.send(topic, b"1", b"key", 0, headers=[("own", b"header")]))
        await producer.send_and_wait(topic, b"2", None, 0, None, [("own", b"header")])
    assert tracing.sent == [(topic, b"0", None), (topic, b"1", b"key"), (topic, b"2", None)]
    monkeypatch.undo()
    if kind == "aiokafka":
        found: list[Any] = await world.capture(topic, 3)
    else:
        async with world.consumer(world.reader(), topic) as consumer:
            found = list(await read(consumer, 3))
    assert values(found) == [b"0", b"1", b"2"]
    contexts = [dict(record.headers)[TRACEPARENT] for record in found]
    assert [int(context.split(b"-")[2], 16) for context in contexts] == [0, 1, 2]
    assert [dict(record.headers).get("own") for record in found] == [None, b"header", b"header"]


async def test_each_send_in_a_transaction_has_a_span(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is in a transaction."""
    topic, tracing = await world.make_topic(), Tracing()
    tracing.install(monkeypatch)
    async with world.producer(transactional_id=world.unique("tx")) as producer, producer.transaction():
        await producer.send(topic, b"0", partition=0)
        await producer.send_and_wait(topic, b"1", partition=0)
    assert [value for _, value, _ in tracing.sent] == [b"0", b"1"]


@moments
@pytest.mark.parametrize("way", ["getone", "getmany", "one of many", "async for"])
async def test_the_receive_hook_sees_what_is_delivered(
    world: World, monkeypatch: pytest.MonkeyPatch, way: str, moment: str
) -> None:
    """Of forged, replayed and honest records the hook is shown the honest ones, in order, as the caller gets them."""
    topic, tracing = await world.make_topic(), Tracing()
    await world.say(topic, b"0", b"1")
    await world.inject(topic, [*await world.capture(topic, 2), Captured(value=b"forged")])
    await world.say(topic, b"2", END)
    if moment.startswith("before"):
        tracing.install(monkeypatch)
    async with world.consumer(world.reader(), topic) as consumer:
        if moment.startswith("after"):
            tracing.install(monkeypatch)
        assert await until(consumer, way=way) == [b"0", b"1", b"2", END]
    assert tracing.places() == [(0, 0), (0, 1), (0, 5), (0, 6)]
    assert all(isinstance(record, VerifiedRecord) for record in tracing.received)


async def test_the_receive_hook_sees_nothing_of_a_rebuild(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read again after a restart or a seek, to be remembered, is no message that was received."""
    topic, group, tracing = await world.make_topic(), world.unique("group"), Tracing()
    await world.say(topic, b"0", b"1", b"2")
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 3)) == [b"0", b"1", b"2"]
    await world.say(topic, b"3")
    tracing.install(monkeypatch)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"3"]
        consumer.seek(TopicPartition(topic, 0), 2)
        assert values(await read(consumer, 2)) == [b"2", b"3"]
    assert tracing.places() == [(0, 3), (0, 2), (0, 3)]


async def test_the_receive_hook_in_observe_mode(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything is handed on, the hook is shown everything, once."""
    topic, tracing = await world.make_topic(), Tracing()
    await world.inject(topic, [Captured(value=b"unsigned")])
    await world.say(topic, b"0")
    tracing.install(monkeypatch)
    async with world.consumer(world.reader(mode=Mode.OBSERVE), topic) as consumer:
        assert values(await observe(consumer, 2)) == [b"unsigned", b"0"]
    assert tracing.places() == [(0, 0), (0, 1)]


async def test_the_record_s_span_says_who_wrote_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook for OpenTelemetry's instrumentation finds the principal, or why a record would be dropped."""
    topic, tracing, exporter = await world.make_topic(), Tracing(), InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    await world.inject(topic, [Captured(value=b"unsigned")])
    await world.say(topic, b"0")
    tracing.install(monkeypatch)
    async with world.consumer(world.reader(mode=Mode.OBSERVE), topic) as consumer:
        await observe(consumer, 2)
    for record in tracing.received:
        with provider.get_tracer("test").start_span("receive") as span:
            await consume_hook(span, record, (), {})
    unsigned, signed = (dict(span.attributes or {}) for span in exporter.get_finished_spans())
    assert unsigned == {"watchword.verdict": "unsigned", "error.type": "unsigned"}
    assert (signed["watchword.verdict"], signed["watchword.principal"]) == ("delivered", PLANNER)


@kinds
async def test_the_client_itself_is_traced_as_here(world: World, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The measure: aiokafka's own consumer shows its hook each record once, by whichever call it is read."""
    topic, tracing = await world.make_topic(), Tracing()
    await world.say(topic, b"0", b"1", b"2", END)
    tracing.install(monkeypatch)
    async with consumer_of(world, kind, topic, auto_offset_reset="earliest") as consumer:
        got = [(await consumer.getone()).value, (await anext(aiter(consumer))).value]
        while END not in got:
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                got += values(records)
    assert got == [b"0", b"1", b"2", END]
    assert tracing.places() == [(0, number) for number in range(4)]
