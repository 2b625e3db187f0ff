"""The seam to aiokafka's producer: every internal name that the sending side uses is listed here and checked.

aiokafka has no interceptors, so messages can only be signed by a part of the client between ``send`` and the batches.
Constructing a SigningProducer fails at once if a version of aiokafka has changed one of these names. What a check
cannot see fails closed: our batches refuse an unsigned message, and a message that waits to be signed is not a list of
headers, so that aiokafka's own batches cannot take it.
"""

# ruff: noqa: SLF001 - this is the one place for private names of the producer

from __future__ import annotations

import inspect
from abc import abstractmethod
from importlib.metadata import version
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka.structs import TopicPartition


def _changed(what: str, needed: str) -> ConfigurationError:
    return ConfigurationError(
        f"aiokafka {version('aiokafka')} has a different {what} than the signing producer expects, which"
        f" {needed}: install a version that watchword[kafka] allows"
    )


try:
    from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
    from aiokafka.producer.sender import Sender
    from aiokafka.producer.transaction_manager import TransactionManager
    from aiokafka.record.default_records import DefaultRecordBatchBuilder, DefaultRecordMetadata

    Metadata: Final = DefaultRecordMetadata
    size_in_batch: Final[Callable[[Any, Any, list[Any]], int]] = DefaultRecordBatchBuilder.estimate_size_in_bytes
except (AttributeError, ImportError) as error:
    raise _changed(f"part ({error})", "must be imported") from error

_T = TypeVar("_T")
_GONE: Final = object()

METHODS: Final[tuple[tuple[type, str, tuple[str, ...], str], ...]] = (
    (
        MessageAccumulator, "add_message", ("tp", "key", "value", "timeout", "timestamp_ms", "headers"),
        "receives each message from send() and signs it; if bypassed, batches would refuse messages"
    ),
    (
        MessageAccumulator, "add_batch", ("builder", "tp", "timeout"),
        "receives each batch from send_batch() and signs it; if bypassed, a batch would be sent empty"
    ),
    (
        MessageAccumulator, "create_builder", ("key_serializer", "value_serializer"),
        "creates the batches, which sign when they are full; if bypassed, batches would accept no message"
    ),
    (
        BatchBuilder, "append", ("timestamp", "key", "value", "headers"),
        "fills a batch; if renamed, ours would not be filled"
    ),
    (BatchBuilder, "close", (), "closes a batch; if renamed, ours would take messages of the next transaction"),
    (BatchBuilder, "record_count", (), "advances sequence numbers; if renamed, the broker would refuse ours"),
    (BatchBuilder, "size", (), "returns the number of bytes written"),
    (
        BatchBuilder, "_set_producer_state", ("producer_id", "producer_epoch", "base_sequence"),
        "sets a batch's sequence number; if renamed, the broker would refuse ours"
    ),
    (BatchBuilder, "_build", (), "returns a batch's bytes; ours signs before that"),
    (
        MessageAccumulator, "_append_batch", ("builder", "tp"),
        "queues a batch; if bypassed, an acknowledgement of another batch would be believed"
    ),
    (MessageBatch, "done", ("base_offset", "timestamp"), "completes a batch; ours checks the acknowledgement first"),
    (MessageBatch, "failure", ("exception",), "reports the acknowledgement of another batch to the sender"),
    (
        AIOKafkaProducer, "_partition", ("topic", "partition", "key", "value", "serialized_key", "serialized_value"),
        "chooses the partition of a quarantine copy, which bypasses send()"
    ),
)  # fmt: skip
"""Methods by class, name and first parameters, and what each is needed for."""


def check() -> None:
    """Raise ConfigurationError unless aiokafka's classes have every name that we use, with the parameters we expect."""
    for owner, name, parameters, needed in METHODS:
        if not _takes(getattr(owner, name, None), parameters):
            raise _changed(f"{owner.__name__}.{name}", needed)
    # The function that sizes a one-record batch (and raises TypeError for bad types), and the class of the metadata of
    # an appended record (offset, size, timestamp), may be written in C, so they are tried instead of inspected.
    try:
        fits = size_in_batch(b"k", b"v", [("n", b"v")]) > 0 and Metadata(1, 2, 3).timestamp == 3  # noqa: PLR2004 - any three
    except (AttributeError, TypeError):
        fits = False
    if not fits:
        raise _changed("estimate_size_in_bytes or DefaultRecordMetadata", "count the bytes of records")


def _takes(method: object, parameters: tuple[str, ...]) -> bool:
    """Return True if a method has these first parameters and needs no others."""
    if not callable(method):
        return False
    _, *found = inspect.signature(method).parameters.values()
    names = tuple(parameter.name for parameter in found[: len(parameters)])
    return names == parameters and all(other.default is not other.empty for other in found[len(parameters) :])


def _attribute(thing: object, name: str, kind: type[_T], needed: str) -> _T:
    """Return a private attribute; ConfigurationError if it is missing or of another type."""
    found = getattr(thing, name, _GONE)
    if found is _GONE or not isinstance(found, kind):
        raise _changed(f"{type(thing).__name__}.{name}", needed)
    return found


