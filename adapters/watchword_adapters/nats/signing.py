"""From a call of publish() to a message that waits for its signature."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from nats.errors import Error

from watchword import SigningError
from watchword.message import ENVELOPE_HEADER, NATS_ID_HEADER, SERVERS_SUBJECTS, channel_of, is_subject
from watchword_adapters.nats.errors import BadHeader, BadSubject, PayloadTooLarge
from watchword_adapters.nats.outbox import Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import VerifiedMessage, Watchword
    from watchword.message import Header
    from watchword.spi import Channel

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Names the principal that a message is meant for, from its channel, key (None on NATS) and headers."""

_BEFORE: Final = b"NATS/1.0\r\n"
_ENVELOPE: Final = f"{ENVELOPE_HEADER}: ".encode()
_END: Final = b"\r\n\r\n"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Names of headers that nats-py sends."""

_SCHEDULE: Final = "nats-schedule"
_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_ID: Final = f"\r\n{NATS_ID_HEADER}: ".encode()

_Headers: TypeAlias = "tuple[dict[str, str], tuple[Header, ...], bytes]"
"""Headers as a caller gave them, as they are signed, and as they are written up to the envelope."""


class Signing:
    """Makes of each message what waits for its signature; ``recipient`` names whom a message is meant for."""

    def __init__(self, watchword: Watchword, recipient: Recipient | None) -> None:
        self._watchword = watchword
        self._recipient = recipient
        self._last: _Headers = {}, (), _EMPTY

    def outgoing(
        self,
        subject: str,
        payload: bytes,
        reply: str,
        headers: Mapping[str, str] | None,
        *,
        most: int,
        recipient: str | None = None,
        expires_at: int | None = None,
        answers: VerifiedMessage | None = None,
        stored: bool = False,
    ) -> Outgoing:
        """Return a message of ``most`` bytes at most.

        ``stored`` is for JetStream, which replaces the reply subject: none is signed, and the id goes along as
        ``Nats-Msg-Id`` unless the caller gave its own. SigningError says what cannot be signed, ConfigurationError that
        this process signs nothing.
        """
        try:
            channel = channel_of("nats", self._watchword.realm, subject)
            _, pairs, before = self._headers(headers)
            if type(payload) is not bytes:
                payload = _bytes_of(payload)
            if answers is not None:
                recipient = answers.principal if recipient is None else recipient
            elif recipient is None and self._recipient is not None:
                recipient = self._recipient(channel, None, pairs)
            signed_reply = None if stored or not reply else reply
            in_reply_to = None if answers is None else bytes.fromhex(answers.id)
            unsigned = self._watchword.signer.prepare_parts(
                channel, payload, None, pairs, None, recipient, expires_at, in_reply_to, signed_reply
            )
            if before is None:  # only now: the signer says what is wrong with a name in its own words
                before = _block(pairs)
                self._last = dict(headers or {}), pairs, before
            after = _after(unsigned.id) if stored and NATS_ID_HEADER not in (headers or {}) else _END
            # The client looks at the payload alone, and the server ends the connection for good over the sum.
            size = len(before) + unsigned.largest + len(after) + len(payload)
            if size > most:
                raise PayloadTooLarge(f"payload and headers of {size} bytes: this server takes {most}")
            return Outgoing(unsigned, subject, reply, before, after, payload, size, channel, recipient)
        except SigningError as error:
            fault = _as_the_base_would(error, subject, reply, headers)
        raise fault

    def _headers(self, headers: Mapping[str, str] | None) -> tuple[object, tuple[Header, ...], bytes | None]:
        """Return headers as they are signed, and as they are written if that is known: many messages have the same."""
        if not headers:
            return None, (), _EMPTY
        if headers == self._last[0] and type(headers) is dict:
            return self._last
        return None, _pairs(headers), None


def _bytes_of(payload: object) -> bytes:
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise SigningError(f"payload is {type(payload).__name__}: encode it to bytes")
    return bytes(payload)


def _pairs(headers: Mapping[str, str]) -> tuple[Header, ...]:
    """Return headers by their names: clients that hand them over as a map know no other order (docs/spec.md)."""
    try:
        return tuple([(name, value.encode()) for name, value in sorted(headers.items())])
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise SigningError("header values are text in printable ASCII: encode others, for instance as base64") from None


def _block(pairs: tuple[Header, ...]) -> bytes:
    """Return the header block up to the envelope, as the base would write it."""
    lines = _BEFORE
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise BadHeader(f"header name {name[:64]!r}: nats-py sends letters, digits and - _ . only", name)
        if name.lower().startswith(_SCHEDULE):
            raise BadHeader(
                f"header {name}: the server would publish the message later, on another subject than the one that is "
                "signed, and nobody could verify it. Publish it yourself when it is due",
                name,
            )
        lines += b"%b: %b\r\n" % (name.encode(), value or b"")
    return lines + _ENVELOPE


_EMPTY: Final = _block(())


def _as_the_base_would(
    error: SigningError, subject: str, reply: str, headers: Mapping[str, str] | None
) -> SigningError:
    """Return the error as one of nats-py's too, where that has one for the fault."""
    if isinstance(error, Error):
        return error
    if not is_subject(subject) or (reply and (not is_subject(reply) or reply.startswith(SERVERS_SUBJECTS))):
        return BadSubject(str(error))
    named: dict[Any, Any] = dict(headers) if isinstance(headers, Mapping) else {}
    for name, value in named.items():
        if not str(name).strip():
            return BadHeader("a header without a name: nats-py would leave it out; leave it out yourself")
        if not _NAME.fullmatch(str(name)):
            return BadHeader(str(error), str(name))
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            return BadHeader(str(error))
    return error


def _after(message_id: bytes) -> bytes:
    """Return the header block behind the envelope, for a stream that drops what it has."""
    return _ID + message_id.hex().encode() + _END
