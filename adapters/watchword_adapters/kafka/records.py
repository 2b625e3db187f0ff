"""The records that a consumer returns: aiokafka's own, with the verdict attached."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, fields, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord, TopicPartition

from watchword import Unavailable, VerifiedMessage, WatchwordError
from watchword.envelope import is_envelope_name
from watchword.errors import restored
from watchword.message import channel_of, make_message
from watchword.spi import ObservedMessage, Position
from watchword_adapters.raw_messages import RawMessages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword_native import Run

    from watchword import Rejected
    from watchword.engine import Native
    from watchword.looks import Looks
    from watchword.spi import Delivered, Message

LOG_APPEND_TIME: Final = 1

_first: Final = itemgetter(0)

Deserializer: TypeAlias = "Callable[[bytes | None], Any]"


class UnavailableError(Unavailable, KafkaError):
    """Unavailable as an aiokafka error: frameworks that retry after those retry after this."""

    retriable = True


def as_kafka_error(error: Unavailable) -> UnavailableError:
    """Return the same error as one that aiokafka's users expect."""
    told = UnavailableError(error.what, error.detail)
    told.__cause__ = error.__cause__
    return told


class DeserializationError(WatchwordError):
    """A deserializer raised on a verified record; the consumer's position is past it.

    ``record`` is the record with its key and value as bytes (after unpickling, of aiokafka's own class); the cause is
    the deserializer's own error.
    """

    def __init__(self, record: VerifiedRecord | ObservedRecord) -> None:
        self.record = record
        super().__init__(
            f"the deserializer failed on {record.topic}/{record.partition} at offset {record.offset}: the message is as"
            " its sender signed it, so fix the deserializer or the sender; the next call continues after it"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Drop the proof: in another process the record is of aiokafka's own class."""
        names, known = {field.name for field in fields(ConsumerRecord)}, vars(self.record)
        plain: Any = ConsumerRecord(**{name: value for name, value in known.items() if name in names})
        return restored, (type(self), self.args, self.__dict__ | {"record": plain})


class DeliveredRecord(ConsumerRecord[Any, Any]):
    """Any record that a consumer returns; ``verified`` names its author.

    In observe mode, ``verified`` is None for a record that enforce mode would have rejected.
    """

    if TYPE_CHECKING:  # the subclasses define it differently

        @property
        def verified(self) -> VerifiedMessage | None:
            """The verified message."""


@dataclass(repr=False)
class VerifiedRecord(DeliveredRecord):
    """aiokafka's ``ConsumerRecord`` of a message that passed every check.

    ``headers`` are those covered by the signature, plus trace headers; ``verified`` names the principal that wrote it.
    """

    verified: VerifiedMessage

    def __repr__(self) -> str:
        at = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"VerifiedRecord({at}, principal={self.verified.principal!r})"


@dataclass(repr=False)
class ObservedRecord(DeliveredRecord):
    """aiokafka's ``ConsumerRecord`` as received, in observe mode: NOT verified if ``verified`` is None.

    ``verdict`` is that of enforce mode. ``headers`` are all but the envelope, so that the record can be forwarded as
    before; ``message`` includes the envelope.
    """

    verdict: VerifiedMessage | Rejected | Unavailable
    message: Message

    @property
    def verified(self) -> VerifiedMessage | None:
        """The verified message; None for a record that enforce mode would have rejected."""
        return self.verdict if isinstance(self.verdict, VerifiedMessage) else None

    def __repr__(self) -> str:
        at = f"topic={self.topic!r}, partition={self.partition}, offset={self.offset}"
        return f"ObservedRecord({at}, verdict={type(self.verdict).__name__})"


Record: TypeAlias = VerifiedRecord | ObservedRecord


def log_of(tp: TopicPartition) -> str:
    """Return the name of a partition's log."""
    return f"{tp.topic}/{tp.partition}"


def stamp_of(record: ConsumerRecord[Any, Any]) -> float | None:
    """Return when the broker appended a record, in seconds; None if the producer set the time."""
    timestamp: int | None = record.timestamp
    return timestamp / 1000 if timestamp is not None and record.timestamp_type == LOG_APPEND_TIME else None


class Records(RawMessages["ConsumerRecord[Any, Any]"]):
    """Records of one partition, as aiokafka returns them without deserializers.

    ``looks`` bound the append time of records that the broker does not stamp; ``now`` is in seconds since the epoch.
    """

    def __init__(
        self,
        records: Sequence[ConsumerRecord[Any, Any]],
        realm: str,
        reader: str,
        looks: Looks,
        now: float,
        *,
        exclusive: bool,
    ) -> None:
        super().__init__(records)
        self._realm: Final = realm
        self._reader: Final = reader
        offsets = [record.offset for record in self._raws]
        # Computed now: messages built later must have the bounds that were judged.
        self._bounds: Final = looks.intervals(min(offsets), max(offsets), now) if offsets else []
        self._exclusive: Final = exclusive

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """See ``Runnable``."""
        first = self._raws[0]
        channel, log = channel_of("kafka", self._realm, first.topic), f"{first.topic}/{first.partition}"
        place = (channel.uri, first.partition, self._reader, log, self._exclusive)
        return native.Run.of_records(self._raws, place, self._bounds, now, max_age, max_skew, recalled)

    def message(self, raw: ConsumerRecord[Any, Any]) -> Message:
        """See ``RawMessages``."""
        timestamp: int | None = raw.timestamp  # the oldest record format has none
        seconds = None if timestamp is None else timestamp / 1000
        stamped = raw.timestamp_type == LOG_APPEND_TIME
        return make_message(
            channel_of("kafka", self._realm, raw.topic),
            raw.value,
            raw.key,
            raw.headers if type(raw.headers) is tuple else tuple(raw.headers),
            raw.partition,
            None,
            Position(f"{raw.topic}/{raw.partition}", raw.offset),
            seconds if stamped else None,
            None if stamped else seconds,
            self._reader,
            None,
            self._exclusive,
            None if stamped else self._bounds[bisect_right(self._bounds, raw.offset, key=_first) - 1][1:],
        )


def record_of(raw: ConsumerRecord[Any, Any], delivered: Delivered) -> Record:
    """Pair a raw record with its verdict; key and value are still bytes."""
    if isinstance(delivered, ObservedMessage):
        place = (
            raw.topic, raw.partition, raw.offset, raw.timestamp, raw.timestamp_type, raw.key, raw.value, raw.checksum,
            raw.serialized_key_size, raw.serialized_value_size,
        )  # fmt: skip
        seen: Any = tuple(header for header in raw.headers if not is_envelope_name(header[0]))
        return ObservedRecord(*place, seen, delivered.verdict, delivered.message)
    # Attribute by attribute: the constructor takes twice as long, and a dict would add to garbage collection.
    made = object.__new__(VerifiedRecord)
    made.topic, made.partition, made.offset = raw.topic, raw.partition, raw.offset
    made.timestamp, made.timestamp_type, made.checksum = raw.timestamp, raw.timestamp_type, raw.checksum
    made.key, made.value = raw.key, raw.value
    made.serialized_key_size, made.serialized_value_size = raw.serialized_key_size, raw.serialized_value_size
    headers: Any = delivered.headers
    made.headers, made.verified = headers, delivered
    return made


def deserialized(record: Record, key: Deserializer | None, value: Deserializer | None) -> Record:
    """Return the record with its key and value deserialized; DeserializationError if one raises."""
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
