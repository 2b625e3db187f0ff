"""What a consumer gets: aiokafka's record with the verdict beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.structs import ConsumerRecord, TopicPartition

from watchword import Channel, Message, ObservedMessage, Position, VerifiedMessage, WatchwordError

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Delivered, Rejected, Unavailable

LOG_APPEND_TIME: Final = 1
CREATE_TIME: Final = 0

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


def channel_of(tp: TopicPartition, realm: str) -> Channel:
    """Return the channel that a partition belongs to."""
    return Channel("kafka", realm, tp.topic)


def log_of(tp: TopicPartition) -> str:
    """Name the log that a partition is."""
    return f"{tp.topic}/{tp.partition}"


def stamp_of(record: ConsumerRecord[Any, Any]) -> float | None:
    """Return when the broker appended a record, in seconds; None where the producer set the time."""
    timestamp: int | None = record.timestamp
    return timestamp / 1000 if timestamp is not None and record.timestamp_type == LOG_APPEND_TIME else None


def message_of(record: ConsumerRecord[Any, Any], realm: str, reader: str, *, alone: bool) -> Message:
    """Build what the verifier judges from a record as aiokafka gives it without deserializers."""
    timestamp: int | None = record.timestamp  # the oldest record format has none
    return Message(
        channel=Channel("kafka", realm, record.topic),
        value=record.value,
        key=record.key,
        headers=tuple(record.headers),
        partition=record.partition,
        position=Position(f"{record.topic}/{record.partition}", record.offset),
        appended_at=stamp_of(record),
        created_at=timestamp / 1000 if timestamp is not None and record.timestamp_type == CREATE_TIME else None,
        reader=reader,
        alone=alone,
    )


def record_of(raw: ConsumerRecord[Any, Any], delivered: Delivered) -> Record:
    """Pair a raw record with its verdict; key and value are still bytes."""
    fields = {name: getattr(raw, name) for name in ConsumerRecord.__dataclass_fields__}
    if isinstance(delivered, ObservedMessage):
        return ObservedRecord(**fields, verdict=delivered.verdict)
    return VerifiedRecord(**fields | {"headers": delivered.headers}, verified=delivered)


def deserialized(record: Record, key: Deserializer | None, value: Deserializer | None) -> Record:
    """Return the record with what the deserializers make of key and value; DeserializationError if one raises."""
    fields = {name: getattr(record, name) for name in type(record).__dataclass_fields__}
    try:
        if key is not None:
            fields["key"] = key(record.key)
        if value is not None:
            fields["value"] = value(record.value)
    except Exception as error:
        raise DeserializationError(record) from error
    return type(record)(**fields)
