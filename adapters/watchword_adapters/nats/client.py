"""The nats-py client with every way in and out covered, or refused."""

from __future__ import annotations

from collections import Counter
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from nats import errors
from nats.aio.client import Client
from nats.aio.subscription import DEFAULT_SUB_PENDING_BYTES_LIMIT, DEFAULT_SUB_PENDING_MSGS_LIMIT

from watchword import ConfigurationError, Reason, Rejected
from watchword_adapters.nats.asking import AskingClient
from watchword_adapters.nats.discovery import is_discovery, unsigned
from watchword_adapters.nats.headers import CONTROL, NO_RESPONDERS, HeaderBlock, read_block
from watchword_adapters.nats.jetstream import VerifyingJetStream, VerifyingManager
from watchword_adapters.nats.quarantine import NatsQuarantine
from watchword_adapters.nats.reader import Reader
from watchword_adapters.nats.subscription import VerifyingSubscription
from watchword_adapters.threads import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from watchword import Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.nats.signing import Recipient

_ACK: Final = b"$JS.ACK."
_FLOW_CONTROL: Final = "$JS.FC."
_STALLED: Final = "Nats-Consumer-Stalled"


async def connect(
    servers: str | list[str] = "nats://localhost:4222",
    *,
    watchword: Watchword,
    recipient: Recipient | None = None,
    quarantine: Quarantine | None = None,
    reader: str | None = None,
    **options: Any,
) -> WatchwordClient:
    """Connect as ``nats.connect`` does; ``options`` are those of ``nats.aio.client.Client.connect``."""
    client = WatchwordClient(watchword=watchword, recipient=recipient, quarantine=quarantine, reader=reader)
    await client.connect(servers, **options)
    return client


