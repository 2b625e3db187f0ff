"""Quarantine on a NATS subject: publishes copies to a stream, or to live subscribers."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from nats import errors
from nats.aio.client import Client

from watchword import ConfigurationError, Unavailable
from watchword.agent import require
from watchword.message import MAX_HEADER_BYTES, NATS_ID_HEADER, is_subject
from watchword.quarantine import CappedQuarantine
from watchword_adapters.nats.headers import NO_RESPONDERS, STATUS, block_size

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from watchword import Rejected, Watchword
    from watchword.quarantine import QuarantineLimits
    from watchword.quarantine_copy import Copy
    from watchword.spi import Channel, Message

COPY_MARK: Final = "watchword-copy"
"""A token in the subjects of streams' responses to copies, which identifies them under any inbox prefix."""

_RESERVED: Final = ("$", "_INBOX.")
_TOO_LARGE: Final = 10054
"""The server's error code for a message over a stream's ``max_msg_size``."""


class NatsQuarantine(CappedQuarantine):
    """Stores copies on ``subject``, which a stream must cover and only consumers should be able to publish to.

    Pass it to ``connect(quarantine=...)``, whose client it then uses (``attach``), or pass a connected ``client``. A
    copy counts as stored when the stream confirms it within ``timeout`` seconds. With ``stored=False`` copies are
    published for live subscribers; since they are not known to be stored, undetermined messages are not copied.
    """

    def __init__(
        self,
        subject: str,
        *,
        watchword: Watchword,
        client: Client | None = None,
        limits: QuarantineLimits | None = None,
        stored: bool = True,
        timeout: float = 5.0,
    ) -> None:
        require(watchword)
        super().__init__(clock=watchword.clock, warn=watchword.audit.warn, limits=limits)
        if not is_subject(subject) or subject.startswith(_RESERVED):
            raise ConfigurationError(
                f"quarantine subject {subject!r}: write one subject without wildcards, such as 'quarantine.prod'"
            )
        self.subject: Final = subject
        self._realm = watchword.realm
        self._client = client
        self._stored = stored
        self._timeout = timeout
        self._answers: _Answers | None = None
        self.remedy = f"cover {subject!r} with a stream that has space, and let this account publish there"
        # Unpredictable, or another publisher could send a copy's id first, and the stream would drop the copy.
        self._salt = secrets.token_bytes(16)

    @classmethod
    def from_settings(cls, watchword: Watchword) -> NatsQuarantine | None:
        """Return the quarantine that ``[quarantine]`` configures; None if it names no subject."""
        settings = watchword.quarantine
        if settings is None or settings.nats is None:
            return None
        return cls(settings.nats, watchword=watchword, limits=settings.to_limits())

    def attach(self, client: Client) -> None:
        """Publish through this client, unless one was given or attached before."""
        self._client = self._client or client

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return (channel.scheme, channel.realm, channel.name) == ("nats", self._realm, self.subject)

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See CappedQuarantine."""
        if not self._stored and isinstance(verdict, Unavailable):
            return False
        return await super().put(message, verdict)

    def spares(self, message: Message) -> bool:
        """See CappedQuarantine; spares answers and the server's own messages, whose copies could cause more copies."""
        name = message.channel.name
        own = () if self._client is None else (f"{self._client.new_inbox().rpartition('.')[0]}.",)
        return name.startswith((*_RESERVED, *own)) or COPY_MARK in name.split(".") or super().spares(message)

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine."""
        client = self._client
        if client is None:
            raise ConfigurationError(
                "NatsQuarantine has no client: pass it to connect(quarantine=...), call attach(client), or pass client="
            )
        headers, data = self._carried(copy), copy.value or b""
        size = block_size(headers)
        if size > MAX_HEADER_BYTES or size + len(data) > client.max_payload:
            headers, data = self._carried(copy.pointer()), b""
        try:
            if not self._stored:
                await Client.publish(client, self.subject, data, headers=headers)
                return True
            answer = await self._stream_answer(client, data, headers)
            if _error_of(answer) == _TOO_LARGE:  # otherwise such messages could silence the quarantine
                answer = await self._stream_answer(client, b"", self._carried(copy.pointer()))
        except TimeoutError as error:
            raise Unavailable("quarantine", f"no answer in {self._timeout:g} s") from error
        except (errors.Error, OSError) as error:
            raise Unavailable("quarantine", type(error).__name__) from error
        if (code := _error_of(answer)) is not None:
            raise Unavailable("quarantine", f"the stream refused it (error {code})")
        return True

    async def _stream_answer(self, client: Client, data: bytes, headers: dict[str, str]) -> bytes:
        """Publish unsigned, since a signature would vouch for a rejected message; return the stream's response."""
        if not client.is_connected:  # the client would buffer it until it is too late
            raise errors.ConnectionClosedError
        if self._answers is None:
            self._answers = _Answers(client)
        answers = self._answers
        try:
            async with asyncio.timeout(self._timeout):
                return await answers.to(self.subject, data, headers)
        except TimeoutError:  # the subscription may be gone, for instance after the client was closed and reconnected
            if self._answers is answers:
                self._answers = None
            await answers.end()
            raise

    def _carried(self, copy: Copy) -> dict[str, str]:
        headers = copy.nats_headers()
        if copy.position is not None:
            place = f"{copy.position.log}@{copy.position.offset}".encode(errors="surrogatepass")
            headers[NATS_ID_HEADER] = sha256(self._salt + place).hexdigest()
        return headers


class _Answers:
    """Streams' responses to pending copies, on one subscription whose subject marks them for any reader."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = f"{client.new_inbox()}.{COPY_MARK}"
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._subscription: Subscription | None = None
        self._opening = asyncio.Lock()

    async def to(self, subject: str, data: bytes, headers: dict[str, str]) -> bytes:
        """Publish a copy and return the response's payload; NoRespondersError if no stream has the subject."""
        await self._listen()
        token = secrets.token_hex(8)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            await Client.publish(self._client, subject, data, f"{self._inbox}.{token}", headers)
            return await answer
        finally:
            del self._waiting[token]

    async def _listen(self) -> Subscription:
        async with self._opening:
            if self._subscription is None:  # by the base class: a Watchword client would drop unsigned responses
                self._subscription = await Client.subscribe(self._client, f"{self._inbox}.*", cb=self._heard)
            return self._subscription

    async def _heard(self, msg: Msg) -> None:
        answer = self._waiting.get(msg.subject.rpartition(".")[2])
        if answer is None or answer.done():
            return
        if (msg.headers or {}).get(STATUS) == NO_RESPONDERS:
            answer.set_exception(errors.NoRespondersError())
        else:
            answer.set_result(bytes(msg.data))

    async def end(self) -> None:
        """Unsubscribe; pending calls receive no response."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(errors.Error):
                await subscription.unsubscribe()


def _error_of(answer: bytes) -> int | str | None:
    """Return the error code in a stream's response; None if the message was stored."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    match told:
        case {"error": {"err_code": int(code)}}:
            return code
        case {"stream": str(), "seq": int()} if "error" not in told:
            return None
        case _:
            return "unknown"
