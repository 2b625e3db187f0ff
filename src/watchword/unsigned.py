"""Builds a message's claims, the bytes that are signed: checks the message, adds an id and an issue time, and encodes.

It is the step before signing: it takes channel, value, key, headers and options, and returns an ``UnsignedEnvelope`` or
raises SigningError. It holds no key; ``signer`` signs the claims.
"""

from __future__ import annotations

import os
import re
from itertools import groupby
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from watchword import engine
from watchword.encoding import Layout, characters, encode_pairs, may_be_kept, metadata_digest, value_digest
from watchword.envelope import ID_BYTES, is_envelope_name
from watchword.errors import SigningError
from watchword.message import MAX_HEADER_BYTES, MAX_HEADERS, SERVERS_SUBJECTS, is_principal, is_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.message import Channel, Header, Message

_MOST: Final = MAX_HEADERS - 24
"""The most headers at signing; the envelope, the bus and tracing libraries add some later."""

_MAX_ROUTES: Final = 1024
_NATS_NAME: Final = re.compile(r"[!-9;-~]+")  # printable ASCII without space and colon
_NATS_VALUE: Final = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")  # printable ASCII, no outer spaces


Draft: TypeAlias = tuple[bytes, bytes, int]
"""Claims, id, and issue time."""

_Name: TypeAlias = tuple[str, int | None, str | None, tuple[str, ...]]
"""The name of a route: channel, partition, recipient, and header names."""


def _name_of(channel: Channel, partition: int | None, recipient: str | None, headers: tuple[Header, ...]) -> _Name:
    return channel.uri, partition, recipient, tuple([header[0] for header in headers])


class _Route:
    """The checked common parts of messages with the same destination and header names."""

    def __init__(self, layout: Layout, covered: frozenset[str], names_size: int, room: int, *, nats: bool) -> None:
        self._room = room
        self.layout: Final = layout
        self.covered: Final = covered
        self._names_size = names_size
        self._nats = nats
        native = engine.native()
        self.native: Final = None if native is None else native.Layout(*layout.parts)

    def pairs(self, headers: Sequence[Header]) -> bytes:
        """Return the covered headers as they are digested; SigningError if the bus would not carry a value."""
        size = self._names_size + sum([len(value) for _, value in headers if value is not None])
        if size > self._room:
            raise SigningError(f"headers of {size} bytes: at most {self._room}")
        if self._nats:
            _check_nats_values(headers)
        return encode_pairs([header for header in headers if header[0] in self.covered])


class _Way(NamedTuple):
    """The checked common parts of messages with the same destination and headers: all but key and value.

    ``largest`` has the largest envelope in characters, by which of key and value are absent; 0 if not known yet.
    """

    channel: Channel
    partition: int | None
    recipient: str | None
    headers: tuple[Header, ...]
    route: _Route
    pairs: bytes
    largest: list[int]

    def claims(self, message_id: bytes, issued_at: int, key: bytes | None, value: bytes | None, *more: Any) -> bytes:
        """Return a message's claims; ``more`` as for ``Layout.claims``."""
        metadata = None if key is None and not self.route.covered else metadata_digest(key, self.pairs)
        return self.route.layout.claims(message_id, issued_at, metadata, value_digest(value), *more)

    def written(self, envelopes: Sequence[UnsignedEnvelope]) -> tuple[list[bytes], bytes]:
        """Return the claims of messages, and their ids, 16 bytes each."""
        # Random bytes from the kernel each time, so that a forked or cloned process gets its own (A37).
        ids = os.urandom(ID_BYTES * len(envelopes))
        keys, values = [one.key for one in envelopes], [one.value for one in envelopes]
        times = [one.issued_at for one in envelopes]
        if self.route.native is None:
            return [*map(self.claims, _parted(ids), times, keys, values)], ids
        return self.route.native.each(values, keys, times, ids, self.pairs if self.route.covered else b""), ids


def _parted(ids: bytes) -> list[bytes]:
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]


