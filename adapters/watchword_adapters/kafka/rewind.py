"""Caches the latest records of a partition, so that a short seek back needs no request to the broker.

A framework that wants a message again (a nack) seeks back by one. The client would drop what it has fetched, and could
not fetch again before its current fetch is answered, which takes half a second at the end of a log.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord, TopicPartition

    from watchword_adapters.kafka._seam import Inside

MOST_RECORDS: Final = 500
MOST_BYTES: Final = 1 << 20

MOST_HEADERS: Final = 8192
"""Most headers in the records taken at once: if they had more, fewer records are taken the next time."""


class Rewind:
    """Reads one partition of a client, and rereads its latest records (500, or 1 MiB) from memory."""

    def __init__(self, inside: Inside, tp: TopicPartition) -> None:
        self._inside = inside
        self._tp = tp
        self._recent: deque[ConsumerRecord[Any, Any]] = deque()
        self._sizes: deque[int] = deque()  # of these
        self._size = 0
        self._end: int | None = None
        self._again: deque[ConsumerRecord[Any, Any]] = deque()
        self._at: int | None = None
        self._most: int | None = None

    @property
    def position(self) -> int | None:
        """The offset of the next record; None if the client has no position."""
        there = self._inside.position(self._tp)
        if there != self._end:  # the client has moved: the cached records do not end there
            self._forget()
        return there if self._at is None else self._at

    async def take(self, most: int | None) -> list[ConsumerRecord[Any, Any]]:
        """Return at most ``most`` of the next records that are available now; the client's errors."""
        if self._at is not None and self.position == self._at and not self._again:  # after the last record
            self._at = None
        if self._at is not None and self.position == self._at:
            count = len(self._again) if most is None else min(most, len(self._again))
            records = [self._again.popleft() for _ in range(count)]
            self._at = self._again[0].offset if self._again else None
            return records
        if self._most is not None:
            most = self._most if most is None else min(most, self._most)
        records = await self._inside.take(self._tp, most)
        counts = [len(record.headers) for record in records]
        headers = sum(counts)
        if headers > MOST_HEADERS or (self._most is not None and 2 * headers > MOST_HEADERS):
            self._most = max(1, len(records) * MOST_HEADERS // headers)
        elif records:
            self._most = None
        self._end = self._inside.position(self._tp)
        self._keep(records, counts)
        return records

    def _keep(self, records: list[ConsumerRecord[Any, Any]], counts: list[int]) -> None:
        recent, sizes = self._recent, self._sizes
        # A size is -1 if there is no key or value.
        more = [
            100 * (1 + count) + record.serialized_key_size + record.serialized_value_size
            for record, count in zip(records, counts, strict=True)
        ]
        recent.extend(records)
        sizes.extend(more)
        self._size += sum(more)
        while len(recent) > MOST_RECORDS or self._size > MOST_BYTES:
            recent.popleft()
            self._size -= sizes.popleft()

    def seek(self, offset: int) -> None:
        """Continue at ``offset``: from the cached records if they reach back that far; else through the client."""
        there = self.position
        if (
            there is not None
            and self._recent
            and self._end is not None
            and self._recent[0].offset <= offset < self._end
        ):
            self._again = deque(record for record in self._recent if record.offset >= offset)
            self._at = offset
        elif offset == self._end == self._inside.position(self._tp):
            self._again.clear()
            self._at = None
        else:
            self._inside.seek(self._tp, offset)
            self._forget()
            self._end = offset

    def _forget(self) -> None:
        self._recent.clear()
        self._sizes.clear()
        self._again.clear()
        self._size, self._at = 0, None
        self._end = self._inside.position(self._tp)
