"""Quarantine in a Kafka topic: copies by a producer of their own, or inside the caller's transactions."""

# ruff: noqa: SLF001 - aiokafka has no public way to a client's settings and state

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
"""Copies that wait for the caller's next transaction; more are left out."""


class KafkaQuarantine(CappedQuarantine):
    """Keeps copies in ``topic``, which only consumers should be able to write to.

    Give it to ``VerifyingConsumer(quarantine=...)``, which lends it its connection settings (``attach``). Or give a
    started ``producer``, which stays yours; with a ``transactional_id`` copies wait, and go out inside your transaction
    just before its offsets (``send_offsets_to_transaction``), so that both commit or neither; keep the topic's
    ``max.message.bytes`` well above the cap ``max_size`` then, for what the broker refuses fails a transaction. One
    write takes at most ``timeout`` seconds.
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
            raise ConfigurationError(f"quarantine topic {topic!r}: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
        self.topic: Final = topic
        self.remedy = (
            f"make the topic {topic!r}, let this process write to it, and see that its partitions have leaders"
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
        """Return what ``[quarantine]`` asks for; None where it names no topic."""
        settings = watchword.quarantine
        if settings is None or settings.kafka is None:
            return None
        return cls(settings.kafka, watchword=watchword, limits=settings.to_limits(), headers=settings.header_style)

    @property
    def in_transactions(self) -> bool:
        """Whether copies go out inside the caller's transactions."""
        return self._transactional is not None

    def attach(self, consumer: AIOKafkaConsumer) -> None:
        """Connect as this consumer does, unless a producer was given or another consumer came first."""
        if self._connection is None:
            self._connection = connection_of(consumer)

    async def close(self) -> None:
        """Close the own producer; the next copy opens it again."""
        producer, self._own = self._own, None
        if producer is not None:
            with suppress(Unavailable):
                async with _bounded(self.timeout):
                    await producer.stop()

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return (channel.scheme, channel.realm, channel.name) == ("kafka", self._realm, self.topic)

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine; inside transactions the copy waits, and False says that too many do."""
        async with _bounded(self.timeout):
            producer = self._given or await self._started()
            if self._transactional is not None:
                await producer.partitions_for(self.topic)  # what a missing topic costs, it costs here
                return self._transactional.add(copy)
            try:
                await (await self.send(producer, copy))
            except (MessageSizeTooLargeError, RecordTooLargeError):
                await (await self.send(producer, copy.pointer()))
        return True

    async def send(self, producer: AIOKafkaProducer, copy: Copy) -> asyncio.Future[Any]:
        """Hand a copy to a producer: past the signature, for a copy is nobody's word."""
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
    """Copies that wait for one producer's next transaction, and those that its present one holds.

    What an aborted transaction held waits again: its offsets were not committed either, but the application may go on
    without reading them again.
    """

    def __init__(self, quarantine: KafkaQuarantine, producer: AIOKafkaProducer) -> None:
        self._quarantine = quarantine
        self._producer = producer
        self._waiting: deque[Copy] = deque()
        self._sent: list[Copy] = []

    def add(self, copy: Copy) -> bool:
        """Let a copy wait; False where too many do."""
        if len(self._waiting) + len(self._sent) >= MAX_WAITING:
            return False
        self._waiting.append(copy)
        return True

    async def flush(self) -> None:
        """Send what waits; Unavailable where that fails, and then the next transaction tries with bare pointers.

        These failing too are dropped: one copy that the broker refuses must not fail every transaction.
        """
        if not self._waiting or not is_in_transaction(self._producer):  # the client says what is wrong
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
        """Forget what the transaction held."""
        self._sent.clear()

    def aborted(self) -> None:
        """Let what the transaction held wait again."""
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()


def _outbox(producer: AIOKafkaProducer, quarantine: KafkaQuarantine) -> _Outbox | None:
    """Return what carries copies in this producer's transactions; None where it has none."""
    if has_serializers(producer) and not isinstance(producer, SigningProducer):  # which sends copies past them
        raise ConfigurationError(
            "quarantine: this producer's serializers would see bytes that nobody judged; give one without, or a"
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
    """End within ``seconds``; what the client raises becomes Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("quarantine", f"no answer in {seconds:g} s") from None
    except KafkaError as error:
        raise Unavailable("quarantine", type(error).__name__) from error
