"""The nats-py client: publishes are signed, deliveries verified, and calls that bypass this refused."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, Unpack, cast

from nats.aio.subscription import DEFAULT_SUB_PENDING_BYTES_LIMIT, DEFAULT_SUB_PENDING_MSGS_LIMIT

from watchword import ConfigurationError, SigningError
from watchword.agent import require
from watchword.message import SERVERS_SUBJECTS, channel_of, is_principal
from watchword_adapters.background import call_later
from watchword_adapters.copies import Copies
from watchword_adapters.nats._seam import Base, Wire
from watchword_adapters.nats.answers import Answers, HiddenReply, forwarded
from watchword_adapters.nats.core_reader import (
    Beginnings,
    CoreReader,
    SharedReader,
    SubscriptionReader,
    compare_clocks,
    watch_clocks,
)
from watchword_adapters.nats.discovery import is_discovery, unsigned
from watchword_adapters.nats.errors import STORES, BadSubject, check_pattern, check_queue
from watchword_adapters.nats.inbox import Inbox
from watchword_adapters.nats.jetstream import VerifyingJetStream, VerifyingManager
from watchword_adapters.nats.message import ACK_SUBJECTS, delivery_at, is_ack, server_msg
from watchword_adapters.nats.outbox import Outbox
from watchword_adapters.nats.quarantine import NatsQuarantine
from watchword_adapters.nats.requests import Requests
from watchword_adapters.nats.signing import Signing
from watchword_adapters.nats.subscription import VerifyingSubscription
from watchword_adapters.threads import Threads
from watchword_adapters.unsigned_reply import UnsignedReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from nats.aio.msg import Msg

    from watchword import VerifiedMessage, Watchword, WatchwordError
    from watchword.quarantine import Quarantine
    from watchword.spi import Channel
    from watchword_adapters.nats.message import VerifiedMsg
    from watchword_adapters.nats.options import ConnectOptions, ManagerOptions, StreamOptions
    from watchword_adapters.nats.outbox import Outgoing
    from watchword_adapters.nats.reader import Reader
    from watchword_adapters.nats.signing import Recipient

CONTROL_SUBJECTS: Final = ("$JS.", "$SYS.", "$SRV.")
"""Prefixes of subjects on which the server answers, or a service of nats-py's own."""


async def connect(
    servers: str | list[str] = "nats://localhost:4222",
    *,
    watchword: Watchword,
    recipient: Recipient | None = None,
    quarantine: Quarantine | None = None,
    reader: str | None = None,
    **options: Unpack[ConnectOptions],
) -> WatchwordClient:
    """Connect as ``nats.connect`` does; ``options`` are those of ``nats.aio.client.Client.connect``."""
    client = WatchwordClient(watchword=watchword, recipient=recipient, quarantine=quarantine, reader=reader)
    await client.connect(servers, **options)
    return client


