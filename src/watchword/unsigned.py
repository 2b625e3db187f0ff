"""From a message to what is signed of it: checked, numbered, dated, and written as claims."""

from __future__ import annotations

import os
import re
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from watchword import engine
from watchword.encoding import Layout, characters, encode_pairs, may_be_kept, metadata_digest, value_digest
from watchword.envelope import ID_BYTES, MAX_ENVELOPE_BYTES, MAX_ENVELOPE_CHARACTERS, is_envelope_name
from watchword.errors import SigningError
from watchword.message import MAX_HEADER_BYTES, MAX_HEADERS, SERVERS_SUBJECTS, is_principal, is_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.message import Channel, Header, Message

_ROOM: Final = MAX_HEADER_BYTES - MAX_ENVELOPE_CHARACTERS
_MOST: Final = MAX_HEADERS - 24
"""Headers at signing; the envelope, the bus and tracing libraries add some on the way."""

_MAX_ROUTES: Final = 1024
_NATS_NAME: Final = re.compile(r"[!-9;-~]+")  # printable ASCII without blank and colon
_NATS_VALUE: Final = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")  # printable ASCII, no blank at its ends


class UnsignedEnvelope(NamedTuple):
    """A message's claims, complete and checked, that wait for a signature.

    ``largest`` is the most characters that the envelope will have, alone or in a batch. ``issued_at`` is in whole
    seconds since the epoch, as it is signed; ``moment`` is the same time with its fraction.
    """

    claims: bytes
    id: bytes
    issued_at: int
    largest: int
    moment: float


Draft: TypeAlias = tuple[bytes, bytes, int]
"""Claims, id, and time of issue."""

_Way: TypeAlias = tuple[str, int | None, str | None, tuple[str, ...]]
"""Channel, partition, recipient, and header names."""


def _way(channel: Channel, partition: int | None, recipient: str | None, headers: tuple[Header, ...]) -> _Way:
    return channel.uri, partition, recipient, tuple([header[0] for header in headers])


class _Route:
    """What messages with the same destination and header names have in common, as checked."""

    def __init__(self, layout: Layout, covered: frozenset[str], names_size: int, *, nats: bool) -> None:
        self.layout: Final = layout
        self.covered: Final = covered
        self._names_size = names_size
        self._nats = nats
        self._last: tuple[Sequence[Header] | None, bytes] = (None, b"")
        native = engine.native()
        self.native: Final = None if native is None else native.Layout(*layout.parts)

    def pairs(self, headers: Sequence[Header]) -> bytes:
        """Return the covered headers as they are digested; SigningError for values that the bus would not carry.

        Many messages have the headers of the last one, so these are kept.
        """
        last, pairs = self._last
        if headers == last:
            return pairs
        size = self._names_size + sum([len(value) for _, value in headers if value is not None])
        if size > _ROOM:
            raise SigningError(f"headers of {size} bytes: at most {_ROOM}")
        if self._nats:
            _check_nats_values(headers)
        pairs = encode_pairs([header for header in headers if header[0] in self.covered])
        if may_be_kept(headers):
            self._last = headers, pairs
        return pairs


