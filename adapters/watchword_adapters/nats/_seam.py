"""The seam to nats-py: every name of its insides that Watchword uses stands here, once, with the reason.

nats-py has no interceptors. What is public there is used as it is; what is not is listed in ``PRIVATE``, and checked
when a client is made: one that was changed is a ConfigurationError that names it. What we override or only write is
checked above all, for under another name it would fail open: messages that nobody judged would reach a handler.
``Base``, ``BaseSubscription`` and ``BasePushSubscription`` give public names to what the rest of the adapter needs.
"""

# ruff: noqa: SLF001 - this is the one place where nats-py's private names are used

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast

from nats import errors
from nats.aio.client import PING_PROTO, Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext, JetStreamManager, api

from watchword import ConfigurationError
from watchword_adapters.nats.errors import NoTls
from watchword_adapters.nats.headers import HeaderBlock, read_block

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from watchword_adapters.nats.inbox import Inbox
    from watchword_adapters.nats.message import VerifiedMsg
    from watchword_adapters.nats.outbox import Outbox
    from watchword_adapters.nats.reader import Reader
    from watchword_adapters.nats.requests import Requests
    from watchword_adapters.nats.waiting import WaitingQueue

    Handler = Callable[[Msg], Awaitable[None]]

M = TypeVar("M", bound=Msg)
S = TypeVar("S", bound="BaseSubscription")


