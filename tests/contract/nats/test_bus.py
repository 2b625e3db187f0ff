"""Core NATS and JetStream keep the contract of a bus."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, DeliverPolicy

from tests.brokers.plugin import MakeStream
from tests.integration.nats.world import Plain, block, raw
from watchword import Watchword
from watchword_adapters.contract.bus import BusContract, BusHarness, Intake, Received, Tap, Wire
from watchword_adapters.nats import ObservedMsg, VerifiedMsg, connect
from watchword_adapters.nats.headers import read_block

if TYPE_CHECKING:
    from watchword.message import Header


class RawClient(Plain):
    """A plain client that shows the header block as it came."""

    async def _process_headers(self, headers: bytes | None) -> Any:
        return read_block(headers) if headers else None


def received(msg: Msg) -> Received:
    """Describe what the interceptor delivered."""
    assert isinstance(msg, VerifiedMsg | ObservedMsg)
    headers = tuple((name, value.encode()) for name, value in (msg.headers or {}).items())
    return Received(
        value=msg.data,
        headers=tuple(header for header in headers if header[0] != "Nats-Msg-Id"),
        verdict=msg.verified if isinstance(msg, VerifiedMsg) else msg.verdict,
    )


@dataclass
class Queue:
    """Messages as they come."""

    messages: asyncio.Queue[Msg]

    async def next(self) -> Wire:
        """Return the next one as it stands on the bus."""
        msg = await self.messages.get()
        headers: tuple[Header, ...] = getattr(msg.headers, "pairs", ())
        return Wire(value=msg.data, headers=tuple(header for header in headers if header[0] != "Nats-Msg-Id"))


class CoreHarness(BusHarness):
    """Subjects without a stream."""

    scheme = "nats"

    def __init__(self, url: str, unique: Callable[[str], str]) -> None:
        self.url = url
        self.unique = unique

    async def new_channel(self) -> str:
        """See BusHarness."""
        return self.unique("contract")

    async def publish(self, watchword: Watchword, channel: str, message: Wire) -> None:
        """See BusHarness."""
        async with await connect(self.url, watchword=watchword) as client:
            await client.publish(channel, message.value or b"", headers=texts(message))
            await client.flush()

    async def publish_raw(self, channel: str, message: Wire) -> None:
        """See BusHarness."""
        lines = [(name, value or b"") for name, value in message.headers]
        client = Plain()
        await client.connect(self.url)
        async with client:
            await raw(client, channel, block(*lines), message.value or b"")

    @asynccontextmanager
    async def tap(self, channel: str) -> AsyncIterator[Tap]:
        """See BusHarness."""
        client, queue = RawClient(), asyncio.Queue[Msg]()
        await client.connect(self.url)
        async with client:
            await client.subscribe(channel, cb=queue.put)
            await client.flush()
            yield Queue(queue)

    @asynccontextmanager
    async def intake(
        self, watchword: Watchword, channel: str, *, deserializer: Callable[[bytes | None], object] | None = None
    ) -> AsyncIterator[Intake]:
        """See BusHarness; the client takes no deserializer."""
        del deserializer
        async with await connect(self.url, watchword=watchword, reader="contract") as client:
            subscription = await client.subscribe(channel)
            await client.flush()

            class Reading:
                async def next(self) -> Received:
                    return received(await subscription.next_msg(timeout=None))

            yield Reading()


class StreamHarness(CoreHarness):
    """Subjects of a stream, read by a pull consumer."""

    redelivers = True

    def __init__(self, url: str, unique: Callable[[str], str], stream: str) -> None:
        super().__init__(url, unique)
        self.stream = stream

    async def new_channel(self) -> str:
        """See BusHarness."""
        return f"{self.stream}.{self.unique('contract')}"

    async def publish(self, watchword: Watchword, channel: str, message: Wire) -> None:
        """See BusHarness."""
        async with await connect(self.url, watchword=watchword) as client:
            await client.jetstream().publish(channel, message.value or b"", headers=texts(message))

    @asynccontextmanager
    async def intake(
        self, watchword: Watchword, channel: str, *, deserializer: Callable[[bytes | None], object] | None = None
    ) -> AsyncIterator[Intake]:
        """See BusHarness; the client takes no deserializer."""
        del deserializer
        async with await connect(self.url, watchword=watchword) as client:
            config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
            subscription = await client.jetstream().pull_subscribe(channel, config=config)

            class Reading:
                async def next(self) -> Received:
                    while True:
                        try:
                            (msg,) = await subscription.fetch(timeout=1)
                        except NatsTimeoutError:
                            continue
                        await msg.ack()
                        return received(msg)

            yield Reading()


def texts(message: Wire) -> dict[str, str]:
    """Return the headers as nats-py takes them."""
    return {name: (value or b"").decode() for name, value in message.headers}


class TestCoreNats(BusContract):
    """Core NATS."""

    @pytest.fixture
    def harness(self, nats_url: str, unique: Callable[[str], str]) -> CoreHarness:
        """Give core NATS."""
        return CoreHarness(nats_url, unique)


class TestJetStream(BusContract):
    """JetStream."""

    @pytest.fixture
    async def harness(self, nats_url: str, unique: Callable[[str], str], make_stream: MakeStream) -> StreamHarness:
        """Give a stream."""
        return StreamHarness(nats_url, unique, await make_stream())
