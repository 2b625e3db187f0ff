"""The messages that a handler receives: nats-py's own, with the verified author."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from nats.aio.msg import Msg
from nats.errors import Error

from watchword.envelope import is_envelope_name
from watchword.message import NATS_ID_HEADER, SERVERS_SUBJECTS, Message, ObservedMessage, VerifiedMessage
from watchword_adapters.nats._seam import client_of, origin, shown_as
from watchword_adapters.nats.answers import HiddenReply, ReplySubject
from watchword_adapters.unsigned_reply import UnsignedReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword import Rejected, Unavailable, Watchword
    from watchword.spi import Delivered

_ACK: Final = ["$JS", "ACK"]
ACK_SUBJECTS: Final = "$JS.ACK."
_ENDS: Final = (b"", b"+ACK", b"+OK")
_ENDS_WITH_MORE: Final = (b"+TERM", b"+NXT")
_SHORT: Final = 9
_LONG: Final = 11
_DIGITS: Final = 20
_KEPT: Final = 4096
_ID: Final = re.compile("[0-9a-f]{32}")


class Delivery(NamedTuple):
    """The contents of an ack subject: the (stream, consumer) that delivered, stream sequence, time (ns) and attempt.

    ``number`` is the consumer's count of deliveries; ``pending`` is how many messages it still had to deliver.
    """

    by: tuple[str, str]
    sequence: int
    stamp: int
    attempt: int
    number: int
    pending: int


@lru_cache(_KEPT)
def delivery_at(subject: str) -> Delivery | None:
    """Read ``$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<attempt>.<sequence>.<n>.<ns>.<left>``; else None.

    Recent results are cached: each is needed on arrival, judging, delivery and acknowledgement.
    """
    tokens = subject.split(".")
    if tokens[:2] != _ACK or not (len(tokens) == _SHORT or len(tokens) >= _LONG):
        return None
    stream, consumer, *numbers = tokens[2:9] if len(tokens) == _SHORT else tokens[4:11]
    if not (all(numbers) and max(map(len, numbers)) <= _DIGITS):
        return None
    digits = "".join(numbers)
    if not (digits.isascii() and digits.isdigit()):
        return None
    attempt, sequence, number, stamp, pending = map(int, numbers)
    return Delivery((stream, consumer), sequence, stamp, attempt, number, pending)


def sequence_of(raw: Msg) -> int:
    """Return the stream sequence of a delivery; 0 for any other message."""
    delivery = delivery_at(raw.reply)
    return 0 if delivery is None else delivery.sequence


def is_ack(payload: bytes) -> bool:
    """Return True if a payload published to an ack subject ends that delivery."""
    return payload in _ENDS or payload.startswith(_ENDS_WITH_MORE)


class Answering(Protocol):
    """The part of the client that a delivered message needs."""

    watchword: Watchword

    async def answer(
        self, reply: str, data: bytes, headers: Mapping[str, str] | None, request: VerifiedMessage | None
    ) -> None:
        """Send an answer, signed and bound to ``request``; unsigned if the request was not verified."""
        ...

    def drop_answer(self, request: VerifiedMessage | None) -> None:
        """Warn once about a dropped answer, whose subject is one of the server's own."""
        ...


