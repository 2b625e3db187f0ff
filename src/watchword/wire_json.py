"""Messages and verdicts as JSON: one format for the command line, the test vectors and other implementations.

Bytes are in standard base64 with padding. Unknown fields are refused, and so is everything that ``strict`` refuses.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from watchword.errors import Rejected, Unavailable
from watchword.message import Channel, Message, Position
from watchword.strict import from_base64, json_object, to_base64

if TYPE_CHECKING:
    from collections.abc import Mapping

    from watchword.message import Header, VerifiedMessage

_FIELDS: Final = frozenset(
    {
        "channel", "partition", "offset", "appended_at", "appended_between", "created_at", "key", "value", "headers",
        "reply_to", "delivered_by",
    }
)  # fmt: skip
_PARTITION_LIMIT: Final = 1 << 31
_OFFSET_LIMIT: Final = 1 << 63
_TIME_LIMIT: Final = 1 << 33
_PAIR: Final = 2


def message_from_json(line: str | bytes) -> Message:
    """Parse one message; ValueError says which field is wrong and what to write.

    ``channel`` is required; other fields may be left out, which is the same as null. ``offset`` gives the position; its
    log is ``topic/partition`` on Kafka and an empty string elsewhere. ``appended_at`` and ``created_at`` (Kafka's
    ``CreateTime``) are in seconds; ``appended_between`` is a list of two times, the first of which may be null.
    ``delivered_by`` is a list of stream and consumer.
    """
    return message_from_members(json_object(line))


def message_from_members(members: Mapping[str, object]) -> Message:
    """Make a message from the members of a JSON object; ValueError as for ``message_from_json``."""
    unknown = sorted(members.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0][:64]!r}: use {', '.join(sorted(_FIELDS))}")
    channel = Channel.parse(_text(members, "channel") or "")
    partition = _whole(members, "partition", _PARTITION_LIMIT)
    offset = _whole(members, "offset", _OFFSET_LIMIT)
    kafka = channel.scheme == "kafka"
    log = f"{channel.name}/{partition}" if kafka and partition is not None else ""
    return Message(
        channel=channel,
        value=_raw(members.get("value"), "value"),
        key=_raw(members.get("key"), "key"),
        headers=_headers(members.get("headers")),
        partition=partition,
        reply_to=_text(members, "reply_to"),
        position=None if offset is None else Position(log, offset),
        appended_at=_time(members, "appended_at"),
        created_at=_time(members, "created_at"),
        delivered_by=_consumer(members.get("delivered_by")),
        appended_between=_interval(members.get("appended_between")),
    )


def message_to_json(message: Message, *more: Header) -> dict[str, object]:
    """Return the JSON members of ``message``, with ``more`` headers after its own.

    Offset, times and ``delivered_by`` are left out if the message has none.
    """
    optional = {
        "offset": None if message.position is None else message.position.offset,
        "appended_at": message.appended_at,
        "appended_between": _bounds(message.appended_between),
        "created_at": message.created_at,
        "delivered_by": None if message.delivered_by is None else list(message.delivered_by),
    }
    return {
        "channel": message.channel.uri,
        "partition": message.partition,
        **{name: value for name, value in optional.items() if value is not None},
        "key": to_base64(message.key),
        "value": to_base64(message.value),
        "headers": [[name, to_base64(value)] for name, value in (*message.headers, *more)],
        "reply_to": message.reply_to,
    }


def verdict_to_json(verdict: VerifiedMessage | Rejected | Unavailable) -> dict[str, object]:
    """Return the JSON members of a verdict; of a rejection only the reason, because the rest is unverified."""
    if isinstance(verdict, Rejected):
        return {"verdict": "rejected", "reason": str(verdict.reason)}
    if isinstance(verdict, Unavailable):
        return {"verdict": "unavailable", "what": verdict.what}
    return {
        "verdict": "verified",
        "principal": verdict.principal,
        "key_id": verdict.key_id,
        "id": verdict.id,
        "redelivered": verdict.redelivered,
    }


def _raw(value: object, where: str) -> bytes | None:
    if value is None:
        return None
    try:
        return from_base64(value)
    except ValueError:
        raise ValueError(f"{where}: write bytes as standard base64 with padding, or null") from None


def _text(members: Mapping[str, object], name: str) -> str | None:
    value = members.get(name)
    return None if value is None else _unicode(value, name)


def _unicode(value: object, where: str) -> str:
    try:
        if isinstance(value, str) and value.encode():
            return value
    except UnicodeEncodeError:  # JSON can escape half a surrogate pair
        pass
    raise ValueError(f"{where}: write text, not empty")


def _whole(members: Mapping[str, object], name: str, limit: int) -> int | None:
    value = members.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < limit:
        raise ValueError(f"{name}: write a whole number from 0, below {limit}, or null")
    return value


def _time(members: Mapping[str, object], name: str) -> float | None:
    value = members.get(name)
    return None if value is None else _seconds(value, f"{name}: write seconds since the epoch, or null")


def _seconds(value: object, complaint: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _TIME_LIMIT:
        raise ValueError(complaint)
    return value


def _interval(value: object) -> tuple[float, float] | None:
    complaint = "appended_between: write [earliest, latest] in seconds since the epoch, the earliest null if not known"
    match value:
        case None:
            return None
        case [earliest, latest]:
            low = -inf if earliest is None else _seconds(earliest, complaint)
            high = _seconds(latest, complaint)
            if low <= high:
                return low, high
    raise ValueError(complaint)


def _bounds(between: tuple[float, float] | None) -> list[float | None] | None:
    return None if between is None else [None if between[0] == -inf else between[0], between[1]]


def _headers(value: object) -> tuple[Header, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError('headers: write a list of pairs, [["name", "<base64>"], ...]')  # noqa: TRY004 - as above
    return tuple(_header(pair, f"headers: pair {number}") for number, pair in enumerate(value, 1))


def _header(pair: object, where: str) -> Header:
    if not isinstance(pair, list) or len(pair) != _PAIR or not isinstance(pair[0], str):
        raise ValueError(f'{where}: write ["name", "<base64>"]')
    name = pair[0]
    return (_unicode(name, where) if name else name), _raw(pair[1], where)


def _consumer(value: object) -> tuple[str, str] | None:
    match value:
        case None:
            return None
        case [stream, consumer]:
            return _unicode(stream, "delivered_by"), _unicode(consumer, "delivered_by")
        case _:
            raise ValueError('delivered_by: write ["stream", "consumer"], or null')
