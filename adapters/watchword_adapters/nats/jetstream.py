"""The JetStream context and manager: publishes are signed, reads verified, and calls that bypass this refused."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from nats import errors
from nats.errors import Error
from nats.js import JetStreamManager, api
from nats.js.client import DEFAULT_JS_SUB_PENDING_BYTES_LIMIT, DEFAULT_JS_SUB_PENDING_MSGS_LIMIT
from nats.js.errors import NotFoundError

from watchword import ConfigurationError, Unavailable
from watchword.lives import stream_reader
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword_adapters.nats._seam import BasePullSubscription, BasePushSubscription, BaseState
from watchword_adapters.nats.errors import STORES, BadName
from watchword_adapters.nats.jetstream_publish import StreamPublisher
from watchword_adapters.nats.jetstream_reader import MAX_ACK_PENDING, StreamReader
from watchword_adapters.nats.jetstream_rebuild import StreamMemory
from watchword_adapters.nats_rights import NotAllowed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from nats.aio.msg import Msg
    from nats.js.kv import KeyValue
    from nats.js.object_store import ObjectStore

    from watchword import WatchwordError
    from watchword.signatures import CheckRunner
    from watchword_adapters.nats.client import WatchwordClient
    from watchword_adapters.nats.message import VerifiedMsg

T = TypeVar("T")


class _Known(NamedTuple):
    """A consumer and its stream as the server describes them; None if it does not, and then ``why``."""

    consumer: api.ConsumerInfo | None
    stream: api.StreamInfo | None
    why: Error | None


_API: Final = "$JS."

_TO_JUDGE: Final = 0.5
"""Seconds past a fetch's deadline that verifying its messages may take."""

_OWN: Final[ContextVar[bool]] = ContextVar("own", default=False)
"""Set while the base creates an ephemeral consumer, whose name no other client knows."""


class _NoRawReads(JetStreamManager):
    """Allows management, but refuses reading a stored message, which has no position to be judged by."""

    async def get_msg(self, *args: Any, **options: Any) -> api.RawStreamMsg:
        """Refuse: see the error."""
        client: WatchwordClient = self._nc  # type: ignore[assignment]  # the base names its own client class
        client.refuse(
            "get_msg()",
            ConfigurationError(
                "get_msg() and get_last_msg() return stored messages unverified: read them with "
                "pull_subscribe() and ConsumerConfig(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=...)"
            ),
        )
        return await super().get_msg(*args, **options)


class VerifyingManager(_NoRawReads):
    """A ``nats.js.JetStreamManager`` that does not hand out unverified messages."""