@dataclass(repr=False)
class DeliveredMsg(Msg):
    """Any message that a handler receives; ``verified`` names its author, and is None for an unverified message.

    It replaces the base's methods that would echo headers in an answer. (Acknowledgements use the client's ``publish``,
    after which the message's id can expire.)
    """

    @property
    def verified(self) -> VerifiedMessage | None:
        """The verified message; None for a rejected one in observe mode, and for the server's own."""
        return None

    async def respond(self, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Answer the request; ``headers`` are the answer's, those of the request are never echoed."""
        reply = self._answer_to()
        if not reply:
            raise Error("no reply subject available: the request did not sign one")
        client: Answering = client_of(self)
        await client.answer(reply, data, headers, self.verified)

    def _answer_to(self) -> str | None:
        return None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(subject={self.subject!r}, data=<{len(self.data)} bytes>)"


@dataclass(repr=False)
class VerifiedMsg(DeliveredMsg):
    """A ``nats.aio.msg.Msg`` that passed every check; ``verified`` names its author.

    ``headers`` holds only the headers covered by the signature, and trace headers; ``reply`` is the signed reply
    subject or empty, and for a JetStream delivery the ack subject, as in nats-py. ``respond`` always uses the signed
    reply subject.
    """

    verified: VerifiedMessage = None  # type: ignore[assignment]  # the base's fields have defaults, so must this

    def _answer_to(self) -> str | None:
        return self.verified.reply_to


@dataclass(repr=False)
class ObservedMsg(DeliveredMsg):
    """A message as received, in observe mode only, with the ``verdict`` of enforce mode.

    It is NOT verified if ``verified`` is None; then an answer is sent unsigned, so that no stranger can make this agent
    sign, and otherwise signed and bound to the message. A reply subject of the server's own (``$JS.API...``) is hidden
    in any case: an answer there would be an order to the server, with this agent's rights.
    """

    verdict: VerifiedMessage | Rejected | Unavailable = None  # type: ignore[assignment]  # as in VerifiedMsg
    message: Message = None  # type: ignore[assignment]  # as in VerifiedMsg
    """The message as received, with every header."""

    async def respond(self, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Answer the request; if its reply subject is hidden, drop the answer with a warning."""
        if self.verified is None and (isinstance(self.reply, HiddenReply) or self.reply.startswith(SERVERS_SUBJECTS)):
            client: Answering = client_of(self)
            client.drop_answer(None)
            return
        await super().respond(data, headers=headers)

    def _answer_to(self) -> str | None:
        return self.reply if self.verified is None else self.verified.reply_to

    @property
    def verified(self) -> VerifiedMessage | None:
        """The verified message; None for a message that enforce mode would have rejected."""
        return self.verdict if isinstance(self.verdict, VerifiedMessage) else None


class ServerMsg(DeliveredMsg):
    """The server's response to a request of this client; the server signs nothing."""


def server_msg(raw: Msg) -> ServerMsg:
    """Return the server's response as a message for the caller."""
    headers = None if raw.headers is None else dict(raw.headers)
    return ServerMsg(subject=raw.subject, reply=raw.reply, data=raw.data, headers=headers, **origin(raw))


def proof_of(msg: Msg) -> VerifiedMessage | None:
    """Return the verified message; None for one that enforce mode would have rejected."""
    return msg.verified if isinstance(msg, DeliveredMsg) else None


def delivered_msg(raw: Msg, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
    """Return the handler's message, built from the client's own and the verdict."""
    if isinstance(delivered, ObservedMessage):
        verdict, message = delivered.verdict, delivered.message
        return ObservedMsg(
            **origin(raw),
            subject=raw.subject,
            reply=_observed_reply(raw, message, verdict),
            data=raw.data,
            headers=_observed_headers(raw.headers, verdict),
            verdict=verdict,
            message=message,
        )
    made = shown_as(VerifiedMsg, raw)
    made.verified = delivered
    if delivered.headers:
        made.headers = {name: (value or b"").decode("utf-8", "replace") for name, value in delivered.headers}
    if delivered.position is not None:
        made.reply = raw.reply
    elif delivered.reply_to is not None:
        made.reply = ReplySubject.of(delivered)
    return made


def _observed_headers(
    headers: Mapping[str, str] | None, verdict: VerifiedMessage | Rejected | Unavailable
) -> dict[str, str] | None:
    """Return headers as received, without Watchword's own, so that a message can be forwarded with them."""
    if headers is None:
        return None
    enveloped = any(map(is_envelope_name, headers))
    own = headers.get(NATS_ID_HEADER, "") if enveloped else ""
    covered = isinstance(verdict, VerifiedMessage) and verdict.id != own
    hides = _ID.fullmatch(own) is not None and not covered
    kept = {
        name: value
        for name, value in headers.items()
        if not (is_envelope_name(name) or (hides and name == NATS_ID_HEADER))
    }
    return kept or None


def _observed_reply(raw: Msg, message: Message, verdict: VerifiedMessage | Rejected | Unavailable) -> str:
    if isinstance(verdict, VerifiedMessage) and message.position is None and verdict.reply_to == raw.reply:
        return ReplySubject.of(verdict)
    if raw.reply.startswith(SERVERS_SUBJECTS):
        return raw.reply if delivery_at(raw.reply) is not None else HiddenReply.of(None)
    return UnsignedReply(raw.reply)