class Name(NamedTuple):
    """One name: whose it is, the parameters of a function (None for an attribute), why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


PRIVATE: Final = (
    # Overridden: under another name the base would go past us.
    Name(
        Client,
        "_process_msg",
        ("sid", "subject", "reply", "data", "headers"),
        "raw headers are read here, and an error here ends the client's reading for ever; overridden",
    ),
    Name(Client, "_process_headers", ("headers",), "hides a second envelope, and dies of a broken block; overridden"),
    Name(
        Client,
        "_build_message",
        ("sid", "subject", "reply", "data", "headers"),
        "dies of a subject that is not UTF-8; overridden",
    ),
    Name(Client, "_send_command", ("cmd", "priority"), "what waits for a signature goes out before it; overridden"),
    Name(Client, "_flush_pending", ("force_flush",), "as _send_command; overridden"),
    Name(Client, "_send_ping", ("future",), "a PING that overtakes proves nothing by its PONG; overridden"),
    Name(Client, "_process_err", ("err_msg",), "what the server refuses ends the request at once; overridden"),
    Name(Client, "_attempt_reconnect", (), "a PING is lost with its connection; overridden"),
    Name(Client, "_remove_sub", ("sid", "max_msgs"), "tells that a reader's memory can go; overridden"),
    Name(Client, "_close", ("status", "do_cbs"), "as _remove_sub; overridden"),
    Name(Client, "_connect_command", (), "a login goes out in the clear where the server asks for no TLS; overridden"),
    Name(Client, "_server_info", None, "whether the server asks for TLS"),
    Name(Client, "_current_server", None, "whether its address asks for TLS"),
    Name(Subscription, "_start", ("error_cb",), "makes the task that calls a handler, or the iterator of raw messages"),
    # Written: nothing of what we write would be read under another name.
    Name(Client, "_pending", None, "signed messages are written in the order of their signing; written"),
    Name(Client, "_pending_data_size", None, "as _pending; written"),
    Name(Client, "_pongs", None, "a PING of ours is answered in its turn; written"),
    Name(Client, "_subs", None, "a subscription of our class is found by its number; written"),
    Name(Client, "_sid", None, "the number of the next subscription; written"),
    Name(Subscription, "_closed", None, "one that has ended by its limit takes no orders; written"),
    Name(Subscription, "_max_msgs", None, "the server is told no maximum; one that has ended has its own; written"),
    Name(Subscription, "_pending_size", None, "counts the bytes that wait; written"),
    Name(Subscription, "_jsi", None, "the state of an ordered or push consumer; written"),
    Name(JetStreamContext._JSI, "_hbtask", None, "one that watches heartbeats ends with its subscription; written"),
    Name(JetStreamContext._JSI, "_fctask", None, "as _hbtask, for flow control; written"),
    Name(JetStreamContext._JSI, "_ccreq", None, "the successor of an ordered consumer is known by its name; written"),
    # Read and called.
    Name(Client, "_status", None, "whether it takes messages"),
    Name(Client, "_max_pending_size", None, "what may wait while there is no connection"),
    Name(Client, "_flush_queue", None, "wakes what writes, without waiting for it"),
    Name(Client, "_error_cb", None, "where the caller hears of errors"),
    Name(Client, "_send_subscribe", ("sub",), "opens a subscription of our own class"),
    Name(Client, "_send_unsubscribe", ("sid", "limit"), "ends one behind what was delivered"),
    Name(Client, "_nuid", None, "names a consumer, and a token"),
    Name(Subscription, "_conn", None, "the client of a subscription"),
    Name(Subscription, "_id", None, "its number"),
    Name(Subscription, "_cb", None, "whether it has a handler"),
    Name(Subscription, "_pending_queue", None, "what waits for a handler, and may come back to its front; written"),
    Name(Subscription, "_wait_for_msgs_task", None, "whose task it is that hands over"),
    Name(Subscription, "_stop_processing", (), "ends the task, or the iteration"),
    Name(Msg, "_client", None, "the client that an answer goes out by"),
    Name(Msg, "_sid", None, "the subscription that a message came by"),
    Name(JetStreamContext, "_nc", None, "the client of a context"),
    Name(JetStreamContext, "_prefix", None, "where the server is asked"),
    Name(JetStreamContext, "_timeout", None, "how long the server is waited for"),
    Name(JetStreamContext, "_jsm", None, "asks about streams and consumers"),
    Name(JetStreamContext, "_async_reply_prefix", None, "where acknowledgements come; written"),
    Name(JetStreamContext, "_publish_async_futures", None, "who waits for which; written"),
    Name(JetStreamContext, "_publish_async_completed_event", None, "tells that nobody does"),
    Name(JetStreamContext, "_publish_async_pending_semaphore", None, "bounds how many do"),
    Name(JetStreamContext, "_init_async_reply", (), "subscribes to acknowledgements; overridden"),
    Name(JetStreamContext, "_handle_async_reply", ("msg",), "hands an acknowledgement to its waiter"),
    Name(JetStreamContext, "_auto_ack_callback", ("callback",), "acknowledges behind a handler"),
    Name(JetStreamContext._JSI, "_conn", None, "the client of an ordered consumer"),
    Name(JetStreamManager, "_api_request", ("req_subject", "req", "timeout"), "reads a stored message by its number"),
    Name(JetStreamManager, "_nc", None, "the client of a manager"),
    Name(JetStreamManager, "_prefix", None, "as the context's"),
    Name(JetStreamManager, "_timeout", None, "as the context's"),
    Name(JetStreamContext.PullSubscription, "_nms", None, "where it asks for messages, which may be refused"),
    Name(JetStreamContext.PullSubscription, "_consumer", None, "the name of a consumer that is to be deleted"),
    Name(JetStreamContext.PushSubscription, "_sub", None, "the subscription of ours that it shows; counts and limits"),
)

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Kinds of parameters that take whatever is given, as those of functions do that tracing puts around a client's."""


def check(client: Client) -> None:
    """Raise ConfigurationError unless the client has every name that we use, in the shape we know."""
    made: dict[type, Any] = {Client: client}
    made_of: dict[type, Callable[[], Any]] = {  # in this order: what is made of others comes when those were checked
        Client: lambda: client,
        Subscription: lambda: Subscription(client),
        Msg: lambda: Msg(client),
        JetStreamManager: lambda: JetStreamManager(client),
        JetStreamContext: lambda: JetStreamContext(client),
        JetStreamContext.PushSubscription: lambda: JetStreamContext.PushSubscription(
            made[JetStreamContext], made[Subscription], "", ""
        ),
        JetStreamContext.PullSubscription: lambda: JetStreamContext.PullSubscription(
            made[JetStreamContext], made[Subscription], "", "", b""
        ),
        JetStreamContext._JSI: lambda: JetStreamContext._JSI(
            made[JetStreamContext], client, "", ordered=None, psub=made[JetStreamContext.PushSubscription],
            sub=made[Subscription], ccreq=api.ConsumerConfig(),
        ),
    }  # fmt: skip
    for owner, make in made_of.items():
        made[owner] = make()
        for one in PRIVATE:
            if one.owner is owner:
                _check(made[owner], one)


