"""Tracing as libraries do it: they wrap the client's own send, and add a header there."""

from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.integration.kafka.world import World, read
from watchword_adapters.kafka import wrap

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PARENT = b"00-00000000000000000000000000000001-000000000000000%d-01"


def encode(key: str | None) -> bytes | None:
    """Serialize a key."""
    return None if key is None else key.encode()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the topics of all sends, wrapped as OpenTelemetry's instrumentation of aiokafka wraps them."""
    seen: list[str] = []
    plain: Callable[..., Awaitable[Any]] = AIOKafkaProducer.send

    async def send(self: Any, topic: str, *arguments: Any, headers: Any = None, **options: Any) -> Any:
        seen.append(topic)
        headers = [] if headers is None else headers
        if len(arguments) > 4:  # value, key, partition, timestamp and headers
            *arguments, headers = arguments  # type: ignore[assignment]  # a list will do
        headers = [*(headers or ()), ("traceparent", PARENT % len(seen))]
        assert self._key_serializer is encode  # which the library asks for itself, to name the partition
        return await plain(self, topic, *arguments, headers=headers, **options)

    monkeypatch.setattr(AIOKafkaProducer, "send", send)
    return seen


async def test_a_send_is_one_span_and_bears_its_context(world: World, spans: list[str]) -> None:
    """A library that wraps aiokafka's send sees each message once; its header is sent, and the message verifies."""
    topic = await world.make_topic()
    async with world.producer(key_serializer=encode) as producer:
        await producer.send_and_wait(topic, b"1", headers=[("h", b"v")])
        await (await producer.send(topic, b"2", "key", 0, None, [("h", b"v")]))
    plain = AIOKafkaProducer(bootstrap_servers=world.bootstrap, key_serializer=encode)
    async with wrap(plain, watchword=world.speaker()) as wrapped:
        await wrapped.send_and_wait(topic, b"3")
    assert spans == [topic] * 3
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        records = await read(consumer, 3)
    assert [dict(record.headers)["traceparent"] for record in records] == [PARENT % number for number in (1, 2, 3)]
    assert [dict(record.headers).get("h") for record in records] == [b"v", b"v", None]
    assert reader.audit.counts == {"delivered": 3}


async def test_copies_for_quarantine_are_nobodys_spans(world: World, spans: list[str]) -> None:
    """What a transactional producer carries for the quarantine is not traced as the application's own."""
    topic = await world.make_topic()
    async with world.producer(transactional_id=world.unique("tx")) as producer, producer.transaction():
        await (await producer._send_copy(topic, b"copy", b"key", (("h", b"v"),)))
    assert not spans
    (copy,) = await world.capture(topic)
    assert (copy.value, copy.key, copy.headers) == (b"copy", b"key", (("h", b"v"),))