class WatchwordClient(Base):
    """A ``nats.aio.client.Client`` that signs what it publishes and delivers only what verifies.

    ``recipient`` returns whom a message is meant for; ``recipient=`` of a call overrides it. The client's own requests
    to ``$JS.``, ``$SYS.`` and ``$SRV.`` are not signed, and only their responses may be unsigned. A message that cannot
    be judged (``Unavailable``) is counted and dropped, since core NATS does not redeliver; use JetStream if that is a
    problem.

    Rejected messages are copied to ``quarantine``; its default is the subject named in ``[quarantine]``, if any.
    ``reader`` names this instance: a unique name that stays the same after a restart. With a shared store, its
    subscriptions then continue from what they had seen; without one it is unused, and logged as
    ``replay.name_unused``. There is no ``wrap()``: a client's subscriptions already hold unverified messages.
    """

    def __init__(
        self,
        *,
        watchword: Watchword,
        recipient: Recipient | None = None,
        quarantine: Quarantine | None = None,
        reader: str | None = None,
    ) -> None:
        require(watchword, recipient=recipient, quarantine=quarantine)
        _check_name(reader)
        super().__init__()
        self.watchword: Final = watchword
        self.quarantine: Final = NatsQuarantine.from_settings(watchword) if quarantine is None else quarantine
        if isinstance(self.quarantine, NatsQuarantine):
            self.quarantine.attach(self)
        self.check: Final = Threads()
        self.outbox = Outbox(watchword, Wire(self))
        self._signing = Signing(watchword, recipient)
        self._answering = Answers(seconds=watchword.verifier.policy.window, clock=watchword.clock)
        self.requests = Requests(
            watchword,
            listen=self._listen,
            new_inbox=self.new_inbox,
            pong_behind=self.outbox.pong_behind,
            heard=self._answering.heard,
        )
        self.inbox = Inbox(watchword, self.requests)
        self.copies: Final = None if self.quarantine is None else Copies(self.quarantine, watchword.audit)
        self._instance = reader if watchword.verifier.shared_replay else None
        if reader is not None and self._instance is None:
            self._warn_unused(reader)
        self._has_name = False
        self._watching: asyncio.Task[None] | None = None
        self._beginnings = Beginnings(watchword, self._confirmed)
        self._warned: set[str] = set()

    if TYPE_CHECKING:  # the base declares its own class

        async def __aenter__(self) -> Self: ...

    async def connect(self, *args: Any, **options: Any) -> None:
        """See nats-py; ConfigurationError if the replay store cannot be trusted, Unavailable if it is down."""
        meter = self.watchword.audit.meter
        begun = meter.now()
        await self.watchword.verifier.start()
        if self._instance is not None and not self._has_name:
            self.watchword.lives.take_name(self._instance)
            self._has_name = True
        if self.copies is not None:
            self.copies.reopen()
        compare_clocks(self.watchword)
        await super().connect(*args, **options)
        meter.started("nats", meter.now() - begun)
        self.watchword.audit.later = call_later
        self.watchword.connected("nats")
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(watch_clocks(self.watchword))

    async def drain(self) -> None:
        """See nats-py; messages rejected from now on are not copied, since the stream could not respond."""
        await self._end_copies()
        await super().drain()

    async def close(self) -> None:
        """See nats-py; pending quarantine copies get some seconds to be written."""
        await self._end_copies()
        await super().close()

    async def _end_copies(self) -> None:
        if self.copies is not None and self.is_connected and not self.is_draining:
            await self.copies.close()

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
    ) -> None:
        """Accept a message for signing and sending; if it raises SigningError, nothing was sent.

        ``reply`` is signed, and replies to it are accepted for as long as a message is fresh. ``expires_at`` is in
        whole seconds since the epoch. A publish to the ``reply`` of a verified request is its answer, bound to it.
        Passing that subject on as ``reply`` is refused: the requester could not tell whose answers it asked for.
        """
        if isinstance(subject, HiddenReply):
            self.drop_answer(subject.request)
            return
        if subject.startswith(CONTROL_SUBJECTS):
            await super().publish(subject, payload, reply, headers)
            if subject.startswith(ACK_SUBJECTS) and is_ack(payload):
                self._acknowledged(subject)
            return
        owed = self._answering.request_at(subject)
        if reply:
            is_forwarded = isinstance(reply, UnsignedReply) or self._answering.request_at(reply) is not None
            if is_forwarded and not self.requests.asked_at(reply):
                self.refuse("publish(reply=) with the reply subject of a request", forwarded(subject, reply))
        sent = await self.send(
            subject, payload, reply, headers, recipient=recipient, expires_at=expires_at, answers=owed
        )
        if reply and sent is not None:
            self.requests.ask_at(reply, sent.request)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,  # noqa: ASYNC109 - the base's own signature
        old_style: bool = False,  # noqa: ARG002, FBT001, FBT002 - as above
        headers: dict[str, Any] | None = None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
    ) -> VerifiedMsg:
        """Return the first verified answer to this request; other messages are audited and ignored.

        The server's own responses, to requests to ``$JS.`` and the like, are unverified: a ServerMsg. ``old_style`` has
        no effect. nats.errors.TimeoutError after ``timeout`` seconds; NoRespondersError, and NotAllowed (also a
        TimeoutError), as soon as the server says so.
        """
        if subject.startswith(CONTROL_SUBJECTS):
            publish = self.publish
            raw = await self.requests.ask(subject, lambda inbox: publish(subject, payload, inbox, headers), timeout)
            told: Any = server_msg(raw)
            return cast("VerifiedMsg", told)
        self.requests.require()

        async def send(inbox: str) -> Reader:
            sent = await self.send(subject, payload, inbox, headers, recipient=recipient, expires_at=expires_at)
            return self.requests.reader_of(None if sent is None else sent.request)

        answer = await self.requests.ask(subject, send, timeout)
        return cast("VerifiedMsg", answer)

    async def answer(
        self, reply: str, data: bytes, headers: Mapping[str, str] | None, request: VerifiedMessage | None
    ) -> None:
        """Send an answer, signed and bound to ``request``; unsigned if the request was not verified."""
        if reply.startswith(SERVERS_SUBJECTS):
            raise BadSubject(f"reply subject {reply!r}: an answer there would be an order to the server")
        if request is None:
            await super().publish(reply, data, headers=dict(headers or {}) or None)
        else:
            await self.send(reply, data, "", headers, answers=request)

    def drop_answer(self, request: VerifiedMessage | None) -> None:
        """Warn once about a dropped answer, whose subject is one of the server's own."""
        self._warn_once(
            "nats.answer_dropped",
            asked_by="an unverified message" if request is None else request.principal,
            why="its reply subject is one of the server's own ($...), where an answer would be an order to the server",
            remedy="nothing to change here; find the sender",
        )

    async def send(
        self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None, **options: Any
    ) -> Outgoing | None:
        """Queue one message and return it; None for one that was sent unsigned.

        Only observe mode sends unsigned: a message that cannot be signed, and the answer to an unverified message.
        ``options`` are those of ``Signing.outgoing``.
        """
        if not isinstance(subject, UnsignedReply):
            try:
                outgoing = self._signing.outgoing(subject, payload, reply, headers, most=self.max_payload, **options)
            except (SigningError, ConfigurationError) as error:
                self.refuse(f"publish: {type(error).__name__}", error, subject)
            else:
                await self.outbox.put(outgoing)
                return outgoing
        await super().publish(subject, payload, reply, None if headers is None else dict(headers))
        return None

    async def store(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        *,
        timeout: float,  # noqa: ASYNC109 - as request
        answers_at: str = "",
        **options: Any,
    ) -> Msg:
        """Publish to a stream and return the server's PubAck, which is unsigned.

        ``answers_at`` is a subject, named in the payload or a header, on which answers are accepted.
        """

        async def send(inbox: str) -> None:
            sent = await self.send(subject, payload, inbox, headers, stored=True, **options)
            if answers_at and sent is not None:
                self.requests.ask_at(answers_at, sent.request)

        return await self.requests.ask(subject, send, timeout)

    async def subscribe(  # noqa: PLR0917 - the base's own signature
        self,
        subject: str,
        queue: str = "",
        cb: Callable[[VerifiedMsg], Awaitable[None]] | None = None,
        future: asyncio.Future[Any] | None = None,
        max_msgs: int = 0,
        pending_msgs_limit: int = DEFAULT_SUB_PENDING_MSGS_LIMIT,
        pending_bytes_limit: int = DEFAULT_SUB_PENDING_BYTES_LIMIT,
    ) -> VerifyingSubscription:
        """Subscribe; callback, ``next_msg`` and ``messages`` yield VerifiedMsg (in observe mode ObservedMsg) only.

        ``future`` receives the first of them. A subject under this client's inbox prefix delivers only answers to its
        own requests.
        """
        if future is not None:
            cb = partial(_settle, future)
        if cb is not None and is_discovery(subject, cb):
            return await self.open(subject, reader=None, cb=unsigned(cast("Any", cb)))
        if queue:
            self.refuse_shared(f"queue group {queue} shares the work", [subject])
        reader = self._subject_reader(subject, queue)
        try:
            subscription = await self.open(
                subject,
                reader=reader,
                queue=queue,
                cb=cb,
                max_msgs=max_msgs,
                pending_msgs_limit=pending_msgs_limit,
                pending_bytes_limit=pending_bytes_limit,
            )
        except BaseException:
            reader.close()
            raise
        self._beginnings.add(reader)
        return subscription

    async def open(
        self, subject: str, *, reader: Reader | None, queue: str = "", cb: Any = None, **options: Any
    ) -> VerifyingSubscription:
        """Open a subscription whose messages ``reader`` judges; like the base, but with our class."""
        check_pattern(subject)
        check_queue(queue)

        def make(number: int) -> VerifyingSubscription:
            return VerifyingSubscription(self, number, subject, queue=queue, cb=cb, reader=reader, **options)

        return await self.add(make)

    async def closed(self) -> None:
        """See the base."""
        if self.copies is not None:
            await self.copies.close(0)
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        self.requests.close()
        self._beginnings.close()
        self.watchword.lives.rest()
        if self._has_name:
            self.watchword.lives.free_number(f"name:{self._instance}", 0)
            self._has_name = False

    def refuse(self, call: str, error: WatchwordError, subject: str | None = None) -> None:
        """Raise the error of a call that cannot be verified; in observe mode, warn once per ``call`` and allow it.

        The mode is that of ``subject``'s channel; without a subject, the mode of the whole process. The warning says
        what to write instead.
        """
        if not (self.watchword.observing if subject is None else self.watchword.observes(self.channel_of(subject))):
            raise error from None
        self._warn_once("nats.call_uncovered", call=call, remedy=str(error))

    def refuse_reading(self, call: str, error: WatchwordError, subjects: Iterable[str]) -> None:
        """Refuse a way of reading ``subjects``, as ``refuse`` does; if observe mode allows it, enforcing is blocked.

        A later change to enforce mode is then refused for as long as this process runs.
        """
        self._let_through(error, subjects)
        self._warn_once("nats.call_uncovered", call=call, remedy=str(error))

    def refuse_shared(self, scope: str, subjects: Iterable[str], *, instead: WatchwordError | None = None) -> None:
        """Refuse a shared way of reading if there is no shared store; see ``refuse_reading``.

        ``instead`` replaces the error if there is another reason.
        """
        if not self.watchword.verifier.shared_replay:
            remedy = f"one that all members share: {STORES}"
            told = f"{scope}: a replay to another member would go undetected; configure a store, {remedy}"
            self._let_through(instead or ConfigurationError(told), subjects)
            self._warn_once("replay.scope_shared", scope=scope, remedy=str(instead or remedy))

    def _let_through(self, error: WatchwordError, subjects: Iterable[str]) -> None:
        for subject in subjects:
            if not self.watchword.observes(self.channel_of(subject)):
                raise error from None
            self.watchword.hinder(self.channel_of(subject), str(error))

    def _warn_once(self, event: str, **fields: str) -> None:
        about = f"{event} {next(iter(fields.values()))}"
        if about not in self._warned:
            self._warned.add(about)
            self.watchword.audit.warn(event, **fields)

    def channel_of(self, subject: str) -> Channel:
        """Return the channel of a subject, which may have wildcards."""
        return channel_of("nats", self.watchword.realm, subject)

    def jetstream(  # type: ignore[override] # the base takes any option, and fails on a wrong one
        self, *, sole_reader: bool = False, **opts: Unpack[StreamOptions]
    ) -> VerifyingJetStream:
        """Return the JetStream context; ``opts`` are the base's.

        ``sole_reader`` states that only this process reads each durable consumer that it binds, so that replay memory
        in this process is enough.
        """
        if type(sole_reader) is not bool:
            raise ConfigurationError(
                f"sole_reader={sole_reader!r}: write True if only this process reads each durable, else False"
            )
        return VerifyingJetStream(self, sole_reader=sole_reader, **opts)

    def jsm(self, **opts: Unpack[ManagerOptions]) -> VerifyingManager:  # type: ignore[override] # as above
        """Return the JetStream manager."""
        return VerifyingManager(self, **opts)

    def _warn_unused(self, name: str) -> None:
        """Warn that this instance's name is unused, since there is no shared store."""
        has_journal = self.watchword.verifier.journal is not None
        self.watchword.audit.warn(
            "replay.name_unused",
            reader=name,
            cost="nothing is stored under this name: that takes a store shared by all processes",
            remedy=f"omit reader=: the journal is enough if one process of this agent runs at a time on this"
            f" machine; if more do, or it moves, write {STORES}"
            if has_journal
            else f"write {STORES}; or name a directory in [replay] state: its journal is enough if one process of"
            " this agent runs at a time on one machine",
        )

    def check_duplicate_window(self, stream: str, seconds: float | None) -> None:
        """Warn once about a stream whose deduplication window is shorter than the policy's window."""
        window = self.watchword.verifier.policy.window
        if seconds is not None and seconds < window and stream not in self._warned:
            self._warned.add(stream)
            self.watchword.audit.warn(
                "nats.duplicate_window_short",
                stream=stream,
                duplicate_window=seconds,
                remedy=f"set duplicate_window={window:g} on the stream, so that it drops repeats itself",
            )

    def _subject_reader(self, subject: str, queue: str) -> CoreReader:
        """Return the reader of a core NATS subscription; an inbox is read alone, and receives replies only."""
        prefix = self.inbox_prefix
        solicited = subject.startswith(prefix)
        options: dict[str, Any] = {
            "expected": self.requests.expectation(prefix),
            "admitted": self._answering.heard,
            "copies": self.copies,
        }
        if solicited or not (queue or self._instance):
            return SubscriptionReader(self.watchword, subject, solicited=solicited, **options)
        return SharedReader(self.watchword, subject, queue=queue, client_name=self._instance, **options)

    async def _confirmed(self) -> None:
        """Wait until the server has answered a PING sent after everything so far; survives reconnects."""
        while True:
            pong, connection = self.outbox.pong_behind(), self.next_connection()
            await asyncio.wait((pong, connection), return_when=asyncio.FIRST_COMPLETED)
            if pong.done():
                return

    async def ready(self) -> None:
        """Wait until messages sent from now on are no longer dropped because a memory has only just begun."""
        for reader in self.readers():
            if isinstance(reader, CoreReader):
                await reader.begun()
        lives, clock = self.watchword.lives, self.watchword.clock
        while (left := lives.floor_ends_at - clock()) > 0:  # noqa: ASYNC110 - polled: the verifier's clock decides
            await asyncio.sleep(min(left, 1.0))

    def _acknowledged(self, subject: str) -> None:
        """Record an acknowledged delivery, so that its id can expire."""
        delivery = delivery_at(subject)
        if delivery is not None:
            self.watchword.lives.acknowledged_at(*delivery.by, delivery.sequence)

    async def _listen(self, subject: str, cb: Callable[[Msg], Awaitable[None]]) -> VerifyingSubscription:
        return await self.open(subject, reader=None, cb=cb)


def _check_name(reader: object) -> None:
    if reader is not None and not (isinstance(reader, str) and is_principal(reader)):
        raise ConfigurationError(
            f"reader={reader!r}: write this instance's unique name, 1 to 255 bytes of UTF-8 without control characters"
        )


async def _settle(future: asyncio.Future[Any], msg: Msg) -> None:
    if not future.done():
        future.set_result(msg)
