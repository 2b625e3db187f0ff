"""The signing accumulator: every message that a producer sends passes through it, and is signed here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from aiokafka.structs import TopicPartition

from watchword import ConfigurationError, SigningError
from watchword_adapters.kafka._producer_seam import Accumulator, max_request_size
from watchword_adapters.kafka.acks import AckMismatchError, Acks, Sent
from watchword_adapters.kafka.batch import SigningBatch, SigningBuilder
from watchword_adapters.kafka.entries import Entries, Entry, TooLargeError, as_partition, copy_of
from watchword_adapters.signing_queue import SigningQueue
from watchword_adapters.unsigned_reply import UnsignedReply

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Sequence

    from aiokafka import AIOKafkaProducer

    from watchword import Watchword
    from watchword.message import Header
    from watchword.spi import Signer
    from watchword_adapters.kafka.entries import Recipient

_UNNAMED: Final = object()


class SigningAccumulator(Accumulator):
    """aiokafka's accumulator, which signs messages and batches as they are added.

    Everything above it is aiokafka's own: ``send``, its partitioner, serializers and errors, and whatever a tracing
    library wraps around it.
    """

    _watchword: Watchword
    _answers: Acks
    _told: bool
    _signer: Signer
    _entries: Entries
    _gathering: SigningQueue | None
    _largest: int

    @classmethod
    def adopt(cls, producer: AIOKafkaProducer, watchword: Watchword, recipient: Recipient | None) -> SigningAccumulator:
        """Make a producer sign what it sends, and return its accumulator."""
        signer, entries = watchword.signer, Entries(watchword, recipient)
        limit = max_request_size(producer)
        adopted: SigningAccumulator = cls.take_over(producer)
        adopted._watchword = watchword
        adopted._answers = Acks(watchword.verifier.policy.max_skew)
        adopted._told = False
        adopted._signer = signer
        adopted._entries = entries
        adopted._gathering = None if signer.in_memory else SigningQueue(signer)
        adopted._largest = limit
        return adopted

    def add_message(  # noqa: PLR0917 - aiokafka's signature
        self,
        tp: TopicPartition,
        key: Any,
        value: Any,
        timeout: float,
        timestamp_ms: Any = None,
        headers: Sequence[Any] = (),
    ) -> Coroutine[Any, Any, asyncio.Future[Any]]:
        """Prepare a message for signing and add it to its partition's batch; see aiokafka."""
        topic, partition = tp
        if isinstance(topic, UnsignedReply):
            return self.add_unsigned(tp, key, value, headers, timeout)
        if type(partition) is not int:
            partition = as_partition(topic, partition)
            tp = TopicPartition(topic, partition)
        entry: Any = self._entries.entry(topic, partition, timestamp_ms, key, value, headers)
        if entry.size > self._largest:
            self._refuse(entry)
        if self._gathering is not None or self._watchword.is_due():
            return self._sign_and_add(tp, entry, timeout)
        # It waits there for space and for its turn, as with aiokafka.
        added: Coroutine[Any, Any, asyncio.Future[Any]] = super().add_message(tp, None, None, timeout, None, entry)
        return added

    def add_unsigned(
        self, tp: TopicPartition, key: bytes | None, value: bytes | None, headers: Sequence[Header], timeout: float
    ) -> Coroutine[Any, Any, asyncio.Future[Any]]:
        """Add a message to its partition's batch without signing it.

        A signature would vouch for it, and it is a quarantine copy or the answer to an unverified request.
        """
        self.check_transaction()
        copy: Any = copy_of(int(time.time() * 1000), key, value, headers)
        if copy.size > self._largest:
            self._refuse(copy)
        tp = TopicPartition(str(tp.topic), as_partition(*tp))
        added: Coroutine[Any, Any, asyncio.Future[Any]] = super().add_message(tp, None, None, timeout, None, copy)
        return added

    async def add_batch(self, builder: Any, tp: TopicPartition, timeout: float) -> asyncio.Future[Any]:  # noqa: ASYNC109 - aiokafka's signature
        """Sign every message of a batch that ``create_batch`` made, and send it; see aiokafka."""
        if not isinstance(builder, SigningBatch):
            raise ConfigurationError(
                "this batch would be sent unsigned: fill one made by this producer's create_batch()"
            )
        await self._watchword.keep_up()
        self.check_transaction()
        topic, partition = tp.topic, as_partition(*tp)
        if builder.topic is not None and builder.topic != topic:
            raise ConfigurationError(f"batch made for topic {builder.topic!r}: create another for {topic!r}")
        entries = [self._entries.entry(topic, partition, *waiting) for waiting in builder.entries]
        was_closed = builder.closed()
        builder.close()
        if self._gathering is not None:
            envelopes = [entry.unsigned for entry in entries if entry.unsigned is not None]
            for entry, signed in zip(entries, await self._signer.sign_prepared(envelopes), strict=True):
                entry.seal(signed)
            self.check_transaction()
        signing = self._new_builder()
        for entry in entries:
            if signing.append(timestamp=None, key=None, value=None, headers=entry) is None:
                raise SigningError("batch too large once signed: put fewer messages into it")
        if was_closed:
            signing.close()
        future: asyncio.Future[Any] = await super().add_batch(signing, TopicPartition(topic, partition), timeout)
        return future

    def create_builder(self, key_serializer: Any = _UNNAMED, value_serializer: Any = _UNNAMED) -> Any:
        """Return a batch: a SigningBatch for ``create_batch``, which passes serializers, or a SigningBuilder."""
        if key_serializer is _UNNAMED:
            return self._new_builder()
        return SigningBatch(
            self.batch_size,
            largest=self._entries.largest,
            key_serializer=key_serializer,
            value_serializer=value_serializer,
        )

    def _new_builder(self) -> SigningBuilder:
        return SigningBuilder(
            super().create_builder(), self.batch_size, sign=self._signer.sign_now, clock=self._watchword.clock
        )

    def judge(self, tp: TopicPartition, builder: Any, offset: int, time_ms: int, attempts: int) -> Exception | None:
        """Return the error to raise for an acknowledgement that does not match its batch; None if it matches."""
        sent = Sent(builder.count, builder.latest, builder.sent_at, attempts)
        why = self._answers.mismatch(tp, sent, offset, time_ms)
        if why is None:
            return None
        if not self._told:
            self._told = True
            self._watchword.audit.warn(
                "kafka.ack_mismatch",
                topic=tp.topic,
                partition=tp.partition,
                why=why,
                remedy="turn enable_idempotence off: another client with write access uses this producer's id",
            )
        return AckMismatchError(
            f"partition {tp.partition} of topic {tp.topic!r}: the acknowledgement belongs to another batch, so these"
            f" messages are not stored: {why}"
        )

    async def _sign_and_add(self, tp: TopicPartition, entry: Any, timeout: float) -> asyncio.Future[Any]:  # noqa: ASYNC109 - as above
        """Refresh the key, and sign first if the key is held elsewhere; the transaction may end in the meantime."""
        await self._watchword.keep_up()
        if self._gathering is not None:
            entry.seal(await self._gathering.sign(entry.unsigned))
        self.check_transaction()
        future: asyncio.Future[Any] = await super().add_message(tp, None, None, timeout, None, entry)
        return future

    def _refuse(self, entry: Entry) -> None:
        raise TooLargeError(f"message too large: {entry.size} bytes with envelope; max_request_size is {self._largest}")
