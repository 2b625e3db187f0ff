"""The signing producer: aiokafka's own, whose messages are signed in the accumulator that collects them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

from aiokafka.structs import TopicPartition
from aiokafka.util import commit_structure_validate

from watchword import ConfigurationError
from watchword.agent import require
from watchword.message import is_topic
from watchword_adapters.kafka import _producer_seam as seam
from watchword_adapters.kafka.accumulator import SigningAccumulator
from watchword_adapters.kafka.entries import Recipient
from watchword_adapters.kafka.groups import for_transaction
from watchword_adapters.kafka.typed import ProducerBase

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine, Mapping

    from aiokafka.structs import OffsetAndMetadata

    from watchword import Watchword
    from watchword.message import Header
    from watchword_adapters.kafka.batch import SigningBatch
    from watchword_adapters.kafka.options import ProducerOptions

__all__ = ["Recipient", "SigningProducer"]


class SigningProducer(ProducerBase):
    """An ``AIOKafkaProducer`` that signs every message for its topic and partition.

    The constructor is aiokafka's plus ``watchword`` and ``recipient``, a callable that returns whom a message is meant
    for. Payload and headers are unchanged; one header is added. The record's timestamp is the time of issue; a caller's
    own may differ from it by the policy's ``max_skew``. ``send_offsets_to_transaction`` accepts only offsets of records
    that a VerifyingConsumer for the same group has judged. Errors are aiokafka's, and SigningError or Unavailable (the
    signing back-end failed); after these two, nothing was sent.
    """

    _started = False

    def __init__(
        self, *, watchword: Watchword, recipient: Recipient | None = None, **options: Unpack[ProducerOptions]
    ) -> None:
        # Raise ConfigurationErrors before there is a client that would have to be stopped.
        require(watchword, recipient=recipient)
        _ = watchword.signer
        seam.check()
        super().__init__(**options)
        self._adopt(watchword, recipient)

    def _adopt(self, watchword: Watchword, recipient: Recipient | None) -> None:
        """Make the accumulator sign."""
        seam.check()
        _ = seam.is_started(self)
        self._wait = seam.seconds_to_wait(self)
        self._outgoing = SigningAccumulator.adopt(self, watchword, recipient)
        self._watchword = watchword
        if seam.is_started(self):
            watchword.connected("kafka")

    async def start(self) -> None:
        """See aiokafka."""
        await super().start()
        self._watchword.connected("kafka")

    def send(  # noqa: PLR0917 - aiokafka's signature
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: list[Header] | None = None,
    ) -> Coroutine[Any, Any, asyncio.Future[Any]]:
        """Sign and send; see aiokafka. SigningError if the message cannot be signed as it is."""
        if not self._started:
            self._check_started()
        sending: Coroutine[Any, Any, asyncio.Future[Any]] = super().send(
            topic, value=value, key=key, partition=partition, timestamp_ms=timestamp_ms, headers=headers
        )
        return sending

    async def send_and_wait(  # noqa: PLR0917 - aiokafka's signature
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: list[Header] | None = None,
    ) -> Any:
        """Sign, send and wait for the broker's acknowledgement; see aiokafka."""
        return await super().send_and_wait(topic, value, key, partition, timestamp_ms, headers)

    def create_batch(self, *, topic: str | None = None) -> SigningBatch:
        """Return an empty batch, to be signed by ``send_batch``.

        Each message counts with the largest envelope that it may get; with ``topic`` set, more messages fit.
        """
        _check_topic(topic)
        batch: SigningBatch = super().create_batch()
        batch.topic = topic
        return batch

    async def send_batch(self, batch: SigningBatch, topic: str, *, partition: int | None) -> asyncio.Future[Any]:
        """Sign every message of a batch for this topic and partition (None: the client chooses), and send it."""
        if not self._started:
            self._check_started()
        future: asyncio.Future[Any] = await super().send_batch(batch, topic, partition=partition)
        return future

    async def send_offsets_to_transaction(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata], group_id: str
    ) -> None:
        """See aiokafka; adds the metadata of a VerifyingConsumer that reads for the group in this event loop.

        ConfigurationError for an offset beyond what that consumer has returned or rejected.
        """
        told: Any = offsets
        if seam.is_in_transaction(self):  # outside a transaction, aiokafka raises
            told = for_transaction(commit_structure_validate(dict(offsets)), group_id, self.client)
        await super().send_offsets_to_transaction(told, group_id)

    async def _send_copy(
        self, topic: str, value: bytes | None, key: bytes | None, headers: tuple[Header, ...]
    ) -> asyncio.Future[Any]:
        """Send a quarantine copy in the caller's transaction, unsigned and untraced."""
        if not self._started:
            self._check_started()
        await self.partitions_for(topic)
        tp = TopicPartition(topic, seam.choose_partition(self, topic, key, value))
        return await self._outgoing.add_unsigned(tp, key, value, headers, self._wait)

    def _check_started(self) -> None:
        """Raise an error if aiokafka would wait forever, or if messages would be sent unsigned."""
        if not hasattr(self, "_outgoing"):
            raise ConfigurationError("wrap() of this producer failed, so its messages would not be signed")
        self._started = seam.is_started(self)
        if not self._started:
            raise ConfigurationError("the producer is not started: await producer.start(), or use 'async with'")


def _check_topic(topic: object) -> None:
    if topic is not None and not (isinstance(topic, str) and is_topic(topic)):
        raise ConfigurationError(f"topic {topic!r}: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