class UnsignedEnvelope:
    """A complete, checked message that waits for its signature; its claims are encoded together with similar ones.

    ``largest`` is the most characters that the envelope can have, alone or in a batch. ``issued_at`` is in whole
    seconds since the epoch, as it is signed; ``moment`` is the same time with its fraction.
    """

    __slots__ = ("_way", "issued_at", "key", "largest", "moment", "value", "written")

    def __init__(  # noqa: PLR0917 - for each message
        self, way: _Way, key: bytes | None, value: bytes | None, moment: float, largest: int, draft: Draft | None
    ) -> None:
        self._way = way
        self.written = draft
        self.key = key
        self.value = value
        self.moment = moment
        self.issued_at = int(moment)
        self.largest = largest

    @property
    def draft(self) -> Draft:
        """The claims, id and issue time; the same at each access."""
        if self.written is None:
            (claims,), message_id = self._way.written((self,))
            self.written = claims, message_id, self.issued_at
        return self.written

    @property
    def id(self) -> bytes:
        """The id of the message, 16 bytes."""
        return self.draft[1]

    @property
    def way(self) -> _Way | None:
        """The common parts, if the claims are not encoded yet; else None."""
        return self._way if self.written is None else None


def drafts_of(envelopes: Sequence[UnsignedEnvelope]) -> list[Draft]:
    """Return the draft of each; claims of consecutive messages with the same common parts are encoded together."""
    if len(envelopes) == 1:
        return [envelopes[0].draft]
    drafts: list[Draft] = []
    for way, group in groupby(envelopes, key=_way_of):
        like = [*group]
        if way is not None:
            claims, ids = way.written(like)
            for one, claimed, message_id in zip(like, claims, _parted(ids), strict=True):
                one.written = claimed, message_id, one.issued_at
        drafts += [one.draft for one in like]
    return drafts


_way_of = attrgetter("way")


class ClaimsBuilder:
    """Builds the claims of one principal in one realm; parts checked for one message are not checked for similar ones.

    ``overhead`` is the most bytes that an envelope has besides its claims, ``most`` the most in all.
    """

    def __init__(
        self,
        *,
        principal: str,
        realm: str,
        clock: Callable[[], float],
        uncovered: frozenset[str],
        overhead: int,
        most: int,
    ) -> None:
        self._principal = principal
        self._realm = realm
        self._clock = clock
        self._uncovered = uncovered
        self._overhead = overhead
        self._most = most
        self._routes: dict[_Name, _Route] = {}
        self._last: _Way | None = None
        self.held: str | None = None
        """Why signing is suspended; None if it is not."""
        self.ends = inf
        """The time (seconds) from which the key signs nothing."""

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
        if partition is not None and type(partition) is not int:  # not bool, which equals the partitions 0 and 1
            raise SigningError(f"partition {partition!r}: write a whole number from 0")
        last = self._last
        if (
            last is not None
            and channel is last.channel
            and headers == last.headers
            and partition == last.partition
            and recipient == last.recipient
        ):
            way = last
        else:
            way = self._way(channel, headers, partition, recipient)
        moment, draft = self._clock(), None
        if moment >= self.ends:
            raise SigningError("this agent's key has ended, and readers would reject what it signs: give it a new one")
        if expires_at is None and in_reply_to is None and reply_to is None:
            largest = way.largest[2 * (key is None) + (value is None)] or self._largest(way, key, value, moment)
        else:
            _check_request(in_reply_to, reply_to)
            _check_expiry(expires_at, moment)
            message_id, issued_at = os.urandom(ID_BYTES), int(moment)
            claims = way.claims(message_id, issued_at, key, value, expires_at, in_reply_to, reply_to)
            draft, largest = (claims, message_id, issued_at), self._checked_size(claims)
        if way is not last:  # only now, so that names that do not fit in an envelope are not cached
            self._keep(way)
        return UnsignedEnvelope(way, key, value, moment, largest, draft)

    def alike(self, messages: list[Message], begin: int, recipient: str | None) -> list[Draft]:
        """Return the drafts of messages from ``begin`` on, as many as are like the one before, which was prepared.

        The list is empty where the Python engine prepares each separately.
        """
        like, way = messages[begin - 1], self._last
        if begin == len(messages) or way is None or way.route.native is None or like.reply_to is not None:
            return []
        if (like.channel, like.partition, recipient, like.headers) != way[:4]:
            return []
        issued_at, pairs = int(self._clock()), way.pairs if way.route.covered else b""
        ids = os.urandom(ID_BYTES * (len(messages) - begin))
        drafts = way.route.native.drafts(messages, begin, ids, pairs, issued_at)
        return [(claims, one, issued_at) for claims, one in zip(drafts, _parted(ids), strict=False)]

    def _way(self, channel: Channel, headers: tuple[Header, ...], partition: int | None, recipient: str | None) -> _Way:
        """Check everything except key and value."""
        if channel.realm != self._realm:
            raise SigningError(f"channel {channel}: this signer signs for realm {self._realm!r}")
        _check_recipient(recipient)
        route = self._routes.get(_name_of(channel, partition, recipient, headers))
        route = route or self._new_route(channel, headers, partition, recipient)
        return _Way(channel, partition, recipient, headers, route, route.pairs(headers), [0, 0, 0, 0])

    def _keep(self, way: _Way) -> None:
        name = _name_of(way.channel, way.partition, way.recipient, way.headers)
        if name not in self._routes:
            if len(self._routes) >= _MAX_ROUTES:
                self._routes.clear()
            self._routes[name] = way.route
        if may_be_kept(way.headers):
            self._last = way

    def _largest(self, way: _Way, key: bytes | None, value: bytes | None, moment: float) -> int:
        found = self._checked_size(way.claims(bytes(ID_BYTES), int(moment), key, value))
        way.largest[2 * (key is None) + (value is None)] = found
        return found

    def _checked_size(self, claims: bytes) -> int:
        largest = characters(len(claims) + self._overhead)
        if largest > characters(self._most):
            raise SigningError(f"envelope over {self._most} bytes: use fewer or shorter header and channel names")
        return largest

    def _new_route(
        self, channel: Channel, headers: tuple[Header, ...], partition: int | None, recipient: str | None
    ) -> _Route:
        """Check the common parts of messages with this destination and these header names."""
        if partition is not None and not 0 <= partition < 1 << 31:
            raise SigningError(f"partition {partition}: write a whole number from 0")
        channel.check_signable()
        if recipient is not None and not is_principal(recipient):
            raise SigningError(f"recipient {recipient[:128]!r} is not a principal")
        if len(headers) > _MOST:
            raise SigningError(f"{len(headers)} headers: at most {_MOST}")
        names = [name for name, _ in headers]
        if any(map(is_envelope_name, names)):
            raise SigningError("the message has an envelope already: sign it only once, or forward it as received")
        try:
            size = sum(len(name.encode()) for name in names)
        except UnicodeEncodeError:
            raise SigningError("a header name is not valid Unicode: remove lone surrogates") from None
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
        return _Route(layout, covered, size, MAX_HEADER_BYTES - characters(self._most), nats=nats)


