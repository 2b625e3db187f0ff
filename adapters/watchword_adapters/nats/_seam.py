"""The seam to nats-py: every internal name that Watchword uses is listed here once, with the reason.

nats-py has no interceptors. Names that are not public are listed in ``PRIVATE`` and checked when a client is created; a
changed one raises a ConfigurationError that gives the name. Methods that we override and attributes that we only write
matter most: if one were renamed, it would fail open, and unverified messages would reach a handler. ``Base``,
``BaseSubscription`` and ``BasePushSubscription`` give public names to what the rest of the adapter needs.
"""

# ruff: noqa: SLF001 - this is the one place where nats-py's private names are used

from __future__ import annotations

import asyncio
import inspect
import json
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
    """One name: its class, the parameters of a function (None for an attribute), and why we use it."""

    owner: type
    name: str
    parameters: tuple[str, ...] | None
    why: str


PRIVATE: Final = (
    # Overridden: under another name the base would bypass us.
    Name(
        Client,
        "_process_msg",
        ("sid", "subject", "reply", "data", "headers"),
        "parses raw headers, where an error would end the client's reading for good; overridden",
    ),
    Name(Client, "_process_headers", ("headers",), "hides a second envelope, and fails on bad blocks; overridden"),
    Name(
        Client,
        "_build_message",
        ("sid", "subject", "reply", "data", "headers"),
        "fails on a subject that is not UTF-8; overridden",
    ),
    Name(Client, "_send_command", ("cmd", "priority"), "messages awaiting a signature must go first; overridden"),
    Name(Client, "_flush_pending", ("force_flush",), "as _send_command; overridden"),
    Name(Client, "_send_ping", ("future",), "the PONG of a PING that overtakes messages proves nothing; overridden"),
    Name(Client, "_process_err", ("err_msg",), "a refusal by the server must end its request at once; overridden"),
    Name(Client, "_attempt_reconnect", (), "a PING is lost with its connection; overridden"),
    Name(Client, "_remove_sub", ("sid", "max_msgs"), "a reader's memory can be dropped then; overridden"),
    Name(Client, "_close", ("status", "do_cbs"), "as _remove_sub; overridden"),
    Name(Client, "_connect_command", (), "sends a login in the clear if the server requests no TLS; overridden"),
    Name(Client, "_server_info", None, "says whether the server requests TLS"),
    Name(Client, "_current_server", None, "says whether the address requests TLS"),
    Name(Subscription, "_start", ("error_cb",), "starts the task that calls a handler, or the raw iterator"),
    # Written: under another name, what we write would have no effect.
    Name(Client, "_pending", None, "signed messages are queued in signing order; written"),
    Name(Client, "_pending_data_size", None, "as _pending; written"),
    Name(Client, "_pongs", None, "matches our PINGs with their PONGs, in order; written"),
    Name(Client, "_subs", None, "finds a subscription of our class by its number; written"),
    Name(Client, "_sid", None, "the number of the next subscription; written"),
    Name(Subscription, "_closed", None, "marks a subscription that has reached its limit; written"),
    Name(Subscription, "_max_msgs", None, "we enforce the limit ourselves, and the server gets none; written"),
    Name(Subscription, "_pending_size", None, "counts pending bytes; written"),
    Name(Subscription, "_jsi", None, "the state of an ordered or push consumer; written"),
    Name(JetStreamContext._JSI, "_hbtask", None, "the heartbeat task ends with its subscription; written"),
    Name(JetStreamContext._JSI, "_fctask", None, "as _hbtask, for flow control; written"),
    Name(JetStreamContext._JSI, "_ccreq", None, "names the replacement of an ordered consumer; written"),
    # Read and called.
    Name(Client, "_transport", None, "stays open if connecting is cancelled"),
    Name(Client, "_status", None, "says whether it accepts messages"),
    Name(Client, "_max_pending_size", None, "limits the bytes pending without a connection"),
    Name(Client, "_flush_queue", None, "wakes the flusher without waiting for it"),
    Name(Client, "_error_cb", None, "reports errors to the caller"),
    Name(Client, "_send_subscribe", ("sub",), "opens a subscription of our own class"),
    Name(Client, "_send_unsubscribe", ("sid", "limit"), "ends one after what was delivered"),
    Name(Client, "_nuid", None, "generates names of consumers and tokens"),
    Name(Subscription, "_conn", None, "the client of a subscription"),
    Name(Subscription, "_id", None, "the subscription's number"),
    Name(Subscription, "_cb", None, "says whether it has a handler"),
    Name(Subscription, "_pending_queue", None, "pending messages, which may be put back at the front; written"),
    Name(Subscription, "_wait_for_msgs_task", None, "the task that hands messages over"),
    Name(Subscription, "_stop_processing", (), "stops the task or the iteration"),
    Name(Msg, "_client", None, "the client that sends an answer"),
    Name(Msg, "_sid", None, "the subscription that delivered a message"),
    Name(JetStreamContext, "_nc", None, "the client of a context"),
    Name(JetStreamContext, "_prefix", None, "the prefix of API subjects"),
    Name(JetStreamContext, "_timeout", None, "the time limit of API requests"),
    Name(JetStreamContext, "_jsm", None, "describes streams and consumers"),
    Name(JetStreamContext, "_async_reply_prefix", None, "the inbox of acknowledgements; written"),
    Name(JetStreamContext, "_publish_async_futures", None, "maps acknowledgements to waiting calls; written"),
    Name(JetStreamContext, "_publish_async_completed_event", None, "is set when no call waits"),
    Name(JetStreamContext, "_publish_async_pending_semaphore", None, "limits how many calls wait"),
    Name(JetStreamContext, "_init_async_reply", (), "subscribes to acknowledgements; overridden"),
    Name(JetStreamContext, "_handle_async_reply", ("msg",), "hands an acknowledgement to its waiter"),
    Name(JetStreamContext, "_auto_ack_callback", ("callback",), "acknowledges after a handler"),
    Name(JetStreamContext._JSI, "_conn", None, "the client of an ordered consumer"),
    Name(JetStreamManager, "_api_request", ("req_subject", "req", "timeout"), "reads a stored message by its number"),
    Name(JetStreamManager, "_nc", None, "the client of a manager"),
    Name(JetStreamManager, "_prefix", None, "as for the context"),
    Name(JetStreamManager, "_timeout", None, "as for the context"),
    Name(JetStreamContext.PullSubscription, "_nms", None, "the subject of its requests, which may be refused"),
    Name(JetStreamContext.PullSubscription, "_consumer", None, "the name of the consumer to delete"),
    Name(JetStreamContext.PushSubscription, "_sub", None, "our subscription, with its counts and limits"),
)

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Parameter kinds that accept any argument, like those of wrappers that tracing puts around a client's functions."""


