"""FastStream's NATS broker, on a client that signs and verifies."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from faststream.nats import NatsBroker as Base
from faststream.nats.publisher.producer import NatsFastProducerImpl, NatsJSFastProducer
from faststream.nats.subscriber.usecases import KeyValueWatchSubscriber, ObjStoreWatchSubscriber

from watchword import ConfigurationError
from watchword.agent import require
from watchword.message import SERVERS_SUBJECTS
from watchword_adapters.faststream import _seam as seam
from watchword_adapters.faststream.holding import Holding
from watchword_adapters.faststream.senders import Judged
from watchword_adapters.nats import DeliveredMsg, Recipient, VerifyingJetStream, WatchwordClient
from watchword_adapters.nats.answers import HiddenReply, ReplySubject
from watchword_adapters.unsigned_reply import UnsignedReply

if TYPE_CHECKING:
    from faststream.nats.response import NatsPublishCommand
    from nats.aio.msg import Msg
    from nats.js import api

    from watchword import Watchword

_REPLY_TO: Final = "reply_to"
"""The header with the reply subject, which a stream does not store."""


class NatsBroker(Base):
    """A ``faststream.nats.NatsBroker`` that signs what it publishes and delivers only verified messages.

    The constructor is FastStream's plus ``watchword`` and the options of ``watchword.nats.connect``: ``recipient``,
    which returns whom a message is meant for, and ``reader``, the name of this instance. ``sole_reader`` states that
    only this process reads each durable consumer that it binds, so that no shared store is needed.

    A message of a stream that cannot be judged now (``Unavailable``) is redelivered; on core NATS, which never
    redelivers, it is counted and dropped. Buckets and schedules are refused with a ConfigurationError.
    """

    def __init__(
        self,
        *servers: Any,
        watchword: Watchword,
        recipient: Recipient | None = None,
        reader: str | None = None,
        sole_reader: bool = False,
        **options: Any,
    ) -> None:
        require(watchword)
        super().__init__(*servers, **options)
        seam.check(self, seam.NATS)
        self.watchword: Final = watchword
        self.recipient: Final = recipient
        self._reader = reader
        self._sole_reader = sole_reader
        parts = {"parser": options.get("parser"), "decoder": options.get("decoder")}
        holding = Holding(watchword, lambda: self.context)
        config = self.config.broker_config
        config.producer = SigningFastProducer(watchword, holding, **parts)
        config.js_producer = SigningStreamProducer(watchword, holding, **parts)

    async def connect(self) -> WatchwordClient:
        """See FastStream; returns a client of ``watchword.nats``."""
        if Judged not in self.middlewares:
            self.insert_middleware(Judged)
        client: Any = await super().connect()
        return cast("WatchwordClient", client)

    async def ready(self) -> None:
        """Wait until messages sent on core NATS from now on are no longer dropped because a memory has only just begun.

        This takes up to the policy's skew after ``start``, if neither a journal nor a store remembers an earlier run.
        """
        await (await self.connect()).ready()

    async def _connect(self) -> WatchwordClient:
        client = _Client(
            watchword=self.watchword, recipient=self.recipient, reader=self._reader, sole_reader=self._sole_reader
        )
        await client.connect(**seam.connection_options(self))
        self.config.broker_config.connect(client)
        return client

    async def start(self) -> None:
        """See FastStream; ConfigurationError if a router has added a subscriber that watches a bucket."""
        for subscriber in self.subscribers:
            if isinstance(subscriber, KeyValueWatchSubscriber | ObjStoreWatchSubscriber):
                _refuse_bucket(self.watchword, "a subscriber with kv_watch or obj_watch")
        await super().start()

    async def key_value(self, *args: Any, **options: Any) -> Any:
        """Refuse: see the error."""
        _refuse_bucket(self.watchword, "key_value()")
        return await super().key_value(*args, **options)

    async def object_storage(self, *args: Any, **options: Any) -> Any:
        """Refuse: see the error."""
        _refuse_bucket(self.watchword, "object_storage()")
        return await super().object_storage(*args, **options)

    if not TYPE_CHECKING:  # or type checkers would lose FastStream's overloads

        def subscriber(self, *args: Any, **options: Any) -> Any:
            """See FastStream; ConfigurationError for one that watches a bucket."""
            for name in ("kv_watch", "obj_watch"):
                if options.get(name):
                    _refuse_bucket(self.watchword, f"{name}=")
            return super().subscriber(*args, **options)


class _Client(WatchwordClient):
    """A client whose stream contexts expect answers on the subject in the ``reply_to`` header."""

    def __init__(self, *, sole_reader: bool, **options: Any) -> None:
        super().__init__(**options)
        self._sole_reader = sole_reader

    def jetstream(self, *, sole_reader: bool | None = None, **opts: Any) -> VerifyingJetStream:
        return _Stream(self, sole_reader=self._sole_reader if sole_reader is None else sole_reader, **opts)


class _Stream(VerifyingJetStream):
    async def publish(  # noqa: PLR0917 - the base's own signature
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - as above
        stream: str | None = None,
        headers: dict[str, Any] | None = None,
        msg_ttl: float | None = None,
        **options: Any,
    ) -> api.PubAck:
        options.setdefault("answers_at", (headers or {}).get(_REPLY_TO, ""))
        return await super().publish(subject, payload, timeout, stream, headers, msg_ttl, **options)


class SigningFastProducer(NatsFastProducerImpl):
    """FastStream's producer; it binds answers to their requests."""

    def __init__(self, watchword: Watchword, holding: Holding, **options: Any) -> None:
        super().__init__(**options)
        self._watchword = watchword
        self._holding = holding

    async def publish(self, cmd: NatsPublishCommand) -> None:
        """See FastStream."""
        _refuse_schedule(self._watchword, cmd)
        cmd.destination = _answering(self._holding, cmd.destination)
        await self._holding.until_signed(partial(super().publish, cmd))

    async def request(self, cmd: NatsPublishCommand) -> Msg:
        """See FastStream."""
        return await self._holding.until_signed(partial(super().request, cmd))