class VerifyingJetStream(StreamPublisher, _NoRawReads):
    """A ``nats.js.JetStreamContext`` that signs what it stores and delivers only verified messages.

    A rejected delivery is terminated with its reason; one that cannot be judged yet is redelivered after a delay, so
    leave a margin in ``max_deliver``. Buckets (key value, objects) are refused.
    """

    def __init__(self, conn: Any, *, sole_reader: bool = False, **opts: Any) -> None:
        super().__init__(conn, **opts)
        if not f"{self._prefix}.".startswith(_API):
            refusal = f"prefix {self._prefix!r}: only responses from $JS. may be unsigned; use domain=..."
            conn.refuse("jetstream(prefix=)", ConfigurationError(refusal))
        self._client: WatchwordClient = conn
        self._sole_reader = sole_reader

    async def subscribe(
        self,
        subject: str,
        queue: str | None = None,
        cb: Callable[[VerifiedMsg], Awaitable[None]] | None = None,
        durable: str | None = None,
        *args: Any,
        **options: Any,
    ) -> BasePushSubscription:
        """Push-subscribe; the options are the base's."""
        await self._admit_new(subject, durable or queue, *args, **options)
        handler: Any = cb
        subscription: Any = await super().subscribe(subject, queue, handler, durable, *args, **options)
        return cast("BasePushSubscription", subscription)

    async def subscribe_bind(  # noqa: PLR0917 - the base's own signature
        self,
        stream: str,
        config: api.ConsumerConfig,
        consumer: str,
        cb: Callable[[Any], Awaitable[None]] | None = None,
        manual_ack: bool = False,  # noqa: FBT001, FBT002 - the base's own signature
        ordered_consumer: bool = False,  # noqa: FBT001, FBT002 - as above
        pending_msgs_limit: int = DEFAULT_JS_SUB_PENDING_MSGS_LIMIT,
        pending_bytes_limit: int = DEFAULT_JS_SUB_PENDING_BYTES_LIMIT,
    ) -> BasePushSubscription:
        """Push-subscribe to an existing consumer; ``subscribe`` calls this too."""
        if config.deliver_subject is None:
            raise ConfigurationError(f"consumer {consumer!r} is a pull consumer: use pull_subscribe_bind()")
        reader = await self._reader(stream, consumer, config, named=False)
        if cb is not None and not manual_ack and config.ack_policy != api.AckPolicy.NONE:
            cb = self._auto_ack_callback(cb)
        reader.gate.hold()  # the server deletes a consumer without a listener, so subscribe before the stream is reread
        try:
            if reader.memory is not None:
                await reader.memory.look()
            subscription = await self._client.open(
                config.deliver_subject,
                reader=reader,
                queue=config.deliver_group or "",
                cb=cb,
                pending_msgs_limit=pending_msgs_limit,
                pending_bytes_limit=pending_bytes_limit,
            )
        except BaseException:
            reader.gate.release()
            reader.close()
            raise
        push = BasePushSubscription(self, subscription, stream, consumer)
        state = _OrderedState(
            js=self,
            conn=self._nc,
            stream=stream,
            ordered=ordered_consumer,
            psub=push,
            sub=subscription,
            ccreq=config,
        )
        state.reader = reader
        subscription.attach(state)  # first: messages that arrive meanwhile count for the order as well
        try:
            if reader.memory is not None:
                await reader.memory.begin()
        except BaseException:
            await subscription.unsubscribe()
            raise
        finally:
            reader.gate.release()
        state.watch(heartbeats=bool(config.idle_heartbeat), flow=bool(ordered_consumer))
        return push

    async def pull_subscribe(
        self, subject: str, durable: str | None = None, *args: Any, **options: Any
    ) -> VerifyingPullSubscription:
        """See nats-py; without ``durable`` the consumer belongs to this subscription alone."""
        await self._admit_new(subject, durable, *args, **options)
        token = _OWN.set(not durable)
        try:
            subscription: Any = await super().pull_subscribe(subject, durable, *args, **options)
            return cast("VerifyingPullSubscription", subscription)
        finally:
            _OWN.reset(token)

    async def pull_subscribe_bind(  # noqa: PLR0917 - the base's own signature
        self,
        consumer: str | None = None,
        stream: str | None = None,
        inbox_prefix: bytes | None = None,
        pending_msgs_limit: int = DEFAULT_JS_SUB_PENDING_MSGS_LIMIT,
        pending_bytes_limit: int = DEFAULT_JS_SUB_PENDING_BYTES_LIMIT,
        name: str | None = None,
        durable: str | None = None,
    ) -> VerifyingPullSubscription:
        """Bind to an existing pull consumer; ``pull_subscribe`` calls this too."""
        bound = durable or name or consumer
        if not stream or not bound:
            raise BadName("pull_subscribe_bind() needs the names of stream and consumer")
        reader = await self._reader(stream, bound, api.ConsumerConfig(), named=not _OWN.get())
        try:
            if reader.memory is not None:
                await reader.memory.begin()
        except BaseException:
            reader.close()
            raise
        # The caller's prefix may be one that it may subscribe to; otherwise as the base creates an inbox.
        inbox = (inbox_prefix.decode() if inbox_prefix else "") or f"{self._client.new_inbox()}."
        deliver = inbox + self._client.new_inbox().rpartition(".")[2]
        subscription = await self._client.open(
            deliver, reader=None, pending_msgs_limit=pending_msgs_limit, pending_bytes_limit=pending_bytes_limit
        )
        return VerifyingPullSubscription(
            requests=self._client.requests,
            js=self,
            sub=subscription,
            stream=stream,
            consumer=bound,
            deliver=deliver.encode(),
            reader=reader,
            check=self._client.check,
        )

    async def key_value(self, *args: Any, **options: Any) -> KeyValue:
        """Refuse: see the error."""
        self._refuse_buckets()
        return await super().key_value(*args, **options)

    async def create_key_value(self, *args: Any, **options: Any) -> KeyValue:
        """Refuse: see the error."""
        self._refuse_buckets()
        return await super().create_key_value(*args, **options)

    async def object_store(self, *args: Any, **options: Any) -> ObjectStore:
        """Refuse: see the error."""
        self._refuse_buckets()
        return await super().object_store(*args, **options)

    async def create_object_store(self, *args: Any, **options: Any) -> ObjectStore:
        """Refuse: see the error."""
        self._refuse_buckets()
        return await super().create_object_store(*args, **options)

    def _refuse_buckets(self) -> None:
        self._client.refuse(
            "buckets",
            ConfigurationError(
                "buckets are not supported: their values are read unverified. Publish to a stream and subscribe to it,"
                " or use the bucket on a separate plain nats.connect() connection and trust it no further than its "
                "writers"
            ),
        )

    async def _reader(self, stream: str, consumer: str, config: api.ConsumerConfig, *, named: bool) -> StreamReader:
        """Return a reader; one that reads alone gets a memory, which is yet to be built."""
        known = await self._known(stream, consumer)
        if known.consumer is not None:  # the caller's configuration may differ from the existing consumer's
            config = known.consumer.config
        filters = config.filter_subjects or [config.filter_subject or ">"]
        subjects = filters if filters != [">"] or known.stream is None else known.stream.config.subjects or filters
        for call, refusal in _refusals(config, filters):
            self._client.refuse_reading(call, ConfigurationError(refusal), subjects)
        if known.stream is not None:
            self._client.check_duplicate_window(stream, known.stream.config.duplicate_window)
        is_lasting = named or bool(config.durable_name)
        scope = f"consumer {consumer} of stream {stream}"
        shared = self._why_shared(consumer, config, named=is_lasting)
        if shared is None and (known.consumer is None or known.stream is None):
            shared = f"its configuration is unknown ({known.why})"
            self._client.refuse_shared(f"{scope}: {shared}", subjects, instead=_unknown(scope, known.why))
        elif shared is not None or (known.stream and (shared := _why_forgetful(known.stream.config))):
            self._client.refuse_shared(f"{scope}: {shared}", subjects)
        if shared is not None:
            observed = all(self._client.watchword.observes(self._client.channel_of(one)) for one in subjects)
            await self._check_birth(stream, consumer, known, is_new=not is_lasting, observed=observed)
        name = stream_reader(stream, consumer)
        reader = StreamReader(
            self._client.watchword,
            self._client,
            name,
            stream=stream,
            consumer=consumer,
            acknowledged=(config.ack_policy or api.AckPolicy.EXPLICIT) == api.AckPolicy.EXPLICIT,
            most_deliveries=config.max_deliver or 0,
            exclusive=shared is None,
            is_lasting=is_lasting,
            copies=self._client.copies,
            deletes=known.stream is None or known.stream.config.retention not in {None, api.RetentionPolicy.LIMITS},
            max_ack_pending=config.max_ack_pending or MAX_ACK_PENDING,
        )
        if shared is None:
            reader.memory = StreamMemory(self, self._client, reader)
        return reader

    async def _admit_new(
        self,
        subject: str,
        durable: str | None,
        stream: str | None = None,
        config: api.ConsumerConfig | None = None,
        *_: Any,
        **__: Any,
    ) -> None:
        """Admit a consumer to a shared store before the server creates it, and so before its first delivery."""
        store, name = self._client.watchword.verifier.replay, durable or (config and config.durable_name)
        if not name or not isinstance(store, SharedReplayStore):
            return
        stream = stream or await self._jsm.find_stream_name_by_subject(subject)
        try:
            await self._jsm.consumer_info(stream, name)
        except NotFoundError:
            await _asked(store.admit_reader(stream_reader(stream, name), ReaderBirth(floor=-inf)))
        except Error:  # this user may not ask
            return

    async def _check_birth(self, stream: str, consumer: str, known: _Known, *, is_new: bool, observed: bool) -> None:
        """Refuse a consumer that may have delivered messages that the shared store does not know.

        In observe mode, the stream's present messages are accepted as if the operator had done so: they are delivered
        anyway, and what comes later is known when enforcement begins.
        """
        store, name = self._client.watchword.verifier.replay, stream_reader(stream, consumer)
        if not isinstance(store, SharedReplayStore):
            return
        if is_new:
            await _asked(store.admit_reader(name, ReaderBirth(floor=-inf)))
        elif await _asked(store.birth(name)) is None:
            if observed:
                if known.stream is not None:
                    floor = self._client.watchword.lives.floor_now()
                    accepted = {stream: (known.stream.state.last_seq, floor)}
                    await _asked(store.admit_reader(name, ReaderBirth(floor=floor, accepted=accepted)))
                return
            past = str(known.why)
            if known.consumer is not None:
                info, delivered = known.consumer, known.consumer.delivered
                past = (
                    f"up to {0 if delivered is None else delivered.consumer_seq} messages delivered,"
                    f" {info.num_ack_pending or 0} of them not acknowledged, {info.num_pending or 0} waiting"
                )
            raise ConfigurationError(
                f"consumer {consumer} of stream {stream} may have a past ({past}) that this store does not know, so a"
                " copy of a delivered message would look like a new message. State what applies: `watchword store"
                f" init {name} --accept-backlog` (what the stream holds now is new, and copies in it pass once), or"
                f" `watchword store init {name} --nothing-handled-before`"
            )

    async def _known(self, stream: str, consumer: str) -> _Known:
        """Request the consumer and its stream; if this user may not, cautious assumptions apply."""
        info, of_stream = await asyncio.gather(
            _answer(self._jsm.consumer_info, stream, consumer), _answer(self._jsm.stream_info, stream)
        )
        failed = [one for one in (info, of_stream) if isinstance(one, Error)]
        rights = [right for one in failed if isinstance(one, NotAllowed) for right in one.rights]
        why = NotAllowed(*rights) if rights else failed[-1] if failed else None
        return _Known(
            None if isinstance(info, Error) else info, None if isinstance(of_stream, Error) else of_stream, why
        )

    def _why_shared(self, consumer: str, config: api.ConsumerConfig, *, named: bool) -> str | None:
        """Return why other readers may share the consumer; None if this is the only one."""
        if config.deliver_group:
            return "its deliver group shares the work"
        if named and not self._sole_reader:
            return f"others may read {consumer} too; if none does, write jetstream(sole_reader=True)"
        return None


