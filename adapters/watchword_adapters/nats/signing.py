"""The half of the NATS client that publishes: everything but the client's own control traffic is signed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from nats.aio.client import _HEADER_KEY_RE
from nats.errors import Error

from watchword import ConfigurationError, Expected, Request, SigningError
from watchword.message import ENVELOPE_HEADER, NATS_ID_HEADER, SERVERS_SUBJECTS, channel_of, is_subject, maker_of
from watchword_adapters.nats.answers import Answers, forwarded
from watchword_adapters.nats.errors import BadHeader, BadSubject, PayloadTooLarge
from watchword_adapters.nats.message import ACK_SUBJECTS, Acknowledging, Delivery, is_ack
from watchword_adapters.nats.posting import Letter, PostingClient
from watchword_adapters.nats.requests import Recent

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Channel, VerifiedMessage, Watchword, WatchwordError
    from watchword.message import Header

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Names the principal that a message is meant for, from its channel, key (None on NATS) and headers."""

CONTROL_SUBJECTS: Final = ("$JS.", "$SYS.", "$SRV.")
_MAX_PER_INBOX: Final = 1000
_BEFORE: Final = b"NATS/1.0\r\n"
_ENVELOPE: Final = f"{ENVELOPE_HEADER}: ".encode()
_END: Final = b"\r\n\r\n"
_SCHEDULE: Final = "nats-schedule"
_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_ID: Final = f"\r\n{NATS_ID_HEADER}: ".encode()

_make_request = maker_of(Request)


class SigningClient(PostingClient):
    """Signs; remembers what it asked and whom it owes an answer."""

    def __init__(self, *, watchword: Watchword, recipient: Recipient | None = None) -> None:
        super().__init__(watchword)
        self._recipient = recipient
        window = watchword.verifier.policy.window
        self._asked: Recent[dict[bytes, Request]] = Recent(seconds=window, clock=watchword.clock)
        self._answering = Answers(seconds=window, clock=watchword.clock)
        self.stream_readers: Final[dict[tuple[str, str], Acknowledging]] = {}
        self._told: set[str] = set()
        self._last: tuple[tuple[Header, ...], bytes] = ((), _block(()))

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
        """Accept a message for signing and sending; SigningError says what cannot be sent, and then nothing of it was.

        ``reply`` is signed, and answers to it are expected for as long as a message is fresh. ``expires_at`` is in
        whole seconds since the epoch. A publish to the ``reply`` of a verified request is its answer, bound to it; to
        pass that on as ``reply`` is refused, for the requester could not tell whose answers it asked for.
        """
        if subject.startswith(CONTROL_SUBJECTS):
            await super().publish(subject, payload, reply, headers)
            if subject.startswith(ACK_SUBJECTS) and is_ack(payload):
                self._acknowledged(subject)
            return
        owed = self._answering.request_at(subject)
        if reply and self._asked.get(reply) is None and self._answering.request_at(reply) is not None:
            self.refuse("publish(reply=) with the reply subject of a request", forwarded(subject, reply))
        request = await self.send(
            subject, payload, reply, headers, recipient=recipient, expires_at=expires_at, answers=owed
        )
        if reply and request is not None:
            asked = self._asked.get(reply) or {}
            asked[request.id] = request
            if len(asked) > _MAX_PER_INBOX:
                del asked[next(iter(asked))]
            self._asked.put(reply, asked)

    def _acknowledged(self, subject: str) -> None:
        """Tell the reader of a delivery that it was acknowledged, whoever did it, so that its id may age."""
        delivery = Delivery.parse(subject)
        reader = None if delivery is None else self.stream_readers.get(delivery.by)
        if reader is not None and delivery is not None:
            reader.acknowledged_at(delivery.sequence)

    async def answer(
        self, reply: str, data: bytes, headers: Mapping[str, str] | None, request: VerifiedMessage | None
    ) -> None:
        """Send an answer: signed and bound to ``request``; unsigned where the request was not verified."""
        if reply.startswith(SERVERS_SUBJECTS):
            raise SigningError(f"reply subject {reply!r}: an answer there would be an order to the server")
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
    ) -> Request | None:
        """Post one message; return what answers to it are held against, None for one that went out unsigned.

        That is done in observe mode only, with what cannot be signed.

        ``stored`` is for JetStream, which replaces the reply subject: none is signed, and the id goes along as
        ``Nats-Msg-Id`` unless the caller gave its own.
        """
        try:
            letter, request = self._signable(
                subject, payload, reply, headers, recipient, expires_at, answers, stored=stored
            )
        except (SigningError, ConfigurationError) as error:
            fault = _as_the_base_would(error, subject, reply, headers)
        else:
            await self.post(letter)
            return request
        self.refuse(f"publish: {type(fault).__name__}", fault)
        await super().publish(subject, payload, reply, None if headers is None else dict(headers))
        return None

    def _signable(  # noqa: PLR0917 - the half of send() that waits for nothing
        self,
        subject: str,
        payload: bytes,
        reply: str,
        headers: Mapping[str, str] | None,
        recipient: str | None,
        expires_at: int | None,
        answers: VerifiedMessage | None,
        *,
        stored: bool,
    ) -> tuple[Letter, Request]:
        channel = channel_of("nats", self.watchword.realm, subject)
        pairs, (last, before) = _pairs(headers), self._last
        if type(payload) is not bytes:
            if not isinstance(payload, bytes | bytearray | memoryview):
                raise SigningError(f"payload is {type(payload).__name__}: encode it to bytes")
            payload = bytes(payload)
        if answers is not None:
            recipient = recipient or answers.principal
        elif recipient is None and self._recipient is not None:
            recipient = self._recipient(channel, None, pairs)
        signed_reply = None if stored or not reply else reply
        in_reply_to = None if answers is None else bytes.fromhex(answers.id)
        draft = self.watchword.signer.draft_parts(
            channel, payload, None, pairs, None, recipient, expires_at, in_reply_to, signed_reply
        )
        if pairs != last:  # those of many messages are the same
            before = _block(pairs)
            self._last = pairs, before
        after = _after(draft.id) if stored and NATS_ID_HEADER not in (headers or {}) else _END
        # The client looks at the payload alone, and the server ends the connection for good over the sum.
        size = len(before) + draft.largest + len(after) + len(payload)
        if size > self.max_payload:
            raise PayloadTooLarge(f"payload and headers of {size} bytes: this server takes {self.max_payload}")
        return Letter(draft, subject, reply, before, after, payload, size), _make_request(draft.id, channel, recipient)

    def _expectation(self, floor: float) -> Callable[[str], Expected]:
        """Return what tells what is waited for on a subject, by a reader that remembers from ``floor`` on."""
        prefix = f"{self._inbox_prefix.decode()}."
        anything, replies = Expected(floor=floor), Expected(floor=floor, only_replies=True)

        def expected(subject: str) -> Expected:
            inbox, asked = subject.startswith(prefix), self._asked.get(subject)
            if asked is None:
                return replies if inbox else anything
            return Expected(requests=asked, only_replies=inbox, floor=floor)

        return expected

    def refuse(self, call: str, error: WatchwordError) -> None:
        """Raise what stands in the way of a call that nobody could verify; in observe mode let it through.

        Then there is one warning for each ``call``, which says what to write instead.
        """
        if not self.watchword.observing:
            raise error
        if call not in self._told:
            self._told.add(call)
            self.watchword.audit.warn("nats.call_uncovered", call=call, remedy=str(error))


