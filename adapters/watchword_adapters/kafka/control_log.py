"""The control log as a topic of Kafka."""

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
"""Longest wait for an answer of a broker's, unless the caller says otherwise."""


class KafkaControlLog:
    """A topic of one partition whose broker sets the times, and from which nothing is ever deleted.

    ``replicas`` is for ``make``; by default there are three, or as many as there are brokers. ``options`` are those of
    aiokafka's clients, ``bootstrap_servers`` among them. Reading judges nothing; what is published is signed by
    ``watchword``. Identity of the log is the topic's id. A right that is missing is a ConfigurationError
    (docs/control.md); otherwise errors are aiokafka's, and Unavailable where the log that was being read is gone.
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
        """Make the topic where there is none, and check it; return True if it was made."""
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
        """See ControlLog; Unavailable where it is not the log whose end was asked, or ends before ``position``."""
        follower = TopicFollower(self._broker, self._watchword.realm, position, self._known)
        while True:
            yield await follower.next()

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """See ControlLog; SigningError where it cannot be signed, ConfigurationError without a signer."""
        agent = speaker(self._watchword)
        await self._broker.topic()  # a producer would have a missing topic made, by the settings of the day
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
