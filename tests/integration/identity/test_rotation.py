"""Agents that sign by an SVID and by an NKey, while both are replaced under load: nothing honest is rejected."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import pytest_asyncio
from aiokafka.admin import NewTopic

from tests.support import nats_tokens
from tests.support.broker_tools import admin_of, create_topics
from tests.support.identities import PLANNER, WORKER, Identities, forget
from tests.support.patience import PATIENCE
from watchword import Unavailable, Watchword
from watchword.kafka import SigningProducer, VerifyingConsumer
from watchword.nats import connect

PIECE = 0.01
"""Seconds between two messages of an agent."""

Handle = Callable[[Any], None]


class Place:
    """A channel of tasks on one bus: how to send there, and how to read it."""

    def __init__(self, bus: str, address: str, channel: str) -> None:
        self.bus, self.address, self.channel = bus, address, channel
        self.sent: Counter[str] = Counter()
        self._stack = contextlib.AsyncExitStack()

    async def close(self) -> None:
        """Close all clients."""
        await self._stack.aclose()

    async def sender(self, agent: Watchword) -> Callable[[bytes], Awaitable[object]]:
        """Return what sends for an agent."""
        if self.bus == "nats":
            client = await connect(self.address, watchword=agent)
            self._stack.push_async_callback(client.close)
            return lambda value: client.publish(self.channel, value)
        producer = SigningProducer(watchword=agent, bootstrap_servers=self.address)
        await self._stack.enter_async_context(producer)
        return lambda value: producer.send(self.channel, value)

    async def read(self, agent: Watchword, handle: Handle) -> None:
        """Have what is delivered handled, from now on."""
        if self.bus == "nats":
            client = await connect(self.address, watchword=agent)
            self._stack.push_async_callback(client.close)

            async def handled(msg: Any) -> None:
                handle(msg.verified)

            await client.subscribe(self.channel, cb=handled)
            await client.flush()
            return
        await self._consume(agent, handle, "readers", "latest")

    async def read_again(self, agent: Watchword, handle: Handle) -> None:
        """Have what stands there handled from the beginning, on Kafka."""
        await self._consume(agent, handle, "late", "earliest")

    async def _consume(
        self, agent: Watchword, handle: Handle, group: str, begin: Literal["latest", "earliest"]
    ) -> None:
        consumer: Any = VerifyingConsumer(
            self.channel,
            watchword=agent,
            bootstrap_servers=self.address,
            group_id=f"{self.channel}-{group}",
            auto_offset_reset=begin,
        )
        await self._stack.enter_async_context(consumer)

        async def work() -> None:
            while True:
                with contextlib.suppress(Unavailable):
                    handle((await consumer.getone()).verified)

        task = asyncio.ensure_future(work())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)
        if begin == "latest":
            while not consumer.assignment():  # noqa: ASYNC110 - aiokafka sets no event
                await asyncio.sleep(0.05)
            for tp in consumer.assignment():
                await consumer.position(tp)


@pytest_asyncio.fixture(params=["nats", pytest.param("kafka", marks=pytest.mark.needs_kafka("topic_ids"))])
async def place(request: pytest.FixtureRequest, unique: Callable[[str], str]) -> AsyncIterator[Place]:
    """Give a channel on each bus, and remove in the end what was made for it."""
    name = unique("identity")
    if request.param == "nats":
        url = request.getfixturevalue("nats_url")
        made = Place("nats", url, f"{name}.tasks")
        yield made
        await made.close()
        await forget("nats", url, name)
        return
    address = request.getfixturevalue("kafka_bootstrap")
    stamped = {"message.timestamp.type": "LogAppendTime"}
    async with admin_of(address) as admin:
        await create_topics(admin, NewTopic(f"{name}.tasks", 1, 1, topic_configs=stamped))
    made = Place("kafka", address, f"{name}.tasks")
    yield made
    await made.close()
    await forget("kafka", address, name)


class Heard:
    """What a reader was handed."""

    def __init__(self) -> None:
        self.values: dict[str, list[bytes]] = {PLANNER: [], WORKER: []}
        self.keys: dict[str, dict[str, None]] = {PLANNER: {}, WORKER: {}}

    def __call__(self, verified: Any) -> None:
        """Take a message."""
        self.values[verified.principal].append(verified.value)
        self.keys[verified.principal][verified.key_id] = None


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def test_nothing_honest_is_rejected_while_keys_are_replaced(tmp_path: Path, place: Place) -> None:
    """Two agents send without a pause; the SVID of one is renewed twice, the user of the other twice.

    All that was sent is delivered, in order, by three keys of each; not one message is rejected. A reader that comes
    afterwards, and reads from the beginning, knows all of these keys as well.
    """
    async with Identities.on(tmp_path, place.bus, place.address, place.channel.removesuffix(".tasks")) as realm:
        reader = await realm.reader("reader")
        heard, late = Heard(), Heard()
        await place.read(reader, heard)
        agents = {PLANNER: await realm.agent("planner"), WORKER: await realm.agent("worker")}
        stop = asyncio.Event()

        async def send(principal: str) -> list[bytes]:
            put, sent = await place.sender(agents[principal]), list[bytes]()
            while not stop.is_set():
                value = b"%d" % len(sent)
                await put(value)
                sent.append(value)
                await asyncio.sleep(PIECE)
            return sent

        sending = {principal: asyncio.ensure_future(send(principal)) for principal in agents}
        await until(lambda: all(heard.keys.values()))
        for number in (2, 3):
            realm.rotate()
            user = nats_tokens.user()
            realm.admit(user)
            await asyncio.sleep(2.5)  # as the page says: readers look at the files once in check_every, or a second
            realm.become(user)
            agents[WORKER].reload()
            await until(lambda number=number: [len(keys) for keys in heard.keys.values()] == [number, number])  # type: ignore[misc]
        stop.set()
        sent = {principal: await task for principal, task in sending.items()}
        await until(lambda: all(len(heard.values[who]) >= len(sent[who]) for who in sent))
        assert heard.values == sent
        counts = dict(reader.audit.counts)
        assert counts == {"delivered": sum(map(len, sent.values()))}, counts
        if place.bus == "kafka":
            another = await realm.reader("another")
            await place.read_again(another, late)
            await until(lambda: all(len(late.values[who]) >= len(sent[who]) for who in sent))
            assert late.values == sent
            assert set(another.audit.counts) == {"delivered"}
        for agent in agents.values():
            agent.signer.hold("the test is over")
