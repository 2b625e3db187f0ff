"""Quarantine in a Kafka topic: writes copies with its own producer, or inside the caller's transactions."""

# ruff: noqa: SLF001 - SigningProducer sends unsigned copies by a method that is not for users

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError

from watchword import ConfigurationError, Unavailable
from watchword.agent import require
from watchword.message import is_topic
from watchword.quarantine import CappedQuarantine
from watchword.spi import HeaderStyle
from watchword_adapters.kafka._producer_seam import has_serializers, is_in_transaction, is_transactional
from watchword_adapters.kafka._seam import connection_of
from watchword_adapters.kafka.producer import SigningProducer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from aiokafka import AIOKafkaConsumer

    from watchword import Watchword
    from watchword.quarantine import QuarantineLimits
    from watchword.quarantine_copy import Copy
    from watchword.spi import Channel

MAX_WAITING: Final = 1000
"""Most copies that wait for the caller's next transaction; further ones are not stored."""


class KafkaQuarantine(CappedQuarantine):
    """Stores copies in ``topic``, which only consumers should be able to write to.

    Pass it to ``VerifyingConsumer(quarantine=...)``, whose connection settings it then uses (``attach``). Or pass a
    started ``producer``, which you keep managing. If that has a ``transactional_id``, copies wait and are sent inside
    your transaction just before its offsets (``send_offsets_to_transaction``), so that both commit or neither does; in
    that case set the topic's ``max.message.bytes`` well above the cap ``max_size``, since a copy that the broker
    refuses fails the transaction. Each write takes at most ``timeout`` seconds.
    """

    def __init__(
        self,
        topic: str,
        *,
        watchword: Watchword,
        producer: AIOKafkaProducer | None = None,
        limits: QuarantineLimits | None = None,
        headers: HeaderStyle = HeaderStyle.WATCHWORD,
        timeout: float = 5.0,
    ) -> None:
        require(watchword)
        super().__init__(clock=watchword.clock, warn=watchword.audit.warn, limits=limits, style=headers)
        if not is_topic(topic):
            raise ConfigurationError(f"quarantine topic {topic!r}: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
        self.topic: Final = topic
        self.remedy = (
            f"create the topic {topic!r}, let this process write to it, and check that its partitions have leaders"
        )
        self._realm = watchword.realm
        self.timeout = timeout
        self._given = producer
        self._own: AIOKafkaProducer | None = None
        self._connection: dict[str, Any] | None = None
        self._starting = asyncio.Lock()
        self._transactional: _Outbox | None = None
        if producer is not None:
            self._transactional = _outbox(producer, self)

    @classmethod
    def from_settings(cls, watchword: Watchword) -> KafkaQuarantine | None:
        """Return the quarantine that ``[quarantine]`` configures; None if it names no topic."""
        settings = watchword.quarantine
        if settings is None or settings.kafka is None:
            return None
        return cls(settings.kafka, watchword=watchword, limits=settings.to_limits(), headers=settings.header_style)

    @property
    def in_transactions(self) -> bool:
        """True if copies are sent inside the caller's transactions."""
        return self._transactional is not None

    def attach(self, consumer: AIOKafkaConsumer) -> None:
        """Use this consumer's connection settings, unless a producer was given or another consumer came first."""
        if self._connection is None:
            self._connection = connection_of(consumer)

    async def close(self) -> None:
        """Close the quarantine's own producer; the next copy starts a new one."""
        producer, self._own = self._own, None
        if producer is not None:
            with suppress(Unavailable):
                async with _bounded(self.timeout):
                    await producer.stop()

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return (channel.scheme, channel.realm, channel.name) == ("kafka", self._realm, self.topic)

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine; inside transactions the copy waits, and the result is False if too many do."""
        async with _bounded(self.timeout):
            producer = self._given or await self._started()
            if self._transactional is not None:
                await producer.partitions_for(self.topic)  # a missing topic fails here, not in the transaction
                return self._transactional.add(copy)
            try:
                await (await self.send(producer, copy))
            except (MessageSizeTooLargeError, RecordTooLargeError):
                await (await self.send(producer, copy.pointer()))
        return True

    async def send(self, producer: AIOKafkaProducer, copy: Copy) -> asyncio.Future[Any]:
        """Send a copy unsigned: a signature would vouch for a rejected message."""
        value = b"" if copy.value is None and copy.key is None else copy.value  # a record needs one of them
        if isinstance(producer, SigningProducer):
            return await producer._send_copy(self.topic, value, copy.key, copy.headers)
        future: asyncio.Future[Any] = await AIOKafkaProducer.send(
            producer, self.topic, value, copy.key, headers=list(copy.headers)
        )
        return future

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._own is None:
                if self._connection is None:
                    raise ConfigurationError(
                        "KafkaQuarantine is not connected: give it to VerifyingConsumer(quarantine=...), call"
                        " attach(consumer), or pass producer=..."
                    )
                producer = AIOKafkaProducer(**self._connection, acks="all")
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._own = producer
            return self._own


class _Outbox:
    """Copies waiting for a producer's next transaction, and copies sent in its current one.

    Copies of an aborted transaction wait again: its offsets were not committed either, but the application may carry
    on without rereading them.
    """

    def __init__(self, quarantine: KafkaQuarantine, producer: AIOKafkaProducer) -> None:
        self._quarantine = quarantine
        self._producer = producer
        self._waiting: deque[Copy] = deque()
        self._sent: list[Copy] = []

    def add(self, copy: Copy) -> bool:
        """Queue a copy; return False if the queue is full."""
        if len(self._waiting) + len(self._sent) >= MAX_WAITING:
            return False
        self._waiting.append(copy)
        return True

    async def flush(self) -> None:
        """Send the waiting copies; raises Unavailable if that fails, and the next transaction tries bare pointers.

        Pointers that fail too are dropped: one copy that the broker refuses must not fail every transaction.
        """
        if not self._waiting or not is_in_transaction(self._producer):  # outside a transaction, aiokafka raises
            return
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            async with _bounded(self._quarantine.timeout):
                futures = [await self._quarantine.send(self._producer, copy) for copy in batch]
                await asyncio.gather(*futures)
        except BaseException:
            self._waiting.extend(copy.pointer() for copy in batch if not copy.is_pointer)
            raise
        self._sent += batch

    def committed(self) -> None:
        """Forget the copies of a committed transaction."""
        self._sent.clear()

    def aborted(self) -> None:
        """Queue the copies of an aborted transaction again."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


def _outbox(producer: AIOKafkaProducer, quarantine: KafkaQuarantine) -> _Outbox | None:
    """Attach to this producer's transactions; None if it is not transactional."""
    if has_serializers(producer) and not isinstance(producer, SigningProducer):  # whose copies bypass them
        raise ConfigurationError(
            "quarantine: this producer's serializers would see unverified bytes; pass one without serializers, or a"
            " SigningProducer"
        )
    if not is_transactional(producer):
        return None
    outbox = _Outbox(quarantine, producer)
    instance: Any = producer  # aiokafka has no hooks
    instance.send_offsets_to_transaction = _before(producer.send_offsets_to_transaction, outbox.flush)
    instance.commit_transaction = _after(producer.commit_transaction, outbox.committed)
    instance.abort_transaction = _after(producer.abort_transaction, outbox.aborted)
    return outbox


def _before(call: Callable[..., Awaitable[None]], first: Callable[[], Awaitable[None]]) -> Callable[..., Any]:
    async def hooked(*arguments: Any, **options: Any) -> None:
        await first()
        await call(*arguments, **options)

    return hooked


def _after(call: Callable[..., Awaitable[None]], then: Callable[[], None]) -> Callable[..., Any]:
    async def hooked(*arguments: Any, **options: Any) -> None:
        await call(*arguments, **options)
        then()

    return hooked


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    """Bound a block to ``seconds``; the client's errors are raised as Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("quarantine", f"no answer in {seconds:g} s") from None
    except KafkaError as error:
        raise Unavailable("quarantine", type(error).__name__) from error
