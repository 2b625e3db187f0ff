"""What a consumer gets: aiokafka's record with the verdict beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.structs import ConsumerRecord, TopicPartition

from watchword import ObservedMessage, Position, VerifiedMessage, WatchwordError
from watchword.message import channel_of, make_message, maker_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchword import Delivered, Message, Rejected, Unavailable

LOG_APPEND_TIME: Final = 1
CREATE_TIME: Final = 0

_make_position: Final = maker_of(Position)

Deserializer: TypeAlias = "Callable[[bytes | None], Any]"


class DeserializationError(WatchwordError):
    """A deserializer raised on a verified record; the consumer's position is past it.

    ``record`` is the record with its key and value as bytes; the deserializer's own error is the cause.
    """

    def __init__(self, record: VerifiedRecord | ObservedRecord) -> None:
        self.record = record
        super().__init__(
            f"the deserializer failed on {record.topic}/{record.partition} at offset {record.offset}: the message is as"
            " its sender signed it, so mend the deserializer or the sender; the next call goes on behind it"
        )


@dataclass(repr=False)
class VerifiedRecord(ConsumerRecord[Any, Any]):
    """aiokafka's ``ConsumerRecord`` of a message that passed every check.

    ``headers`` hold what its sender covered (and trace headers); ``verified`` names the principal that wrote it.
    """

    verified: VerifiedMessage

    def __repr__(self) -> str:
        at = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"VerifiedRecord({at}, principal={self.verified.principal!r})"


@dataclass(repr=False)
class ObservedRecord(ConsumerRecord[Any, Any]):
    """aiokafka's ``ConsumerRecord`` as it came, in observe mode: NOT verified unless ``verdict`` is a VerifiedMessage.

    ``verdict`` is what enforcing would have said; headers are all there.
    """

    verdict: VerifiedMessage | Rejected | Unavailable

    def __repr__(self) -> str:
        at = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"ObservedRecord({at}, verdict={type(self.verdict).__name__})"


Record: TypeAlias = VerifiedRecord | ObservedRecord


def log_of(tp: TopicPartition) -> str:
    """Name the log that a partition is."""
    return f"{tp.topic}/{tp.partition}"


def stamp_of(record: ConsumerRecord[Any, Any]) -> float | None:
    """Return when the broker appended a record, in seconds; None where the producer set the time."""
    timestamp: int | None = record.timestamp
    return timestamp / 1000 if timestamp is not None and record.timestamp_type == LOG_APPEND_TIME else None


def messages_of(records: Iterable[ConsumerRecord[Any, Any]], realm: str, reader: str, *, alone: bool) -> list[Message]:
    """Build what the verifier judges from records of one partition, as aiokafka gives them without deserializers."""
    messages: list[Message] = []
    channel, log = None, ""
    for record in records:
        if channel is None:
            channel, log = channel_of("kafka", realm, record.topic), f"{record.topic}/{record.partition}"
        timestamp: int | None = record.timestamp  # the oldest record format has none
        seconds = None if timestamp is None else timestamp / 1000
        messages.append(
            make_message(
                channel,
                record.value,
                record.key,
                record.headers if type(record.headers) is tuple else tuple(record.headers),
                record.partition,
                None,
                _make_position(log, record.offset),
                seconds if record.timestamp_type == LOG_APPEND_TIME else None,
                seconds if record.timestamp_type == CREATE_TIME else None,
                reader,
                None,
                alone,
            )
        )
    return messages


def record_of(raw: ConsumerRecord[Any, Any], delivered: Delivered) -> Record:
    """Pair a raw record with its verdict; key and value are still bytes."""
    place = (raw.topic, raw.partition, raw.offset, raw.timestamp, raw.timestamp_type, raw.key, raw.value, raw.checksum)
    sizes = (raw.serialized_key_size, raw.serialized_value_size)
    if isinstance(delivered, ObservedMessage):
        return ObservedRecord(*place, *sizes, raw.headers, delivered.verdict)
    headers: Any = delivered.headers  # some without a value, which aiokafka's annotation forgets
    return VerifiedRecord(*place, *sizes, headers, delivered)


def deserialized(record: Record, key: Deserializer | None, value: Deserializer | None) -> Record:
    """Return the record with what the deserializers make of key and value; DeserializationError if one raises."""
    if key is None and value is None:
        return record
    try:
        return replace(
            record,
            key=record.key if key is None else key(record.key),
            value=record.value if value is None else value(record.value),
        )
    except Exception as error:
        raise DeserializationError(record) from error
