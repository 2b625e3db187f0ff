"""`stop()` ends who waits in another task, as aiokafka does it: an error, an empty answer, the end of an iteration."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError

from tests.integration.kafka.world import World
from tests.support.broker_tools import commit_for
from tests.support.patience import PATIENCE
from watchword import Unavailable

Outcome = list[Any] | dict[Any, Any] | type[Exception]

CALLS: dict[str, Outcome] = {"getone": ConsumerStoppedError, "getmany": {}, "async for": []}
calls = pytest.mark.parametrize("call", CALLS)


async def outcome(consumer: Any, call: str) -> Outcome:
    """Return what a call gives: its records, or the type of its error."""
    try:
        match call:
            case "getone":
                return [await consumer.getone()]
            case "getmany":
                return dict(await consumer.getmany(timeout_ms=60_000))
            case _:
                return [record async for record in consumer]
    except ConsumerStoppedError as error:
        return type(error)


async def ended_by_stop(consumer: Any, call: str, *, waits: Callable[[], Any] | None = None) -> Outcome:
    """Let a task wait in the consumer, stop that from here, and return what the task got; both must end soon."""
    async with asyncio.timeout(PATIENCE):
        task = asyncio.create_task(outcome(consumer, call))
        try:
            if waits is not None:
                await waits()
            await asyncio.sleep(0.2)  # it waits now, whatever for
            assert not task.done()
            await consumer.stop()
            return await task
        finally:
            task.cancel()


@asynccontextmanager
async def opened(world: World, kind: str, *topics: str, **options: Any) -> AsyncIterator[Any]:
    """Open aiokafka's own consumer, the measure, or ours; it is stopped by the test."""
    options = {"auto_offset_reset": "earliest"} | options
    made = (
        AIOKafkaConsumer(*topics, bootstrap_servers=world.bootstrap, **options)
        if kind == "aiokafka"
        else world.consumer(world.reader(), *topics, **options)
    )
    async with made as consumer:
        yield consumer


@calls
@pytest.mark.parametrize(("kind", "grouped"), [("aiokafka", True), ("watchword", True), ("watchword", False)])
async def test_on_an_idle_topic(world: World, call: str, kind: str, *, grouped: bool) -> None:
    """On an empty topic, and on one read to its end, a task that waits for more ends soon after the consumer stops."""
    topic = await world.make_topic()
    async with opened(world, kind, topic, group_id=world.unique("group") if grouped else None) as consumer:
        assert await ended_by_stop(consumer, call) == CALLS[call]
    await world.say(topic, b"0")
    async with opened(world, kind, topic, group_id=world.unique("group") if grouped else None) as consumer:
        assert (await asyncio.wait_for(consumer.getone(), PATIENCE)).value == b"0"
        assert await ended_by_stop(consumer, call) == CALLS[call]


@calls
async def test_while_the_window_is_read_again(world: World, call: str) -> None:
    """A rebuild that waits for a key source holds up nobody who stops."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1")
    await commit_for(world.bootstrap, group, TopicPartition(topic, 0), 2)
    world.keys.gate.clear()
    async with opened(world, "watchword", topic, group_id=group) as consumer:
        assert await ended_by_stop(consumer, call, waits=world.keys.question.wait) == CALLS[call]


@calls
async def test_while_a_message_is_judged(world: World, call: str) -> None:
    """A key source that does not answer holds up nobody who stops, and the message comes at the next start."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0")
    world.keys.gate.clear()
    async with opened(world, "watchword", topic, group_id=group) as consumer:
        assert await ended_by_stop(consumer, call, waits=world.keys.question.wait) == CALLS[call]
    world.keys.gate.set()
    async with opened(world, "watchword", topic, group_id=group) as consumer:
        assert (await asyncio.wait_for(consumer.getone(), PATIENCE)).value == b"0"


async def test_in_an_outage(world: World) -> None:
    """A partition that is held because a key source is down holds up nobody who stops."""
    topic = await world.make_topic()
    await world.say(topic, b"0")
    world.keys.failures = 1_000_000
    async with opened(world, "watchword", topic) as consumer:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(consumer.getone(), PATIENCE)
        assert await ended_by_stop(consumer, "async for") == []  # the other ways raise Unavailable meanwhile


@calls
@pytest.mark.parametrize(
    ("kind", "situation"),
    [
        *product(["aiokafka", "watchword"], ["paused", "in its group's queue"]),
        # aiokafka's own, stopped without an assignment, may leave its caller waiting: no measure for this.
        ("watchword", "its topic is made later"),
    ],
)
async def test_while_nothing_can_be_read(world: World, call: str, kind: str, situation: str) -> None:
    """Paused partitions, a group whose members have them all, a subscription to nothing yet: stopping ends the wait."""
    topic, group = await world.make_topic(), world.unique("group")
    async with opened(world, kind, topic, group_id=group, heartbeat_interval_ms=100) as consumer:
        match situation:
            case "paused":
                consumer.pause(*consumer.assignment())
                assert await ended_by_stop(consumer, call) == CALLS[call]
            case "in its group's queue":
                async with opened(world, kind, topic, group_id=group, heartbeat_interval_ms=100) as second:
                    idle = second if consumer.assignment() else consumer
                    assert await ended_by_stop(idle, call) == CALLS[call]
            case _:
                async with opened(world, kind, group_id=world.unique("group")) as early:
                    early.subscribe(pattern=f"{topic}-later")
                    assert await ended_by_stop(early, call) == CALLS[call]


@pytest.mark.parametrize("kind", ["aiokafka", "watchword"])
async def test_several_tasks_and_several_stops(world: World, kind: str) -> None:
    """All who wait are ended, a second stop() does nothing, and calls after it raise."""
    topic = await world.make_topic()
    async with opened(world, kind, topic, group_id=world.unique("group")) as consumer, asyncio.timeout(PATIENCE):
        tasks = [asyncio.create_task(outcome(consumer, call)) for call in CALLS]
        await asyncio.sleep(0.2)
        await asyncio.gather(consumer.stop(), consumer.stop())
        assert await asyncio.gather(*tasks) == list(CALLS.values())
        for call in ("getone", "getmany"):
            assert await outcome(consumer, call) is ConsumerStoppedError


async def test_stop_still_commits_what_was_handled(world: World) -> None:
    """Ending a waiting task loses no commit: what it asked behind is handled."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0")
    async with opened(world, "watchword", topic, group_id=group) as consumer:
        assert (await asyncio.wait_for(consumer.getone(), PATIENCE)).value == b"0"
        assert await ended_by_stop(consumer, "getone") is ConsumerStoppedError
    await world.say(topic, b"1")
    async with opened(world, "watchword", topic, group_id=group) as consumer:
        assert (await asyncio.wait_for(consumer.getone(), PATIENCE)).value == b"1"
