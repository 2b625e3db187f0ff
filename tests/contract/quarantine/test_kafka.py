import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.brokers.plugin import MakeTopic
from watchword import Watchword
from watchword.quarantine_copy import Kept, read_copy
from watchword.spi import Channel, Quarantine, QuarantineLimits
from watchword_adapters.contract.quarantine import Fault, QuarantineContract
from watchword_adapters.kafka.quarantine import KafkaQuarantine


def bystander() -> Watchword:
    """Return an agent that knows nobody."""
    return Watchword(realm="test", keys=())


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what comes, and answer nothing."""
    while await reader.read(1 << 16):
        pass
    writer.close()


class TestKafkaQuarantine(QuarantineContract):
    """A topic keeps the contract."""

    channel = Channel("kafka", "test", "tasks")
    log = "tasks/0"

    @pytest_asyncio.fixture(autouse=True)
    async def _broker(self, kafka_bootstrap: str, make_topic: MakeTopic) -> AsyncIterator[None]:
        self.bootstrap, self.make_topic = kafka_bootstrap, make_topic
        self.reader = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest")
        self.opened: list[KafkaQuarantine] = []
        self.opened_servers: list[asyncio.Server] = []
        async with self.reader:
            yield
            for quarantine in self.opened:
                await quarantine.close()
            for server in self.opened_servers:
                server.close()

    async def make_quarantine(self, *, limits: QuarantineLimits | None = None) -> Quarantine:
        """Return a quarantine in a new topic, connected as the reader is."""
        return self.opened_on(await self.make_topic(), limits=limits)

    async def make_broken(self, fault: Fault) -> Quarantine | None:
        """Return one whose broker is not there, or does not answer; a topic is never full."""
        if fault == "full":
            return None
        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        self.opened_servers.append(server)
        host, port = server.sockets[0].getsockname()[:2]
        if fault == "missing":
            server.close()
            await server.wait_closed()
        return self.opened_on("quarantine", broken=f"{host}:{port}")

    def opened_on(self, topic: str, *, limits: QuarantineLimits | None = None, broken: str = "") -> KafkaQuarantine:
        """Open a quarantine."""
        quarantine = KafkaQuarantine(topic, watchword=bystander(), limits=limits, timeout=2 if broken else 20)
        quarantine.attach(self.reader)
        if broken:
            assert quarantine._connection is not None
            quarantine._connection["bootstrap_servers"] = broken
        self.opened.append(quarantine)
        return quarantine

    @pytest.mark.needs_kafka("duplicate_headers")
    async def test_odd_headers_survive(self) -> None:
        """As the contract says, where the broker keeps a header that comes twice."""
        await super().test_odd_headers_survive()

    async def kept(self, quarantine: Quarantine) -> list[tuple[tuple[str, ...], Kept]]:
        """Read the topic."""
        tp = TopicPartition(self.own_channel(quarantine).name, 0)
        self.reader.assign([tp])
        self.reader.seek(tp, 0)
        copies = []
        end = (await self.reader.end_offsets([tp]))[tp]
        while await self.reader.position(tp) < end:
            record = await asyncio.wait_for(self.reader.getone(tp), 20)
            names = tuple(name for name, _ in record.headers)
            copies.append((names, read_copy(record.value, record.key, record.headers)))
        return copies

    def own_channel(self, quarantine: Quarantine) -> Channel:
        """Return the topic."""
        assert isinstance(quarantine, KafkaQuarantine)
        return Channel("kafka", "test", quarantine.topic)


class TestKafkaQuarantineOfAProducer(TestKafkaQuarantine):
    """A topic keeps the contract through a producer of the caller's, too."""

    async def make_quarantine(self, *, limits: QuarantineLimits | None = None) -> Quarantine:
        """Return a quarantine with a producer of its own, whose limit is its batch size."""
        self.producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap)
        await self.producer.start()
        return KafkaQuarantine(
            await self.make_topic(), watchword=bystander(), producer=self.producer, limits=limits, timeout=20
        )

    @pytest_asyncio.fixture(autouse=True)
    async def _ended(self, _broker: None) -> AsyncIterator[None]:
        yield
        if hasattr(self, "producer"):
            await self.producer.stop()
