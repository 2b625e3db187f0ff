"""Record batches as an attacker writes them, below what aiokafka's own builder allows."""

import struct
from collections.abc import Callable, Sequence

from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

CODECS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip_encode,
    2: snappy_encode,
    3: lz4_encode,
    4: zstd_encode,
}
POISON = "POISON"
HEADER_BYTES = 61
CRC_END = 21


def batch(names: Sequence[str], *, codec: int = 0, base_offset: int = 0) -> bytes:
    """Build a batch with one record a header name; for POISON the name is no UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset, name in enumerate(names):
        builder.append(offset, 1_000, b"key", b"value %d" % offset, [(name, b"v")])
    return reframed(bytes(builder.build()).replace(POISON.encode(), b"\xff" * len(POISON)), codec, base_offset)


def reframed(built: bytes, codec: int = 0, base_offset: int = 0) -> bytes:
    """Compress what stands behind the header, and set offset, length and checksum."""
    body = bytes(CODECS[codec](built[HEADER_BYTES:]))
    framed = bytearray(built[:HEADER_BYTES] + body)
    struct.pack_into(">qi", framed, 0, base_offset, len(framed) - 12)
    struct.pack_into(">h", framed, CRC_END, codec)
    struct.pack_into(">I", framed, 17, calc_crc32c(bytes(framed[CRC_END:])))
    return bytes(framed)