def _check_recipient(recipient: object) -> None:
    """Refuse a recipient that is not text; whether it is a principal is checked once per route."""
    if recipient is not None and not isinstance(recipient, str):
        raise SigningError(
            f"recipient of type {type(recipient).__name__}: write the principal that the message is meant for, as"
            ' "agent://acme/cloud"'
        )


def _check_request(in_reply_to: object, reply_to: object) -> None:
    """Refuse an invalid request id, or a reply subject on which answers cannot be sent."""
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
    """Refuse an expiry that is not a time or has passed: every reader would reject the message."""
    if expires_at is None:
        return
    remedy = "write whole seconds since the epoch, as int(time.time()) + 60"
    if type(expires_at) is not int or not 0 <= expires_at < 1 << 33:  # not a float such as time.time() + 60, not a bool
        raise SigningError(f"expires_at {expires_at!r}: {remedy}")
    if expires_at <= now:
        raise SigningError(
            f"expires_at {expires_at}: that was {now - expires_at:.0f} s ago, so no reader would accept it; {remedy}"
        )


def _check_nats_names(names: list[str]) -> None:
    """Refuse header names that the bus or a client would change, so that the message could not verify."""
    if len(set(names)) != len(names):
        raise SigningError("a header occurs twice: NATS clients keep only the last, so join the values")
    for name in names:
        if not _NATS_NAME.fullmatch(name):
            raise SigningError(f"header name {name[:64]!r}: NATS carries printable ASCII without spaces and ':'")


def _check_nats_values(headers: Sequence[Header]) -> None:
    """Refuse header values that the bus would change."""
    for name, value in headers:
        if value is None or not _NATS_VALUE.fullmatch(value):
            raise SigningError(
                f"value of header {name!r}: NATS carries printable ASCII without leading or trailing spaces"
            )