class SigningStreamProducer(NatsJSFastProducer):
    """FastStream's producer for streams."""

    def __init__(self, watchword: Watchword, holding: Holding, **options: Any) -> None:
        super().__init__(**options)
        self._watchword = watchword
        self._holding = holding

    async def publish(self, cmd: NatsPublishCommand) -> api.PubAck:
        """See FastStream."""
        _refuse_schedule(self._watchword, cmd)
        return await self._holding.until_signed(partial(super().publish, cmd))

    async def request(self, cmd: NatsPublishCommand) -> Msg:
        """See FastStream."""
        return await self._holding.until_signed(partial(super().request, cmd))


def _answering(holding: Holding, subject: str) -> str:
    """Return ``subject`` bound to the request, if the message being handled named it as its reply subject.

    A message of core NATS has such a reply subject itself; a message of a stream names it in a header, which its sender
    signed, and which may name one of the server's own.
    """
    raw = getattr(holding.handled(), "raw_message", None)
    if type(subject) is not str or not isinstance(raw, DeliveredMsg) or (raw.headers or {}).get(_REPLY_TO) != subject:
        return subject
    request = raw.verified
    if subject.startswith(SERVERS_SUBJECTS):
        return HiddenReply.of(request)
    if request is None:
        return UnsignedReply(subject)
    return subject if request.position is None else ReplySubject.to(subject, request)


def _refuse_bucket(watchword: Watchword, what: str) -> None:
    if not watchword.observing:
        raise ConfigurationError(
            f"{what}: buckets are not supported: their values are read unverified. Publish to a stream, and"
            " subscribe with stream=...; or use the bucket on a separate plain faststream.nats.NatsBroker, and trust"
            " it no further than its writers"
        )


def _refuse_schedule(watchword: Watchword, cmd: NatsPublishCommand) -> None:
    if cmd.schedule is not None and not watchword.observing:
        raise ConfigurationError(
            "schedule=: the server would publish the message later, on another subject than the signed one, and it"
            " could not be verified. Call publish() when it is due"
        )
