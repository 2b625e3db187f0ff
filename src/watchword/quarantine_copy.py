"""The quarantined copy of a message: its contents and header names, written and read back.

A copy is evidence and a pointer to the message, not a message itself: no verifier finds an envelope in it. It may be
forged by anyone who may write to the quarantine, so nothing in it is trusted. Reading and writing the bus is elsewhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from watchword.cbor import ARRAY, head, of_bytes, of_int
from watchword.envelope import MAX_ENVELOPE_CHARACTERS, is_envelope_name
from watchword.errors import MAX_CLAIMED, Rejected, Unavailable
from watchword.message import MAX_HEADER_BYTES, MAX_HEADERS, Channel, Message, Position
from watchword.strict import from_base64, json_value, to_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.message import Header

UNDETERMINED: Final = "undetermined"
"""The reason on the copy of a message that could not be judged."""

MAX_TEXT: Final = 512
"""The most characters, before escaping, of a header of ours that describes the message."""

MAX_COPY_HEADERS: Final = MAX_HEADERS + 64
"""The most headers of a copy: those of its message, and ours that describe it."""

_MAX_PLACE: Final = 4096  # a NATS server's own limit for a subject
_OWN: Final = "watchword-"
_ORIGINAL: Final = "watchword-original-"
_HEADERS: Final = "watchword-headers"
_LEFT_OUT: Final = "watchword-left-out"
_TELLING: Final = (f"{_OWN}reason", f"{_OWN}channel", f"{_OWN}sha256")
_RESERVED: Final = ("watchword", "nats-", "kafka_dlt-", "__connect.errors.")
"""Name prefixes, in any letter case, reserved on a copy: ours, the presets', and instructions to NATS servers."""

_TO_ESCAPE: Final = re.compile(rb"[^ -$&-~]")
_ESCAPED: Final = re.compile("%([0-9A-F]{2})")
_NULL: Final = b"null"
_NATS_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_NATS_VALUE: Final = re.compile(rb"(?:[!-~](?:[ -~]*[!-~])?)?")


