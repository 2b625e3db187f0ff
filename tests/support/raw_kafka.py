"""Kafka below its clients: record batches byte by byte, sent and fetched as they are.

What a publisher may write is what the broker stores, not what a client's builder allows. Every field of a v2 batch can
be chosen here, every record's too; `RawClient` sends the result and says how the broker answered.
"""

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest
from aiokafka.record.util import calc_crc32c, decode_varint, encode_varint
from aiokafka.structs import TopicPartition

from tests.support.patience import PATIENCE

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
LOG_APPEND_TIME_BIT, TRANSACTIONAL_BIT, CONTROL_BIT = 0x08, 0x10, 0x20
NO_PRODUCER = -1
SECONDS = 30.0
"""Patience with the broker."""

_CODECS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    GZIP: gzip_encode,
    SNAPPY: snappy_encode,
    LZ4: lz4_encode,
    ZSTD: zstd_encode,
}
# Base offset, length, leader epoch, magic, checksum, attributes, last offset delta, first and last timestamp, producer
# id and epoch, base sequence, number of records (Kafka protocol guide, "Record Batch").
_HEADER = struct.Struct(">qiibIhiqqqhii")
# No such topic, no leader, not the leader: a topic made a moment ago. Coordinator loading, absent, elsewhere; the
# transaction before is still ending.
_SOON_OVER = {3, 5, 6, 14, 15, 16, 51}
_LENGTH_END, _CRC_AT, _CRC_END = 12, 17, 21

RawHeader = tuple[bytes, bytes | None]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """One record of a batch; `delta` is added to the batch's base offset, and is the record's index if left out."""

    value: bytes | None = b"raw"
    key: bytes | None = None
    headers: Sequence[RawHeader] = ()
    delta: int | None = None
    timestamp_delta: int = 0
    attributes: int = 0

    def bytes_at(self, index: int) -> bytes:
        """Return the record as it stands in a batch, its length in front."""
        body = bytearray(struct.pack(">b", self.attributes))
        _varint(body, self.timestamp_delta)
        _varint(body, index if self.delta is None else self.delta)
        _field(body, self.key)
        _field(body, self.value)
        _varint(body, len(self.headers))
        for name, value in self.headers:
            _field(body, name)
            _field(body, value)
        framed = bytearray()
        _varint(framed, len(body))
        return bytes(framed + body)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A record batch of format v2. What is left out is as an honest client writes it; timestamps are in milliseconds.

    One that lies far from its neighbours' makes the broker begin a new segment, and a fetch ends with its segment.
    `count` and `last_delta` go into the header as given, whatever `records` holds.
    """

    records: Sequence[Raw] = ()
    codec: int = 0
    attributes: int = 0
    base_offset: int = 0
    last_delta: int | None = None
    count: int | None = None
    first_timestamp: int | None = None
    max_timestamp: int | None = None
    producer_id: int = NO_PRODUCER
    epoch: int = -1
    sequence: int = -1

    def __bytes__(self) -> bytes:
        """Return the batch as it goes over the wire."""
        plain = b"".join(record.bytes_at(index) for index, record in enumerate(self.records))
        body = bytes(_CODECS[self.codec](plain))
        first = int(time.time() * 1000) if self.first_timestamp is None else self.first_timestamp
        last = max((record.timestamp_delta for record in self.records), default=0)
        framed = bytearray(
            _HEADER.pack(
                self.base_offset,
                _HEADER.size - _LENGTH_END + len(body),
                -1,
                2,
                0,
                self.attributes | self.codec,
                len(self.records) - 1 if self.last_delta is None else self.last_delta,
                first,
                first + last if self.max_timestamp is None else self.max_timestamp,
                self.producer_id,
                self.epoch,
                self.sequence,
                len(self.records) if self.count is None else self.count,
            )
            + body
        )
        struct.pack_into(">I", framed, _CRC_AT, calc_crc32c(bytes(framed[_CRC_END:])))
        return bytes(framed)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the broker keeps of a batch; `deltas` are those of its records, empty where it is compressed."""

    base_offset: int
    attributes: int
    last_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    epoch: int
    sequence: int
    count: int
    deltas: tuple[int, ...]
    raw: bytes


