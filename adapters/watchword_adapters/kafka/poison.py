"""Replaces, in fetched batches, records that the client cannot decode and offsets that are false.

The broker checks the offset range of a batch and nothing else: the contents of a record are its publisher's claim. A
record with an offset delta outside its batch would move the client's position, and every commit, to an offset that the
publisher chose. A header name that is not UTF-8 would stop its partition. A false length may make a decoder read far
beyond the batch, or allocate more memory than there is. And a batch of a few kilobytes may decompress to gigabytes, or
to millions of tiny records.

Such a record is replaced by one with an empty envelope, at an offset of its batch that no other record has. It is then
read in order like any other and rejected as ``malformed``, with the usual counts, quarantine and positions, and again
when the log is reread.

The work is done in short steps: the functions that handle records are generators, and their driver can do other work
at each yield.
"""

from __future__ import annotations

import gzip
import struct
from io import BytesIO
from itertools import pairwise
from operator import lt
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from aiokafka import codec as codecs
from aiokafka.record import util
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import encode_varint

from watchword import engine
from watchword.message import ENVELOPE_HEADER, MAX_HEADERS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

MOST_UNPACKED: Final = 1 << 26
"""Most bytes that a batch may decompress to; a larger one is one poison record. Once a partition's part of a response
has decompressed to that much, the rest of that part is cut off, and the client fetches it again."""

PIECE: Final = 1 << 16
"""Bytes of records decoded in one step, unless a single record is larger."""

_LOOKED_AT: Final = 1 << 21
"""Bytes of records that the native engine checks in one step."""

_BATCH_COST: Final = 512
"""Fixed cost of a batch, as the bytes of records that take about as long to decode."""

_MOST_ASTRAY: Final = 1_000
"""Records out of offset order that are replaced one by one: a batch with more of them becomes one poison record."""

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id
# and epoch, base sequence, number of records (Kafka protocol guide, "Record Batch").
HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_ROOM: Final = bytes(HEADER.size)
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_MAGIC: Final = 2
_CRC_END: Final = 21
_LAST_DELTA: Final = slice(23, 27)
_GZIP, _SNAPPY, _LZ4, _ZSTD = 1, 2, 3, 4
_CODEC_MASK: Final = 0x07
_LEAST_RECORD: Final = 6
"""Bytes of the shortest record: attributes and five numbers."""

_BEHIND: Final = bytes(32)
"""Padding after records to be decoded: some decoders read a number beyond the last byte."""

_GROWTH: Final = 8
"""Growth factor of the output buffer, if the decompressed size is unknown."""

_READ: Final = 1 << 20
"""Bytes of gzip output decompressed in one step."""

_XERIAL: Final = b"\x82SNAPPY\x00"
_XERIAL_HEADER: Final = 16

# Both accept any bytes-like object, whatever their annotations say. The client's faster varint decoder is not used: it
# reads past the end of its buffer.
decode_varint: Final[Any] = util.decode_varint_py
calc_crc32c: Final[Any] = util.calc_crc32c

T = TypeVar("T")
Steps: TypeAlias = "Generator[None, None, T]"


class _Poison(Exception):  # noqa: N818 - not an error of ours
    """The records of a batch cannot be separated, or are too many: the batch becomes one record."""


class _NoCodec(Exception):  # noqa: N818 - as above
    """The codec's library is not installed; the records may be good."""


def without_poison_in_answer(response: Any) -> Steps[None]:
    """Replace poison records in a fetch response, in place."""
    topics = []
    for topic, parts in response.topics:
        cleaned = []
        for one in parts:
            # In every version a partition's tuple has the log end at index 2 and the record set last.
            records = (yield from without_poison(one[-1], one[2])) if one[-1] else one[-1]
            cleaned.append((*one[:-1], records))
        topics.append((topic, cleaned))
    response.topics = topics


