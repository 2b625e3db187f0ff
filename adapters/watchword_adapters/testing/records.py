"""Kafka records as a consumer returns them, without a broker."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from aiokafka.structs import ConsumerRecord

from watchword.looks import Looks
from watchword_adapters.kafka.records import LOG_APPEND_TIME, Records, deserialized, record_of

if TYPE_CHECKING:
    from watchword.spi import Delivered, Message
    from watchword_adapters.kafka.records import Deserializer, ObservedRecord, VerifiedRecord


def raw_record(message: Message) -> ConsumerRecord[Any, Any]:
    """Return a message in a log as aiokafka's record, stamped by the broker."""
    headers: Any = message.headers  # some have no value, which aiokafka's annotation omits
    key, value = message.key, message.value
    return ConsumerRecord(
        topic=message.channel.name,
        partition=message.partition or 0,
        offset=message.position.offset if message.position else 0,
        timestamp=round((message.appended_at or 0.0) * 1000),
        timestamp_type=LOG_APPEND_TIME,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1 if key is None else len(key),
        serialized_value_size=-1 if value is None else len(value),
        headers=headers,
    )


def message_of(raw: ConsumerRecord[Any, Any], realm: str, reader: str, *, exclusive: bool) -> Message:
    """Return a record as the consumer's adapter passes it to the verifier."""
    (message,) = Records([raw], realm, reader, Looks(), inf, exclusive=exclusive)
    return message


def handed_over(
    raw: ConsumerRecord[Any, Any], delivered: Delivered, key: Deserializer | None, value: Deserializer | None
) -> VerifiedRecord | ObservedRecord:
    """Return the record that the consumer returns to its caller."""
    return deserialized(record_of(raw, delivered), key, value)
