"""Quarantine on a NATS subject that a stream covers, or that somebody listens to."""

from __future__ import annotations

import json
import secrets
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from nats import errors
from nats.aio.client import Client

from watchword import ConfigurationError, Unavailable
from watchword.agent import require
from watchword.message import MAX_HEADER_BYTES, NATS_ID_HEADER, is_subject
from watchword.quarantine import CappedQuarantine
from watchword_adapters.nats._seam import Base
from watchword_adapters.nats.headers import block_size

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from watchword import Channel, Message, Rejected, Watchword
    from watchword.quarantine import QuarantineLimits
    from watchword.quarantine_copy import Copy

_RESERVED: Final = ("$", "_INBOX.")


class NatsQuarantine(CappedQuarantine):
    """Keeps copies on ``subject``, which a stream must cover and only consumers should be able to publish to.

    Give it to ``connect(quarantine=...)``, which lends it the client (``attach``), or give a connected ``client``.
    A copy counts as kept when the stream says so, within ``timeout`` seconds. With ``stored=False`` copies are
    published for whoever listens: nothing is known to be kept then, so what could not be judged is left out.
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
                f"quarantine subject {subject!r}: write one subject without wildcard, as 'quarantine.prod'"
            )
        self.subject: Final = subject
        self._realm = watchword.realm
        self._client = client
        self._stored = stored
        self._timeout = timeout
        # Else whoever may publish here could send a copy's id first, and the stream would drop the copy.
        self._salt = secrets.token_bytes(16)

    @classmethod
    def from_settings(cls, watchword: Watchword) -> NatsQuarantine | None:
        """Return what ``[quarantine]`` asks for; None where it names no subject."""
        settings = watchword.quarantine
        if settings is None or settings.nats is None:
            return None
        return cls(settings.nats, watchword=watchword, limits=settings.to_limits())

    def attach(self, client: Client) -> None:
        """Publish through this client, unless one was given or came first."""
        self._client = self._client or client

    def owns(self, channel: Channel) -> bool:
        """See CappedQuarantine."""
        return (channel.scheme, channel.realm, channel.name) == ("nats", self._realm, self.subject)

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See CappedQuarantine."""
        if not self._stored and isinstance(verdict, Unavailable):
            return False
        return await super().put(message, verdict)

    async def write(self, copy: Copy) -> bool:
        """See CappedQuarantine."""
        if self._client is None:
            raise ConfigurationError(
                "NatsQuarantine has no client: give it to connect(quarantine=...), call attach(client), or pass client="
            )
        headers, data = self._carried(copy), copy.value or b""
        size = block_size(headers)
        if size > MAX_HEADER_BYTES or size + len(data) > self._client.max_payload:
            headers, data = self._carried(copy.pointer()), b""
        try:
            if self._stored:
                _check(await self._request(self._client, data, headers))
            else:
                await Client.publish(self._client, self.subject, data, headers=headers)
        except (errors.Error, OSError) as error:
            raise Unavailable("quarantine", type(error).__name__) from error
        return True

    async def _request(self, client: Client, data: bytes, headers: dict[str, str]) -> Msg:
        """Publish unsigned, for a copy is nobody's word, and return the stream's answer."""
        if not client.is_connected:  # the client would buffer it, and answer when it is too late
            raise errors.ConnectionClosedError
        if not isinstance(client, Base):
            return await client.request(self.subject, data, self._timeout, headers=headers)

        async def send(inbox: str) -> None:
            await Client.publish(client, self.subject, data, inbox, headers)

        return await client.requests.ask(send, self._timeout)

    def _carried(self, copy: Copy) -> dict[str, str]:
        headers = copy.nats_headers()
        if copy.position is not None:
            place = f"{copy.position.log}@{copy.position.offset}".encode(errors="surrogatepass")
            headers[NATS_ID_HEADER] = sha256(self._salt + place).hexdigest()
        return headers


def _check(answer: Msg) -> None:
    """Hold the answer against what a stream says when it has stored a message."""
    try:
        told = json.loads(answer.data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or "error" in told or not isinstance(told.get("stream"), str) or "seq" not in told:
        code = told["error"].get("err_code") if isinstance(told, dict) and isinstance(told.get("error"), dict) else None
        raise Unavailable("quarantine", f"the stream did not take it (error {code})")
