"""The private names of aiokafka that the sending side uses: each stands here once, with its reason, and is checked.

aiokafka has no interceptors, so what is sent can only be signed by a part of the client that stands between ``send``
and the batches. Whoever makes a SigningProducer learns at once if a version of the client has changed one of them. What
no check can see fails closed: a message that reached a batch of ours unsigned is refused by it, and what waits to be
signed is no list of headers, so that no batch of the client's can take it.
"""

# ruff: noqa: SLF001 - this file is where private names may stand

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
        f"aiokafka {version('aiokafka')} has another {what} than the signing producer was written for, which"
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
    raise _changed(f"part ({error})", "has to be imported") from error

_T = TypeVar("_T")
_GONE: Final = object()

_METHODS: Final[tuple[tuple[type, str, tuple[str, ...], str], ...]] = (
    (
        MessageAccumulator, "add_message", ("tp", "key", "value", "timeout", "timestamp_ms", "headers"),
        "takes each message from send(), to be signed there; passed by, messages would be refused by their batch"
    ),
    (
        MessageAccumulator, "add_batch", ("builder", "tp", "timeout"),
        "takes each batch from send_batch(), to be signed there; passed by, a batch would have nothing to send"
    ),
    (
        MessageAccumulator, "create_builder", ("key_serializer", "value_serializer"),
        "makes the batches, of which ours sign when they are full; passed by, no message could enter one"
    ),
    (
        BatchBuilder, "append", ("timestamp", "key", "value", "headers"),
        "is how a batch is filled; ours stands in for it, and would be filled by another name"
    ),
    (BatchBuilder, "close", (), "is how a batch is closed; ours would take messages of the next transaction"),
    (BatchBuilder, "record_count", (), "counts sequence numbers; the broker would refuse ours"),
    (BatchBuilder, "size", (), "tells the bytes that were written"),
    (
        BatchBuilder, "_set_producer_state", ("producer_id", "producer_epoch", "base_sequence"),
        "is how a batch learns its sequence number, and ours hands on; the broker would refuse batches without"
    ),
    (BatchBuilder, "_build", (), "is how a batch is asked for its bytes, before which ours signs"),
    (
        MessageAccumulator, "_append_batch", ("builder", "tp"),
        "puts a batch on its way; passed by, an answer that belongs to another batch would be believed"
    ),
    (MessageBatch, "done", ("base_offset", "timestamp"), "is how a batch learns of its answer, which ours looks at"),
    (MessageBatch, "failure", ("exception",), "is how senders learn of an answer that belongs to another batch"),
    (
        AIOKafkaProducer, "_partition", ("topic", "partition", "key", "value", "serialized_key", "serialized_value"),
        "chooses the partition of a copy for quarantine, which does not go through send()"
    ),
)  # fmt: skip
"""Methods by class, name and first parameters; and what is lost without them."""


def check() -> None:
    """Raise ConfigurationError where the client's classes are not as they were when this was written."""
    for owner, name, parameters, needed in _METHODS:
        if not _takes(getattr(owner, name, None), parameters):
            raise _changed(f"{owner.__name__}.{name}", needed)
    # What counts the bytes of a batch that holds one record (and raises TypeError for others), and what a batch returns
    # for a record that it took (offset, size, timestamp), may be written in C: so they are tried.
    try:
        fits = size_in_batch(b"k", b"v", [("n", b"v")]) > 0 and Metadata(1, 2, 3).timestamp == 3  # noqa: PLR2004 - any three
    except (AttributeError, TypeError):
        fits = False
    if not fits:
        raise _changed("estimate_size_in_bytes or DefaultRecordMetadata", "count the bytes of records")


def _takes(method: object, parameters: tuple[str, ...]) -> bool:
    """Return True for a method whose first parameters are these, and that can be called with no others."""
    if not callable(method):
        return False
    _, *found = inspect.signature(method).parameters.values()
    names = tuple(parameter.name for parameter in found[: len(parameters)])
    return names == parameters and all(other.default is not other.empty for other in found[len(parameters) :])


def _attribute(thing: object, name: str, kind: type[_T], needed: str) -> _T:
    """Return a private attribute; ConfigurationError where it is not there, or of another kind."""
    found = getattr(thing, name, _GONE)
    if found is _GONE or not isinstance(found, kind):
        raise _changed(f"{type(thing).__name__}.{name}", needed)
    return found