def without_poison(raw: bytes, log_end: int) -> Steps[bytes]:
    """Return a fetched record set in which every record can be decoded and is in offset order.

    Offsets must ascend within the range of their batch, and batches must end at or below ``log_end``: from a batch that
    exceeds it, everything is cut off. A record with more headers than a message may have is replaced before the headers
    are decoded. These batches become one record: one whose records cannot be separated, one that decompresses to more
    than ``MOST_UNPACKED`` bytes, and one of a format before 2, which has no headers. A compressed batch is returned
    decompressed, to do so only once. A batch whose checksum fails is left as it is: the client refuses it and fetches
    it again. MemoryError is raised, since it says nothing about the batch.
    """
    native = engine.native()
    parts: list[bytes | bytearray] = []
    at = unpacked = work = 0
    is_sound = True
    while len(raw) - at > _MAGIC_AT:
        if native is not None and unpacked < MOST_UNPACKED:
            end = native.sound_until(raw, at, _LOOKED_AT, log_end)
            if end > at:
                parts.append(raw[at:end])
                work += end - at
                at = end
                if work >= PIECE:
                    work = 0
                    yield
                continue
        end = at + _LENGTH_END + int.from_bytes(raw[at + 8 : at + _LENGTH_END], signed=True)
        if not at + _MAGIC_AT < end <= len(raw):  # the last batch of a fetch may be cut off
            break
        is_sound = False
        batch: bytes | bytearray = raw[at:end]
        if batch[_MAGIC_AT] != _MAGIC:
            offset = int.from_bytes(batch[:8], signed=True)
            batch = _batch([offset, 0, -1, _MAGIC, 0, 0, 0, -1, -1, -1, -1, -1, 0], bytearray(_ROOM) + _nothing(0), 1)
        if _end_of(batch) > log_end or unpacked >= MOST_UNPACKED:
            return b"".join(parts)
        if len(batch) >= HEADER.size:
            size = len(batch)
            batch = yield from _clean(batch)
            unpacked += max(0, len(batch) - size)
        parts.append(batch)
        at = end
        work += _BATCH_COST + len(batch)
        if work >= PIECE:
            work = 0
            yield
    return raw if is_sound else b"".join((*parts, raw[at:]))


def _end_of(batch: bytes | bytearray) -> int:
    return int.from_bytes(batch[:8], signed=True) + int.from_bytes(batch[_LAST_DELTA], signed=True) + 1


def _clean(batch: bytes | bytearray) -> Steps[bytes | bytearray]:
    """Return a batch that is safe for the client."""
    header = [*HEADER.unpack_from(batch)]
    if calc_crc32c(memoryview(batch)[_CRC_END:]) != header[4]:
        return batch
    codec = header[5] & _CODEC_MASK
    header[5] &= ~_CODEC_MASK
    try:
        unpacked = (yield from _unpacked(codec, bytes(batch[HEADER.size :]))) if codec else batch
        if not (yield from _is_sound(header, unpacked)):
            return (yield from _mended(header, unpacked))
    except _NoCodec:
        return batch
    except (_Poison, ValueError, IndexError):
        return _batch(header, bytearray(_ROOM) + _nothing(0), 1)
    if isinstance(unpacked, bytearray) and codec:
        yield
        return _batch(header, unpacked, header[12])
    return batch


def _cramjam() -> Any:
    """Return the library of all codecs but gzip; None if it is missing, in which case the client's codecs fail too."""
    return vars(codecs)["cramjam"]


# Decompression, after space reserved for the batch header


def _unpacked(codec: int, packed: bytes) -> Steps[bytearray]:
    """Return the decompressed records; _Poison if they exceed ``MOST_UNPACKED`` or the data is corrupt."""
    if codec not in {_GZIP, _SNAPPY, _LZ4, _ZSTD}:
        raise _Poison
    if codec != _GZIP and _cramjam() is None:
        raise _NoCodec
    try:
        if codec == _GZIP:
            return (yield from _from_gzip(packed))
        if codec == _SNAPPY:
            return _from_snappy(packed)
        return (yield from _from_frames(_cramjam().lz4 if codec == _LZ4 else _cramjam().zstd, packed))
    except MemoryError:
        raise
    except Exception as error:
        raise _Poison from error


def _from_gzip(packed: bytes) -> Steps[bytearray]:
    unpacked = bytearray(_ROOM)
    with gzip.GzipFile(fileobj=BytesIO(packed)) as file:
        while part := file.read(_READ):
            unpacked += part
            if len(unpacked) - len(_ROOM) > MOST_UNPACKED:
                raise _Poison
            if len(unpacked) > _READ:
                yield
    return unpacked


