"""The scenario's clients on Kafka."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.record.util import calc_crc32c

from watchword import ConfigurationError
from watchword_adapters.demo.attacks import Raw
from watchword_adapters.kafka import SigningProducer, VerifyingConsumer

if TYPE_CHECKING:
    from watchword_adapters.demo.stage import Cast, Handler

_PLACEHOLDER: Final = "~broken~"
_TIMEOUT_MS: Final = 10_000  # the client's own 40 s are long to wait for a broker that has gone
_CRC_AT, _CRC_END = 17, 21  # record batch, magic 2 (KIP-98)


class KafkaStage:
    """Planner, controller and attacker on one broker; ``cast`` None is the act without Watchword."""

    bus: Final = "kafka"

    def __init__(self, bootstrap: str, handler: Handler, cast: Cast | None, run: str) -> None:
        self.captured: list[Raw] = []
        self.heard = asyncio.Event()
        self._bootstrap = bootstrap
        self._handler = handler
        self._cast = cast
        self.commands = f"cloud.scale.{run}"  # includes the run's name, so that a broker can be used twice
        self.reports = f"cloud.report.{run}"

    async def open(self) -> None:
        """See ``Stage.open``."""
        try:
            await self._make_topics()
        except (KafkaError, OSError, ValueError) as error:
            raise ConfigurationError(f"no Kafka broker at {self._bootstrap!r}: write HOST:PORT ({error})") from None
        options: dict[str, Any] = {"bootstrap_servers": self._bootstrap, "request_timeout_ms": _TIMEOUT_MS}
        self._to: str | None = None
        self._planner = (
            AIOKafkaProducer(**options)
            if self._cast is None
            else SigningProducer(watchword=self._cast.planner, recipient=self._recipient, **options)
        )
        self._attacker = AIOKafkaProducer(**options)
        self._spy = AIOKafkaConsumer(
            self.commands, self.reports, bootstrap_servers=self._bootstrap, auto_offset_reset="earliest"
        )
        clients: tuple[Any, ...] = (self._planner, self._attacker, self._spy)
        for client in clients:
            await client.start()
        await self._start_controller("earliest")
        self._spying = asyncio.create_task(self._capture())

    async def send(
        self, name: str, value: bytes, *, key: bytes, headers: dict[str, str], recipient: str | None
    ) -> None:
        """See ``Stage.send``."""
        self._to = recipient
        pairs = [(header, text.encode()) for header, text in headers.items()]
        await self._planner.send_and_wait(name, value, key=key, headers=pairs, partition=0)

    async def attack(self, raw: Raw) -> None:
        """See ``Stage.attack``."""
        if raw.broken_headers:
            await self._attack_below_the_client(raw)
        else:
            await self._attacker.send_and_wait(
                raw.name, raw.value, key=raw.key, headers=list(raw.headers), partition=raw.partition
            )

    async def _attack_below_the_client(self, raw: Raw) -> None:
        """Send a header name that is not UTF-8, as another language's client can, by editing a built batch."""
        batch = self._attacker.create_batch()
        batch.append(key=raw.key, value=raw.value, timestamp=None, headers=[*raw.headers, (_PLACEHOLDER, b"")])
        record_batch = bytearray(batch._build())  # noqa: SLF001 - no client API can send this
        at = record_batch.index(_PLACEHOLDER.encode())
        record_batch[at : at + 1] = b"\xff"
        record_batch[_CRC_AT:_CRC_END] = calc_crc32c(bytes(record_batch[_CRC_END:])).to_bytes(4)
        batch._buffer = record_batch  # noqa: SLF001 - as above
        await (await self._attacker.send_batch(batch, raw.name, partition=0))

    async def revive(self) -> None:
        """See ``Stage.revive``; an operator would skip the unreadable record."""
        await self._stop_controller()
        await self._start_controller("latest")

    async def ask(self) -> bytes | None:
        """See ``Stage.ask``: Kafka has no requests."""
        return None

    async def close(self) -> None:
        """See ``Stage.close``."""
        self._spying.cancel()
        await asyncio.gather(self._spying, return_exceptions=True)
        await self._stop_controller()
        clients: tuple[Any, ...] = (self._planner, self._attacker, self._spy)
        for client in clients:
            await client.stop()

    async def _make_topics(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            await admin.start()
            topics = [NewTopic(name, num_partitions=2, replication_factor=1) for name in (self.commands, self.reports)]
            await admin.create_topics(topics)
        finally:
            await admin.close()

    def _recipient(self, *_: object) -> str | None:
        return self._to

    async def _start_controller(self, offset_reset: str) -> None:
        options: dict[str, Any] = {"bootstrap_servers": self._bootstrap, "auto_offset_reset": offset_reset}
        self._controller = (
            AIOKafkaConsumer(self.commands, **options)
            if self._cast is None
            else VerifyingConsumer(self.commands, watchword=self._cast.controller, **options)
        )
        await self._controller.start()
        self._obeying = asyncio.create_task(self._obey())

    async def _stop_controller(self) -> None:
        self._obeying.cancel()
        await asyncio.gather(self._obeying, return_exceptions=True)
        await self._controller.stop()

    async def _obey(self) -> None:
        async for record in self._controller:
            await self._handler(record.value)

    async def _capture(self) -> None:
        while True:
            try:
                record = await self._spy.getone()
            except UnicodeDecodeError:  # the attacker's own poison
                return
            self.captured.append(
                Raw(
                    name=record.topic,
                    value=record.value,
                    key=record.key,
                    headers=tuple(record.headers),
                    partition=record.partition,
                )
            )
            self.heard.set()