class HeaderStyle(StrEnum):
    """The header names, besides Watchword's own, that describe a Kafka copy: none, Spring's or Kafka Connect's."""

    WATCHWORD = "watchword"
    SPRING = "spring"
    CONNECT = "connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """What is written to the quarantine; ``own`` headers describe the message, ``original`` ones are the message's."""

    value: bytes | None
    key: bytes | None
    own: tuple[Header, ...]
    original: tuple[Header, ...]
    position: Position | None

    @property
    def headers(self) -> tuple[Header, ...]:
        """All headers, as Kafka carries them."""
        return (*self.own, *self.original)

    @property
    def size(self) -> int:
        """Bytes of value, key and headers."""
        headers = sum(len(name.encode(errors="surrogatepass")) + len(value or b"") for name, value in self.headers)
        return len(self.value or b"") + len(self.key or b"") + headers

    @property
    def is_pointer(self) -> bool:
        """Whether the message itself was left out."""
        return any(name == _LEFT_OUT for name, _ in self.own)

    def pointer(self) -> Copy:
        """Return the copy without the message's value, key and headers, except an envelope within the size limit."""
        if self.is_pointer:
            return self
        left_out = (_LEFT_OUT, b"value, key, headers (%d bytes)" % self.size)
        envelopes = [header for header in self.original if header[0] == _ORIGINAL + "watchword"]
        kept = [header for header in envelopes if len(header[1] or b"") <= MAX_ENVELOPE_CHARACTERS]
        return replace(self, value=None, key=None, own=(*self.own, left_out), original=tuple(kept[:1]))

    def nats_headers(self) -> dict[str, str]:
        """Return the headers as NATS can carry them: each name once, in printable ASCII.

        If it cannot carry the message's own headers unchanged, all of them go into one header as JSON.
        """
        own = {name: (value or b"").decode("ascii", "backslashreplace") for name, value in self.own}
        names = [name for name, _ in self.original]
        fit = len(names) == len(set(names)) and all(
            value is not None and _NATS_NAME.fullmatch(name) and _NATS_VALUE.fullmatch(value)
            for name, value in self.original
        )
        if fit:
            return own | {name: (value or b"").decode() for name, value in self.original}
        return own | {_HEADERS: json.dumps([[name, to_base64(value)] for name, value in self.original])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A copy that was read back; nothing in it is verified.

    ``message`` is the message as far as the copy has it, without a position; ``complete`` is True if nothing was left
    out. ``appended_at`` is in seconds since the epoch, and ``digest`` is that of ``message_digest``.
    """

    reason: str
    detail: str
    channel: Channel
    position: Position | None
    appended_at: float | None
    time: str
    principal: str
    reader: str
    digest: str
    complete: bool
    message: Message


def message_digest(message: Message) -> str:
    """Return the SHA-256 of key, headers and value in hex; equal messages have equal digests.

    Of the headers over the limit only their number counts.
    """
    headers = message.headers[:MAX_HEADERS]
    more = len(message.headers) - len(headers)
    pairs = [b"\x82" + of_bytes(name.encode(errors="surrogatepass")) + of_bytes(value) for name, value in headers]
    digest = sha256(head(ARRAY, 4 if more else 3) + of_bytes(message.key) + head(ARRAY, len(pairs)) + b"".join(pairs))
    digest.update(of_bytes(message.value) + (of_int(more) if more else b""))
    return digest.hexdigest()


def is_copy(headers: Sequence[Header]) -> bool:
    """Return True if these look like the headers of a copy; any sender can make a message look like one."""
    names = {name for name, _ in headers[:MAX_COPY_HEADERS]}
    return names.issuperset(_TELLING)


def make_copy(message: Message, verdict: Rejected | Unavailable, *, now: float, style: HeaderStyle) -> Copy:
    """Return the copy of a message with this verdict, made at ``now`` (seconds since the epoch)."""
    told = _description(message, verdict, now)
    own: list[Header] = [(f"{_OWN}{name}", _escaped(text, _MAX_PLACE).encode()) for name, text in told.items()]
    if message.channel.scheme == "kafka":
        own += _preset(message, verdict, style)
    if len(message.headers) > MAX_HEADERS:  # a pointer, without reading any of them
        own.append((_LEFT_OUT, b"value, key, headers (%d headers)" % len(message.headers)))
        return Copy(value=None, key=None, own=tuple(own), original=(), position=message.position)
    return Copy(
        value=message.value,
        key=message.key,
        own=tuple(own),
        original=tuple((_renamed(name), value) for name, value in message.headers),
        position=message.position,
    )


def read_copy(value: bytes | None, key: bytes | None, headers: Sequence[Header]) -> Kept:
    """Parse a copy; ValueError if it is not one."""
    if len(headers) > MAX_COPY_HEADERS:
        raise ValueError(f"{len(headers)} headers: a copy has at most {MAX_COPY_HEADERS}")
    told: dict[str, str] = {}
    original: list[Header] = []
    for name, data in headers:
        if name == _HEADERS:
            original += _parse_headers(data or b"")
        elif name.startswith(_ORIGINAL):
            original.append((name.removeprefix(_ORIGINAL), data))
        elif name.startswith(_OWN):
            if name in told:
                raise ValueError(f"{name} occurs twice")
            told[name] = _unescaped((data or b"").decode(errors="replace"))
        elif not name.lower().startswith(_RESERVED):
            original.append((name, data))
    field = {name.removeprefix(_OWN): text for name, text in told.items()}.get
    if not field("reason") or not field("channel"):
        raise ValueError("no reason or no channel: not a copy")
    channel = Channel.parse(field("channel", ""))
    position = _position(field("position"))
    complete = field("left-out") is None
    return Kept(
        reason=field("reason", ""),
        detail=field("detail", ""),
        channel=channel,
        position=position,
        appended_at=_number(field("appended-at")),
        time=field("time", ""),
        principal=field("principal-claimed", ""),
        reader=field("reader", ""),
        digest=field("sha256", ""),
        complete=complete,
        message=Message(
            channel=channel,
            value=None if field("value") == _NULL.decode() or not complete else value,
            key=key,
            headers=tuple(original),
            partition=partition_of(channel, position),
            reply_to=field("reply-to"),
        ),
    )


def partition_of(channel: Channel, position: Position | None) -> int | None:
    """Return the partition of a position in a Kafka channel; None if the position is elsewhere."""
    if position is None or channel.scheme != "kafka":
        return None
    topic, _, number = position.log.rpartition("/")
    return int(number) if topic == channel.name and re.fullmatch("[0-9]{1,9}", number, re.ASCII) else None


def _description(message: Message, verdict: Rejected | Unavailable, now: float) -> dict[str, str]:
    """Return the contents of our own headers, by name."""
    position, stamp = message.position, message.appended_at
    claimed = verdict.claimed_principal if isinstance(verdict, Rejected) else None
    told = {
        "reason": reason_of(verdict),
        "detail": _detail(verdict)[:MAX_TEXT],
        "channel": message.channel.uri,
        "position": None if position is None else f"{position.log}@{position.offset}",
        "appended-at": None if stamp is None else repr(float(stamp)),
        "time": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
        "principal-claimed": None if claimed is None else claimed[:MAX_CLAIMED],
        "reader": message.reader[:MAX_TEXT],
        "reply-to": message.reply_to,
        "sha256": message_digest(message),
        "value": None if message.value is not None else _NULL.decode(),
    }
    return {name: text for name, text in told.items() if text}


def reason_of(verdict: Rejected | Unavailable) -> str:
    """Return the reason that a copy states."""
    return str(verdict.reason) if isinstance(verdict, Rejected) else UNDETERMINED


def _detail(verdict: Rejected | Unavailable) -> str:
    return verdict.detail if isinstance(verdict, Rejected) else f"{verdict.what} {verdict.detail}".strip()


def _preset(message: Message, verdict: Rejected | Unavailable, style: HeaderStyle) -> list[Header]:
    """Return the headers that Spring Kafka's or Kafka Connect's tools read, in their own encodings."""
    if style is HeaderStyle.WATCHWORD:
        return []
    kind = f"watchword.{type(verdict).__name__}".encode()
    text = _escaped(": ".join(part for part in (reason_of(verdict), _detail(verdict)) if part), MAX_TEXT).encode()
    reader = _escaped(message.reader, MAX_TEXT).encode()
    topic = message.channel.name.encode()
    offset = None if message.position is None else message.position.offset
    if style is HeaderStyle.CONNECT:  # as DeadLetterQueueReporter writes them: all text
        fields: dict[str, bytes | None] = {
            "topic": topic,
            "partition": None if message.partition is None else b"%d" % message.partition,
            "offset": None if offset is None else b"%d" % offset,
            "connector.name": reader,
            "task.id": b"0",
            "stage": b"KAFKA_CONSUME",
            "class.name": b"watchword.Verifier",
            "exception.class.name": kind,
            "exception.message": text,
        }
        return [(f"__connect.errors.{name}", value) for name, value in fields.items() if value is not None]
    broker_stamped = message.appended_at is not None
    stamp = message.appended_at if broker_stamped else message.created_at
    fields = {  # as DeadLetterPublishingRecoverer writes them: big-endian, four bytes for a partition, else eight
        "original-topic": topic,
        "original-partition": None if message.partition is None else message.partition.to_bytes(4, "big"),
        "original-offset": None if offset is None else offset.to_bytes(8, "big"),
        "original-timestamp": None if stamp is None else round(stamp * 1000).to_bytes(8, "big", signed=True),
        "original-timestamp-type": b"LogAppendTime" if broker_stamped else b"CreateTime",
        "original-consumer-group": reader,
        "exception-fqcn": kind,
        "exception-message": text,
    }
    return [(f"kafka_dlt-{name}", value) for name, value in fields.items() if value is not None]


def _renamed(name: str) -> str:
    """Rename a message's header that clashes with ours; an envelope is renamed too, so a copy has none."""
    return _ORIGINAL + name if is_envelope_name(name) or name.lower().startswith(_RESERVED) else name


def _escaped(text: str, most: int) -> str:
    """Return at most ``most`` bytes of ``text``, with '%' and all but printable ASCII escaped as in a URI."""
    raw = text.encode("utf-8", "surrogatepass")[:most]
    return _TO_ESCAPE.sub(lambda found: b"%%%02X" % ord(found[0]), raw).decode()


def _unescaped(text: str) -> str:
    raw = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    try:
        return raw.encode("latin-1").decode()
    except UnicodeError:  # not written by us
        return raw


def _parse_headers(data: bytes) -> list[Header]:
    """Parse headers that one header has as JSON; ValueError if they are malformed."""
    if len(data) > 4 * MAX_HEADER_BYTES:
        raise ValueError(f"{_HEADERS} of {len(data)} bytes")
    found = json_value(data)
    if isinstance(found, list) and len(found) > MAX_HEADERS:
        raise ValueError(f"{_HEADERS} holds {len(found)} headers: at most {MAX_HEADERS}")
    headers: list[Header] = []
    for pair in found if isinstance(found, list) else [None]:
        match pair:
            case [str(name), str() | None as value]:
                raw = None if value is None else from_base64(value)
                headers.append((name.removeprefix(_ORIGINAL), raw))
            case _:
                raise ValueError(f"{_HEADERS} is not a list of pairs")
    return headers


def _position(text: str | None) -> Position | None:
    log, _, offset = (text or "").rpartition("@")
    return Position(log, int(offset)) if log and re.fullmatch("[0-9]{1,19}", offset, re.ASCII) else None


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
