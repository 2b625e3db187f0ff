import secrets
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest_asyncio
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig

from tests.brokers.plugin import MakeStream
from watchword import Mode, Policy, Watchword
from watchword.quarantine_copy import Kept, read_copy
from watchword.spi import Channel, Quarantine, QuarantineLimits
from watchword_adapters.contract.quarantine import Fault, QuarantineContract
from watchword_adapters.nats import ObservedMsg, connect
from watchword_adapters.nats.quarantine import NatsQuarantine


def bystander() -> Watchword:
    """Return an agent that knows nobody, and looks on."""
    return Watchword(realm="test", keys=(), policy=Policy(mode=Mode.OBSERVE))


async def say_nothing(_: object) -> None:
    """Listen."""


class TestNatsQuarantine(QuarantineContract):
    """A stream keeps the contract, written to through a verifying client."""

    channel = Channel("nats", "test", "tasks.scale")
    log = "TASKS"

    @pytest_asyncio.fixture(autouse=True)
    async def _server(self, nats_url: str, make_stream: MakeStream) -> AsyncIterator[None]:
        self.url, self.make_stream = nats_url, make_stream
        self.client: Any = await connect(nats_url, watchword=bystander())
        yield
        await self.client.close()

    async def make_quarantine(self, *, limits: QuarantineLimits | None = None) -> Quarantine:
        """Return a quarantine in a new stream."""
        stream = await self.make_stream()
        return NatsQuarantine(f"{stream}.copies", watchword=bystander(), client=self.client, limits=limits)

    async def make_broken(self, fault: Fault) -> Quarantine:
        """Return one for a subject that no stream covers, that a full one covers, or that someone listens to."""
        subject = "nobody.listens"
        if fault == "full":
            full = await self.make_stream(max_msgs=1, discard="new")
            await Client.publish(self.client, f"{full}.copies", b"the only one")
            subject = f"{full}.copies"
        if fault == "silent":
            subject = f"silent.{secrets.token_hex(6)}"
            await self.client.subscribe(subject, cb=say_nothing)
        return NatsQuarantine(subject, watchword=bystander(), client=self.client, timeout=1)

    async def kept(self, quarantine: Quarantine) -> list[tuple[tuple[str, ...], Kept]]:
        """Read the stream as a client does that shows every header."""
        reader = await connect(self.url, watchword=bystander())
        try:
            stream = reader.jetstream()
            config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT)
            bound = await stream.pull_subscribe(self.own_channel(quarantine).name, config=config)
            pending = (await bound.consumer_info()).num_pending or 0
            found = await bound.fetch(pending, timeout=10) if pending else []
        finally:
            await reader.close()
        copies = []
        for msg in found:
            assert isinstance(msg, ObservedMsg)
            headers = msg.message.headers
            copies.append((tuple(name for name, _ in headers), read_copy(msg.data, None, headers)))
        return copies

    def own_channel(self, quarantine: Quarantine) -> Channel:
        """Return the subject."""
        assert isinstance(quarantine, NatsQuarantine)
        return Channel("nats", "test", quarantine.subject)


class TestNatsQuarantineOfAPlainClient(TestNatsQuarantine):
    """A stream keeps the contract, written to through a client that knows nothing of Watchword."""

    @pytest_asyncio.fixture(autouse=True)
    async def _plain(self, _server: None) -> AsyncIterator[None]:
        await self.client.close()
        self.client = await nats.connect(self.url)
        yield
        await self.client.close()