class StandInBuilder:
    """The interface of aiokafka's builder, in its names; ``before_sending`` is called before each read of the bytes."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.append_record: Callable[[int, int, bytes | None, bytes | None, list[Any]], Any] = plain._builder.append
        """Write a record (offset in the batch, timestamp, key, value, headers); None if it does not fit."""

    @abstractmethod
    def before_sending(self) -> None:
        """Write the records that are not written yet."""

    def written(self) -> int:
        """Return the number of bytes written."""
        size: int = self._plain.size()
        return size

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._plain._set_producer_state(producer_id, producer_epoch, base_sequence)

    def _build(self) -> Any:
        self.before_sending()
        return self._plain._build()


class Batch(MessageBatch):
    """aiokafka's batch in flight; its acknowledgement is checked before it is reported to the sender."""

    judge: Callable[[TopicPartition, Any, int, int, int], Exception | None]
    """Return the error for a response (partition, builder, offset, time in ms, attempts); None if it matches."""

    def done(self, base_offset: int, timestamp: int | None = None, *others: Any, **more: Any) -> None:
        error = self.judge(
            self.tp, self._builder, base_offset, -1 if timestamp is None else timestamp, self.retry_count
        )
        if error is None:
            super().done(base_offset, timestamp, *others, **more)
        else:
            self.failure(error)


class Accumulator(MessageAccumulator):
    """aiokafka's accumulator, which every message of a producer passes through."""

    batch_size: int
    """Largest size of a batch in bytes."""
    manager: Any
    """The transaction manager of an idempotent producer; None if it is not idempotent."""

    @classmethod
    def take_over(cls, producer: AIOKafkaProducer) -> Any:
        """Turn a producer's accumulator into one of this class in place, since others refer to it, and return it."""
        needed = "is where messages wait to be sent, and are signed"
        accumulator: Any = _attribute(producer, "_message_accumulator", MessageAccumulator, needed)
        if type(accumulator) is not MessageAccumulator:
            raise ConfigurationError(
                f"this producer's messages wait in a {type(accumulator).__name__}, put there by other code: make"
                " it sign first"
            )
        batch_size = _attribute(accumulator, "_batch_size", int, "limits the bytes of a batch")
        kinds: Any = (TransactionManager, NoneType)
        manager = _attribute(accumulator, "_txn_manager", kinds, "knows whether a transaction has begun")
        waiting = _attribute(accumulator, "_batches", dict, "holds messages sent unsigned before; must be closed")
        _attribute(accumulator.create_builder(), "_builder", DefaultRecordBatchBuilder, "writes the records")
        for batches in waiting.values():
            _attribute(batches[-1], "_builder", BatchBuilder, "must be closed before signing begins").close()
        accumulator.__class__ = cls
        taken_over: Any = accumulator
        taken_over.batch_size, taken_over.manager = batch_size, manager
        return taken_over

    @abstractmethod
    def judge(self, tp: TopicPartition, builder: Any, offset: int, time_ms: int, attempts: int) -> Exception | None:
        """See Batch."""

    def _append_batch(self, builder: Any, tp: TopicPartition) -> Any:
        batch: Any = super()._append_batch(builder, tp)
        if self.manager is not None:  # only an idempotent producer's batch can be confused with another
            batch.__class__ = Batch
            batch.judge = self.judge
        return batch

    def check_transaction(self) -> None:
        """Raise IllegalOperation, as aiokafka does, if a transactional producer has no open transaction."""
        manager = self.manager
        if manager is not None and manager.transactional_id is not None and not manager.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")


def is_started(producer: AIOKafkaProducer) -> bool:
    """Return True if the producer was started; otherwise its calls would wait forever."""
    needed = "knows whether the producer was started"
    sender: Any = _attribute(producer, "_sender", Sender, needed)
    return _attribute(sender, "sender_task", object, needed) is not None


def max_request_size(producer: AIOKafkaProducer) -> int:
    """Return the largest size of a message with its envelope, in bytes."""
    return _attribute(producer, "_max_request_size", int, "limits the bytes of a message")


def seconds_to_wait(producer: AIOKafkaProducer) -> float:
    """Return how long a quarantine copy waits for space in a batch, in seconds."""
    return _attribute(producer, "_request_timeout_ms", int, "limits how long a message waits for space") / 1000


def choose_partition(producer: AIOKafkaProducer, topic: str, key: bytes | None, value: bytes | None) -> Any:
    """Return the partitioner's choice; the topic's metadata must be known."""
    return producer._partition(topic, None, key, value, key, value)


def has_serializers(producer: AIOKafkaProducer) -> bool:
    """Return True if the producer has serializers, which would see what we send."""
    needed = "would see unverified bytes in a quarantine copy"
    names = ("_key_serializer", "_value_serializer")
    return any(_attribute(producer, name, object, needed) is not None for name in names)


def is_transactional(producer: AIOKafkaProducer) -> bool:
    """Return True if the producer sends in transactions."""
    manager: Any = _attribute(producer, "_txn_manager", object, "knows the producer's transactions")
    return manager is not None and manager.transactional_id is not None


def is_in_transaction(producer: AIOKafkaProducer) -> bool:
    """Return True if a transaction of the producer is open."""
    manager: Any = _attribute(producer, "_txn_manager", object, "knows the producer's transactions")
    return manager is not None and bool(manager.is_in_transaction())
