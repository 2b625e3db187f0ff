"""The producer that signs: aiokafka's, of which every way out is covered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from watchword import Channel, ConfigurationError, Message, SigningError
from watchword.message import MAX_PRINCIPAL_BYTES
from watchword_adapters.buses.kafka.batch import Entry, SigningBatch

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from watchword import Watchword
    from watchword.message import Header

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Names the principal that a message is meant for, from its channel, key and headers; None: whoever reads."""

_LONGEST_TOPIC: Final = 249
_FIXED: Final = 400
"""Bytes of an envelope beside the names in it: signature, key id, digests, id, numbers, CBOR (docs/spec.md)."""

_PER_NAME: Final = 3


class TooLargeError(SigningError, MessageSizeTooLargeError):
    """The message with its envelope is larger than ``max_request_size``; nothing was sent."""


class SigningProducer(AIOKafkaProducer):
    """An ``AIOKafkaProducer`` that signs every message for its topic and partition.

    The constructor is aiokafka's plus ``watchword`` and ``recipient``, a callable that names whom a message is meant
    for. Payload and headers stay as they are, one header is added. The record's timestamp is the time of issue; a
    caller's own may differ from it by the policy's ``max_skew``. ``send_offsets_to_transaction`` takes the offsets of
    records that were handed over. SigningError and Unavailable (the signing back-end failed) mean that nothing was
    sent.

    Use ``enable_idempotence=True``: without it a retry may store one record twice, and the second counts as a replay.
    """

    def __init__(self, *, watchword: Watchword, recipient: Recipient | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._adopt(watchword, recipient)

    def _adopt(self, watchword: Watchword, recipient: Recipient | None) -> None:
        """Take the serializers over from the base."""
        try:
            self._signer = watchword.signer
        except ConfigurationError:
            self._closed = True  # never opened: nothing to warn of when it goes
            raise
        self._watchword = watchword
        self._recipient = recipient
        self._serializers = (self._key_serializer, self._value_serializer)
        self._key_serializer = self._value_serializer = None

    async def start(self) -> None:
        """See aiokafka."""
        idempotent: object = self._txn_manager
        if idempotent is None:
            self._watchword.audit.warn(
                "kafka.producer_not_idempotent",
                cost="a record that is stored twice by a retry counts as a replay the second time",
                remedy="SigningProducer(enable_idempotence=True)",
            )
        await super().start()

    async def send(  # noqa: PLR0917 - aiokafka's signature
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> asyncio.Future[Any]:
        """Sign and send; see aiokafka. SigningError if the message cannot be signed as it is."""
        key_bytes, value_bytes, all_headers = self._prepared(key, value, headers)
        await self._know(topic, partition)
        partition = self._partition(topic, partition, key, value, key_bytes, value_bytes)
        entry = Entry(timestamp_ms, key_bytes, value_bytes, all_headers)
        signed, stamp = await self._signed(topic, partition, entry)
        size = DefaultRecordBatchBuilder.estimate_size_in_bytes(key_bytes, value_bytes, signed)
        if size > self._max_request_size:
            raise TooLargeError(
                f"message of {size} bytes with its envelope: max_request_size is {self._max_request_size}"
            )
        future: asyncio.Future[Any] = await super().send(topic, value_bytes, key_bytes, partition, stamp, signed)
        return future

    async def send_and_wait(  # noqa: PLR0917 - aiokafka's signature
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Iterable[Header] | None = None,
    ) -> Any:
        """Sign, send and wait for the broker's answer; see aiokafka."""
        return await (await self.send(topic, value, key, partition, timestamp_ms, headers))

    def create_batch(self, *, topic: str | None = None) -> SigningBatch:
        """Return an empty batch, to be signed by ``send_batch``.

        Messages are counted with the largest envelope they may get; naming the ``topic`` makes more of them fit.
        """
        return SigningBatch(
            super().create_batch(),
            prepare=self._prepared,
            envelope_size=lambda headers: self._envelope_size(topic, headers),
            topic=topic,
        )

    async def send_batch(self, batch: SigningBatch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        """Sign every message of a batch for this topic and partition, and send it; see aiokafka."""
        if not isinstance(batch, SigningBatch):
            raise ConfigurationError(
                "this batch would go out unsigned: fill one made by this producer's create_batch()"
            )
        if batch.topic is not None and batch.topic != topic:
            raise ConfigurationError(f"batch made for topic {batch.topic!r}: create another for {topic!r}")
        was_closed = batch.closed()
        batch.close()
        await self._know(topic, partition)
        builder = super().create_batch()
        for entry in batch.entries:
            headers, stamp = await self._signed(topic, partition, entry)
            if builder.append(timestamp=stamp, key=entry.key, value=entry.value, headers=headers) is None:
                raise SigningError("batch too large once it is signed: put fewer messages into one")
        if was_closed:
            builder.close()
        future: asyncio.Future[Any] = await super().send_batch(builder, topic, partition=partition)
        return future

    def _prepared(
        self, key: Any, value: Any, headers: Iterable[Header] | None
    ) -> tuple[bytes | None, bytes | None, tuple[Header, ...]]:
        """Serialize, and refuse what a record cannot hold."""
        if key is None and value is None:
            raise SigningError("a record needs a key or a value")
        serialize_key, serialize_value = self._serializers
        key = key if serialize_key is None else serialize_key(key)
        value = value if serialize_value is None else serialize_value(value)
        key_bytes, value_bytes = (_bytes(name, data) for name, data in (("key", key), ("value", value)))
        return key_bytes, value_bytes, tuple(_header(header) for header in headers or ())

    async def _know(self, topic: str, partition: int | None) -> None:
        """Wait for the topic's metadata; SigningError where there is no such partition."""
        sending: object = self._sender.sender_task
        if sending is None:
            raise ConfigurationError("the producer is not started: await producer.start(), or use 'async with'")
        self._channel(topic).check_signable()
        known = await self.partitions_for(topic)
        if partition is not None and partition not in known:
            raise SigningError(f"partition {partition!r} of topic {topic!r}: there are {sorted(known)}")

    async def _signed(self, topic: str, partition: int, entry: Entry) -> tuple[list[Header], int]:
        """Return the headers with the envelope, and the record's timestamp in milliseconds."""
        channel = self._channel(topic)
        signed = await self._signer.sign(
            Message(channel=channel, value=entry.value, key=entry.key, headers=entry.headers, partition=partition),
            recipient=None if self._recipient is None else self._recipient(channel, entry.key, entry.headers),
        )
        stamp = signed.issued_at * 1000 if entry.timestamp is None else entry.timestamp
        skew = self._watchword.verifier.policy.max_skew
        if abs(stamp / 1000 - signed.issued_at) > skew:
            raise SigningError(
                f"timestamp {entry.timestamp} ms: more than {skew:g} s from now, so readers would reject the message;"
                " leave it out, and put the time that you mean into a header"
            )
        return [*entry.headers, signed.header], stamp

    def _channel(self, topic: str) -> Channel:
        return Channel("kafka", self._watchword.realm, topic)

    def _envelope_size(self, topic: str | None, headers: Sequence[Header]) -> int:
        """Return the most characters that an envelope may have."""
        names = [self._signer.principal, self._signer.realm, *{name for name, _ in headers}]
        size = _FIXED + sum(_PER_NAME + len(name.encode(errors="replace")) for name in names)
        size += _LONGEST_TOPIC if topic is None else len(topic)
        size += 0 if self._recipient is None else _PER_NAME + MAX_PRINCIPAL_BYTES
        return (size * 4 + 2) // 3


def _bytes(name: str, data: object) -> bytes | None:
    if data is None or isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise SigningError(f"{name} of type {type(data).__name__}: give bytes, or set {name}_serializer")


def _header(header: object) -> Header:
    match header:
        case (str(name), bytes() | None as value):
            return name, value
        case (str(name), bytearray() | memoryview() as value):
            return name, bytes(value)
    raise SigningError("headers: give pairs of a text and bytes, as [('content-type', b'application/json')]")
