"""FastStream's in-memory Kafka for tests, with messages signed and verified as on a broker."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from faststream.kafka import TestKafkaBroker as Base

from watchword.message import channel_of
from watchword.spi import Message, Position
from watchword_adapters.faststream import _seam as seam
from watchword_adapters.faststream.kafka_broker import KafkaBroker
from watchword_adapters.faststream.memory import Logs, broker_of, changed, require_ours
from watchword_adapters.kafka.records import record_of

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from aiokafka import ConsumerRecord
    from faststream.kafka.response import KafkaPublishCommand

    from watchword_adapters.kafka.records import Record


class TestKafkaBroker(Base, **seam.registered(KafkaBroker)):
    """A ``faststream.kafka.TestKafkaBroker`` for our brokers: no server, but real signatures and verdicts.

    A message is signed by the broker that publishes it and judged by the one whose handler receives it, so several
    brokers in one test are several agents. If it is rejected, ``publish`` raises Rejected; with a real broker the
    handler would just not be called.
    """

    def __init__(self, *brokers: Any, **options: Any) -> None:
        require_ours(brokers, KafkaBroker)
        super().__init__(*brokers, **options)
        self._logs = Logs()

    @contextmanager
    def _patch_producer(self, broker: Any) -> Generator[None]:
        with changed(broker.config.broker_config, producer=FakeProducer(broker, self.brokers, self._logs)):
            yield


class FakeProducer(seam.FakeKafkaProducer):
    """FastStream's fake producer; it signs, and verifies before it calls a handler."""

    def __init__(self, broker: KafkaBroker, brokers: Sequence[Any], logs: Logs) -> None:
        super().__init__(broker, brokers)
        self._ours = broker
        self._logs = logs

    async def _execute_handler(self, msg: Any, topic: str, handler: Any) -> Any:
        reader = broker_of(handler, self.brokers)
        group = handler.group_id or f"subscriber {id(handler)}"
        judged: Any
        if isinstance(msg, list):
            judged = tuple([await self._judged(one, self._ours, reader, group) for one in msg])
        else:
            judged = await self._judged(msg, self._ours, reader, group)
        answer: Any = await super()._execute_handler(judged, topic, handler)
        answer.answered_by = reader
        return answer

    async def publish(self, cmd: KafkaPublishCommand) -> Any:
        """See FastStream; an answer to a topic that is not allowed is not sent."""
        if self._ours.replies.allow(cmd):
            await super().publish(cmd)

    async def request(self, cmd: KafkaPublishCommand) -> Record:
        """See FastStream; the answer is judged as a message of that topic."""
        answer: Any = await super().request(cmd)
        return await self._judged(answer, answer.answered_by, self._ours, "answers")

    async def _judged(self, record: Any, sender: KafkaBroker, reader: KafkaBroker, group: str) -> Record:
        """Return a record as ``reader`` would receive it from ``sender``; Rejected if it would not."""
        if not hasattr(record, "stored"):  # stored once, however many groups read it
            place = self._logs.append(f"{record.topic}/{record.partition}")
            signed = await _signed(record, sender)
            record.stored = (replace(record, offset=place.offset, headers=signed), place)
        stored, place = record.stored
        message = _message(stored, reader, place, reader=group, exclusive=True, appended_at=reader.watchword.clock())
        return record_of(stored, await reader.watchword.admit(message))


async def _signed(record: ConsumerRecord[Any, Any], sender: KafkaBroker) -> tuple[tuple[str, bytes | None], ...]:
    """Return the record's headers with the envelope."""
    message = _message(record, sender, None)
    whom = None if sender.recipient is None else sender.recipient(message.channel, message.key, message.headers)
    signed = await sender.watchword.signer.sign(message, recipient=whom)
    return (*message.headers, signed.header)


def _message(record: Any, broker: KafkaBroker, place: Position | None, **options: Any) -> Message:
    return Message(
        channel=channel_of("kafka", broker.watchword.realm, record.topic),
        value=record.value,
        key=record.key,
        headers=tuple(record.headers),
        partition=record.partition,
        position=place,
        **options,
    )