def _pairs(headers: Mapping[str, str] | None) -> tuple[Header, ...]:
    try:
        return tuple([(name, value.encode()) for name, value in headers.items()]) if headers else ()
    except (AttributeError, UnicodeEncodeError):
        raise SigningError("header values are text in printable ASCII: encode others, for instance as base64") from None


def _block(pairs: tuple[Header, ...]) -> bytes:
    """Return the header block up to the envelope, as the base would write it."""
    lines = _BEFORE
    for name, value in pairs:
        if not _HEADER_KEY_RE.fullmatch(name):
            raise BadHeader(f"header name {name[:64]!r}: nats-py sends letters, digits and - _ . only", name)
        if name.lower().startswith(_SCHEDULE):
            raise BadHeader(
                f"header {name}: the server would publish the message later, on another subject than the one that is "
                "signed, and nobody could verify it. Publish it yourself when it is due",
                name,
            )
        lines += b"%b: %b\r\n" % (name.encode(), value or b"")
    return lines + _ENVELOPE


def _as_the_base_would(
    error: WatchwordError, subject: str, reply: str, headers: Mapping[str, str] | None
) -> WatchwordError:
    """Return the error as one of nats-py's too, where that has one for the fault."""
    if not isinstance(error, SigningError) or isinstance(error, Error):
        return error
    if not is_subject(subject) or (reply and (not is_subject(reply) or reply.startswith(SERVERS_SUBJECTS))):
        return BadSubject(str(error))
    named: dict[Any, Any] = dict(headers) if isinstance(headers, Mapping) else {}
    for name, value in named.items():
        if not str(name).strip():
            return BadHeader("a header without a name: nats-py would leave it out; leave it out yourself")
        if not _HEADER_KEY_RE.fullmatch(str(name)):
            return BadHeader(str(error), str(name))
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            return BadHeader(str(error))
    return error


def _after(message_id: bytes) -> bytes:
    """Return the header block behind the envelope, for a stream that drops what it has."""
    return _ID + message_id.hex().encode() + _END