class ClaimsBuilder:
    """Builds claims of one principal in one realm; what was checked for one message is not checked again for its like.

    ``overhead`` is how many bytes an envelope has at most beside its claims.
    """

    def __init__(
        self,
        *,
        principal: str,
        realm: str,
        clock: Callable[[], float],
        uncovered: frozenset[str],
        overhead: int,
    ) -> None:
        self._principal = principal
        self._realm = realm
        self._clock = clock
        self._uncovered = uncovered
        self._overhead = overhead
        self._routes: dict[_Way, _Route] = {}
        self.held: str | None = None
        """Why nothing is signed for now, if that is so."""

    def prepare(  # noqa: PLR0917 - for each message
        self,
        channel: Channel,
        value: bytes | None,
        key: bytes | None,
        headers: tuple[Header, ...],
        partition: int | None,
        recipient: str | None,
        expires_at: int | None = None,
        in_reply_to: bytes | None = None,
        reply_to: str | None = None,
    ) -> UnsignedEnvelope:
        """Return the unsigned envelope of a message with these parts; options and errors as for ``Signer.prepare``."""
        if self.held is not None:
            raise SigningError(self.held)
        if channel.realm != self._realm:
            raise SigningError(f"channel {channel}: this signer signs for realm {self._realm!r}")
        if partition is not None and type(partition) is not int:  # no bool, which is equal to a partition that is known
            raise SigningError(f"partition {partition} is none")
        _check_recipient(recipient)
        name = _way(channel, partition, recipient, headers)
        known = self._routes.get(name)
        route = known or self._new_route(channel, headers, partition, recipient)
        pairs = route.pairs(headers)
        _check_request(in_reply_to, reply_to)
        moment = self._clock()
        issued_at = int(moment)
        _check_expiry(expires_at, moment)
        message_id = os.urandom(ID_BYTES)  # from the kernel each time: a forked or cloned process draws its own (A37)
        if route.native is not None and expires_at is None and in_reply_to is None and reply_to is None:
            claims = route.native.draft(message_id, value, key, pairs if route.covered else b"", issued_at)
        else:
            metadata = None if key is None and not route.covered else metadata_digest(key, pairs)
            claims = route.layout.claims(
                message_id, issued_at, metadata, value_digest(value), expires_at, in_reply_to, reply_to
            )
        largest = characters(len(claims) + self._overhead)
        if largest > MAX_ENVELOPE_CHARACTERS:
            raise SigningError(
                f"envelope over {MAX_ENVELOPE_BYTES} bytes: use fewer or shorter header and channel names"
            )
        if known is None:  # only now: names that fit no envelope are not kept
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[name] = route
        return UnsignedEnvelope(claims, message_id, issued_at, largest, moment)

    def alike(self, messages: list[Message], begin: int, recipient: str | None) -> list[Draft]:
        """Return the drafts of messages from ``begin`` on, as many as are like the one before, which was prepared.

        None are where the Python engine prepares each by itself.
        """
        like = messages[begin - 1]
        route = self._routes.get(_way(like.channel, like.partition, recipient, like.headers))
        if begin == len(messages) or route is None or route.native is None or like.reply_to is not None:
            return []
        issued_at, pairs = int(self._clock()), route.pairs(like.headers) if route.covered else b""
        ids = os.urandom(ID_BYTES * (len(messages) - begin))
        drafts = route.native.drafts(messages, begin, ids, pairs, issued_at)
        return [
            (claims, ids[at : at + ID_BYTES], issued_at) for at, claims in zip(count(0, ID_BYTES), drafts, strict=False)
        ]

    def _new_route(
        self, channel: Channel, headers: tuple[Header, ...], partition: int | None, recipient: str | None
    ) -> _Route:
        """Check what all messages that go this way have in common."""
        if partition is not None and not 0 <= partition < 1 << 31:
            raise SigningError(f"partition {partition} is none")
        channel.check_signable()
        if recipient is not None and not is_principal(recipient):
            raise SigningError(f"recipient {recipient[:128]!r} is not a principal")
        if len(headers) > _MOST:
            raise SigningError(f"{len(headers)} headers: at most {_MOST}")
        names = [name for name, _ in headers]
        if any(map(is_envelope_name, names)):
            raise SigningError(
                "the message bears an envelope already: sign it once, and forward only what you received"
            )
        try:
            size = sum(len(name.encode()) for name in names)
        except UnicodeEncodeError:
            raise SigningError("header name that is not Unicode text") from None
        nats = channel.scheme == "nats"
        if nats:
            _check_nats_names(names)
        covered = frozenset(names) - self._uncovered
        layout = Layout(
            issuer=self._principal,
            channel=channel.uri,
            recipient=recipient,
            covered=sorted(covered, key=str.encode),
            partition=partition,
        )
        return _Route(layout, covered, size, nats=nats)


def _check_recipient(recipient: object) -> None:
    """Refuse what is no text; whether it may be a principal is looked at once for each."""
    if recipient is not None and not isinstance(recipient, str):
        raise SigningError(
            f"recipient of type {type(recipient).__name__}: write the principal that the message is meant for, as"
            ' "agent://acme/cloud"'
        )


def _check_request(in_reply_to: object, reply_to: object) -> None:
    """Refuse what cannot be a request's id, or where answers cannot go."""
    if in_reply_to is not None and (type(in_reply_to) is not bytes or len(in_reply_to) != ID_BYTES):
        given = f"{len(in_reply_to)} bytes" if type(in_reply_to) is bytes else f"type {type(in_reply_to).__name__}"
        raise SigningError(f"in_reply_to of {given}: give the request's id, {ID_BYTES} bytes")
    if reply_to is None:
        return
    if not (isinstance(reply_to, str) and is_subject(reply_to)):
        raise SigningError(f"reply subject {reply_to!r}: write a subject without wildcards")
    if reply_to.startswith(SERVERS_SUBJECTS):
        raise SigningError(
            f"reply subject {reply_to!r}: an answer there would be an order to the server; use new_inbox()"
        )


def _check_expiry(expires_at: object, now: float) -> None:
    """Refuse an end that is no time, or has passed: every reader would call the message malformed or expired."""
    if expires_at is None:
        return
    remedy = "write whole seconds since the epoch, as int(time.time()) + 60"
    if type(expires_at) is not int or not 0 <= expires_at < 1 << 33:  # no float, as time.time() + 60, and no bool
        raise SigningError(f"expires_at {expires_at!r}: {remedy}")
    if expires_at <= now:
        raise SigningError(
            f"expires_at {expires_at}: that was {now - expires_at:.0f} s ago, so no reader would take it; {remedy}"
        )


def _check_nats_names(names: list[str]) -> None:
    """Refuse headers that the bus or a client would change on the way; they could not verify at the other end."""
    if len(set(names)) != len(names):
        raise SigningError("a header twice: NATS clients keep only the last, so join the values")
    for name in names:
        if not _NATS_NAME.fullmatch(name):
            raise SigningError(f"header name {name[:64]!r}: NATS carries printable ASCII without blanks and ':'")


def _check_nats_values(headers: Sequence[Header]) -> None:
    """Refuse header values that the bus would change."""
    for name, value in headers:
        if value is None or not _NATS_VALUE.fullmatch(value):
            raise SigningError(f"value of header {name!r}: NATS carries printable ASCII without blanks at its ends")
