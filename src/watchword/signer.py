"""The signer: a message in, the one header to add out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from watchword.envelope import (
    ID_BYTES,
    MAX_ENVELOPE_BYTES,
    MAX_ENVELOPE_CHARACTERS,
    Claims,
    encode_claims,
    encode_direct,
    encode_protected,
    is_envelope_name,
    metadata_digest,
    sig_structure,
    value_digest,
)
from watchword.errors import ConfigurationError, SigningError, Unavailable
from watchword.keys import SIGNATURE_BYTES, Algorithm, SigningBackend, SigningKey, check_key_id, with_low_s
from watchword.message import (
    ENVELOPE_HEADER,
    MAX_HEADER_BYTES,
    TRACE_HEADERS,
    Header,
    check_realm,
    is_principal,
    is_subject,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from watchword.message import Message

_NATS_NAME: Final = re.compile(r"[!-9;-~]+")  # printable ASCII without blank and colon
_NATS_VALUE: Final = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")  # printable ASCII, no blank at its ends


@dataclass(frozen=True, slots=True)
class Signed:
    """What signing gave: the header to add, the message's id (16 bytes) and its time of issue (seconds)."""

    header: Header
    id: bytes
    issued_at: int


class Signer:
    """Signs messages of one principal in one realm.

    ``key`` is a SigningKey; or any SigningBackend with the ``key_id`` and ``algorithm`` of its public half. ``clock``
    returns seconds since the epoch.
    """

    def __init__(
        self,
        *,
        realm: str,
        principal: str,
        key: SigningBackend,
        clock: Callable[[], float],
        key_id: bytes | None = None,
        algorithm: Algorithm | None = None,
        uncovered: Iterable[str] = TRACE_HEADERS,
    ) -> None:
        if not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        if isinstance(key, SigningKey):
            key_id, algorithm = key_id or key.key_id, key.algorithm
        if key_id is None or algorithm is None:
            raise ConfigurationError("a signing back-end needs the key_id and algorithm of its public key")
        check_key_id(key_id)
        self.realm: Final = check_realm(realm)
        self.principal: Final = principal
        self._backend = key
        self._algorithm = algorithm
        self._protected = encode_protected(algorithm, key_id)
        self._clock = clock
        self._uncovered = frozenset(uncovered)

    async def sign(
        self,
        message: Message,
        *,
        recipient: str | None = None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
    ) -> Signed:
        """Return the header that makes ``message`` verifiable on its channel, and nowhere else.

        ``recipient`` is the principal it is meant for; ``expires_at`` is in seconds since the epoch; ``in_reply_to`` is
        the id of the request that it answers. SigningError where the bus would change the message or a limit is passed;
        Unavailable where the signing back-end failed.
        """
        self._check(message, recipient, expires_at)
        if in_reply_to is not None and len(in_reply_to) != ID_BYTES:
            raise SigningError(f"in_reply_to of {len(in_reply_to)} bytes: give the request's id, {ID_BYTES} bytes")
        covered = {name for name, _ in message.headers if name not in self._uncovered}
        claims = Claims(
            issuer=self.principal,
            id=os.urandom(ID_BYTES),  # from the kernel each time: a forked or cloned process draws its own (A37)
            issued_at=int(self._clock()),
            channel=message.channel.uri,
            recipient=recipient,
            expires_at=expires_at,
            covered=tuple(sorted(covered, key=str.encode)),
            metadata_digest=metadata_digest(message.key, message.headers, covered),
            partition=message.partition,
            request_id=in_reply_to,
            reply_to=message.reply_to,
            value_digest=value_digest(message.value),
        )
        claims_bytes = encode_claims(claims)
        signature = await self._sign(sig_structure(self._protected, 0, claims_bytes))
        value = encode_direct(claims_bytes, self._protected, signature)
        if len(value) > MAX_ENVELOPE_CHARACTERS:
            raise SigningError(
                f"envelope over {MAX_ENVELOPE_BYTES} bytes: use fewer or shorter header and channel names"
            )
        return Signed((ENVELOPE_HEADER, value), claims.id, claims.issued_at)

    async def _sign(self, data: bytes) -> bytes:
        try:
            signature: object = await self._backend.sign(data)
        except Exception as error:
            raise Unavailable("signing", type(error).__name__) from error
        if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
            raise Unavailable("signing", f"the back-end did not return {SIGNATURE_BYTES} bytes")
        return with_low_s(signature) if self._algorithm is Algorithm.ESP256 else signature  # few KMS care

    def _check(self, message: Message, recipient: str | None, expires_at: int | None) -> None:
        if message.channel.realm != self.realm:
            raise SigningError(f"channel {message.channel}: this signer signs for realm {self.realm!r}")
        message.channel.check_signable()
        if recipient is not None and not is_principal(recipient):
            raise SigningError(f"recipient {recipient[:128]!r} is not a principal")
        if expires_at is not None and not _is_whole(expires_at, 1 << 33):
            raise SigningError(f"expires_at {expires_at}: whole seconds since the epoch")
        if message.partition is not None and not _is_whole(message.partition, 1 << 31):
            raise SigningError(f"partition {message.partition} is none")
        if message.reply_to is not None and not is_subject(message.reply_to):
            raise SigningError(f"reply subject {message.reply_to!r}: write a subject without wildcards")
        _check_headers(message)


def _is_whole(value: object, limit: int) -> bool:
    """Tell whether this is an int: a float, as of time.time() + 60, or a bool would be malformed to every reader."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _check_headers(message: Message) -> None:
    """Refuse headers that the bus or a client would change on the way; they could not verify at the other end."""
    size = 0
    for name, value in message.headers:
        if is_envelope_name(name):
            raise SigningError(
                "the message bears an envelope already: sign it once, and forward only what you received"
            )
        try:
            size += len(name.encode()) + len(value or b"")
        except UnicodeEncodeError:
            raise SigningError("header name that is not Unicode text") from None
    if size > MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS:
        raise SigningError(f"headers of {size} bytes: at most {MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS}")
    if message.channel.scheme == "nats":
        _check_nats_headers(message.headers)


def _check_nats_headers(headers: tuple[Header, ...]) -> None:
    names = [name for name, _ in headers]
    if len(set(names)) != len(names):
        raise SigningError("a header twice: NATS clients keep only the last, so join the values")
    for name, value in headers:
        if not _NATS_NAME.fullmatch(name):
            raise SigningError(f"header name {name[:64]!r}: NATS carries printable ASCII without blanks and ':'")
        if value is None or not _NATS_VALUE.fullmatch(value):
            raise SigningError(f"value of header {name!r}: NATS carries printable ASCII without blanks at its ends")
