"""Announcements on a Kafka topic with any number of partitions: created, published and read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from aiokafka.structs import TopicPartition

from watchword import ConfigurationError
from watchword_adapters.control.speaker import speaker
from watchword_adapters.kafka._seam import partitions_at_the_broker
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.control_broker import ControlBroker
from watchword_adapters.kafka.producer import SigningProducer
from watchword_adapters.kafka.records import ObservedRecord
from watchword_adapters.redriving import onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from watchword import Watchword
    from watchword.message import Header
    from watchword.spi import Message

_MADE: Final = {
    "message.timestamp.type": "LogAppendTime",
    "cleanup.policy": "delete",
    "retention.ms": "86400000",
    "retention.bytes": str(1 << 30),
    "max.message.bytes": str(64 * 1024),  # an announcement has 48 KiB (docs/decisions/0017)
}
_ROUND_MS: Final = 500
_SILENT_ROUNDS: Final = 10
"""Rounds without a record after which the rest is taken for transaction markers."""


class KafkaPresence:
    """See ``PresenceChannel``; ``options`` are those of aiokafka's clients, including ``bootstrap_servers``."""

    def __init__(self, topic: str, *, watchword: Watchword, **options: Any) -> None:
        self._topic: Final = topic
        self._watchword: Final = watchword
        self._options: Final = options
        self._speaking: SigningProducer | None = None
        self._reading: VerifyingConsumer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        clients, self._speaking, self._reading = (self._speaking, self._reading), None, None
        for client in clients:
            if client is not None:
                await client.stop()

    async def make(self) -> bool:
        """See PresenceChannel."""
        broker = ControlBroker(self._topic, **self._options)
        await broker.connect()
        try:
            return await broker.make(None, _MADE)
        finally:
            await broker.close()

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """See PresenceChannel."""
        if self._speaking is None:
            speaking = SigningProducer(watchword=speaker(self._watchword), acks="all", **self._options)
            self._speaking = speaking  # stored first, so that it is stopped even if it fails to start
            await speaking.start()
        pairs: list[Header] = [(name, text.encode()) for name, text in headers.items()]
        await self._speaking.send_and_wait(self._topic, value, headers=pairs)

    async def stores(self) -> bool:
        """See PresenceChannel: a topic does."""
        return True

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:  # noqa: ARG002 - a topic stores all
        """See PresenceChannel."""
        if self._reading is None:
            agent = onlooker(self._watchword)
            self._reading = VerifyingConsumer(watchword=agent, enable_auto_commit=False, **self._options)
            await self._reading.start()
            await asyncio.sleep(0)  # aiokafka's stop() raises CancelledError if the consumer's tasks never ran
        consumer = self._reading
        numbers = await partitions_at_the_broker(consumer, self._topic)
        tps = [TopicPartition(self._topic, number) for number in numbers]
        if not tps:
            raise ConfigurationError(
                f"presence topic {self._topic!r} does not exist on the broker, or this user may not see it"
            )
        consumer.assign(tps)
        begin = await consumer.offsets_for_times(dict.fromkeys(tps, int(since * 1000)))
        end = await consumer.end_offsets(tps)
        for tp in tps:
            found = begin[tp]
            consumer.seek(tp, end[tp] if found is None else found.offset)
        silence = 0
        while silence < _SILENT_ROUNDS and (left := [tp for tp in tps if await consumer.position(tp) < end[tp]]):
            batches = await consumer.getmany(*left, timeout_ms=_ROUND_MS)
            silence = 0 if batches else silence + 1
            for records in batches.values():
                for record in records:
                    if isinstance(record, ObservedRecord):
                        yield record.message