def _from_snappy(packed: bytes) -> bytearray:
    """Decompress snappy, which states its size first; xerial's framing has blocks, each preceded by its length."""
    length = _cramjam().snappy.decompress_raw_len
    size = 0
    if packed.startswith(_XERIAL) and len(packed) > _XERIAL_HEADER:
        at = _XERIAL_HEADER
        while at < len(packed):
            start = at + 4
            at = start + int.from_bytes(packed[at:start], signed=True)
            if at < start:
                raise _Poison
            size += length(packed[start:at])
    else:
        size = length(packed)
    if size > MOST_UNPACKED:
        raise _Poison
    return bytearray(_ROOM) + codecs.snappy_decode(packed)


def _from_frames(library: Any, packed: bytes) -> Steps[bytearray]:
    """Decompress a format that does not state its size into growing buffers."""
    size = min(_GROWTH * len(packed) + 64, MOST_UNPACKED)
    while True:
        unpacked = bytearray(len(_ROOM) + size)
        if size > _READ:
            yield
        try:
            with memoryview(unpacked) as view:
                written = library.decompress_into(packed, view[len(_ROOM) :])
        except _cramjam().DecompressionError:  # the buffer was too small, or the data is corrupt
            if size >= MOST_UNPACKED:
                raise
            size = min(_GROWTH * size, MOST_UNPACKED)
        else:
            del unpacked[len(_ROOM) + written :]
            return unpacked


# Records


def _is_sound(header: list[int], batch: bytes | bytearray) -> Steps[bool]:
    """Return True if these records are safe for the client as they are."""
    last_delta, count = header[6], header[12]
    native = engine.native() if len(batch) <= _LOOKED_AT else None
    if native is not None and native.are_sound(bytes(memoryview(batch)[HEADER.size :]), count, last_delta):
        return True
    if len(batch) <= PIECE:
        return _in_turn(_deltas(header, memoryview(batch)[HEADER.size :], count), -1, last_delta)
    latest, end = -1, 0
    for bounds in _pieces(batch, count):
        start, end = bounds[0], bounds[-1]
        deltas = _deltas(header, memoryview(batch)[start:end], len(bounds) - 1)
        if deltas is None or not _in_turn(deltas, latest, last_delta):
            return False
        latest = deltas[-1]
        yield
    return end == len(batch)


def _pieces(batch: bytes | bytearray, count: int) -> Iterator[list[int]]:
    """Separate ``count`` records, and yield the bounds of as many as are decoded in one step.

    ValueError or IndexError if a length does not fit.
    """
    at, size = HEADER.size, len(batch)
    bounds = [at]
    for _ in range(count):
        length, second = batch[at], 0
        at += 1
        if length >= 0x80:  # noqa: PLR2004 - the varint continues
            second = batch[at]
            if second < 0x80:  # noqa: PLR2004 - as above
                length += (second - 1) << 7
                at += 1
            else:
                length, at = decode_varint(batch, at - 1)
                length = 2 * length if length >= 0 else 1
        at += length >> 1
        if length & 1 or length >> 1 < _LEAST_RECORD or at > size:
            raise ValueError("a record that is too short, or reaches beyond its batch")
        if at - bounds[0] > PIECE and len(bounds) > 1:
            yield bounds
            bounds = [bounds[-1]]
        bounds.append(at)
    if len(bounds) > 1:
        yield bounds


def _deltas(header: list[int], body: bytes | memoryview, count: int, *, is_measured: bool = False) -> list[int] | None:
    """Return the offset deltas of records; None if one cannot be decoded or has too many headers.

    Raises MemoryError only if ``is_measured``: until the lengths in a record have been checked, they may be false.
    """
    if len(body) > PIECE and _place_and_headers(body)[1] > MAX_HEADERS:
        return None
    fields = [0, HEADER.size - _LENGTH_END + len(body), *header[2:12], count]
    deltas: list[int] = []
    whole = memoryview(b"".join((HEADER.pack(*fields), body, _BEHIND)))
    try:
        for record in DefaultRecordBatch(whole[: -len(_BEHIND)]):
            if len(record.headers) > MAX_HEADERS:
                return None
            deltas.append(record.offset)
    except Exception as error:  # a hostile record may make a decoder raise anything
        if is_measured and isinstance(error, MemoryError):
            raise
        return None
    return deltas


