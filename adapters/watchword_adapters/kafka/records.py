"""What a consumer gets: aiokafka's record with the verdict beside it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from watchword import Unavailable, VerifiedMessage, WatchwordError
from watchword.envelope import is_envelope_name
from watchword.errors import restored
from watchword.message import channel_of, make_message, maker_of
from watchword.spi import ObservedMessage, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchword import Rejected
    from watchword.spi import Delivered, Message

LOG_APPEND_TIME: Final = 1

_make_position: Final = maker_of(Position)

Deserializer: TypeAlias = "Callable[[bytes | None], Any]"


class UnavailableError(Unavailable, KafkaError):
    """Unavailable, as an error of the client: frameworks that try again after those try again after this."""

    retriable = True


def as_kafka_error(error: Unavailable) -> UnavailableError:
    """Return the same ending as an error that aiokafka's users expect."""
    told = UnavailableError(error.what, error.detail)
    told.__cause__ = error.__cause__
    return told


class DeserializationError(WatchwordError):
    """A deserializer raised on a verified record; the consumer's position is past it.

    ``record`` is the record with its key and value as bytes (unpickled, the client's own class); the deserializer's own
    error is the cause.
    """

    def __init__(self, record: VerifiedRecord | ObservedRecord) -> None:
        self.record = record
        super().__init__(
            f"the deserializer failed on {record.topic}/{record.partition} at offset {record.offset}: the message is as"
            " its sender signed it, so mend the deserializer or the sender; the next call goes on behind it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the proof behind: in another process the record is the client's own."""
        names, known = {field.name for field in fields(ConsumerRecord)}, vars(self.record)
        plain: Any = ConsumerRecord(**{name: value for name, value in known.items() if name in names})
        return restored, (type(self), self.args, self.__dict__ | {"record": plain})


class DeliveredRecord(ConsumerRecord[Any, Any]):
    """Whatever a consumer gets; ``verified`` says who wrote it.

    It is None in observe mode for a record that enforcing would not have handed over.
    """

    if TYPE_CHECKING:  # each kind has it in its own way

        @property
        def verified(self) -> VerifiedMessage | None:
            """What verified."""


@dataclass(repr=False)
class VerifiedRecord(DeliveredRecord):
    """aiokafka's ``ConsumerRecord`` of a message that passed every check.

    ``headers`` hold what its sender covered (and trace headers); ``verified`` names the principal that wrote it.
    """

    verified: VerifiedMessage

    def __repr__(self) -> str:
        at = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"VerifiedRecord({at}, principal={self.verified.principal!r})"


@dataclass(repr=False)
class ObservedRecord(DeliveredRecord):
    """aiokafka's ``ConsumerRecord`` as it came, in observe mode: NOT verified unless ``verified`` is there.

    ``verdict`` is what enforcing would have said. ``headers`` are all there but for the envelope, so that the record
    can be sent on as before; ``message`` has that too.
    """

    verdict: VerifiedMessage | Rejected | Unavailable
    message: Message

    @property
    def verified(self) -> VerifiedMessage | None:
        """What verified; None for a record that enforcing would not have handed over."""
        return self.verdict if isinstance(self.verdict, VerifiedMessage) else None

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


def messages_of(
    records: Iterable[ConsumerRecord[Any, Any]],
    realm: str,
    reader: str,
    *,
    exclusive: bool,
    appended: Callable[[int], tuple[float, float]],
) -> list[Message]:
    """Build what the verifier judges from records of one partition, as aiokafka gives them without deserializers.

    ``appended`` returns between which times the record at an offset was appended, where the broker does not stamp it.
    """
    messages: list[Message] = []
    channel, log = None, ""
    for record in records:
        if channel is None:
            channel, log = channel_of("kafka", realm, record.topic), f"{record.topic}/{record.partition}"
        timestamp: int | None = record.timestamp  # the oldest record format has none
        seconds = None if timestamp is None else timestamp / 1000
        stamped = record.timestamp_type == LOG_APPEND_TIME
        messages.append(
            make_message(
                channel,
                record.value,
                record.key,
                record.headers if type(record.headers) is tuple else tuple(record.headers),
                record.partition,
                None,
                _make_position(log, record.offset),
                seconds if stamped else None,
                None if stamped else seconds,
                reader,
                None,
                exclusive,
                None if stamped else appended(record.offset),
            )
        )
    return messages


def record_of(raw: ConsumerRecord[Any, Any], delivered: Delivered) -> Record:
    """Pair a raw record with its verdict; key and value are still bytes."""
    place = (raw.topic, raw.partition, raw.offset, raw.timestamp, raw.timestamp_type, raw.key, raw.value, raw.checksum)
    sizes = (raw.serialized_key_size, raw.serialized_value_size)
    if isinstance(delivered, ObservedMessage):
        seen: Any = tuple(header for header in raw.headers if not is_envelope_name(header[0]))
        return ObservedRecord(*place, *sizes, seen, delivered.verdict, delivered.message)
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
