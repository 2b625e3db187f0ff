import struct

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from tests.unit.kafka.batches import CODECS, HEADER_BYTES, POISON, batch, reframed
from watchword_adapters.kafka.scrub import scrub

FAR = 1 << 40
"""Beyond the end of no log here."""


def read(raw: bytes) -> tuple[list[tuple[int, bytes | None]], int | None]:
    """Decode as the fetcher does: the records, and where it goes on; what was replaced has no value."""
    records, found, after = MemoryRecords(raw), [], None
    while records.has_next():
        part = records.next_batch()
        assert part is not None
        assert part.validate_crc()
        for record in part:
            assert record.value is not None or record.headers == [("watchword", None)]
            found.append((record.offset, record.value))
        after = part.next_offset
    return found, after


@pytest.mark.parametrize("codec", CODECS)
def test_records_that_do_not_decode_are_replaced(codec: int) -> None:
    """Whatever the compression, good records keep offset and value, bad ones bear an empty envelope instead."""
    raw = batch(["a", POISON, "b", POISON], codec=codec, base_offset=10)
    with pytest.raises(UnicodeDecodeError):
        read(raw)
    assert read(scrub(raw, FAR)) == ([(10, b"value 0"), (11, None), (12, b"value 2"), (13, None)], 14)


def test_good_batches_stay_as_they_are() -> None:
    """Bytes of batches that decode are not touched, and a batch that a fetch cut off stays cut off."""
    raw = batch(["a"]) + batch(["b"], codec=1, base_offset=1) + batch(["c"], base_offset=2)[:30]
    assert scrub(raw, FAR) == raw
    assert scrub(b"", FAR) == b""
    assert scrub(raw[:-30] + batch(["c"], base_offset=2)[:70], FAR) == raw[:-30] + batch(["c"], base_offset=2)[:70]


def test_damaged_bytes_are_left_to_the_client() -> None:
    """Where a checksum fails the client fetches again: that is not for us to judge."""
    damaged = bytearray(batch([POISON]))
    damaged[-1] ^= 1
    assert scrub(bytes(damaged), FAR) == bytes(damaged)


@pytest.mark.parametrize("magic", [0, 1])
def test_an_older_format_bears_no_signature(magic: int) -> None:
    """What is stored in a format older than 2 has no headers, and offsets of its writer's choice: it is one record."""
    old = bytearray(batch(["a"], base_offset=7)[:40])
    struct.pack_into(">i", old, 8, 28)
    old[16] = magic
    assert read(scrub(bytes(old) + batch(["b"], base_offset=8), FAR)) == ([(7, None), (8, b"value 0")], 9)


def test_a_missing_codec_is_not_the_message_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library to unpack with is missing, nothing is replaced: the client says which one."""
    raw = batch([POISON], codec=4)
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    assert scrub(raw, FAR) == raw


def offsets_changed(names: list[str], deltas: list[int], *, base_offset: int = 0, codec: int = 0) -> bytes:
    """Build a batch of single-digit deltas, then write others (below 64, one byte each) in their place."""
    raw, at = bytearray(batch(names)), HEADER_BYTES
    for delta in deltas:
        length = raw[at] >> 1  # records of fewer than 64 bytes
        raw[at + 3] = delta << 1 if delta >= 0 else (-delta << 1) - 1
        at += 1 + length
    return reframed(bytes(raw), codec, base_offset)


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize(
    ("deltas", "good"),
    [
        ([0, 60, 2], {0: 0, 2: 2}),  # beyond the batch
        ([60, 1, 2], {1: 1, 2: 2}),
        ([0, 1, 60], {0: 0, 1: 1}),
        ([0, -1, 2], {0: 0, 2: 2}),  # before it
        ([0, 3, 2], {0: 0, 2: 2}),  # the next batch's first
        ([0, 0, 2], {0: 0, 2: 2}),  # twice
        ([0, 2, 1], {0: 0, 2: 1}),  # out of order
        ([1, 0, 2], {1: 0, 2: 2}),
    ],
)
def test_a42_offsets_are_the_batch_s(deltas: list[int], good: dict[int, int], codec: int) -> None:
    """A record whose offset does not ascend within its batch is replaced, at an offset that no other record takes."""
    raw = offsets_changed(["a", "b", "c"], deltas, base_offset=100, codec=codec)
    found = read(scrub(raw + batch(["next"], base_offset=103), FAR))
    wanted = [(100 + at, b"value %d" % good[at] if at in good else None) for at in range(3)]
    assert found == ([*wanted, (103, b"value 0")], 104)


def test_a42_gaps_of_compaction_are_no_fault() -> None:
    """Offsets may be missing, for compaction takes records out of a batch and leaves its range."""
    raw = bytearray(offsets_changed(["a", "b"], [1, 5]))
    struct.pack_into(">i", raw, 23, 7)
    compacted = reframed(bytes(raw), 0, 0)
    assert scrub(compacted, FAR) == compacted


def test_a42_nothing_from_beyond_the_end_of_the_log() -> None:
    """A batch that reaches beyond the end that the broker tells in the same answer is cut off with all behind it."""
    first, second = batch(["a"]), batch([POISON], base_offset=1)
    assert scrub(first + second + batch(["c"], base_offset=2), 1) == first
    assert scrub(first, 1) == first


@pytest.mark.parametrize(("headers", "kept"), [(1024, True), (1025, False)])
def test_a53_too_many_headers_are_made_once(headers: int, kept: bool) -> None:  # noqa: FBT001 - a row's two columns
    """A record with more headers than a message may have is replaced before the client makes them."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1_000, b"key", b"value", [("", b"")] * headers)
    raw = reframed(bytes(builder.build()), 1, 5)
    assert read(scrub(raw, FAR)) == ([(5, b"value" if kept else None)], 6)


@pytest.mark.parametrize("damage", ["length", "count", "gzip"])
def test_a_batch_that_cannot_be_parted_is_one_record(damage: str) -> None:
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
    assert read(scrub(broken + batch(["good"], base_offset=7), FAR)) == ([(5, None), (7, b"value 0")], 8)


def _with_crc(raw: bytes) -> bytes:
    return raw[:17] + struct.pack(">I", calc_crc32c(raw[21:])) + raw[21:]


def test_an_offset_that_cannot_be_read_is_one_of_the_batch() -> None:
    """A record too broken to tell its offset takes one that is free."""
    raw = bytearray(batch(["a"], base_offset=5))
    body = b"\x02\x00"  # a record of one byte: its attributes
    broken = _with_crc(
        bytes(raw[:8]) + struct.pack(">i", HEADER_BYTES - 12 + len(body)) + bytes(raw[12:HEADER_BYTES]) + body
    )
    assert read(scrub(broken, FAR)) == ([(5, None)], 6)
