import struct

import pytest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from tests.unit.kafka.batches import CODECS, HEADER_BYTES, POISON, batch, reframed
from watchword_adapters.buses.kafka.scrub import scrub


def read(raw: bytes) -> tuple[list[tuple[int, bytes | None]], int | None]:
    """Decode as the fetcher does: the records, and where it goes on."""
    records, found, after = MemoryRecords(raw), [], None
    while records.has_next():
        part = records.next_batch()
        assert part is not None
        assert part.validate_crc()
        found += [(record.offset, record.value) for record in part]
        after = part.next_offset
    return found, after


@pytest.mark.parametrize("codec", CODECS)
def test_records_that_do_not_decode_are_left_out(codec: int) -> None:
    """Whatever the compression, good records keep offset and value, bad ones are named, and the end stays the end."""
    raw = batch(["a", POISON, "b", POISON], codec=codec, base_offset=10)
    with pytest.raises(UnicodeDecodeError):
        read(raw)
    clean, lost = scrub(raw)
    assert read(clean) == ([(10, b"value 0"), (12, b"value 2")], 14)
    assert lost == [11, 13]


def test_good_batches_stay_as_they_are() -> None:
    """Bytes of batches that decode are not touched, and a batch that a fetch cut off stays cut off."""
    raw = batch(["a"]) + batch(["b"], codec=1, base_offset=1) + batch(["c"], base_offset=2)[:30]
    assert scrub(raw) == (raw, [])
    assert scrub(b"") == (b"", [])
    assert scrub(raw[:-30] + batch(["c"])[:70]) == (raw[:-30] + batch(["c"])[:70], [])


def test_a_batch_of_nothing_but_poison_is_emptied() -> None:
    """The position can pass a batch that holds no good record."""
    clean, lost = scrub(batch([POISON, POISON]))
    assert (read(clean), lost) == (([], 2), [0, 1])


def test_other_format_and_damaged_bytes_are_left_to_the_client() -> None:
    """An old record format, and a checksum that fails (the bytes are fetched again), are not for us to judge."""
    old = bytearray(batch([POISON]))
    old[16] = 1
    assert scrub(bytes(old)) == (bytes(old), [])
    damaged = bytearray(batch([POISON]))
    damaged[-1] ^= 1
    assert scrub(bytes(damaged)) == (bytes(damaged), [])


def test_a_missing_codec_is_not_the_message_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library to unpack with is missing, nothing is dropped: the client says which one."""
    raw = batch([POISON], codec=4)
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    assert scrub(raw) == (raw, [])


@pytest.mark.parametrize("damage", ["length", "count", "gzip"])
def test_a_batch_that_cannot_be_parted_is_emptied(damage: str) -> None:
    """Lengths beyond the batch, a wrong count and broken compression cost that batch only, never an exception."""
    raw = bytearray(batch(["a", "b"], base_offset=5))
    match damage:
        case "length":
            raw[HEADER_BYTES] = 0x7E
        case "count":
            struct.pack_into(">i", raw, 57, 3)
    broken = reframed(bytes(raw), base_offset=5)
    if damage == "gzip":
        broken = reframed(broken[:HEADER_BYTES] + b"no gzip", base_offset=5)
        broken = _with_crc(broken[:21] + b"\x00\x01" + broken[23:])
    clean, lost = scrub(broken + batch(["good"], base_offset=7))
    assert (read(clean), lost) == (([(7, b"value 0")], 8), [5])


def _with_crc(raw: bytes) -> bytes:
    return raw[:17] + struct.pack(">I", calc_crc32c(raw[21:])) + raw[21:]


def test_an_offset_that_cannot_be_read_is_counted_by_its_place() -> None:
    """A record too broken to tell its offset is named by its place in the batch."""
    raw = bytearray(batch(["a"], base_offset=5))
    body = b"\x02\x00"  # a record of one byte: its attributes
    broken = _with_crc(
        bytes(raw[:8]) + struct.pack(">i", HEADER_BYTES - 12 + len(body)) + bytes(raw[12:HEADER_BYTES]) + body
    )
    clean, lost = scrub(broken)
    assert (read(clean), lost) == (([], 6), [5])