class StandInBuilder:
    """What aiokafka asks of a builder, in its own names; ``before_sending`` is asked each time before the bytes are."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.append_record: Callable[[int, int, bytes | None, bytes | None, list[Any]], Any] = plain._builder.append
        """Write a record (offset in the batch, timestamp, key, value, headers); None if there is no room for it."""

    @abstractmethod
    def before_sending(self) -> None:
        """Write the records that are not written yet."""

    def written(self) -> int:
        """Return the bytes that are written."""
        size: int = self._plain.size()
        return size

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._plain._set_producer_state(producer_id, producer_epoch, base_sequence)

    def _build(self) -> Any:
        self.before_sending()
        return self._plain._build()


class Batch(MessageBatch):
    """aiokafka's batch on its way, of which the answer is looked at before anybody learns of it."""

    judge: Callable[[TopicPartition, Any, int, int, int], Exception | None]
    """Return the error that an answer is (partition, builder, offset, time in ms, attempts); None where it fits."""

    def done(self, base_offset: int, timestamp: int | None = None, *others: Any, **more: Any) -> None:
        error = self.judge(
            self.tp, self._builder, base_offset, -1 if timestamp is None else timestamp, self.retry_count
        )
        if error is None:
            super().done(base_offset, timestamp, *others, **more)
        else:
            self.failure(error)


class Accumulator(MessageAccumulator):
    """aiokafka's accumulator, which collects what every way out of a producer sends."""

    batch_size: int
    """The bytes that a batch may have."""
    manager: Any
    """What knows the state of an idempotent producer's transaction; None where it is not idempotent."""

    @classmethod
    def take_over(cls, producer: AIOKafkaProducer) -> Any:
        """Make the accumulator of a producer one of this class, and return it: the very object, for others hold it."""
        needed = "is where messages wait to be sent, and are signed"
        accumulator: Any = _attribute(producer, "_message_accumulator", MessageAccumulator, needed)
        if type(accumulator) is not MessageAccumulator:
            raise ConfigurationError(
                f"this producer's messages wait in a {type(accumulator).__name__}, which somebody else put there: make"
                " it sign first"
            )
        batch_size = _attribute(accumulator, "_batch_size", int, "limits the bytes of a batch")
        kinds: Any = (TransactionManager, NoneType)
        manager = _attribute(accumulator, "_txn_manager", kinds, "knows whether a transaction has begun")
        waiting = _attribute(accumulator, "_batches", dict, "holds what was sent unsigned before, and takes no more")
        _attribute(accumulator.create_builder(), "_builder", DefaultRecordBatchBuilder, "writes the records")
        for batches in waiting.values():
            _attribute(batches[-1], "_builder", BatchBuilder, "is closed to what is to be signed").close()
        accumulator.__class__ = cls
        taken_over: Any = accumulator
        taken_over.batch_size, taken_over.manager = batch_size, manager
        return taken_over

    @abstractmethod
    def judge(self, tp: TopicPartition, builder: Any, offset: int, time_ms: int, attempts: int) -> Exception | None:
        """See Batch."""

    def _append_batch(self, builder: Any, tp: TopicPartition) -> Any:
        batch: Any = super()._append_batch(builder, tp)
        if self.manager is not None:  # only an idempotent producer's batch can be taken for another
            batch.__class__ = Batch
            batch.judge = self.judge
        return batch

    def check_transaction(self) -> None:
        """Raise IllegalOperation, as aiokafka does, outside the transaction of a producer that has them."""
        manager = self.manager
        if manager is not None and manager.transactional_id is not None and not manager.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")


def is_started(producer: AIOKafkaProducer) -> bool:
    """Return True if the producer was started; one that was not would wait for ever."""
    needed = "knows whether the producer was started"
    sender: Any = _attribute(producer, "_sender", Sender, needed)
    return _attribute(sender, "sender_task", object, needed) is not None


def max_request_size(producer: AIOKafkaProducer) -> int:
    """Return the bytes that a message may have, with its envelope."""
    return _attribute(producer, "_max_request_size", int, "limits the bytes of a message")


def seconds_to_wait(producer: AIOKafkaProducer) -> float:
    """Return how long a copy for quarantine waits for room in a batch."""
    return _attribute(producer, "_request_timeout_ms", int, "limits how long a message waits for room") / 1000


def choose_partition(producer: AIOKafkaProducer, topic: str, key: bytes | None, value: bytes | None) -> Any:
    """Return what the producer's partitioner chooses; the topic's metadata is known."""
    return producer._partition(topic, None, key, value, key, value)


def has_serializers(producer: AIOKafkaProducer) -> bool:
    """Return True if the producer has serializers, which would see what we give it."""
    needed = "would see what is in a copy for quarantine, which nobody has judged"
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
