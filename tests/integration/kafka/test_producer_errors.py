"""Wrong arguments of `send` raise what aiokafka raises, or a class that inherits from it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.integration.kafka.world import World
from tests.support.both import producer_of

WRONG: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "text as value": lambda producer, topic: producer.send(topic, "text"),
    "number as key": lambda producer, topic: producer.send(topic, b"value", key=5),
    "neither key nor value": lambda producer, topic: producer.send(topic),
    "no such partition": lambda producer, topic: producer.send(topic, b"value", partition=7),
    "text in a header": lambda producer, topic: producer.send(topic, b"value", headers=[("a", "text")]),
    "bytes as header name": lambda producer, topic: producer.send(topic, b"value", headers=[(b"a", b"b")]),
    "timestamp in text": lambda producer, topic: producer.send(topic, b"value", timestamp_ms="now"),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
async def test_what_the_producer_refuses(world: World, call: Callable[[Any, str], Awaitable[Any]]) -> None:
    """A wrong argument raises at the call what aiokafka raises, or a class that inherits from it."""
    topic = await world.make_topic()
    found: list[Exception] = []
    for kind in ("aiokafka", "watchword"):
        async with producer_of(world, kind, request_timeout_ms=1_000) as producer:
            with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is the question
                await (await call(producer, topic))
            found.append(raised.value)
    plain, ours = found
    assert isinstance(ours, type(plain)), f"{plain!r} became {ours!r}"
