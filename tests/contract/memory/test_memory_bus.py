"""The bus in memory does what an adapter of any bus must."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import pytest

from watchword import Unavailable, Watchword
from watchword.kafka import ObservedRecord, VerifiedRecord
from watchword.message import Scheme
from watchword.nats import ObservedMsg, VerifiedMsg
from watchword.spi import Message
from watchword.testing import MemoryBus
from watchword_adapters.contract.bus import REALM, BusContract, BusHarness, Received, Wire
from watchword_adapters.testing.log_reader import MemoryConsumer
from watchword_adapters.testing.subject_reader import MemorySubscription


def received(found: VerifiedRecord | ObservedRecord | VerifiedMsg | ObservedMsg) -> Received:
    """Describe what was handed over."""
    verdict = found.verdict if isinstance(found, ObservedRecord | ObservedMsg) else found.verified
    if isinstance(found, VerifiedRecord | ObservedRecord):
        return Received(value=found.value, headers=tuple(found.headers), verdict=verdict)
    headers = tuple((name, value.encode()) for name, value in (found.headers or {}).items())
    return Received(value=found.data, headers=headers, verdict=verdict)


@dataclass
class Intake:
    """Takes one message after the other."""

    reader: MemoryConsumer | MemorySubscription

    async def next(self) -> Received:
        """See the contract's."""
        while True:
            try:
                taken = await self.reader.take(1)
            except Unavailable:
                continue
            if taken:
                return received(taken[0])
            await asyncio.sleep(0)


@dataclass
class Tap:
    """Reads what stands on the bus."""

    coming: asyncio.Queue[Message]

    async def next(self) -> Wire:
        """See the contract's."""
        message = await self.coming.get()
        return Wire(value=message.value, key=message.key, headers=message.headers, partition=message.partition)


class MemoryHarness(BusHarness):
    """Topics or subjects of one bus."""

    def __init__(self, scheme: Scheme) -> None:
        self.scheme = scheme
        self.tombstones = self.redelivers = scheme == "kafka"
        self.bus = MemoryBus(realm=REALM)
        self.numbers = count()

    async def new_channel(self) -> str:
        """See BusHarness."""
        return f"channel-{next(self.numbers)}"

    async def publish(self, watchword: Watchword, channel: str, message: Wire) -> None:
        """See BusHarness."""
        producer = self.bus.producer(watchword)
        if self.scheme == "kafka":
            await producer.send(channel, message.value, key=message.key, headers=message.headers)
        else:
            headers = {name: (value or b"").decode() for name, value in message.headers}
            await producer.publish(channel, message.value or b"", headers=headers)

    async def publish_raw(self, channel: str, message: Wire) -> None:
        """See BusHarness."""
        if self.scheme == "kafka":
            self.bus.append(channel, message.value, key=message.key, headers=message.headers)
        else:
            headers = {name: (value or b"").decode() for name, value in message.headers}
            assert len(headers) == len(message.headers)
            self.bus.publish(channel, message.value or b"", headers=headers)

    @asynccontextmanager
    async def tap(self, channel: str) -> AsyncIterator[Tap]:
        """See BusHarness."""
        coming: asyncio.Queue[Message] = asyncio.Queue()

        def see(message: Message) -> None:
            if message.channel.name == channel:
                coming.put_nowait(message)

        end = self.bus.listen(see)
        yield Tap(coming)
        end()

    @asynccontextmanager
    async def intake(
        self, watchword: Watchword, channel: str, *, deserializer: Callable[[bytes | None], object] | None = None
    ) -> AsyncIterator[Intake]:
        """See BusHarness."""
        if self.scheme == "kafka":
            yield Intake(self.bus.consumer(watchword, channel, from_end=True, value_deserializer=deserializer))
        else:
            subscription = self.bus.subscribe(watchword, channel)
            yield Intake(subscription)
            subscription.close()


@pytest.mark.parametrize("scheme", ["kafka", "nats"])
class TestMemoryBus(BusContract):
    """Topics and subjects in memory keep the contract of a bus."""

    @pytest.fixture
    def harness(self, scheme: Scheme) -> BusHarness:
        """See the contract."""
        return MemoryHarness(scheme)