def _in_turn(deltas: Sequence[int] | None, latest: int, last_delta: int) -> bool:
    """Return True if offsets ascend, after ``latest`` and within the range of their batch."""
    if not deltas:
        return deltas is not None
    return latest < deltas[0] and deltas[-1] <= last_delta and all(map(lt, deltas, deltas[1:]))


def _mended(header: list[int], batch: bytes | bytearray) -> Steps[bytearray]:
    """Return the batch with records replaced that cannot be decoded or are out of offset order."""
    last_delta, count = header[6], header[12]
    records: dict[int, bytes | None] = {}
    latest, astray = -1, 0
    for bounds in _pieces(batch, count):
        deltas = _deltas(header, memoryview(batch)[bounds[0] : bounds[-1]], len(bounds) - 1)
        if deltas and _in_turn(deltas, latest, last_delta):
            records |= {
                delta: bytes(batch[start:end]) for delta, start, end in zip(deltas, bounds, bounds[1:], strict=False)
            }
            latest = deltas[-1]
            yield
            continue
        for number, (start, end) in enumerate(pairwise(bounds)):
            record = bytes(batch[start:end])
            delta, headers = _place_and_headers(record)
            if delta is None or not latest < delta <= last_delta:
                astray += 1
            else:
                latest = delta
                is_sound = headers <= MAX_HEADERS and _deltas(header, record, 1, is_measured=True) == [delta]
                records[delta] = record if is_sound else None
            if astray > _MOST_ASTRAY:
                raise _Poison
            if number % 256 == 255:  # noqa: PLR2004 - some milliseconds
                yield
    free = (delta for delta in range(last_delta + 1) if delta not in records)
    records |= {delta: None for delta, _ in zip(free, range(astray), strict=False)}
    yield
    return (yield from _joined(header, records))


def _place_and_headers(record: bytes | memoryview) -> tuple[int | None, int]:
    """Read a record's offset delta and its number of headers, as far as they can be read.

    A record in which a length exceeds its bounds counts as one with too many headers.
    """
    delta = None
    try:
        _, at = decode_varint(record, 0)  # its length
        if record[at] >= 0x80:  # noqa: PLR2004 - some decoders read attributes as one byte, others as more
            return None, MAX_HEADERS + 1
        _, at = decode_varint(record, at + 1)  # its timestamp
        delta, at = decode_varint(record, at)
        for _ in ("key", "value"):
            at = _behind(record, at)
        headers, at = decode_varint(record, at)
        if headers <= MAX_HEADERS:
            for _ in range(2 * headers):
                at = _behind(record, at)
    except (ValueError, IndexError):
        return delta, MAX_HEADERS + 1
    return delta, headers


def _behind(record: bytes | memoryview, at: int) -> int:
    """Return the end of a length-prefixed field; ValueError if it is not within the record."""
    size, at = decode_varint(record, at)
    if size > len(record) - at:
        raise ValueError("a length that reaches beyond its record")
    end: int = at + max(size, 0)
    return end


def _joined(header: list[int], records: dict[int, bytes | None]) -> Steps[bytearray]:
    """Join records, in order of their offset deltas, after a header."""
    batch = bytearray(_ROOM)
    for number, delta in enumerate(sorted(records)):
        batch += records[delta] or _nothing(delta)
        if number % 4096 == 4095:  # noqa: PLR2004 - about a millisecond
            yield
    return _batch(header, batch, len(records))


def _batch(header: list[int], batch: bytearray, count: int) -> bytearray:
    """Write the header before ``count`` records, with matching length, count and checksum."""
    fields = [*header]
    fields[1] = len(batch) - _LENGTH_END
    fields[12] = count
    HEADER.pack_into(batch, 0, *fields)
    with memoryview(batch) as view:
        struct.pack_into(">I", batch, _CRC_END - 4, calc_crc32c(view[_CRC_END:]))
    return batch


def _nothing(delta: int) -> bytes:
    """Return a record with an empty envelope and no key or value."""
    record = bytearray(b"\0\0")  # attributes, timestamp
    name = ENVELOPE_HEADER.encode()
    for number in (delta, -1, -1, 1, len(name)):  # key, value, headers
        encode_varint(number, record.append)
    record += name
    encode_varint(-1, record.append)
    framed = bytearray()
    encode_varint(len(record), framed.append)
    return bytes(framed + record)
