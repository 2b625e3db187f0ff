"""Batches that are signed as late as can be: when they are full or sent, as trees of all that has gathered in them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatchBuilder, DefaultRecordMetadata

from watchword import SigningError
from watchword.message import ENVELOPE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from watchword.drafting import Draft
    from watchword.message import Header
    from watchword.signer import Signed

_EMPTY: Final = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 0).size()
_FRAME: Final = 1 + len(ENVELOPE_HEADER) + 2 + 1
"""Bytes around an envelope in a record: lengths of its name and value, and one more for the number of headers."""


def size_of(key: bytes | None, value: bytes | None, headers: list[Header], envelope: int) -> int:
    """Return the most bytes of a batch that holds one record, with an envelope of so many characters."""
    size: int = DefaultRecordBatchBuilder.estimate_size_in_bytes(key, value, headers)
    return size + _FRAME + envelope


@dataclass(slots=True)
class Entry:
    """A message on its way into a batch, which takes it for a record only when it is ``ready``.

    ``timestamp`` is in milliseconds, ``size`` as of ``size_of``. ``draft`` is what is to be signed of it, None once it
    is; a copy for quarantine, which is nobody's word, is ready without.

    It stands where aiokafka passes headers on: no batch but ours can make a record of it, so that none goes out
    unsigned.
    """

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[Header]
    size: int
    draft: Draft | None
    ready: bool = False

    def seal(self, signed: Signed) -> None:
        """Add the envelope."""
        self.headers.append(signed.header)
        self.draft = None
        self.ready = True


class SigningBuilder(BatchBuilder):
    """The batch that the producer's accumulator fills: it takes entries, and signs them when it is full, or sent.

    Each counts for its size with the largest envelope that it may get, so that the batch is never larger than allowed.
    A batch that is sent again keeps its bytes.
    """

    def __init__(
        self,
        batch_size: int,
        compression_type: int,
        *,
        is_transactional: bool,
        sign: Callable[[Sequence[Draft]], list[Signed]],
    ) -> None:
        super().__init__(batch_size, compression_type, is_transactional=is_transactional)
        self._sign = sign
        self._room = batch_size - _EMPTY
        self._entries: list[Entry] = []

    def append(self, *, timestamp: int | None, key: bytes | None, value: bytes | None, headers: Any = None) -> Any:
        """Take the entry that stands in for headers; see aiokafka. SigningError for anything else."""
        del timestamp, key, value  # the entry has them, as they will be signed
        if self._closed:
            return None
        if not isinstance(headers, Entry):
            raise SigningError(
                "this message would go out unsigned: fill a batch made by this producer's create_batch()"
            )
        size = headers.size - _EMPTY
        if size > self._room and self._entries:  # as with aiokafka, the first one may be of any size
            self.close()
            self._seal()  # nothing can join its trees any more, and the one before it is on its way, most likely
            return None
        self._room -= size
        metadata = DefaultRecordMetadata(self._relative_offset, size, headers.timestamp)
        self._entries.append(headers)
        self._relative_offset += 1
        return metadata

    def size(self) -> int:
        """Return the size in bytes; the most that it may be until it is built."""
        if self._buffer is None:
            return sum((entry.size - _EMPTY for entry in self._entries), _EMPTY)
        return len(self._buffer)

    def _build(self) -> Any:
        if self._buffer is None:
            self._fill()
        return super()._build()

    def _seal(self) -> None:
        """Sign what is not signed yet."""
        waiting = [(entry, entry.draft) for entry in self._entries if entry.draft is not None]
        if waiting:
            for (entry, _), signed in zip(waiting, self._sign([draft for _, draft in waiting]), strict=True):
                entry.seal(signed)

    def _fill(self) -> None:
        """Write the records."""
        self._seal()
        entries, self._entries = self._entries, []
        append = self._builder.append
        for offset, entry in enumerate(entries):
            if not entry.ready:
                raise SigningError("a message that was not signed")
            if append(offset, entry.timestamp, entry.key, entry.value, entry.headers) is None:
                raise SigningError("an envelope is larger than was counted with")


class Waiting(NamedTuple):
    """A message in a batch of the caller's; ``timestamp`` is in milliseconds, None for the time of signing."""

    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]


class SigningBatch:
    """Stands in for aiokafka's ``BatchBuilder``; made by ``SigningProducer.create_batch``.

    It is signed when it is sent, for only then are its topic and partition known. A message counts for its size with
    the largest envelope that it may get (``envelope``), so that what was accepted fits.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        prepare: Callable[[Any, Any, Iterable[Header] | None], tuple[bytes | None, bytes | None, tuple[Header, ...]]],
        envelope: Callable[[bytes | None, bytes | None, tuple[Header, ...]], int],
        topic: str | None,
    ) -> None:
        self.topic: Final = topic
        self.entries: Final[list[Waiting]] = []
        self._batch_size = batch_size
        self._prepare = prepare
        self._envelope = envelope
        self._size = _EMPTY
        self._closed = False

    def append(self, *, timestamp: int | None, key: Any, value: Any, headers: Iterable[Header] | None = None) -> Any:
        """Add a message; return its metadata (offset in the batch, size, timestamp), or None if full or closed."""
        if self._closed:
            return None
        key_bytes, value_bytes, pairs = self._prepare(key, value, headers)
        size = size_of(key_bytes, value_bytes, [*pairs], self._envelope(key_bytes, value_bytes, pairs)) - _EMPTY
        if self.entries and self._size + size > self._batch_size:
            self.close()
            return None
        stamp = int(time.time() * 1000) if timestamp is None else timestamp
        metadata = DefaultRecordMetadata(len(self.entries), size, stamp)
        self.entries.append(Waiting(timestamp, key_bytes, value_bytes, pairs))
        self._size += size
        return metadata

    def close(self) -> None:
        """Take no further message."""
        self._closed = True

    def closed(self) -> bool:
        """Tell whether no further message is taken."""
        return self._closed

    def size(self) -> int:
        """Return the size in bytes that the batch has at most once it is signed."""
        return self._size

    def record_count(self) -> int:
        """Return the number of messages."""
        return len(self.entries)