class WatchwordClient(AskingClient):
    """A ``nats.aio.client.Client`` that signs what it publishes and delivers only what verifies.

    ``recipient`` names whom a message is meant for; ``recipient=`` of one call overrides it. The client's own requests
    to ``$JS.``, ``$SYS.`` and ``$SRV.`` are not signed, and only their answers may be unsigned. A message that cannot
    be judged (``Unavailable``) is counted and dropped, for core NATS offers nothing twice; use JetStream where that
    hurts.

    What is not delivered goes into ``quarantine``; without one, to the subject that ``[quarantine]`` names, if any.
    ``reader`` names this instance, the same after a restart and no other's: with a shared store its subscriptions then
    go on where they were; without, what was issued before a subscription began (and the skew) is stale.
    There is no ``wrap()``: an existing client's subscriptions already hold messages that nobody judged.
    """

    def __init__(
        self,
        *,
        watchword: Watchword,
        recipient: Recipient | None = None,
        quarantine: Quarantine | None = None,
        reader: str | None = None,
    ) -> None:
        super().__init__(watchword=watchword, recipient=recipient)
        self.quarantine: Final = NatsQuarantine.from_settings(watchword) if quarantine is None else quarantine
        if isinstance(self.quarantine, NatsQuarantine):
            self.quarantine.attach(self)
        self.check: Final = Threads()
        self._instance = reader if watchword.verifier.shared_replay else None
        self._subscribed: Counter[str] = Counter()
        self._warned: set[str] = set()

    async def connect(self, *args: Any, **options: Any) -> None:
        """See nats-py; ConfigurationError where the replay store cannot be trusted, Unavailable where it is down."""
        await self.watchword.verifier.start()
        await super().connect(*args, **options)

    async def subscribe(  # noqa: PLR0917 - the base's own signature
        self,
        subject: str,
        queue: str = "",
        cb: Callable[[Msg], Awaitable[None]] | None = None,
        future: asyncio.Future[Msg] | None = None,
        max_msgs: int = 0,
        pending_msgs_limit: int = DEFAULT_SUB_PENDING_MSGS_LIMIT,
        pending_bytes_limit: int = DEFAULT_SUB_PENDING_BYTES_LIMIT,
    ) -> VerifyingSubscription:
        """Subscribe; callback, ``next_msg`` and ``messages`` give VerifiedMsg (in observe mode ObservedMsg) only.

        ``future`` gets the first of them.

        On a subject under this client's inbox prefix only answers to what it asked are delivered.
        """
        if future is not None:
            cb = partial(_settle, future)
        if cb is not None and is_discovery(subject, cb):
            return await self.open(subject, reader=None, cb=unsigned(cb))
        if queue:
            self.refuse_shared(f"queue group {queue} shares the work")
        reader = self._subject_reader(subject, queue)
        return await self.open(
            subject,
            reader=reader,
            queue=queue,
            cb=cb,
            max_msgs=max_msgs,
            pending_msgs_limit=pending_msgs_limit,
            pending_bytes_limit=pending_bytes_limit,
        )

    def jetstream(self, *, sole_reader: bool = False, **opts: Any) -> VerifyingJetStream:
        """Return the JetStream context; ``opts`` are the base's.

        ``sole_reader`` says that this process alone reads each durable consumer it binds, so that replay memory in this
        process is enough for it.
        """
        return VerifyingJetStream(self, sole_reader=sole_reader, **opts)

    def jsm(self, **opts: Any) -> VerifyingManager:
        """Return the JetStream manager."""
        return VerifyingManager(self, **opts)

    def refuse_shared(self, scope: str) -> None:
        """Refuse a scope that others may share, where no store is shared as well; in observe mode warn once."""
        if self.watchword.verifier.shared_replay:
            return
        remedy = 'one that all members share: [replay] store = "sqlite", "redis" or "nats_kv"'
        if not self.watchword.observing:
            raise ConfigurationError(
                f"{scope}: a replay to another member would go unseen; configure a store, {remedy}"
            )
        if scope not in self._warned:
            self._warned.add(scope)
            self.watchword.audit.warn("replay.scope_shared", scope=scope, remedy=remedy)

    def reader_name(self, scope: str, *, exclusive: bool) -> str:
        """Name a reader; one that reads alone is no other's."""
        return self._own(scope) if exclusive else scope

    def check_duplicate_window(self, stream: str, seconds: float | None) -> None:
        """Warn once of a stream whose own de-duplication is shorter than the policy's window."""
        window = self.watchword.verifier.policy.window
        if seconds is not None and seconds < window and stream not in self._warned:
            self._warned.add(stream)
            self.watchword.audit.warn(
                "nats.duplicate_window_short",
                stream=stream,
                duplicate_window=seconds,
                remedy=f"set duplicate_window={window:g} on the stream, so that it drops repeats itself",
            )

    def _subject_reader(self, subject: str, queue: str) -> Reader:
        """Return the reader of a subscription of core NATS; an inbox is nobody else's, and gets replies only."""
        floor, own_inbox = -inf, subject.startswith(f"{self._inbox_prefix.decode()}.")
        exclusive = own_inbox or not (queue or self._instance)
        if exclusive:
            name = self._own("sub")
        elif queue:
            name = f"queue:{queue}"
        else:
            self._subscribed[subject] += 1
            name = f"sub:{self._instance}:{self._subscribed[subject]}"
        if exclusive and not own_inbox:
            floor = self.watchword.clock() + self.watchword.verifier.policy.max_skew
            self.watchword.audit.note("replay.floor", subject=subject, floor=floor)
        return Reader(
            self.watchword,
            name,
            exclusive=exclusive,
            expected=self._expectation(floor),
            admitted=self._answering.heard,
            quarantine=self.quarantine,
        )

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | HeaderBlock | None
    ) -> None:
        """Read the headers ourselves, and outlive whatever the base does with what an attacker sent."""
        block = read_block(headers) if isinstance(headers, bytes) and headers else None
        if block is not None and block.status is not None:
            block = self._status_line(block, sid, subject, reply, data)
        try:
            await super()._process_msg(sid, subject, reply, data, cast("bytes", block))
        except (OSError, errors.ConnectionClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - what escapes here ends the reader task, and the client is deaf
            where = f"nats://{self.watchword.realm}/{_text(subject)}"
            self.watchword.audit.refused_raw(Rejected(Reason.MALFORMED, type(error).__name__), channel=where)
            await self._error_cb(error)

    async def _process_headers(self, headers: HeaderBlock | None) -> HeaderBlock | None:
        return headers  # read in _process_msg

    def _status_line(self, block: HeaderBlock, sid: int, subject: bytes, reply: bytes, data: bytes) -> HeaderBlock:
        """Keep a status line only where it can be the server's."""
        if data or reply.startswith(_ACK):
            return block.refused("status line on a message")
        if block.status == NO_RESPONDERS:
            waiting = self._waiting.get(_text(subject).rpartition(".")[2])
            if waiting is not None and waiting.pong is not None and waiting.pong.done():
                return block.refused("no responders, said after the server had answered")
        if block.status == CONTROL and getattr(self._subs.get(sid), "_jsi", None) is not None:
            # The base publishes to whatever subject a flow control message names: we would sign for an attacker.
            named = (_text(reply), block.get(_STALLED, ""))
            if any(name and not name.startswith(_FLOW_CONTROL) for name in named):
                return block.refused("flow control for another subject")
        return block

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> Msg:
        try:
            built: Msg = super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            broken = (headers or HeaderBlock()).refused("subject is not UTF-8")
            built = super()._build_message(sid, _text(subject).encode(), _text(reply).encode(), data, broken)
        return built

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        _close(self._subs.get(sid))
        super()._remove_sub(sid, max_msgs)

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002 - the base's own signature
        subscriptions = list(self._subs.values())
        await super()._close(status, do_cbs)
        if status == Client.CLOSED:
            if "_answers" in vars(self):
                self._answers.close()
            for subscription in subscriptions:
                _close(subscription)


def _close(subscription: Subscription | None) -> None:
    if isinstance(subscription, VerifyingSubscription) and subscription.reader is not None:
        subscription.reader.close()


async def _settle(future: asyncio.Future[Msg], msg: Msg) -> None:
    if not future.done():
        future.set_result(msg)


def _text(raw: bytes) -> str:
    return raw.decode("ascii", "backslashreplace")
