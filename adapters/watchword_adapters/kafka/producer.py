"""The producer that signs: aiokafka's, of which every way out is covered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, MessageSizeTooLargeError
from aiokafka.structs import TopicPartition

from watchword import Channel, ConfigurationError, SigningError
from watchword.encoding import characters
from watchword.envelope import MAX_ENVELOPE_CHARACTERS
from watchword.message import MAX_PRINCIPAL_BYTES, channel_of
from watchword_adapters.gathering import Gathering
from watchword_adapters.kafka.batch import Entry, SigningBatch, SigningBuilder, size_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    from watchword import Watchword
    from watchword.message import Header

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Names the principal that a message is meant for, from its channel, key and headers; None: whoever reads."""

_LONGEST_TOPIC: Final = 249
_LARGEST_PARTITION: Final = (1 << 31) - 1
_PER_NAME: Final = 3
"""Bytes at most that stand before a name of the claims: its label and its length."""


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
        """Take over from the base: serializers, and the batches that its accumulator makes."""
        try:
            self._signer = watchword.signer
        except ConfigurationError:
            self._closed = True  # never opened: nothing to warn of when it goes
            raise
        self._watchword = watchword
        self._realm = watchword.realm
        self._max_skew = watchword.verifier.policy.max_skew
        self._recipient = recipient
        self._at_once = self._signer.in_memory
        self._gathering = Gathering(self._signer)
        self._serializers = (self._key_serializer, self._value_serializer)
        self._key_serializer = self._value_serializer = None
        accumulator: Any = self._message_accumulator
        for batches in accumulator._batches.values():  # noqa: SLF001 - what was sent unsigned before takes no more
            batches[-1]._builder.close()  # noqa: SLF001 - as above
        accumulator.create_builder = self._builder

    def _builder(self, **_: Any) -> SigningBuilder:
        """Make what the accumulator fills; serializers are ours."""
        accumulator: Any = self._message_accumulator
        manager: Any = self._txn_manager
        return SigningBuilder(
            accumulator._batch_size,  # noqa: SLF001 - aiokafka has no public way to ask
            accumulator._compression_type,  # noqa: SLF001 - as above
            is_transactional=manager is not None and manager.transactional_id is not None,
            sign=self._signer.sign_now,
        )

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
        key_bytes, value_bytes, pairs = self._prepared(key, value, headers)
        known = self._metadata.partitions_for_topic(topic)
        if known is None or self._sender.sender_task is None or (partition is not None and partition not in known):
            await self._know(topic, partition)
        if partition is None:
            partition = self._choose(topic, key, value, key_bytes, value_bytes)
        entry = self._entry(topic, partition, timestamp_ms, key_bytes, value_bytes, pairs)
        self._check_size(entry)
        if entry.draft is not None and not self._at_once:
            entry.seal(await self._gathering.sign(entry.draft))
        return await self._enqueue(topic, partition, entry)

    async def _send_copy(
        self, topic: str, value: bytes | None, key: bytes | None, headers: tuple[Header, ...]
    ) -> asyncio.Future[Any]:
        """Send a copy for quarantine, in the caller's transaction: past the signature, for it is nobody's word."""
        await self._know(topic, None)
        partition = self._choose(topic, key, value, key, value)
        record = [*headers]
        copy = Entry(int(time.time() * 1000), key, value, record, size_of(key, value, record, 0), None, ready=True)
        self._check_size(copy)
        return await self._enqueue(topic, partition, copy)

    def _check_size(self, entry: Entry) -> None:
        if entry.size > self._max_request_size:
            raise TooLargeError(
                f"message of {entry.size} bytes with its envelope: max_request_size is {self._max_request_size}"
            )

    def _enqueue(self, topic: str, partition: int, entry: Entry) -> Awaitable[asyncio.Future[Any]]:
        """Put a message into its partition's batch; it waits there for room and for its turn, as with aiokafka."""
        manager: Any = self._txn_manager
        if manager is not None and manager.transactional_id is not None and not manager.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")
        accumulator: Any = self._message_accumulator
        added: Awaitable[asyncio.Future[Any]] = accumulator.add_message(
            TopicPartition(topic, partition),
            entry.key,
            entry.value,
            self._request_timeout_ms / 1000,
            timestamp_ms=entry.timestamp,
            headers=entry,
        )
        return added

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
            self._message_accumulator._batch_size,  # noqa: SLF001 - aiokafka has no public way to ask
            prepare=self._prepared,
            envelope=lambda *message: self._envelope_size(topic, *message),
            topic=topic,
        )

    async def send_batch(self, batch: SigningBatch, topic: str, *, partition: int | None) -> asyncio.Future[Any]:
        """Sign every message of a batch for this topic and partition (None: the client chooses), and send it."""
        if not isinstance(batch, SigningBatch):
            raise ConfigurationError(
                "this batch would go out unsigned: fill one made by this producer's create_batch()"
            )
        if batch.topic is not None and batch.topic != topic:
            raise ConfigurationError(f"batch made for topic {batch.topic!r}: create another for {topic!r}")
        was_closed = batch.closed()
        batch.close()
        await self._know(topic, partition)
        if partition is None:
            partition = self._choose(topic, None, None, None, None)
        entries = [self._entry(topic, partition, *waiting) for waiting in batch.entries]
        if not self._at_once:
            drafts = [entry.draft for entry in entries if entry.draft is not None]
            for entry, signed in zip(entries, await self._signer.sign_drafts(drafts), strict=True):
                entry.seal(signed)
        builder = self._builder()
        for entry in entries:
            if builder.append(timestamp=None, key=None, value=None, headers=entry) is None:
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
        return (
            key if type(key) is bytes else _bytes("key", key),
            value if type(value) is bytes else _bytes("value", value),
            tuple([_header(header) for header in headers]) if headers else (),
        )

    async def _know(self, topic: str, partition: int | None) -> None:
        """Wait for the topic's metadata; SigningError where there is no such partition."""
        sending: object = self._sender.sender_task
        if sending is None:
            raise ConfigurationError("the producer is not started: await producer.start(), or use 'async with'")
        channel_of("kafka", self._realm, topic).check_signable()
        known = await self.partitions_for(topic)
        if partition is not None and partition not in known:
            raise SigningError(f"partition {partition!r} of topic {topic!r}: there are {sorted(known)}")

    def _choose(self, topic: str, key: Any, value: Any, key_bytes: bytes | None, value_bytes: bytes | None) -> int:
        """Return the partition that the client's partitioner chooses, as the int that is signed."""
        chosen = self._partition(topic, None, key, value, key_bytes, value_bytes)
        known = self._metadata.partitions_for_topic(topic)
        if known is None or chosen not in known:
            raise SigningError(f"the partitioner chose {chosen!r} for topic {topic!r}: there are {sorted(known or ())}")
        return int(chosen)

    def _entry(  # noqa: PLR0917 - for each message
        self,
        topic: str,
        partition: int,
        timestamp: int | None,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[Header, ...],
    ) -> Entry:
        """Draft the envelope of a message; the record's timestamp is the time of issue, in milliseconds."""
        channel = channel_of("kafka", self._realm, topic)
        recipient = None if self._recipient is None else self._recipient(channel, key, headers)
        draft = self._signer.draft_parts(channel, value, key, headers, partition, recipient)
        stamp = draft.issued_at * 1000
        if timestamp is not None:
            if type(timestamp) is not int:
                raise SigningError(f"timestamp of type {type(timestamp).__name__}: give whole milliseconds")
            if abs(timestamp / 1000 - draft.issued_at) > self._max_skew:
                raise SigningError(
                    f"timestamp {timestamp} ms: more than {self._max_skew:g} s from now, so readers would reject the"
                    " message; leave it out, and put the time that you mean into a header"
                )
            stamp = timestamp
        record = [*headers]
        return Entry(stamp, key, value, record, size_of(key, value, record, draft.largest), draft)

    def _envelope_size(
        self, topic: str | None, key: bytes | None, value: bytes | None, headers: tuple[Header, ...]
    ) -> int:
        """Return the most characters that an envelope may have, in whichever partition, for whomever it is meant."""
        draft = self._signer.draft_parts(
            channel_of("kafka", self._realm, topic or "t"),
            None if value is None else b"",
            None if key is None else b"",
            headers,
            _LARGEST_PARTITION,
            None,
        )
        more = 0 if topic is not None else _LONGEST_TOPIC + _PER_NAME
        more += 0 if self._recipient is None else MAX_PRINCIPAL_BYTES + _PER_NAME
        return min(draft.largest + characters(more), MAX_ENVELOPE_CHARACTERS)


def _bytes(name: str, data: object) -> bytes | None:
    if data is None or type(data) is bytes:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise SigningError(f"{name} of type {type(data).__name__}: give bytes, or set {name}_serializer")


def _header(header: Any) -> Header:
    if type(header) is tuple and len(header) == 2 and type(header[0]) is str and type(header[1]) is bytes:  # noqa: PLR2004 - name and value
        pair: Header = header
        return pair
    match header:
        case (str(name), None):
            return name, None
        case (str(name), bytes() | bytearray() | memoryview() as value):
            return name, value if type(value) is bytes else bytes(value)
    raise SigningError("headers: give pairs of a text and bytes, as [('content-type', b'application/json')]")