def _why_forgetful(stream: api.StreamConfig) -> str | None:
    """Return why a stream cannot serve as its reader's memory; None if it can."""
    if stream.retention not in {None, api.RetentionPolicy.LIMITS}:
        return f"a stream of retention {stream.retention} deletes acknowledged messages"
    if (stream.max_msgs_per_subject or -1) > 0 or stream.allow_rollup_hdrs or stream.allow_msg_ttl:
        return "max_msgs_per_subject, allow_rollup_hdrs or allow_msg_ttl may delete an original before its copy arrives"
    return None


def _unknown(scope: str, error: Error | None) -> WatchwordError:
    """Return the error for a stream that is its reader's memory and cannot be inspected."""
    if isinstance(error, NotFoundError):
        return ConfigurationError(f"{scope}: {error.description}; create it first, or correct the name")
    if isinstance(error, NotAllowed):
        return ConfigurationError(
            f"{scope}: the stream is this reader's memory but cannot be read: {error}, or configure a store, {STORES}"
        )
    return Unavailable("replay", f"{scope}: the stream is this reader's memory but cannot be read: {error}")


class VerifyingPullSubscription(BasePullSubscription):
    """A pull subscription; ``fetch`` returns verified messages only."""

    def __init__(self, *, reader: StreamReader, check: CheckRunner, **options: Any) -> None:
        super().__init__(**options)
        self._reader = reader
        self._check = check
        self._judging: asyncio.Task[list[Msg]] | None = None
        self._surplus: list[Any] = []
        reader.waiting = options["sub"].waiting

    async def fetch(  # type: ignore[override]  # of the base's list others could be put in
        self,
        batch: int = 1,
        timeout: float | None = 5,  # noqa: ASYNC109 - the base's own signature
        heartbeat: float | None = None,
    ) -> list[VerifiedMsg]:
        """Return up to ``batch`` verified messages; the base's TimeoutError after ``timeout`` seconds without any.

        Messages still being verified then are returned by the next call.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            if self._surplus:
                delivered, self._surplus = self._surplus[:batch], self._surplus[batch:]
                return delivered
            if self._judging is None:
                try:
                    fetched = await super().fetch(batch, timeout, heartbeat)
                except TimeoutError as error:  # the base raises Python's own if little time is left
                    raise error if isinstance(error, Error) else errors.TimeoutError from None
                self._judging = loop.create_task(self._reader.judge_many(fetched, self._check))
            judging = self._judging
            await asyncio.wait((judging,), timeout=None if deadline is None else max(_TO_JUDGE, deadline - loop.time()))
            if not judging.done():
                raise errors.TimeoutError
            self._judging = None
            self._surplus += judging.result()
            if not self._surplus and deadline is not None and (timeout := deadline - loop.time()) <= 0:
                raise errors.TimeoutError

    async def unsubscribe(self) -> None:
        """Stop reading; see the base."""
        await super().unsubscribe()
        self._reader.close()


class _OrderedState(BaseState):
    """Names each replacement of an ordered consumer, so that the reader knows the name before the first delivery."""

    reader: StreamReader

    async def reset_ordered_consumer(self, sseq: int | None) -> bool:
        """Recreate the consumer from ``sseq`` on."""
        self.reader.rebind(self.name_successor())
        self.reader.resetting = True
        try:
            return await super().reset_ordered_consumer(sseq)
        finally:
            self.reader.resetting = False


async def _answer(ask: Callable[..., Awaitable[T]], *names: str) -> T | Error:
    """Return the server's response, or its error."""
    try:
        return await ask(*names)
    except Error as error:
        return error