def _check(instance: object, one: Name) -> None:
    if not hasattr(instance, one.name):
        raise _changed(one, "is not there")
    if one.parameters is None:
        return
    found = getattr(one.owner, one.name, None)  # the client's own, whatever overrides it
    if not callable(found):
        raise _changed(one, "is no function")
    static = isinstance(inspect.getattr_static(one.owner, one.name), staticmethod)
    parameters = list(inspect.signature(found).parameters.values())[0 if static else 1 :]
    named = tuple(parameter.name for parameter in parameters if parameter.kind not in _VARIADIC)
    if named != (one.parameters if len(named) == len(parameters) else one.parameters[: len(named)]):
        raise _changed(one, f"takes {named}, not {one.parameters}")


def _changed(one: Name, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"nats-py {version('nats-py')}: {one.owner.__name__}.{one.name} {how}; Watchword uses it ({one.why})."
        " Install a version of nats-py that watchword[nats] allows"
    )


class Base(Client):
    """nats-py's client with names for what a part of ours does in between; it is checked when it is made."""

    outbox: Outbox
    inbox: Inbox
    requests: Requests

    def __init__(self) -> None:
        super().__init__()
        check(self)
        self._next_connection: asyncio.Future[None] | None = None

    @property
    def inbox_prefix(self) -> str:
        """How the inboxes of this client begin."""
        return f"{self.new_inbox().rpartition('.')[0]}."

    def token(self) -> str:
        """Return a name that nobody else has."""
        return self._nuid.next().decode()

    async def add(self, make: Callable[[int], S]) -> S:
        """Open a subscription of our own class, which ``make`` makes of its number, as the base opens its own."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        if self.is_draining:
            raise errors.ConnectionDrainingError
        subscription = make(self._sid + 1)
        self._sid += 1
        subscription.begin(self._error_cb)
        self._subs[subscription._id] = subscription
        await self._send_subscribe(subscription)
        return subscription

    def readers(self) -> list[Reader]:
        """Return the readers of all subscriptions that have one."""
        subscriptions = [one for one in self._subs.values() if isinstance(one, BaseSubscription)]
        return [one.reader for one in subscriptions if one.reader is not None]

    def next_connection(self) -> asyncio.Future[None]:
        """Return what is done when a connection that was lost has been made again."""
        if self._next_connection is None:
            self._next_connection = asyncio.get_running_loop().create_future()
        return self._next_connection

    async def closed(self) -> None:
        """Hear that the client has closed for good, after its subscriptions."""
        raise NotImplementedError

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's own signature
        self.outbox.post()
        await super()._send_command(cmd, priority)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - as above
        self.outbox.post()
        return await super()._flush_pending(force_flush)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send a PING behind what was sent before; the base lets it overtake, and its PONG then proves nothing."""
        if not self.is_connected:
            await super()._send_ping(future)
            return
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    def _connect_command(self) -> bytes:
        """Say who we are, but not in the clear to a server that was to be reached by TLS.

        The base takes the server's word for whether there is TLS, which whoever is in between can change.
        """
        server: Any = self._current_server
        scheme: str = server.uri.scheme
        if "tls" in self.options or scheme in {"tls", "wss"}:
            agreed = self.options["tls_handshake_first"] or self._server_info.get("tls_required")
            if not (scheme == "wss" or (scheme != "ws" and agreed)):
                raise NoTls(f"{server.uri.hostname}:{server.uri.port}")
        command: bytes = super()._connect_command()
        return command

    async def _attempt_reconnect(self) -> None:
        await super()._attempt_reconnect()
        connection, self._next_connection = self._next_connection, None
        if connection is not None:
            connection.set_result(None)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | HeaderBlock | None
    ) -> None:
        """Read the headers ourselves, and outlive whatever the base does with what an attacker sent."""
        block: Any = read_block(headers) if isinstance(headers, bytes) and headers else None
        if block is not None and block.status is not None:
            of_stream = getattr(self._subs.get(sid), "_jsi", None) is not None
            block = self.inbox.status_line(block, subject, reply, data, of_stream=of_stream)
        try:
            await super()._process_msg(sid, subject, reply, data, block)
        except (OSError, errors.ConnectionClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - what escapes here ends the reader task, and the client is deaf
            self.inbox.broken(subject, error)
            await self._error_cb(error)

    async def _process_err(self, err_msg: str) -> None:
        if not await self.requests.refused(err_msg):  # else whoever asked is told
            await super()._process_err(err_msg)

    async def _process_headers(self, headers: Any) -> Any:
        return headers  # read in _process_msg

    def _build_message(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> Msg:
        try:
            built: Msg = super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            subject, reply = (text.decode("ascii", "backslashreplace").encode() for text in (subject, reply))
            broken: Any = (headers or HeaderBlock()).refused("subject is not UTF-8")
            built = super()._build_message(sid, subject, reply, data, broken)
        return built

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        _ended(self._subs.get(sid))
        super()._remove_sub(sid, max_msgs)

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002 - the base's own signature
        subscriptions = list(self._subs.values())
        await super()._close(status, do_cbs)
        if status == Client.CLOSED:
            for subscription in subscriptions:
                _ended(subscription)
            self._next_connection = None
            await self.closed()


def _ended(subscription: Subscription | None) -> None:
    if isinstance(subscription, BaseSubscription):
        subscription.ended()


class Wire:
    """What an outbox needs of the connection: to know whether it takes messages, and to write without waiting."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def check_open(self, size: int) -> None:
        """Refuse what the base's ``publish`` refuses; ``size`` bytes would wait, beside what waits here."""
        client = self._client
        if client._status == Client.CONNECTED:
            return
        if client.is_closed:
            raise errors.ConnectionClosedError
        if client.is_draining_pubs:
            raise errors.ConnectionDrainingError
        if not client.is_connected:
            most = client._max_pending_size
            if most <= 0 or size + client._pending_data_size > most:
                raise errors.OutboundBufferLimitError

    def write(self, command: bytes, payload_size: int) -> None:
        """Write a message, and count it."""
        client = self._client
        client.stats["out_msgs"] += 1
        client.stats["out_bytes"] += payload_size
        client._pending.append(command)
        client._pending_data_size += len(command)

    def ping(self, pong: asyncio.Future[bool]) -> None:
        """Write a PING behind what was written; its PONG ends ``pong``."""
        client = self._client
        if client.is_connected:
            client._pongs.append(pong)
            client._pending.append(PING_PROTO)
            client._pending_data_size += len(PING_PROTO)
            self.kick()

    def kick(self) -> None:
        """Wake the flusher, as the base's ``_flush_pending`` does, but without waiting."""
        queue = self._client._flush_queue
        if queue is not None and queue.empty() and self._client.is_connected:
            queue.put_nowait(asyncio.get_running_loop().create_future())

    async def make_room(self) -> None:
        """Wait where the base would: until what was written beyond its limit has gone."""
        if 0 < self._client._max_pending_size < self._client._pending_data_size:
            await self._client._flush_pending(force_flush=True)


class BaseSubscription(Subscription):
    """nats-py's subscription with names for what ours does."""

    reader: Reader | None

    def begin(self, error_cb: Any) -> None:
        """Begin to hand over."""
        self._start(error_cb)  # type: ignore[no-untyped-call]  # nats-py leaves it untyped

    @property
    def number(self) -> int:
        """Its number."""
        return self._id

    def wait_in(self, queue: WaitingQueue) -> None:
        """Let messages wait for their turn in a queue to which one can come back."""
        self._pending_queue = queue

    @property
    def most_waiting(self) -> int:
        """How many messages may wait for their turn."""
        return self._pending_queue.maxsize

    def came_back(self, size: int) -> None:
        """Count a message that waits again."""
        self._pending_size += size

    @property
    def has_ended(self) -> bool:
        """Whether it, or its client, takes no orders any more, or none now."""
        return self._closed or self._conn.is_closed or self._conn.is_draining

    @property
    def can_take(self) -> bool:
        """Whether a message is there for a caller who asks for one."""
        return self._cb is None and not self._conn.is_closed and not self._pending_queue.empty()

    def taken(self) -> Msg:
        """Take a message that is there."""
        raw = self._pending_queue.get_nowait()
        self._pending_queue.task_done()
        self._pending_size -= len(raw.data)
        return raw

    async def end(self) -> None:
        """End behind what was delivered, without the rest; a handler that is under way may end."""
        while not self._pending_queue.empty():
            self.taken()
        client = self._conn
        client._remove_sub(self._id)
        if asyncio.current_task() is self._wait_for_msgs_task:
            self._max_msgs = 1  # the base ends its task behind this handler: it has received as many
        else:
            self._stop_processing()
        if client.is_connected:
            await client._send_unsubscribe(self._id)

    def attach(self, state: BaseState) -> None:
        """Let the base keep the state of a push consumer."""
        self._jsi = state

    def close(self) -> None:
        """Take no orders any more."""
        self._closed = True

    def ended(self) -> None:
        """Hear that it reads no more."""


class BasePushSubscription(JetStreamContext.PushSubscription):
    """A push subscription that shows one of ours: the base's has its own count, limit and iterator of raw messages."""

    async def unsubscribe(self, limit: int = 0) -> None:
        """Stop reading; see VerifyingSubscription."""
        await self._sub.unsubscribe(limit)
        self._closed = self._sub._closed
        state: Any = self._sub._jsi
        for task in (state._hbtask, state._fctask):
            if task is not None:
                task.cancel()

    async def next_msg(self, timeout: float | None = 1.0) -> VerifiedMsg:  # noqa: ASYNC109 - the base's own signature
        """Return the next message that verifies; see VerifyingSubscription."""
        delivered: Any = await super().next_msg(timeout)
        return cast("VerifiedMsg", delivered)

    @property
    def messages(self) -> AsyncIterator[VerifiedMsg]:
        """The messages that verify, for ``async for``."""
        shown: Any = self._sub.messages
        return cast("AsyncIterator[VerifiedMsg]", shown)


class BasePullSubscription(JetStreamContext.PullSubscription):
    """A pull subscription that is told at once where it may not ask for messages; the base's waits its time out."""

    def __init__(self, *, requests: Requests, **options: Any) -> None:
        super().__init__(**options)
        self._requests = requests

    async def fetch(
        self,
        batch: int = 1,
        timeout: float | None = 5,  # noqa: ASYNC109 - the base's own signature
        heartbeat: float | None = None,
    ) -> list[Msg]:
        """See the base; NotAllowed where the server refuses to pass the request on."""
        return await self._requests.unless_refused(self._nms, super().fetch(batch, timeout, heartbeat))


class BaseState(JetStreamContext._JSI):
    """What the base knows of a push consumer."""

    def watch(self, *, heartbeats: bool, flow: bool) -> None:
        """Run the base's own tasks, where the base looks for them."""
        state: Any = self  # nats-py leaves these untyped
        if heartbeats:
            state._hbtask = asyncio.create_task(state.activity_check())
        if flow:
            state._fctask = asyncio.create_task(state.check_flow_control_response())

    def name_successor(self) -> str:
        """Give the consumer that is about to be made a name that nobody else has, and return it."""
        name = self._conn._nuid.next().decode()
        self._ccreq.name = name
        return name


def client_of(msg: Msg) -> Any:
    """Return the client that a message came by."""
    return msg._client


def listened_at(raw: Msg) -> str:
    """Return the subject of the subscription that a message came by; empty where that is closed."""
    subscription = raw._client._subs.get(raw._sid or 0)
    return "" if subscription is None else subscription.subject


def shown_as(cls: type[M], raw: Msg) -> M:
    """Return a message of another class with what ``raw`` says of itself, but for reply subject and headers.

    Without the constructor it takes a third of the time; fields that are not set are the class's own.
    """
    made = object.__new__(cls)
    made._client, made._sid, made.subject, made.data = raw._client, raw._sid, raw.subject, raw.data
    return made


def origin(raw: Msg) -> dict[str, Any]:
    """Return the fields that say by which client and subscription a message came."""
    return {"_client": raw._client, "_sid": raw._sid}
