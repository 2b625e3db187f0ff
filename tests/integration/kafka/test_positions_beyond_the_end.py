"""A position that the log has not reached: reset by `auto_offset_reset`, as aiokafka does it, and beside aiokafka."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from tests.integration.kafka.world import World
from tests.support.broker_tools import commit_for
from tests.support.patience import PATIENCE
from tests.support.readers import END

BEYOND = 1_000
Opened = Callable[..., Any]


@pytest.fixture(params=["aiokafka", "watchword"])
def opened(request: pytest.FixtureRequest, world: World) -> Opened:
    """Give a maker of consumers, aiokafka's own as the measure and then ours."""

    @asynccontextmanager
    async def make(topic: str, group: str | None, reset: str, **more: Any) -> AsyncIterator[Any]:
        options = {"group_id": group, "auto_offset_reset": reset, "enable_auto_commit": False} | more
        plain = request.param == "aiokafka"
        made = (
            AIOKafkaConsumer(bootstrap_servers=world.bootstrap, **options)
            if plain
            else world.consumer(world.reader(), **options)
        )
        async with made as consumer:
            consumer.assign([TopicPartition(topic, 0)])
            yield consumer

    return make


async def beyond(world: World, opened: Opened, way: str, reset: str) -> AsyncIterator[tuple[Any, str]]:
    """Open a consumer on a log of three whose position is far behind them."""
    topic, group = await world.make_topic(), world.unique("group")
    tp = TopicPartition(topic, 0)
    await world.say(topic, b"0", b"1", b"2")
    if way == "committed":
        await commit_for(world.bootstrap, group, tp, BEYOND)
    async with opened(topic, group, reset) as consumer:
        if way == "sought":
            consumer.seek(tp, BEYOND)
        elif way == "sought later":
            await asyncio.wait_for(consumer.seek_to_beginning(tp), PATIENCE)
            for value in (b"0", b"1", b"2"):
                assert (await asyncio.wait_for(consumer.getone(), PATIENCE)).value == value
            assert await consumer.getmany(timeout_ms=100) == {}  # now a fetch waits at the broker
            consumer.seek(tp, BEYOND)
        yield consumer, topic


ways = pytest.mark.parametrize("way", ["committed", "sought", "sought later"])


@ways
@pytest.mark.parametrize(("reset", "wanted"), [("earliest", [b"0", b"1", b"2", b"3", END]), ("latest", [b"3", END])])
async def test_it_is_reset(world: World, opened: Opened, way: str, reset: str, wanted: list[bytes]) -> None:
    """With earliest everything is read again, with latest what comes from then on; nothing is swallowed up to it."""
    async for consumer, topic in beyond(world, opened, way, reset):
        tp = TopicPartition(topic, 0)

        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read_to_the_end(consumer))  # it waits from the beginning on
            while await consumer.position(tp) > 3:  # noqa: ASYNC110 - a broker sets no event
                await asyncio.sleep(0.01)
            await world.say(topic, b"3", END)
        assert reading.result() == wanted


async def _read_to_the_end(consumer: Any, *partitions: TopicPartition) -> list[Any]:
    got: list[Any] = []
    while END not in got:
        got.append((await consumer.getone(*partitions)).value)
    return got


@ways
@pytest.mark.parametrize("call", ["getone", "getmany", "async for"])
async def test_without_a_reset_each_call_raises(world: World, opened: Opened, way: str, call: str) -> None:
    """With none the error comes at each call, until the caller seeks, and what is appended meanwhile is not skipped."""
    async for consumer, topic in beyond(world, opened, way, "none"):
        tp = TopicPartition(topic, 0)
        for _ in range(2):
            with pytest.raises(OffsetOutOfRangeError) as raised:
                await asyncio.wait_for(_called(consumer, call), PATIENCE)
            assert raised.value.args == ({tp: BEYOND},)
            await world.say(topic, b"more")
        consumer.seek(tp, 2)
        got = [(await asyncio.wait_for(consumer.getone(), PATIENCE)).value for _ in range(3)]
        assert got == [b"2", b"more", b"more"]


async def _called(consumer: Any, call: str) -> None:
    match call:
        case "getone":
            await consumer.getone()
        case "getmany":
            while not await consumer.getmany(timeout_ms=1_000):
                pass
        case _:
            await anext(aiter(consumer))


@pytest.mark.parametrize(("reset", "wanted"), [("earliest", [b"0", b"1", b"2", b"3", END]), ("latest", [b"3", END])])
async def test_it_is_reset_beside_a_partition_that_is_read(
    world: World, opened: Opened, reset: str, wanted: list[bytes]
) -> None:
    """While another partition's records wait for the caller nothing is fetched, and the reset comes only then."""
    topic = await world.make_topic(2)
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await world.say(topic, b"0", b"1", b"2")
    async with world.producer() as producer:
        for _ in range(20):
            await producer.send_and_wait(topic, b"x" * 2_000, partition=1)
    async with opened(topic, None, reset, max_partition_fetch_bytes=1_000) as consumer:
        consumer.assign([one, other])
        await asyncio.wait_for(consumer.seek_to_beginning(one, other), PATIENCE)
        for _ in range(3):
            await asyncio.wait_for(consumer.getone(one), PATIENCE)
        for _ in range(3):
            assert (await asyncio.wait_for(consumer.getone(other), PATIENCE)).partition == 1
        await asyncio.sleep(0.02)  # the next one of the other partition is fetched
        consumer.seek(one, BEYOND)
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read_to_the_end(consumer, one))
            while await consumer.position(one) > 3:  # noqa: ASYNC110 - a broker sets no event
                await asyncio.sleep(0.01)
            await world.say(topic, b"3", END)
        assert reading.result() == wanted