async def _asked(answer: Awaitable[T]) -> T:
    """Return a store's answer; Unavailable if it fails."""
    try:
        return await answer
    except ConfigurationError:
        raise
    except Exception as error:
        raise Unavailable("replay", type(error).__name__) from error


def _refusals(config: api.ConsumerConfig, filters: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each setting of a consumer that prevents verification, with what to write instead."""
    if config.headers_only:
        yield "headers_only", "headers_only omits the signed payload: request whole messages"
    if config.deliver_policy == api.DeliverPolicy.LAST_PER_SUBJECT and (
        len(filters) > 1 or {"*", ">"} & set(filters[0].split("."))
    ):
        yield (
            "DeliverPolicy.LAST_PER_SUBJECT",
            (
                "DeliverPolicy.LAST_PER_SUBJECT over several subjects skips messages, and the last one may be a replay"
                " that goes undetected: subscribe to each subject, or use DeliverPolicy.ALL"
            ),
        )
    policy = config.ack_policy or api.AckPolicy.EXPLICIT
    if policy not in {api.AckPolicy.EXPLICIT, api.AckPolicy.NONE}:
        yield (
            f"ack policy {policy}",
            f"ack policy {policy}: one ack would cover messages not judged yet; use AckPolicy.EXPLICIT or NONE",
        )
