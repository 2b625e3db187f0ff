"""Record batches that aiokafka cannot decode, made readable by leaving out the broken records."""

from __future__ import annotations

import struct
from typing import Final

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.errors import UnsupportedCodecError
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.util import calc_crc32c, decode_varint

# Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id
# and epoch, base sequence, number of records (Kafka protocol guide, "Record Batch").
_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
_LENGTH_END: Final = 12
_MAGIC_AT: Final = 16
_MAGIC: Final = 2
_CRC_END: Final = 21
_CODECS: Final = {1: gzip_decode, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
_CODEC_MASK: Final = 0x07


def scrub(raw: bytes) -> tuple[bytes, list[int]]:
    """Return a fetched record set without the records that the client cannot decode, and their offsets.

    Batches that decode, that another format version holds, or whose checksum fails (they are fetched again) stay as
    they are. A batch whose records cannot even be parted is emptied, and counted by its first offset.
    """
    parts: list[bytes] = []
    lost: list[int] = []
    at = 0
    while len(raw) - at >= _HEADER.size:
        end = at + _LENGTH_END + int.from_bytes(raw[at + 8 : at + _LENGTH_END], signed=True)
        if not at + _HEADER.size <= end <= len(raw):  # the last batch of a fetch may be cut off
            break
        batch = raw[at:end]
        parts.append(batch if batch[_MAGIC_AT] != _MAGIC or _decodes(batch) else _rebuilt(batch, lost))
        at = end
    parts.append(raw[at:])
    return b"".join(parts), lost


def _decodes(batch: bytes) -> bool:
    """Tell whether to leave a batch to the client."""
    records = DefaultRecordBatch(batch)
    if not records.validate_crc():
        return True
    try:
        for _ in records:
            pass
    except UnsupportedCodecError:  # a library is missing here; the records may be good
        return True
    except Exception:  # noqa: BLE001 - what a hostile batch makes a decoder raise is open
        return False
    return True


def _rebuilt(batch: bytes, lost: list[int]) -> bytes:
    """Return the batch, uncompressed, with the records that decode one by one."""
    header = list(_HEADER.unpack_from(batch))
    base_offset, codec, count = header[0], header[5] & _CODEC_MASK, header[12]
    header[5] &= ~_CODEC_MASK
    body = batch[_HEADER.size :]
    kept: list[bytes] = []
    try:
        at = 0
        body = _CODECS[codec](body) if codec else body
        for index in range(count):
            length, start = decode_varint(bytearray(body[at : at + 10]), 0)
            end = at + start + length
            if length < 0 or end > len(body):
                raise ValueError("a record that reaches beyond its batch")  # noqa: TRY301 - as the decoder says it
            if _decodes(_batch(header, [body[at:end]])):
                kept.append(body[at:end])
            else:
                lost.append(_offset(body[at + start : end], base_offset, index))
            at = end
    except Exception:  # noqa: BLE001 - as above
        kept.clear()
        lost.append(base_offset)
    return _batch(header, kept)


def _offset(record: bytes, base_offset: int, index: int) -> int:
    """Read a record's offset, which stands behind its attributes and timestamp."""
    try:
        _, at = decode_varint(bytearray(record[1:12]), 0)
        delta, _ = decode_varint(bytearray(record[1 + at : 1 + at + 10]), 0)
    except (ValueError, IndexError):
        return base_offset + index
    return base_offset + delta


def _batch(header: list[int], records: list[bytes]) -> bytes:
    """Join records under a header; length, count and checksum are set anew."""
    body = b"".join(records)
    fields = [*header]
    fields[1] = _HEADER.size - _LENGTH_END + len(body)
    fields[12] = len(records)
    joined = _HEADER.pack(*fields) + body
    fields[4] = calc_crc32c(joined[_CRC_END:])
    return _HEADER.pack(*fields) + body
