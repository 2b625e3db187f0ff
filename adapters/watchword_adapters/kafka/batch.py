"""Batches that are signed as late as possible, when full or sent, so that one hash tree covers their messages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword import SigningError
from watchword.message import ENVELOPE_HEADER
from watchword_adapters.kafka._producer_seam import Metadata, StandInBuilder
from watchword_adapters.kafka.entries import Entry, as_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword.message import Header
    from watchword.unsigned import UnsignedEnvelope

EMPTY: Final = 61
"""Size in bytes of a batch without records, in Kafka's format magic 2."""


class SigningBuilder(StandInBuilder):
    """The batch that the producer's accumulator fills: it takes entries and signs them when it is full or sent.

    Each entry counts with the largest envelope that it may get, so that the batch never exceeds its size. A batch that
    is sent again keeps its bytes. ``latest`` is the latest timestamp of its ``count`` records (ms); ``sent_at`` is the
    time when it was first sent (seconds since the epoch), None before.
    """

    def __init__(
        self,
        plain: Any,
        batch_size: int,
        *,
        sign: Callable[[Sequence[UnsignedEnvelope]], list[bytes]],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(plain)
        self.count = 0
        self.latest = 0
        self.sent_at: float | None = None
        self._sign = sign
        self._clock = clock
        self._size = EMPTY
        self._batch_size = batch_size
        self._entries: list[Entry] = []
        self._closed = False

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any = None) -> Any:
        """Take the entry passed as headers; see aiokafka. SigningError for anything else."""
        del timestamp, key, value  # the entry has them in the form to be signed
        if self._closed:
            return None
        if type(headers) is not Entry:
            raise SigningError(
                "this message would be sent unsigned: fill a batch made by this producer's create_batch()"
            )
        more = headers.size - EMPTY
        if self._size + more > self._batch_size and self._entries:  # as in aiokafka, the first one may be of any size
            self.close()
            self.write()  # no message can join it any more, and the batch before it is probably being sent
            return None
        self._size += more
        self._entries.append(headers)
        self.count += 1
        return Metadata(self.count - 1, more, headers.timestamp)

    def close(self) -> None:
        """Accept no further message."""
        self._closed = True

    def closed(self) -> bool:
        """Return True if no further message is accepted."""
        return self._closed

    def size(self) -> int:
        """Return the size in bytes; before signing, the largest that it may become."""
        return self._size if self._entries else self.written()

    def record_count(self) -> int:
        """Return the number of messages."""
        return self.count

    def before_sending(self) -> None:
        """See StandInBuilder."""
        if self.sent_at is None:
            self.sent_at = self._clock()
        self.write()

    def write(self) -> None:
        """Sign the entries that need it, and write all records."""
        self.close()
        entries, self._entries = self._entries, []
        self.latest = max([self.latest, *[entry.timestamp for entry in entries]])
        envelopes = [entry.unsigned for entry in entries if entry.unsigned is not None]
        signed = iter(self._sign(envelopes) if envelopes else ())
        for offset, entry in enumerate(entries):
            if entry.unsigned is not None:
                entry.headers.append((ENVELOPE_HEADER, next(signed)))
            elif not entry.ready:
                raise SigningError("internal error: a message was not signed")
            if self.append_record(offset, entry.timestamp, entry.key, entry.value, entry.headers) is None:
                raise SigningError("internal error: an envelope is larger than was reserved for it")


class Waiting(NamedTuple):
    """A message in the caller's batch; ``timestamp`` is in milliseconds, None for the time of signing."""

    timestamp: Any
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


class SigningBatch:
    """Replaces aiokafka's ``BatchBuilder``; made by ``SigningProducer.create_batch``.

    It is signed when it is sent, since its topic and partition are known only then. Each message counts with the
    ``largest`` envelope that it may get, so that accepted messages fit; if ``topic`` is set, more of them fit.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        largest: Callable[[str | None, Any, Any, list[Any]], int],
        key_serializer: Callable[[Any], Any] | None,
        value_serializer: Callable[[Any], Any] | None,
    ) -> None:
        self.topic: str | None = None
        self.entries: Final[list[Waiting]] = []
        self._batch_size = batch_size
        self._largest = largest
        self._serializers = key_serializer, value_serializer
        self._size = EMPTY
        self._closed = False

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: list[Any] | None = None) -> Any:
        """Add a message; return its metadata (offset in the batch, size, timestamp), or None if full or closed."""
        if self._closed:
            return None
        serialize_key, serialize_value = self._serializers
        key = key if serialize_key is None else serialize_key(key)
        value = value if serialize_value is None else serialize_value(value)
        headers = [] if headers is None else headers
        size = self._largest(self.topic, key, value, headers) - EMPTY
        if self.entries and self._size + size > self._batch_size:
            self.close()
            return None
        stamp = int(time.time() * 1000) if timestamp is None else timestamp
        metadata = Metadata(len(self.entries), size, stamp)
        self.entries.append(Waiting(timestamp, as_bytes("key", key), as_bytes("value", value), tuple(headers)))
        self._size += size
        return metadata

    def close(self) -> None:
        """Accept no further message."""
        self._closed = True

    def closed(self) -> bool:
        """Return True if no further message is accepted."""
        return self._closed

    def size(self) -> int:
        """Return the largest size in bytes that the batch may have once signed."""
        return self._size

    def record_count(self) -> int:
        """Return the number of messages."""
        return len(self.entries)
