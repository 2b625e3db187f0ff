"""Messages that wait to be signed and sent, each with its claims, its record's timestamp and its size."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.errors import MessageSizeTooLargeError

from watchword import SigningError
from watchword.encoding import characters
from watchword.message import ENVELOPE_HEADER, MAX_PRINCIPAL_BYTES, channel_of
from watchword_adapters.kafka._producer_seam import size_in_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword import Watchword
    from watchword.message import Header
    from watchword.signer import Signed
    from watchword.spi import Channel
    from watchword.unsigned import UnsignedEnvelope

Recipient: TypeAlias = "Callable[[Channel, bytes | None, tuple[Header, ...]], str | None]"
"""Returns the principal that a message is meant for, given its channel, key and headers; None for any reader."""

_FRAME: Final = 1 + len(ENVELOPE_HEADER) + 2 + 1
"""Bytes around an envelope in a record: its name, the lengths of name and value, and one for the header count."""
_LONGEST_TOPIC: Final = 249
_LARGEST_PARTITION: Final = (1 << 31) - 1
_PER_NAME: Final = 3
"""Most bytes before a name in the claims: its label and its length."""


class TooLargeError(SigningError, MessageSizeTooLargeError):
    """The message with its envelope is larger than ``max_request_size``; nothing was sent."""


class SendTypeError(SigningError, TypeError):
    """A part of the message has a type that a record cannot hold; nothing was sent."""


class SendValueError(SigningError, ValueError):
    """A part of the message has a value that every reader would reject; nothing was sent."""


@dataclass(slots=True)
class Entry:
    """A message on its way into a batch, which accepts it only once it is ``ready``.

    ``timestamp`` is in milliseconds; ``size`` is that of ``size_in_batch`` with the largest envelope that it may get.
    ``unsigned`` is the envelope to be signed, None once it is signed; a quarantine copy is ready without a signature.

    aiokafka passes it along in place of headers: only our batches can make a record of it, so that none is sent
    unsigned.
    """

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    size: int
    unsigned: UnsignedEnvelope | None
    ready: bool = False

    def seal(self, signed: Signed) -> None:
        """Add the envelope."""
        self.headers.append(signed.header)
        self.unsigned = None
        self.ready = True


class Entries:
    """Makes entries of one agent's messages."""

    def __init__(self, watchword: Watchword, recipient: Recipient | None) -> None:
        self._draft = watchword.signer.prepare_parts
        self._most_characters = watchword.signer.max_characters
        self._realm = watchword.realm
        self._max_skew = watchword.verifier.policy.max_skew
        self._skew_ms = int(self._max_skew * 1000)
        self._recipient = recipient

    def entry(  # noqa: PLR0917 - for each message
        self, topic: str, partition: int, timestamp: Any, key: Any, value: Any, headers: Sequence[Any]
    ) -> Entry:
        """Build a message's entry; its record is stamped with the time of issue unless ``timestamp`` is given (ms).

        SigningError if it cannot be signed as it is, or if readers would reject that timestamp.
        """
        channel = channel_of("kafka", self._realm, topic)
        if type(value) is not bytes:
            value = as_bytes("value", value)
        if type(key) is not bytes:
            key = as_bytes("key", key)
        pairs = tuple(headers)  # aiokafka has checked them
        recipient = None if self._recipient is None else self._recipient(channel, key, pairs)
        unsigned = self._draft(channel, value, key, pairs, partition, recipient)
        if timestamp is not None:
            stamp = self._own(timestamp, unsigned)
        else:
            stamp = int(unsigned.moment * 1000)
            if self._skew_ms < 1000:  # noqa: PLR2004 - readers compare it with the signed whole second
                stamp = min(stamp, unsigned.issued_at * 1000 + self._skew_ms)
        record = [*pairs]
        return Entry(stamp, key, value, record, size_in_batch(key, value, record) + _FRAME + unsigned.largest, unsigned)

    def largest(self, topic: str | None, key: Any, value: Any, headers: list[Any]) -> int:
        """Return the largest size of a message in a batch, for any partition and recipient, in bytes.

        TypeError, as aiokafka's own, for what a record cannot hold. Without ``topic`` the longest topic is assumed.
        """
        size = size_in_batch(key, value, headers)
        unsigned = self._draft(
            channel_of("kafka", self._realm, topic or "t"),
            None if value is None else b"",
            None if key is None else b"",
            tuple(headers),
            _LARGEST_PARTITION,
            None,
        )
        more = 0 if topic is not None else _LONGEST_TOPIC + _PER_NAME
        more += 0 if self._recipient is None else MAX_PRINCIPAL_BYTES + _PER_NAME
        return size + _FRAME + min(unsigned.largest + characters(more), self._most_characters)

    def _own(self, timestamp: Any, unsigned: UnsignedEnvelope) -> int:
        """Return the caller's timestamp, which readers compare with the signed time."""
        if not isinstance(timestamp, int | float):
            raise SendTypeError(f"timestamp of type {type(timestamp).__name__}: pass milliseconds since the epoch")
        if not abs(timestamp / 1000 - unsigned.issued_at) <= self._max_skew:
            raise SendValueError(
                f"timestamp {timestamp} ms is more than {self._max_skew:g} s from now, so readers would reject the"
                " message; omit it, and put the time that you mean into a header"
            )
        return int(timestamp)


def copy_of(timestamp: int, key: bytes | None, value: bytes | None, headers: Sequence[Header]) -> Entry:
    """Return the entry of a quarantine copy, which is not signed."""
    record = [*headers]
    return Entry(timestamp, key, value, record, size_in_batch(key, value, record), None, ready=True)


def as_partition(topic: str, partition: Any) -> int:
    """Return a partitioner's choice, which may be any integer type, as the int that is signed."""
    try:
        return int(operator.index(partition))
    except TypeError:
        raise SendTypeError(
            f"partition {partition!r} of topic {topic!r}: the partitioner must return an integer"
        ) from None


def as_bytes(name: str, data: Any) -> bytes | None:
    """Return an immutable copy of bytes-like data."""
    if type(data) is bytes or data is None:
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data)
    raise SendTypeError(f"{name} of type {type(data).__name__}: pass bytes, or set {name}_serializer")
