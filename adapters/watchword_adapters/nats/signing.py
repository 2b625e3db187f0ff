"""Turns the arguments of ``publish`` into a message that is ready to be signed."""

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
"""Returns the principal that a message is meant for, given its channel, key (None on NATS) and headers."""

_BEFORE: Final = b"NATS/1.0\r\n"
_ENVELOPE: Final = f"{ENVELOPE_HEADER}: ".encode()
_END: Final = b"\r\n\r\n"
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Header names that nats-py sends."""

_SCHEDULE: Final = "nats-schedule"
_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_ID: Final = f"\r\n{NATS_ID_HEADER}: ".encode()

_Headers: TypeAlias = "tuple[dict[str, str], tuple[Header, ...], bytes]"
"""Headers as passed by the caller, as signed, and as written up to the envelope."""


class Signing:
    """Prepares messages for signing; ``recipient`` returns whom a message is meant for."""

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
        """Return a message to be signed, of at most ``most`` bytes.

        ``stored`` is for JetStream, which replaces the reply subject: none is signed, and the id is added as
        ``Nats-Msg-Id`` unless the caller set one. SigningError if the message cannot be signed, ConfigurationError if
        this process has no signer.
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
            if before is None:  # only now, so that the signer reports a bad name first
                before = _block(pairs)
                self._last = dict(headers or {}), pairs, before
            after = _after(unsigned.id) if stored and NATS_ID_HEADER not in (headers or {}) else _END
            # nats-py checks the payload alone, but the server closes the connection for good if the sum is too large.
            size = len(before) + unsigned.largest + len(after) + len(payload)
            if size > most:
                raise PayloadTooLarge(f"payload and headers have {size} bytes; this server accepts {most}")
            return Outgoing(unsigned, subject, reply, before, after, payload, size, channel, recipient)
        except SigningError as error:
            fault = _as_the_base_would(error, subject, reply, headers)
        raise fault

    def _headers(self, headers: Mapping[str, str] | None) -> tuple[object, tuple[Header, ...], bytes | None]:
        """Return headers as signed, and as written if they equal the last ones, as they often do."""
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
    """Return headers sorted by name: clients with headers as a map have no other order (docs/spec.md)."""
    try:
        return tuple([(name, value.encode()) for name, value in sorted(headers.items())])
    except (AttributeError, TypeError, UnicodeEncodeError):
        raise SigningError("header values must be printable ASCII: encode others, for instance as base64") from None


def _block(pairs: tuple[Header, ...]) -> bytes:
    """Return the header block up to the envelope, as nats-py would write it."""
    lines = _BEFORE
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise BadHeader(f"header name {name[:64]!r}: nats-py sends letters, digits and - _ . only", name)
        if name.lower().startswith(_SCHEDULE):
            raise BadHeader(
                f"header {name}: the server would publish the message later, on another subject than the signed one, "
                "and it could not be verified. Publish it yourself when it is due",
                name,
            )
        lines += b"%b: %b\r\n" % (name.encode(), value or b"")
    return lines + _ENVELOPE


_EMPTY: Final = _block(())


def _as_the_base_would(
    error: SigningError, subject: str, reply: str, headers: Mapping[str, str] | None
) -> SigningError:
    """Return the error as nats-py's as well, if nats-py has one for it."""
    if isinstance(error, Error):
        return error
    if not is_subject(subject) or (reply and (not is_subject(reply) or reply.startswith(SERVERS_SUBJECTS))):
        return BadSubject(str(error))
    named: dict[Any, Any] = dict(headers) if isinstance(headers, Mapping) else {}
    for name, value in named.items():
        if not str(name).strip():
            return BadHeader("a header without a name: nats-py would omit it; remove it")
        if not _NAME.fullmatch(str(name)):
            return BadHeader(str(error), str(name))
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            return BadHeader(str(error))
    return error


def _after(message_id: bytes) -> bytes:
    """Return the header block after the envelope, with the id by which a stream drops duplicates."""
    return _ID + message_id.hex().encode() + _END
