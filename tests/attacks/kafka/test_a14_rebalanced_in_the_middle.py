"""A14, A17: a rebalance that leaves a partition where it was, while its window is read again or a message is judged.

What is kept over a rebalance must be all that was handed over, and nothing else: else a copy passes, or a message that
nobody was given counts as delivered before.
"""

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition

from tests.integration.kafka.world import Captured, World, eventually, read, values
from tests.support.broker_tools import commit_for
from tests.support.fetched import Fetched
from tests.support.kafka_api import VerifyingConsumer
from tests.support.patience import PATIENCE
from tests.support.readers import END, Places, judged, until
from watchword import Rejected, Unavailable
from watchword.spi import Message

FIRST = {"client_id": "a", "heartbeat_interval_ms": 100}
LAST = {"client_id": "z", "heartbeat_interval_ms": 100}
"""Partitions are dealt out in the order of the members' names: with one partition, the last member gets none."""


async def rebalanced(world: World, consumer: VerifyingConsumer, topic: str, group: str) -> None:
    """Let another member join and leave; the partition stays with the first, which notices both."""
    tp = TopicPartition(topic, 0)
    async with asyncio.timeout(PATIENCE), world.consumer(world.reader(), topic, group_id=group, **LAST) as second:
        assert (consumer.assignment(), second.assignment()) == ({tp}, set())
        await consumer.position(tp)
        joined = _assigned(consumer)

    async def left() -> bool:
        return _assigned(consumer) is not joined

    await eventually(left)
    await consumer.position(tp)


def _assigned(consumer: VerifyingConsumer) -> Any:
    """Return what is assigned, which is another object after each rebalance."""
    return consumer._subscription.subscription.assignment


async def test_a14_while_the_window_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that is only half rebuilt is not kept: copies of what was committed are replays after the rebalance."""
    topic, group, fetched = await world.make_topic(), world.unique("group"), Fetched()
    fetched.install(monkeypatch)
    honest = [await world.sign(topic, b"%d" % number) for number in range(100)]
    await world.inject(topic, honest)
    await commit_for(world.bootstrap, group, TopicPartition(topic, 0), len(honest))
    reader = world.reader()
    fetched.reset()
    async with world.consumer(reader, topic, group_id=group, **FIRST, max_partition_fetch_bytes=2_000) as consumer:
        async with asyncio.timeout(PATIENCE):
            while fetched.answers < 10:
                assert await consumer.getmany(timeout_ms=0) == {}
                await asyncio.sleep(0.005)
        await rebalanced(world, consumer, topic, group)
        await world.inject(topic, honest[-20:] + honest[:20])
        await world.say(topic, END)
        assert await until(consumer) == [END]
    assert judged(reader)["replayed"] == 40


async def test_a14_before_anything_was_read(world: World) -> None:
    """A guard that was not even begun is not kept."""
    topic, group = await world.make_topic(), world.unique("group")
    honest = [await world.sign(topic, b"%d" % number) for number in range(3)]
    await world.inject(topic, honest)
    await commit_for(world.bootstrap, group, TopicPartition(topic, 0), len(honest))
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, **FIRST) as consumer:
        await consumer.position(TopicPartition(topic, 0))
        await rebalanced(world, consumer, topic, group)
        await world.inject(topic, honest)
        await world.say(topic, END)
        assert await until(consumer) == [END]
    assert judged(reader)["replayed"] == 3


async def test_a17_while_a_message_is_judged(world: World) -> None:
    """A message that waited for its key during the rebalance is delivered once, as the first time that it is."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1")
    world.keys.gate.clear()
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, **FIRST) as consumer:
        reading = asyncio.create_task(read(consumer, 3))
        await asyncio.wait_for(world.keys.question.wait(), PATIENCE)
        await rebalanced(world, consumer, topic, group)
        world.keys.gate.set()
        await world.inject(topic, await world.capture(topic, 2))
        await world.say(topic, END)
        records = await reading
    assert values(records) == [b"0", b"1", END]
    assert not any(record.verified.redelivered for record in records)
    assert judged(reader)["replayed"] == 2


class SlowPlaces(Places):
    """A quarantine that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        self.asked.set()
        await self.may_answer.wait()
        return await super().put(message, verdict)


@pytest.mark.parametrize("caller", ["waits", "has given up"])
async def test_a17_while_a_copy_goes_into_quarantine(world: World, caller: str) -> None:
    """What was judged behind a refused record, and not handed over, is no redelivery after the rebalance."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.inject(topic, [Captured(value=b"forged")])
    await world.say(topic, b"0", b"1")
    places = SlowPlaces()
    async with world.consumer(world.reader(), topic, group_id=group, quarantine=places, **FIRST) as consumer:
        got: list[Any] = []
        reading = asyncio.create_task(_read_on(consumer, got))
        await asyncio.wait({asyncio.create_task(places.asked.wait())}, timeout=1.0)  # not if nobody waits for copies
        if caller == "has given up":
            reading.cancel()
            await asyncio.wait({reading})
        await rebalanced(world, consumer, topic, group)
        places.may_answer.set()
        await world.say(topic, END)
        await asyncio.wait_for(_read_on(consumer, got) if reading.done() else reading, PATIENCE)
    assert values(got) == [b"0", b"1", END]
    assert not any(record.verified.redelivered for record in got)


async def _read_on(consumer: VerifyingConsumer, got: list[Any]) -> None:
    while not got or got[-1].value != END:
        for records in (await consumer.getmany(timeout_ms=1_000)).values():
            got += records
