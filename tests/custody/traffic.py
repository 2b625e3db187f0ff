"""Agents that send numbers without a pause, and a reader that notes what it is given, on both buses."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import NewTopic

from tests.support.broker_tools import admin_of, create_topics
from tests.support.patience import PATIENCE
from watchword import VerifiedMessage, Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import connect


class Read:
    """What a reader was given, and what it was not."""

    def __init__(self, agent: Watchword) -> None:
        self.given: dict[tuple[str, str], list[int]] = {}
        self.refused: Counter[str] = Counter()
        agent.audit.refused = self._refused  # type: ignore[method-assign]  # the test's

    def _refused(self, message: object, verdict: object, *, observed: bool = False) -> None:
        del message, observed
        self.refused[str(verdict)] += 1

    def take(self, verified: VerifiedMessage) -> None:
        """Note a message, by its author and key."""
        number = int(verified.value or b"")
        self.given.setdefault((verified.principal, verified.key_id), []).append(number)

    async def until(self, who: str, kid: str) -> None:
        """Wait until messages come that this key signed."""
        end = time.monotonic() + PATIENCE
        while (who, kid) not in self.given:
            assert time.monotonic() < end, (who, kid, self.given.keys(), self.refused)
            await asyncio.sleep(0.02)

    async def all_of(self, counts: dict[str, int]) -> None:
        """Wait until as many messages of each have come as were sent, for as long as any may be on its way."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if all(len(self.numbers_of(who)) >= count for who, count in counts.items()):
                return
            await asyncio.sleep(0.02)

    def numbers_of(self, who: str) -> list[int]:
        """Return all that a principal said, in the order in which it came, whatever key signed it."""
        return [number for (principal, _), numbers in self.given.items() if principal == who for number in numbers]


class Sending:
    """Sends numbers in groups, one group after the other, until ``end`` is called."""

    def __init__(self, send: Callable[[bytes], Awaitable[object]]) -> None:
        self._send = send
        self._stop = asyncio.Event()
        self.sent = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._stop.is_set():
            group = range(self.sent, self.sent + 5)
            await asyncio.gather(*(self._send(b"%d" % number) for number in group))
            self.sent += 5
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 0.05)

    async def end(self) -> int:
        """Stop; return how many were sent."""
        self._stop.set()
        await self._task
        return self.sent


@asynccontextmanager
async def on_nats(url: str, subject: str, agents: list[Watchword], reader: Watchword) -> AsyncIterator[Any]:
    """Give what the reader notes, and what sends for each agent."""
    read = Read(reader)
    clients = [await connect(url, watchword=agent) for agent in (reader, *agents)]

    async def take(msg: Any) -> None:
        read.take(msg.verified)

    try:
        await clients[0].subscribe(subject, cb=take)
        await clients[0].flush()
        yield read, [lambda data, client=client: client.publish(subject, data) for client in clients[1:]]
    finally:
        for client in clients:
            await client.close()


@asynccontextmanager
async def on_kafka(address: str, topic: str, agents: list[Watchword], reader: Watchword) -> AsyncIterator[Any]:
    """Give the same as ``on_nats``."""
    read = Read(reader)
    producers = [SigningProducer(bootstrap_servers=address, watchword=agent) for agent in agents]
    consumer = VerifyingConsumer(
        topic, bootstrap_servers=address, group_id=topic, watchword=reader, auto_offset_reset="earliest"
    )

    async def take() -> None:
        async for record in consumer:
            read.take(record.verified)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(consumer)
        for producer in producers:
            await stack.enter_async_context(producer)
        taking = asyncio.create_task(take())
        try:
            yield read, [lambda data, one=one: one.send_and_wait(topic, data, partition=0) for one in producers]
        finally:
            taking.cancel()
            await asyncio.wait([taking])


async def make_topic(address: str, name: str) -> None:
    """Make a topic of one partition, which the broker stamps."""
    async with admin_of(address) as admin:
        await create_topics(admin, NewTopic(name, 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"}))
