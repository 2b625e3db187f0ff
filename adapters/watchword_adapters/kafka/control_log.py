"""The control log on Kafka: creates, checks, reads and publishes to a topic of one partition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Self, Unpack

from aiokafka.errors import ClusterAuthorizationFailedError, TopicAuthorizationFailedError

from watchword import ConfigurationError
from watchword_adapters.control.speaker import speaker
from watchword_adapters.kafka.control_broker import ControlBroker
from watchword_adapters.kafka.control_reader import TopicFollower
from watchword_adapters.kafka.control_topic import check_settings, checked_topic
from watchword_adapters.kafka.producer import SigningProducer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from watchword import Watchword
    from watchword.message import Header
    from watchword.spi import Message
    from watchword_adapters.control.log import End
    from watchword_adapters.kafka.options import ClientOptions

_TIMEOUT_MS: Final = 10_000
"""Default time limit for a broker's response."""


class KafkaControlLog:
    """A topic of one partition with broker timestamps, from which nothing is ever deleted.

    ``replicas`` is for ``make``; the default is three, or one per broker if there are fewer. ``options`` are those of
    aiokafka's clients, including ``bootstrap_servers``. Reading verifies nothing; publishing signs with ``watchword``.
    The log's identity is the topic's id. A missing right is a ConfigurationError (docs/control.md); other errors are
    aiokafka's, and Unavailable if the log that was being read is gone.
    """

    def __init__(
        self, topic: str, *, watchword: Watchword, replicas: int | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self.topic: Final = checked_topic(topic)
        self._watchword: Final = watchword
        self._replicas: Final = replicas
        self._options: Final[dict[str, Any]] = {"request_timeout_ms": _TIMEOUT_MS, **options}
        self._asking: ControlBroker | None = None
        self._speaking: SigningProducer | None = None
        self._known: str | None = None

    async def __aenter__(self) -> Self:
        """Connect."""
        broker = ControlBroker(self.topic, **self._options)
        try:
            await broker.connect()
        except BaseException:
            await broker.close()
            raise
        self._asking = broker
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        asking, self._asking = self._asking, None
        speaking, self._speaking = self._speaking, None
        try:
            if speaking is not None:
                await speaking.stop()
        finally:
            if asking is not None:
                await asking.close()

    async def make(self) -> bool:
        """Create the topic if it is missing, and check it; return True if it was created."""
        made = await self._broker.make(self._replicas)
        await self.check()
        return made

    async def check(self) -> None:
        """See ControlLog."""
        topic = await self._broker.topic()
        check_settings(self.topic, topic.partitions, await self._broker.settings())

    async def end(self) -> End:
        """See ControlLog."""
        end = await self._broker.end()
        self._known = end.identity
        return end

    async def read(self, position: int) -> AsyncGenerator[tuple[Sequence[Message], int]]:
        """See ControlLog; Unavailable if it is not the log that ``end`` returned, or ends before ``position``."""
        follower = TopicFollower(self._broker, self._watchword.realm, position, self._known)
        while True:
            yield await follower.next()

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """See ControlLog; SigningError if it cannot be signed, ConfigurationError without a signer."""
        agent = speaker(self._watchword)
        await self._broker.topic()  # a producer would auto-create a missing topic with the broker's defaults
        if self._speaking is None:
            self._speaking = await self._started(agent)
        pairs: list[Header] = [(name, text.encode()) for name, text in headers.items()]
        try:
            stored = await self._speaking.send_and_wait(self.topic, value, partition=0, headers=pairs)
        except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise self._broker.lacks("Write") from error
        return int(stored.offset)

    async def _started(self, agent: Watchword) -> SigningProducer:
        producer = SigningProducer(watchword=agent, acks="all", **self._options)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    @property
    def _broker(self) -> ControlBroker:
        if self._asking is None:
            raise ConfigurationError("the control log is not connected: use 'async with KafkaControlLog(...) as log'")
        return self._asking
