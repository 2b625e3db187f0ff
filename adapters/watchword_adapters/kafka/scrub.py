"""Takes out of fetched batches every record that the client must not see: undecodable, or at an offset it made up.

The broker checks the range of offsets that a batch takes, and no more: what stands in a record is its publisher's word.
A record with an offset delta outside its batch would move the client's position, and with it every commit, to a place
of the publisher's choice.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

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


class Lost(NamedTuple):
    """A record that was taken out: the first offset of its batch, its number in it from 0, and the place to name.

    ``offset`` is the record's own where that lies in its turn within the batch, else the first offset of the batch.
    ``end`` is the offset behind the batch.
    """

    base: int
    number: int
    offset: int
    end: int


def scrub(raw: bytes, log_end: int | None = None) -> tuple[bytes, list[Lost]]:
    """Return a fetched record set without the records that the client must not see, and these.

    Offsets must ascend within the range of their batch, and batches below ``log_end``: what comes from there on is cut
    off. A batch whose records cannot even be parted, and one of a format older than 2, which bears no headers, is
    emptied, and counted as one record at its first offset. A batch whose checksum fails stays as it is: the client
    refuses it, and fetches it again.
    """
    parts: list[bytes] = []
    lost: list[Lost] = []
    at = 0
    while len(raw) - at > _MAGIC_AT:
        end = at + _LENGTH_END + int.from_bytes(raw[at + 8 : at + _LENGTH_END], signed=True)
        if not at + _MAGIC_AT < end <= len(raw):  # the last batch of a fetch may be cut off
            break
        batch = raw[at:end]
        if batch[_MAGIC_AT] != _MAGIC:
            batch = _emptied(int.from_bytes(batch[:8], signed=True), lost)
        elif len(batch) >= _HEADER.size and not _is_sound(batch):
            batch = _rebuilt(batch, lost)
        if log_end is not None and _end_of(batch) > log_end:
            return b"".join(parts), [one for one in lost if one.end <= log_end]
        parts.append(batch)
        at = end
    parts.append(raw[at:])
    return b"".join(parts), lost


def _end_of(batch: bytes) -> int:
    return int.from_bytes(batch[:8], signed=True) + int.from_bytes(batch[23:27], signed=True) + 1


def _is_sound(batch: bytes) -> bool:
    """Return True if the client may have this batch as it is."""
    records = DefaultRecordBatch(batch)
    if not records.validate_crc():
        return True
    last = records.base_offset - 1
    try:
        for record in records:
            if record.offset <= last:
                return False
            last = record.offset
    except UnsupportedCodecError:  # a library is missing here; the records may be good
        return True
    except Exception:  # noqa: BLE001 - what a hostile batch makes a decoder raise is open
        return False
    return last < records.next_offset


def _emptied(offset: int, lost: list[Lost]) -> bytes:
    """Return a batch without records that takes the place of one record at ``offset``."""
    lost.append(Lost(offset, 0, offset, offset + 1))
    return _batch([offset, 0, -1, _MAGIC, 0, 0, 0, -1, -1, -1, -1, -1, 0], [])


def _rebuilt(batch: bytes, lost: list[Lost]) -> bytes:
    """Return the batch, uncompressed, with the records that decode one by one, at offsets in their turn."""
    header = list(_HEADER.unpack_from(batch))
    base, codec, count = header[0], header[5] & _CODEC_MASK, header[12]
    end = base + header[6] + 1
    header[5] &= ~_CODEC_MASK
    body = batch[_HEADER.size :]
    kept: list[bytes] = []
    found: list[Lost] = []
    last = base - 1
    try:
        at = 0
        body = _CODECS[codec](body) if codec else body
        for index in range(count):
            length, start = decode_varint(bytearray(body[at : at + 10]), 0)
            after = at + start + length
            if length < 0 or after > len(body):
                raise ValueError("a record that reaches beyond its batch")  # noqa: TRY301 - as the decoder says it
            offset = _offset(body[at + start : after], base)
            in_turn = offset is not None and last < offset < end
            if in_turn and _is_sound(_batch(header, [body[at:after]])):
                kept.append(body[at:after])
            else:
                found.append(Lost(base, index, offset if in_turn and offset is not None else base, end))
            if in_turn and offset is not None:
                last = offset
            at = after
    except Exception:  # noqa: BLE001 - as above
        kept.clear()
        found = [Lost(base, 0, base, end)]
    lost += found
    return _batch(header, kept)


def _offset(record: bytes, base: int) -> int | None:
    """Read a record's offset, which stands behind its attributes and timestamp; None where it cannot be read."""
    try:
        _, at = decode_varint(bytearray(record[1:12]), 0)
        delta, _ = decode_varint(bytearray(record[1 + at : 1 + at + 10]), 0)
    except (ValueError, IndexError):
        return None
    return base + delta


def _batch(header: list[int], records: list[bytes]) -> bytes:
    """Join records under a header; length, count and checksum are computed from them."""
    body = b"".join(records)
    fields = [*header]
    fields[1] = _HEADER.size - _LENGTH_END + len(body)
    fields[12] = len(records)
    joined = _HEADER.pack(*fields) + body
    fields[4] = calc_crc32c(joined[_CRC_END:])
    return _HEADER.pack(*fields) + body
