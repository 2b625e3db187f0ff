"""Puts right what the client must not see in fetched batches: records it cannot decode, and offsets that are made up.

The broker checks the range of offsets that a batch takes, and no more: what stands in a record is its publisher's word.
A record with an offset delta outside its batch would move the client's position, and with it every commit, to a place
of the publisher's choice; one with a header name that is no UTF-8 would stop its partition.

Such a record is replaced by one that bears an empty envelope, at an offset of its batch that no other record takes. So
it comes in its turn like any other, and ends as ``malformed``: in counts, quarantine and positions, and in what is read
again too.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c, decode_varint, encode_varint

from watchword.message import ENVELOPE_HEADER, MAX_HEADERS

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id
# and epoch, base sequence, number of records (Kafka protocol guide, "Record Batch").
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_MAGIC: Final = 2
_CRC_END: Final = 21
_LAST_DELTA: Final = slice(23, 27)
_CODECS: Final = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_CODEC_MASK: Final = 0x07


def scrub(raw: bytes, log_end: int) -> bytes:
    """Return a fetched record set in which every record is decodable, and at an offset in its turn.

    Offsets must ascend within the range of their batch, and batches end at or below ``log_end``: what reaches beyond it
    is cut off. A record with more headers than a message may have is replaced too, so that they are made only once. A
    batch whose records cannot even be parted, and one of a format older than 2, which bears no headers, becomes one
    record. A batch whose checksum fails stays as it is: the client refuses it, and fetches it again.
    """
    parts: list[bytes] = []
    at = 0
    while len(raw) - at > _MAGIC_AT:
        end = at + _LENGTH_END + int.from_bytes(raw[at + 8 : at + _LENGTH_END], signed=True)
        if not at + _MAGIC_AT < end <= len(raw):  # the last batch of a fetch may be cut off
            break
        batch = raw[at:end]
        if batch[_MAGIC_AT] != _MAGIC:
            offset = int.from_bytes(batch[:8], signed=True)
            batch = _batch([offset, 0, -1, _MAGIC, 0, 0, 0, -1, -1, -1, -1, -1, 0], {0: None})
        elif len(batch) >= _HEADER.size and not _is_sound(batch):
            batch = _mended(batch)
        if _end_of(batch) > log_end:
            return b"".join(parts)
        parts.append(batch)
        at = end
    parts.append(raw[at:])
    return b"".join(parts)


def _end_of(batch: bytes) -> int:
    return int.from_bytes(batch[:8], signed=True) + int.from_bytes(batch[_LAST_DELTA], signed=True) + 1


def _is_sound(batch: bytes) -> bool:
    """Return True if the client may have this batch as it is."""
    records = DefaultRecordBatch(batch)
    if not records.validate_crc():
        return True
    last = records.base_offset - 1
    try:
        for record in records:
            if record.offset <= last or len(record.headers) > MAX_HEADERS:
                return False
            last = record.offset
    except UnsupportedCodecError:  # a library is missing here; the records may be good
        return True
    except Exception:  # noqa: BLE001 - what a hostile batch makes a decoder raise is open
        return False
    return last < records.next_offset


def _mended(batch: bytes) -> bytes:
    """Return the batch, uncompressed; what does not decode, or is at an offset out of its turn, is replaced."""
    header = list(_HEADER.unpack_from(batch))
    codec, last_delta, count = header[5] & _CODEC_MASK, header[6], header[12]
    header[5] &= ~_CODEC_MASK
    body = batch[_HEADER.size :]
    records: dict[int, bytes | None] = {}
    try:
        at, latest, lost = 0, -1, 0
        body = _CODECS[codec](body) if codec else body
        for _ in range(count):
            length, start = decode_varint(bytearray(body[at : at + 10]), 0)
            after = at + start + length
            if length < 0 or after > len(body):
                raise ValueError("a record that reaches beyond its batch")  # noqa: TRY301 - as the decoder says it
            delta, headers = _place_and_headers(body[at + start : after])
            if delta is None or not latest < delta <= last_delta:
                lost += 1
            else:
                latest = delta
                sound = headers <= MAX_HEADERS and _is_sound(_batch(header, {delta: body[at:after]}))
                records[delta] = body[at:after] if sound else None
            at = after
        free = (delta for delta in range(last_delta + 1) if delta not in records)
        records |= {delta: None for delta, _ in zip(free, range(lost), strict=False)}
    except Exception:  # noqa: BLE001 - as above
        records = {0: None}
    return _batch(header, records)


def _place_and_headers(record: bytes) -> tuple[int | None, int]:
    """Read a record's offset within its batch, and its number of headers, as far as they can be read."""
    delta, headers = None, 0
    try:
        _, at = decode_varint(bytearray(record[1:12]), 0)  # behind the attributes: the timestamp
        at += 1
        delta, length = decode_varint(bytearray(record[at : at + 10]), 0)
        at += length
        for _ in ("key", "value"):
            size, length = decode_varint(bytearray(record[at : at + 10]), 0)
            at += length + max(size, 0)
        headers, _ = decode_varint(bytearray(record[at : at + 10]), 0)
    except (ValueError, IndexError):
        pass
    return delta, headers


def _batch(header: list[int], records: dict[int, bytes | None]) -> bytes:
    """Join records, by their offsets within the batch, under a header; length, count and checksum are made to fit."""
    body = b"".join(records[delta] or _nothing(delta) for delta in sorted(records))
    fields = [*header]
    fields[1] = _HEADER.size - _LENGTH_END + len(body)
    fields[12] = len(records)
    joined = _HEADER.pack(*fields) + body
    fields[4] = calc_crc32c(joined[_CRC_END:])
    return _HEADER.pack(*fields) + body


def _nothing(delta: int) -> bytes:
    """Return a record without key and value whose envelope is empty."""
    record = bytearray(b"\0\0")  # attributes, timestamp
    name = ENVELOPE_HEADER.encode()
    for number in (delta, -1, -1, 1, len(name)):  # key, value, headers
        encode_varint(number, record.append)
    record += name
    encode_varint(-1, record.append)
    framed = bytearray()
    encode_varint(len(record), framed.append)
    return bytes(framed + record)


def scrub_answer(response: Any) -> None:
    """Scrub what a broker's answer to a fetch holds, in place."""
    response.topics = [
        # In every version a partition's part has the log's end third, and its record set last.
        (topic, [(*one[:-1], scrub(one[-1], one[2])) if one[-1] else one for one in parts])
        for topic, parts in response.topics
    ]
