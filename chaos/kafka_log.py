"""A Kafka topic read below its clients: no record can mislead it, be it crafted, undecodable or in an open transaction.

aiokafka's own consumer goes where records say that they are. What an account rests on must not: here positions come
from batches, which the broker checks.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import KafkaError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.util import decode_varint_py as decode_varint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Base offset, length, leader epoch, magic, checksum, attributes, last offset delta, first and last timestamp, producer
# id and epoch, base sequence, number of records (Kafka protocol guide, "Record Batch").
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END: Final = 12
_CODECS: Final[dict[int, Callable[[bytes], bytes]]] = {
    0: bytes,
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}
_STAMPED, _CONTROL = 0x08, 0x20

_WAIT_MS: Final = 200
_MOST_BYTES: Final = 1 << 20
_PAUSE: Final = 0.2
"""Seconds until the broker is asked again after an error."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as its publisher wrote it, at a place that the broker vouches for.

    ``offset`` is None where the record claims one that is not its own: out of its batch's range, or not behind the
    record before it. Then ``base`` and ``index`` say where it stands. ``timestamp`` is in milliseconds.
    """

    partition: int
    base: int
    index: int
    offset: int | None
    timestamp: int
    key: bytes | None
    value: bytes | None
    rest: bytes

    @property
    def position(self) -> str:
        """Its place as the account writes it."""
        return (
            f"{self.partition}@{self.base}+{self.index}" if self.offset is None else f"{self.partition}@{self.offset}"
        )

    @property
    def headers(self) -> list[tuple[bytes, bytes | None]]:
        """Its headers, names as bytes."""
        data, found = bytearray(self.rest), []
        count, at = decode_varint(data, 0)
        for _ in range(count):
            name, at = _field(data, at)
            value, at = _field(data, at)
            found.append((name or b"", value))
        return found


class TopicLog:
    """Reads all partitions of a topic, from where each begins."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._bootstrap = bootstrap
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)
        self._topic = topic
        self._positions = dict.fromkeys(range(partitions), 0)
        self._ends: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        while True:
            try:
                await self._client.bootstrap()
                await self._client.add_topic(self._topic)
            except KafkaError:
                await asyncio.sleep(_PAUSE)
            else:
                return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    @property
    def positions(self) -> dict[int, int]:
        """Up to where each partition was read."""
        return {**self._positions}

    @property
    def ends(self) -> dict[int, int]:
        """Where each partition ended at the latest look."""
        return self._ends

    @property
    def is_at_end(self) -> bool:
        """Whether all was read that the broker had at the latest look."""
        return all(self._ends.get(partition, at + 1) <= at for partition, at in self._positions.items())

    async def read(self) -> list[Record]:
        """Return what comes next, in the order of each partition; nothing where the broker is away or has no more."""
        wanted = [(partition, at, _MOST_BYTES) for partition, at in self._positions.items()]
        request = FetchRequest(_WAIT_MS, 1, 8 * _MOST_BYTES, 0, [(self._topic, wanted)])
        self._ends = {}
        try:
            node = self._client.cluster.leader_for_partition(TopicPartition(self._topic, 0))
            answer = await self._client.send(-1 if node is None else node, request)
        except KafkaError:
            await asyncio.sleep(_PAUSE)
            self._client.force_metadata_update()
            return []
        found: list[Record] = []
        for _, answers in answer.topics:
            for partition, error, end, *_, raw in answers:
                if for_code(error) is OffsetOutOfRangeError:  # retention was here
                    self._positions[partition] = (await self.firsts())[partition]
                elif not error:
                    self._ends[partition] = end
                    found += self._records(partition, raw or b"")
        return found

    async def firsts(self) -> dict[int, int]:
        """Return where each partition begins now."""
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap) as consumer:
            found = await consumer.beginning_offsets([TopicPartition(self._topic, one) for one in self._positions])
        return {tp.partition: first for tp, first in found.items()}

    def _records(self, partition: int, raw: bytes) -> Iterator[Record]:
        at = 0
        while len(raw) - at >= _HEADER.size:
            base, length, _, _, _, attributes, last, first, greatest, _, _, _, count = _HEADER.unpack_from(raw, at)
            end = at + _LENGTH_END + length
            if end > len(raw):  # the last batch of a fetch may be cut off
                return
            if not attributes & _CONTROL:
                body = bytearray(_CODECS[attributes & 7](raw[at + _HEADER.size : end]))
                stamp = greatest if attributes & _STAMPED else None
                position = self._positions[partition]
                latest = base - 1
                for index, (since, delta, key, value, rest) in enumerate(_unpacked(body, count)):
                    offset = base + delta if latest < base + delta <= base + last else None
                    latest = latest if offset is None else offset
                    if (base if offset is None else offset) >= position:
                        timestamp = first + since if stamp is None else stamp
                        yield Record(partition, base, index, offset, timestamp, key, value, rest)
            self._positions[partition] = base + last + 1
            at = end


def _unpacked(body: bytearray, count: int) -> Iterator[tuple[int, int, bytes | None, bytes | None, bytes]]:
    """Yield of each record its timestamp and its offset, both from those of its batch, key, value and headers."""
    at = 0
    for _ in range(count):
        length, start = decode_varint(body, at)
        at = start + length
        since, here = decode_varint(body, start + 1)
        delta, here = decode_varint(body, here)
        key, here = _field(body, here)
        value, here = _field(body, here)
        yield since, delta, key, value, bytes(body[here:at])


def _field(data: bytearray, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    return (None, at) if length < 0 else (bytes(data[at : at + length]), at + length)