class Refused(Exception):  # noqa: N818 - the broker's answer, and mostly what a test hopes for
    """The broker said no; `code` is its error code (Kafka protocol guide, "Error Codes")."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"error {code}, {errors.for_code(code).__name__}")


class RawClient:
    """Sends batches to a broker and fetches them, byte by byte."""

    def __init__(self, bootstrap: str) -> None:
        self._client = AIOKafkaClient(bootstrap_servers=bootstrap)

    async def __aenter__(self) -> Self:
        await self._client.bootstrap()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def send(
        self, topic: str, batch: Batch | bytes, *, partition: int = 0, transactional_id: str | None = None
    ) -> int:
        """Append a batch; return the offset that the broker gave its first record, or raise Refused."""
        request = ProduceRequest(transactional_id, -1, int(SECONDS * 1000), [(topic, [(partition, bytes(batch))])])
        response = await self.ask(
            await self._leader(topic, partition), request, code=lambda response: response.topics[0][1][0][1]
        )
        return int(response.topics[0][1][0][2])

    async def fetch(self, topic: str, offset: int = 0, *, partition: int = 0) -> list[Stored]:
        """Return the batches from the one that holds `offset` on, up to the end of its segment, as they are stored."""
        request = FetchRequest(100, 1, 1 << 26, 0, [(topic, [(partition, offset, 1 << 26)])])
        response = await self.ask(
            await self._leader(topic, partition), request, code=lambda response: response.topics[0][1][0][1]
        )
        return list(_stored(response.topics[0][1][0][-1] or b""))

    @asynccontextmanager
    async def transaction(self, transactional_id: str, *topics: str) -> AsyncIterator["Transaction"]:
        """Open a transaction over partition 0 of these topics; it is aborted at the end unless it has ended before."""
        node = await self._coordinator(transactional_id)
        granted = await self.ask(
            node,
            InitProducerIdRequest(transactional_id, int(2 * SECONDS * 1000)),
            code=lambda response: response.error_code,
        )
        held = Transaction(self, node=node, transactional_id=transactional_id, granted=granted)
        await held.begin(*topics)
        try:
            yield held
        finally:
            if held.is_open:
                with suppress(Refused, TimeoutError):  # a test that took too long has another error to tell
                    await held.abort()

    async def ask(self, node: int, request: Any, *, code: Callable[[Any], int]) -> Any:
        """Return what a broker answers to a request, after what is soon over; `code` finds the error code in it."""
        async with asyncio.timeout(PATIENCE):
            while (found := code(response := await self._client.send(node, request))) in _SOON_OVER:  # noqa: ASYNC110 - a broker sets no event
                await asyncio.sleep(0.02)
        if found:
            raise Refused(found)
        return response

    async def _coordinator(self, transactional_id: str) -> int:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return int(await self._client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id))
                except errors.GroupCoordinatorNotAvailableError:  # on a new broker its log is made first
                    await asyncio.sleep(0.02)

    async def _leader(self, topic: str, partition: int) -> int:
        await self._client._wait_on_metadata(topic)
        node = self._client.cluster.leader_for_partition(TopicPartition(topic, partition))
        assert node is not None
        return int(node)


class Transaction:
    """An open transaction of a stranger's, whose batches may be crafted like any."""

    def __init__(self, raw: RawClient, *, node: int, transactional_id: str, granted: Any) -> None:
        self.producer_id: int = granted.producer_id
        self.epoch: int = granted.producer_epoch
        self.is_open = False
        self._raw = raw
        self._node = node
        self._id = transactional_id
        self._sequences: dict[str, int] = {}
        self._began: dict[str, int] = {}

    async def begin(self, *topics: str) -> None:
        """Open the next transaction of this producer."""
        request = AddPartitionsToTxnRequest(self._id, self.producer_id, self.epoch, [(topic, [0]) for topic in topics])
        await self._raw.ask(
            self._node, request, code=lambda response: max(code for _, parts in response.errors for _, code in parts)
        )
        self.is_open = True

    async def send(self, topic: str, batch: Batch) -> int:
        """Append a batch as part of the transaction; producer, sequence and transactional bit are filled in."""
        sequence = self._sequences.get(topic, 0)
        self._sequences[topic] = sequence + len(batch.records)
        inside = replace(
            batch,
            attributes=batch.attributes | TRANSACTIONAL_BIT,
            producer_id=self.producer_id,
            epoch=self.epoch,
            sequence=sequence,
        )
        base = await self._raw.send(topic, inside, transactional_id=self._id)
        self._began.setdefault(topic, base)
        return base

    async def commit(self) -> None:
        """End the transaction: what was sent in it counts."""
        await self._end(committed=True)

    async def abort(self) -> None:
        """End the transaction: nothing that was sent in it counts."""
        await self._end(committed=False)

    async def _end(self, *, committed: bool) -> None:
        self.is_open = False
        request = EndTxnRequest(self._id, self.producer_id, self.epoch, committed)
        await self._raw.ask(self._node, request, code=lambda response: response.error_code)
        async with asyncio.timeout(PATIENCE):  # the broker answers before its markers stand in the logs
            for topic, base in self._began.items():
                while not await self._is_marked(topic, base):  # noqa: ASYNC110 - a broker sets no event
                    await asyncio.sleep(0.01)
        self._began.clear()

    async def _is_marked(self, topic: str, base: int) -> bool:
        while batches := await self._raw.fetch(topic, base):
            if any(kept.producer_id == self.producer_id and kept.attributes & CONTROL_BIT for kept in batches):
                return True
            base = batches[-1].base_offset + batches[-1].last_delta + 1
        return False


def _stored(raw: bytes) -> list[Stored]:
    found: list[Stored] = []
    at = 0
    while len(raw) - at >= _HEADER.size:
        base, length, _, _, _, attributes, last, first, greatest, producer, epoch, sequence, count = (
            _HEADER.unpack_from(raw, at)
        )
        end = at + _LENGTH_END + length
        batch = raw[at:end]
        found.append(
            Stored(
                base_offset=base,
                attributes=attributes,
                last_delta=last,
                first_timestamp=first,
                max_timestamp=greatest,
                producer_id=producer,
                epoch=epoch,
                sequence=sequence,
                count=count,
                deltas=() if attributes & 0x07 else _deltas(batch[_HEADER.size :], count),
                raw=batch,
            )
        )
        at = end
    return found


def _deltas(body: bytes, count: int) -> tuple[int, ...]:
    found: list[int] = []
    data, at = bytearray(body), 0
    for _ in range(count):
        length, start = decode_varint(data, at)
        _, behind = decode_varint(data, start + 1)
        delta, _ = decode_varint(data, behind)
        found.append(delta)
        at = start + length
    return tuple(found)


def _varint(into: bytearray, value: int) -> None:
    encode_varint(value, into.append)


def _field(into: bytearray, value: bytes | None) -> None:
    _varint(into, -1 if value is None else len(value))
    into += value or b""
