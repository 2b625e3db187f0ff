"""The half of the NATS client that publishes: everything but the client's own control traffic is signed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from nats import errors
from nats.aio.client import Client

from watchword import Channel, Expected, Message, Request, SigningError
from watchword.message import ENVELOPE_HEADER, NATS_ID_HEADER
from watchword_adapters.buses.nats.headers import block_size
from watchword_adapters.buses.nats.requests import Recent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from watchword import VerifiedMessage, Watchword
    from watchword.message import Header

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Names the principal that a message is meant for, from its channel, key (None on NATS) and headers."""

CONTROL_SUBJECTS: Final = ("$JS.", "$SYS.", "$SRV.")
_INBOX: Final = "_INBOX."
_MAX_PER_INBOX: Final = 1000


class SigningClient(Client):
    """Signs; remembers what it asked and whom it owes an answer."""

    def __init__(self, *, watchword: Watchword, recipient: Recipient | None = None) -> None:
        super().__init__()
        self.watchword: Final = watchword
        self._recipient = recipient
        window = watchword.verifier.policy.window
        self._asked: Recent[dict[bytes, Request]] = Recent(seconds=window, clock=watchword.clock)
        self._owed: Recent[VerifiedMessage] = Recent(seconds=window, clock=watchword.clock)

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
        """Sign and publish; SigningError says what cannot be sent as it is, and then nothing was sent.

        ``reply`` is signed, and answers to it are expected for as long as a message is fresh. ``expires_at`` is in
        whole seconds since the epoch. A publish to the inbox of a verified request is its answer, bound to it.
        """
        if subject.startswith(CONTROL_SUBJECTS):
            await super().publish(subject, payload, reply, headers)
            return
        owed = self._owed.get(subject)
        request = await self.send(
            subject, payload, reply, headers, recipient=recipient, expires_at=expires_at, answers=owed
        )
        if reply:
            asked = self._asked.get(reply) or {}
            asked[request.id] = request
            if len(asked) > _MAX_PER_INBOX:
                del asked[next(iter(asked))]
            self._asked.put(reply, asked)

    async def answer(
        self, reply: str, data: bytes, headers: Mapping[str, str] | None, request: VerifiedMessage | None
    ) -> None:
        """Send an answer: signed and bound to ``request``; unsigned where the request was not verified."""
        if request is None:
            await super().publish(reply, data, headers=dict(headers or {}) or None)
        else:
            await self.send(reply, data, "", headers, answers=request)

    async def send(
        self,
        subject: str,
        payload: bytes,
        reply: str,
        headers: Mapping[str, str] | None,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        answers: VerifiedMessage | None = None,
        stored: bool = False,
    ) -> Request:
        """Sign and publish one message; return what answers to it are held against.

        ``stored`` is for JetStream, which replaces the reply subject: none is signed, and the id goes along as
        ``Nats-Msg-Id`` unless the caller gave its own.
        """
        channel = Channel("nats", self.watchword.realm, subject)
        pairs = _pairs(headers)
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise SigningError(f"payload is {type(payload).__name__}: encode it to bytes")
        payload = bytes(payload)
        if answers is not None:
            recipient = recipient or answers.principal
        elif recipient is None and self._recipient is not None:
            recipient = self._recipient(channel, None, pairs)
        message = Message(
            channel=channel, value=payload, headers=pairs, reply_to=None if stored or not reply else reply
        )
        signed = await self.watchword.signer.sign(
            message,
            recipient=recipient,
            expires_at=expires_at,
            in_reply_to=None if answers is None else bytes.fromhex(answers.id),
        )
        carried = {**(headers or {}), ENVELOPE_HEADER: (signed.header[1] or b"").decode()}
        if stored:
            carried.setdefault(NATS_ID_HEADER, signed.id.hex())
        # The client looks at the payload alone, and the server ends the connection for good over the sum.
        if (size := block_size(carried) + len(payload)) > self.max_payload:
            raise SigningError(f"payload and headers of {size} bytes: this server takes {self.max_payload}")
        try:
            await super().publish(subject, payload, reply, carried)
        except errors.BadHeaderError as error:
            raise SigningError(
                f"header name {str(error)[:64]!r}: nats-py sends letters, digits and - _ . only"
            ) from None
        return Request(id=signed.id, channel=channel, recipient=recipient)

    def _expected(self, subject: str) -> Expected:
        inbox = subject.startswith(f"{self._inbox_prefix.decode()}.")
        return Expected(requests=self._asked.get(subject) or {}, only_replies=inbox)

    def _owe(self, request: VerifiedMessage) -> None:
        """Remember a verified request by its inbox, so that a bare publish there is bound to it.

        Inboxes only: else a request that names an application subject would bend what we publish there.
        """
        prefixes = (_INBOX, f"{self._inbox_prefix.decode()}.")
        if request.reply_to is not None and request.position is None and request.reply_to.startswith(prefixes):
            self._owed.put(request.reply_to, request)


def _pairs(headers: Mapping[str, str] | None) -> tuple[Header, ...]:
    try:
        return tuple((name, value.encode()) for name, value in (headers or {}).items())
    except (AttributeError, UnicodeEncodeError):
        raise SigningError("header values are text in printable ASCII: encode others, for instance as base64") from None