def check(client: Client) -> None:
    """Raise ConfigurationError unless the client has every name that we use, with the parameters we expect."""
    made: dict[type, Any] = {Client: client}
    made_of: dict[type, Callable[[], Any]] = {  # in this order: each is built from those checked before it
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
        raise _changed(one, "does not exist")
    if one.parameters is None:
        return
    found = getattr(one.owner, one.name, None)  # nats-py's own, not our override
    if not callable(found):
        raise _changed(one, "is not a function")
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
    """nats-py's client with hooks for our parts; its names are checked when it is created."""

    outbox: Outbox
    inbox: Inbox
    requests: Requests

    def __init__(self) -> None:
        super().__init__()
        check(self)
        self._next_connection: asyncio.Future[None] | None = None

    async def connect(self, *args: Any, **options: Any) -> None:
        """See nats-py; if it is cancelled it leaves no connection open."""
        try:
            await super().connect(*args, **options)
        except BaseException:
            transport: Any = self._transport
            if transport is not None:
                transport.close()
            raise

    @property
    def inbox_prefix(self) -> str:
        """The prefix of this client's inboxes."""
        return f"{self.new_inbox().rpartition('.')[0]}."

    def token(self) -> str:
        """Return a unique name."""
        return self._nuid.next().decode()

    async def add(self, make: Callable[[int], S]) -> S:
        """Open a subscription of our class, which ``make`` creates from its number, as the base opens its own."""
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
        """Return a future that completes at the next reconnect."""
        if self._next_connection is None:
            self._next_connection = asyncio.get_running_loop().create_future()
        return self._next_connection

    async def closed(self) -> None:
        """Clean up once the client has closed for good, after its subscriptions."""
        raise NotImplementedError

    async def _send_command(self, cmd: bytes, priority: bool = False) -> None:  # noqa: FBT001, FBT002 - the base's own signature
        self.outbox.post()
        await super()._send_command(cmd, priority)

    async def _flush_pending(self, force_flush: bool = False) -> Any:  # noqa: FBT001, FBT002 - as above
        self.outbox.post()
        return await super()._flush_pending(force_flush)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send a PING after what was sent before; the base's may overtake messages, so that its PONG proves nothing."""
        if not self.is_connected:
            await super()._send_ping(future)
            return
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(PING_PROTO)
        await self._flush_pending()

    def _connect_command(self) -> bytes:
        """Send the login, but not in the clear to a server that was to be reached by TLS.

        The base believes the server about TLS, which a man in the middle can change.
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
        """Parse the headers ourselves, and survive any error of the base caused by hostile input."""
        block: Any = read_block(headers) if isinstance(headers, bytes) and headers else None
        if block is not None and block.status is not None:
            of_stream = getattr(self._subs.get(sid), "_jsi", None) is not None
            block = self.inbox.status_line(block, subject, reply, data, of_stream=of_stream)
        try:
            await super()._process_msg(sid, subject, reply, data, block)
        except (OSError, errors.ConnectionClosedError):
            raise
        except Exception as error:  # noqa: BLE001 - or the reader task would end, and nothing more be received
            self.inbox.broken(subject, error)
            await self._error_cb(error)

    async def _process_err(self, err_msg: str) -> None:
        if not await self.requests.refused(err_msg):  # otherwise the waiting call raises it
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
        try:
            await super()._close(status, do_cbs)
        except OSError:
            # If the connection was lost with bytes unsent, nats-py has closed nothing else yet; a callback comes last.
            if self._subs or not subscriptions:
                self._status = Client.DISCONNECTED
                await super()._close(status, do_cbs)
            raise
        finally:
            if status == Client.CLOSED:
                for subscription in subscriptions:
                    _ended(subscription)
                self._next_connection = None
                await self.closed()


def _ended(subscription: Subscription | None) -> None:
    if isinstance(subscription, BaseSubscription):
        subscription.ended()


class Wire:
    """An outbox's view of the connection: whether it accepts messages, and writes that do not wait."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def check_open(self, size: int) -> None:
        """Raise what the base's ``publish`` would raise; ``size`` more bytes would be pending."""
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
        """Queue a message for writing, and count it."""
        client = self._client
        client.stats["out_msgs"] += 1
        client.stats["out_bytes"] += payload_size
        client._pending.append(command)
        client._pending_data_size += len(command)

    def ping(self, pong: asyncio.Future[bool]) -> None:
        """Queue a PING after what was written; its PONG completes ``pong``."""
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
        """Wait as the base would, until pending bytes are below its limit."""
        if 0 < self._client._max_pending_size < self._client._pending_data_size:
            await self._client._flush_pending(force_flush=True)


class BaseSubscription(Subscription):
    """nats-py's subscription with public names for what ours needs."""

    reader: Reader | None

    def begin(self, error_cb: Any) -> None:
        """Start handing messages over."""
        self._start(error_cb)  # type: ignore[no-untyped-call]  # nats-py leaves it untyped

    @property
    def number(self) -> int:
        """The subscription's number."""
        return self._id

    def wait_in(self, queue: WaitingQueue) -> None:
        """Replace the pending queue by one whose front can be refilled."""
        self._pending_queue = queue

    @property
    def most_waiting(self) -> int:
        """Most messages that may be pending."""
        return self._pending_queue.maxsize

    def came_back(self, size: int) -> None:
        """Count a message that was put back."""
        self._pending_size += size

    @property
    def has_ended(self) -> bool:
        """True if the subscription is closed, or its client is closed or draining."""
        return self._closed or self._conn.is_closed or self._conn.is_draining

    @property
    def can_take(self) -> bool:
        """True if ``next_msg`` could return a message at once."""
        return self._cb is None and not self._conn.is_closed and not self._pending_queue.empty()

    def taken(self) -> Msg:
        """Remove and return a pending message."""
        raw = self._pending_queue.get_nowait()
        self._pending_queue.task_done()
        self._pending_size -= len(raw.data)
        return raw

    async def end(self) -> None:
        """End after what was delivered and drop pending messages; a running handler may finish."""
        while not self._pending_queue.empty():
            self.taken()
        client = self._conn
        client._remove_sub(self._id)
        if asyncio.current_task() is self._wait_for_msgs_task:
            self._max_msgs = 1  # the base ends its task after this handler, since the limit is reached
        else:
            self._stop_processing()
        if client.is_connected:
            await client._send_unsubscribe(self._id)

    def attach(self, state: BaseState) -> None:
        """Store the state of a push consumer for the base."""
        self._jsi = state

    def close(self) -> None:
        """Mark the subscription as closed."""
        self._closed = True

    def ended(self) -> None:
        """Clean up once the subscription reads no more."""


class BasePushSubscription(JetStreamContext.PushSubscription):
    """A push subscription around one of ours: the base's own counts, limits and iterates raw messages itself."""

    async def unsubscribe(self, limit: int = 0) -> None:
        """Stop reading; see VerifyingSubscription."""
        await self._sub.unsubscribe(limit)
        self._closed = self._sub._closed
        state: Any = self._sub._jsi
        for task in (state._hbtask, state._fctask):
            if task is not None:
                task.cancel()

    async def next_msg(self, timeout: float | None = 1.0) -> VerifiedMsg:  # noqa: ASYNC109 - the base's own signature
        """Return the next verified message; see VerifyingSubscription."""
        delivered: Any = await super().next_msg(timeout)
        return cast("VerifiedMsg", delivered)

    @property
    def messages(self) -> AsyncIterator[VerifiedMsg]:
        """The verified messages, for ``async for``."""
        shown: Any = self._sub.messages
        return cast("AsyncIterator[VerifiedMsg]", shown)


class BasePullSubscription(JetStreamContext.PullSubscription):
    """A pull subscription that fails at once if it may not request messages; the base's waits for its timeout."""

    def __init__(self, *, requests: Requests, **options: Any) -> None:
        super().__init__(**options)
        self._requests = requests

    async def fetch(
        self,
        batch: int = 1,
        timeout: float | None = 5,  # noqa: ASYNC109 - the base's own signature
        heartbeat: float | None = None,
    ) -> list[Msg]:
        """See the base; NotAllowed if the server refuses the request."""
        return await self._requests.unless_refused(self._nms, super().fetch(batch, timeout, heartbeat))


class BaseState(JetStreamContext._JSI):
    """The base's state of a push consumer."""

    def watch(self, *, heartbeats: bool, flow: bool) -> None:
        """Start the base's own tasks, stored where the base expects them."""
        state: Any = self  # nats-py leaves these untyped
        if heartbeats:
            state._hbtask = asyncio.create_task(state.activity_check())
        if flow:
            state._fctask = asyncio.create_task(state.check_flow_control_response())

    def name_successor(self) -> str:
        """Give the consumer that is about to be created a unique name, and return it."""
        name = self._conn._nuid.next().decode()
        self._ccreq.name = name
        return name


def manager_of(context: JetStreamContext) -> JetStreamManager:
    """Return the manager that a context sends its own questions through, with the same prefix and time limit."""
    return context._jsm


async def asked(manager: JetStreamManager, what: str, question: dict[str, Any]) -> dict[str, Any]:
    """Send an API request; return the raw response, since nats-py omits parts of it."""
    answer: dict[str, Any] = await manager._api_request(
        f"{manager._prefix}.{what}", json.dumps(question).encode(), timeout=manager._timeout
    )
    return answer


def client_of(msg: Msg) -> Any:
    """Return the client that received a message."""
    return msg._client


def listened_at(raw: Msg) -> str:
    """Return the subject of a message's subscription; empty if that is closed."""
    subscription = raw._client._subs.get(raw._sid or 0)
    return "" if subscription is None else subscription.subject


def shown_as(cls: type[M], raw: Msg) -> M:
    """Return a message of another class with the content of ``raw``, without reply subject and headers.

    Bypassing the constructor takes a third of the time; unset fields have the class's defaults.
    """
    made = object.__new__(cls)
    made._client, made._sid, made.subject, made.data = raw._client, raw._sid, raw.subject, raw.data
    return made


def origin(raw: Msg) -> dict[str, Any]:
    """Return the fields that name a message's client and subscription."""
    return {"_client": raw._client, "_sid": raw._sid}
