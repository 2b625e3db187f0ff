"""FastStream's Kafka broker, with a producer that signs and consumers that verify."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from faststream.kafka import KafkaBroker as Base
from faststream.kafka.publisher.producer import AioKafkaFastProducerImpl
from faststream.response.publish_type import PublishType

from watchword import ConfigurationError
from watchword.agent import require
from watchword.audit import escaped
from watchword.message import channel_of
from watchword_adapters.faststream import _seam as seam
from watchword_adapters.faststream.holding import Holding
from watchword_adapters.faststream.senders import Judged
from watchword_adapters.kafka import Recipient, VerifyingConsumer, wrap
from watchword_adapters.unsigned_reply import UnsignedReply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiokafka import AIOKafkaProducer
    from faststream.kafka.response import KafkaPublishCommand

    from watchword import Watchword
    from watchword_adapters.kafka import SigningProducer

_LONGEST: Final = 249
"""Most characters of a topic that are logged."""

_TOLD: Final = 100
"""Most topics that are logged; they are named in other agents' messages."""


class KafkaBroker(Base):
    """A ``faststream.kafka.KafkaBroker`` that signs what it publishes and delivers only verified messages.

    The constructor is FastStream's plus ``watchword``; ``recipient``, which returns whom a message is meant for; and
    ``reply_topics``, the topics to which handlers may answer. A message names its ``reply_to`` itself, so its sender
    could otherwise choose where this agent signs something: answers to other topics are not sent, or in observe mode
    sent unsigned, and this is logged.

    A message that cannot be judged now (``Unavailable``) waits, with all later ones of its partition; a handler whose
    answer cannot be signed now waits as well. ConfigurationError for a process without a signer, unless it is
    ``consumer_only``.
    """

    def __init__(
        self,
        *servers: Any,
        watchword: Watchword,
        recipient: Recipient | None = None,
        reply_topics: Collection[str] = (),
        **options: Any,
    ) -> None:
        require(watchword)
        if not options.get("consumer_only"):
            _require_signer(watchword)
        if isinstance(reply_topics, str):
            raise ConfigurationError(f"reply_topics={reply_topics!r}: write a list of topics, [{reply_topics!r}]")
        super().__init__(*servers, **options)
        seam.check(self, seam.KAFKA)
        self.watchword: Final = watchword
        self.recipient: Final = recipient
        self.replies: Final = Replies(watchword, frozenset(reply_topics))
        self.config.broker_config.producer = SigningFastProducer(
            partial(wrap, watchword=watchword, recipient=recipient),
            self.replies,
            Holding(watchword, lambda: self.context),
            parser=options.get("parser"),
            decoder=options.get("decoder"),
        )
        self._cover()

    async def connect(self) -> Callable[..., Any]:
        """See FastStream."""
        if Judged not in self.middlewares:
            self.insert_middleware(Judged)
        return await super().connect()

    async def _connect(self) -> Callable[..., Any]:
        await super()._connect()
        return self._cover()

    def _cover(self) -> Callable[..., Any]:
        """Give subscribers consumers that verify, and that wait while nothing can be judged."""
        config = self.config.broker_config
        options = seam.consumer_options(config)
        config.builder = partial(VerifyingConsumer, watchword=self.watchword, on_unavailable="wait", **options)
        return config.builder


class SigningFastProducer(AioKafkaFastProducerImpl):
    """FastStream's producer, on one that signs."""

    def __init__(
        self, sign: Callable[[AIOKafkaProducer], SigningProducer], replies: Replies, holding: Holding, **options: Any
    ) -> None:
        super().__init__(**options)
        self._sign = sign
        self._replies = replies
        self._holding = holding

    async def connect(self, producer: AIOKafkaProducer, serializer: Any, codec: Any = None) -> None:
        """See FastStream."""
        await super().connect(self._sign(producer), serializer, codec)

    async def publish(self, cmd: KafkaPublishCommand) -> Any:
        """See FastStream; an answer to a topic that is not allowed is not sent."""
        if not self._replies.allow(cmd):
            return None
        return await self._holding.until_signed(partial(super().publish, cmd))

    async def publish_batch(self, cmd: KafkaPublishCommand) -> Any:
        """See FastStream."""
        return await self._holding.until_signed(partial(super().publish_batch, cmd))


class Replies:
    """Checks the topics of answers, since a message names its reply topic itself."""

    def __init__(self, watchword: Watchword, topics: frozenset[str]) -> None:
        self._watchword = watchword
        self._topics = topics
        self._told: set[str] = set()

    def allow(self, cmd: KafkaPublishCommand) -> bool:
        """Return False if an answer must not be sent; in observe mode it is sent unsigned instead."""
        topic = cmd.destination
        if cmd.publish_type is not PublishType.REPLY or topic in self._topics:
            return True
        if topic not in self._told and len(self._told) < _TOLD:
            self._told.add(topic)
            named = escaped(topic[:_LONGEST])
            remedy = "if answers may go there, add it to the broker's reply_topics"
            self._watchword.audit.warn("faststream.reply_refused", claimed_topic=named, remedy=remedy)
        cmd.destination = UnsignedReply(topic)
        return self._watchword.observes(channel_of("kafka", self._watchword.realm, topic))


def _require_signer(watchword: Watchword) -> None:
    try:
        _ = watchword.signer
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}; or write consumer_only=True") from None
