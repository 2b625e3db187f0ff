import struct
from typing import Any

import cramjam
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c, encode_varint_py
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.kafka.batches import CODECS, HEADER_BYTES, POISON, batch, reframed
from watchword import engine
from watchword_adapters.kafka import poison
from watchword_adapters.kafka.poison import PIECE, without_poison

FAR = 1 << 40
"""Beyond the end of no log here."""


def cleaned(raw: bytes, log_end: int) -> bytes:
    """Let ``without_poison`` take all its steps, and return what came of it."""
    return in_steps(raw, log_end)[0]


def in_steps(raw: bytes, log_end: int) -> tuple[bytes, int]:
    """Return what came of it, and after how many steps."""
    steps, count = without_poison(raw, log_end), 1
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def read(raw: bytes) -> tuple[list[tuple[int, bytes | None]], int | None]:
    """Decode as the fetcher does: the records, and where it continues; what was replaced has no value."""
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
    assert read(cleaned(raw, FAR)) == ([(10, b"value 0"), (11, None), (12, b"value 2"), (13, None)], 14)


def test_good_batches_stay_as_they_are() -> None:
    """Bytes of batches that decode are not touched, and a batch that a fetch cut off stays cut off."""
    raw = batch(["a"]) + batch(["b"], base_offset=1) + batch(["c"], base_offset=2)[:30]
    assert cleaned(raw, FAR) == raw
    assert cleaned(b"", FAR) == b""
    assert cleaned(raw[:-30] + batch(["c"], base_offset=2)[:70], FAR) == raw[:-30] + batch(["c"], base_offset=2)[:70]


@pytest.mark.parametrize("codec", CODECS)
def test_a_batch_is_unpacked_but_once(codec: int) -> None:
    """The client gets a compressed batch as it would be without compression: it need not unpack it once more."""
    raw = batch(["a", "b"], codec=codec, base_offset=1)
    assert cleaned(raw, FAR) == batch(["a", "b"], base_offset=1)


def test_a_small_answer_is_looked_at_in_one_step() -> None:
    """A record that comes alone waits for no other task."""
    assert in_steps(batch(["a"]), FAR)[1] == in_steps(b"", FAR)[1]


def test_damaged_bytes_are_left_to_the_client() -> None:
    """Where a checksum fails the client fetches again: that is not for us to judge."""
    damaged = bytearray(batch([POISON]))
    damaged[-1] ^= 1
    assert cleaned(bytes(damaged), FAR) == bytes(damaged)


@pytest.mark.parametrize("magic", [0, 1])
def test_an_older_format_bears_no_signature(magic: int) -> None:
    """What is stored in a format older than 2 has no headers, and offsets of its writer's choice: it is one record."""
    old = bytearray(batch(["a"], base_offset=7)[:40])
    struct.pack_into(">i", old, 8, 28)
    old[16] = magic
    assert read(cleaned(bytes(old) + batch(["b"], base_offset=8), FAR)) == ([(7, None), (8, b"value 0")], 9)


def test_a_missing_codec_is_not_the_message_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a library to unpack with is missing, nothing is replaced: the client says which one."""
    raw = batch([POISON], codec=4)
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    assert cleaned(raw, FAR) == raw


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
    found = read(cleaned(raw + batch(["next"], base_offset=103), FAR))
    wanted = [(100 + at, b"value %d" % good[at] if at in good else None) for at in range(3)]
    assert found == ([*wanted, (103, b"value 0")], 104)


def test_a42_gaps_of_compaction_are_no_fault() -> None:
    """Offsets may be missing, for compaction takes records out of a batch and leaves its range."""
    raw = bytearray(offsets_changed(["a", "b"], [1, 5]))
    struct.pack_into(">i", raw, 23, 7)
    compacted = reframed(bytes(raw), 0, 0)
    assert cleaned(compacted, FAR) == compacted


def test_a42_nothing_from_beyond_the_end_of_the_log() -> None:
    """A batch that reaches beyond the end that the broker tells in the same answer is cut off with all behind it."""
    first, second = batch(["a"]), batch([POISON], base_offset=1)
    assert cleaned(first + second + batch(["c"], base_offset=2), 1) == first
    assert cleaned(first, 1) == first


@pytest.mark.parametrize(("headers", "kept"), [(1024, True), (1025, False)])
def test_a53_too_many_headers_are_made_once(headers: int, kept: bool) -> None:  # noqa: FBT001 - a row's two columns
    """A record with more headers than a message may have is replaced before the client makes them."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1_000, b"key", b"value", [("", b"")] * headers)
    raw = reframed(bytes(builder.build()), 1, 5)
    assert read(cleaned(raw, FAR)) == ([(5, b"value" if kept else None)], 6)


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
    assert read(cleaned(broken + batch(["good"], base_offset=7), FAR)) == ([(5, None), (7, b"value 0")], 8)


def _with_crc(raw: bytes) -> bytes:
    return raw[:17] + struct.pack(">I", calc_crc32c(raw[21:])) + raw[21:]


def test_an_offset_that_cannot_be_read_is_one_of_the_batch() -> None:
    """A record too broken to tell its offset takes one that is free."""
    raw = bytearray(batch(["a"], base_offset=5))
    body = b"\x02\x00"  # a record of one byte: its attributes
    broken = _with_crc(
        bytes(raw[:8]) + struct.pack(">i", HEADER_BYTES - 12 + len(body)) + bytes(raw[12:HEADER_BYTES]) + body
    )
    assert read(cleaned(broken, FAR)) == ([(5, None)], 6)


# A53: much in few bytes


def built(*records: tuple[bytes, int]) -> bytes:
    """Build a batch of records with these values, and so many empty headers."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for offset, (value, headers) in enumerate(records):
        builder.append(offset, 1_000, None, value, [("", b"")] * headers)
    return reframed(bytes(builder.build()))


def in_one_block(plain: bytes) -> bytes:
    """Compress behind a length."""
    return bytes(cramjam.snappy.compress_raw(plain))


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a53_a_batch_that_unpacks_to_too_much_is_one_record(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the bound a batch is read; beyond it, it costs no more than the bound, and is one record."""
    raw = reframed(built((bytes(100_000), 0)), codec, 5)
    size = len(built((bytes(100_000), 0))) - HEADER_BYTES
    monkeypatch.setattr(poison, "MOST_UNPACKED", size + HEADER_BYTES)
    assert read(cleaned(raw, FAR)) == ([(5, bytes(100_000))], 6)
    monkeypatch.setattr(poison, "MOST_UNPACKED", size - 1)
    assert read(cleaned(raw, FAR)) == ([(5, None)], 6)


@pytest.mark.parametrize("length", [-5, 1 << 30])
def test_a53_blocks_of_snappy_go_forward(length: int) -> None:
    """A block whose length leads back, or beyond the batch, is no block: the batch is one record."""
    body = b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, length) + bytes(8)
    raw = bytearray(reframed(batch(["a"])[:HEADER_BYTES] + body))
    struct.pack_into(">h", raw, 21, 2)
    assert read(cleaned(_with_crc(bytes(raw)), FAR)) == ([(0, None)], 1)


def test_a53_snappy_without_blocks() -> None:
    """What is compressed in one block says how large it is, and is unpacked like any other."""
    raw = bytearray(reframed(batch(["a"])[:HEADER_BYTES] + in_one_block(batch(["a"])[HEADER_BYTES:])))
    struct.pack_into(">h", raw, 21, 2)
    assert read(cleaned(_with_crc(bytes(raw)), FAR)) == ([(0, b"value 0")], 1)


def test_a53_what_follows_too_much_is_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer ends behind the batch with which it unpacks to the bound, so that many are not held at once."""
    monkeypatch.setattr(poison, "MOST_UNPACKED", 150_000)
    raw = [reframed(built((bytes(100_000), 0)), 4, offset) for offset in range(5)]
    assert read(cleaned(b"".join(raw), FAR)) == ([(0, bytes(100_000)), (1, bytes(100_000))], 2)
    assert read(cleaned(b"".join(raw[2:]), FAR)) == ([(2, bytes(100_000)), (3, bytes(100_000))], 4)


@pytest.mark.usefixtures("python_engine")
@pytest.mark.parametrize("codec", [0, 1, 3, 4])
@pytest.mark.parametrize("sound", [True, False], ids=["sound", "poison"])
def test_a53_many_records_take_many_steps(codec: int, monkeypatch: pytest.MonkeyPatch, *, sound: bool) -> None:
    """However much a batch unpacks to, no step decodes more than a piece of it."""
    seen: list[int] = []
    decoder = DefaultRecordBatch

    def decode(raw: bytes) -> Any:
        seen.append(len(raw) - HEADER_BYTES)
        return decoder(raw)

    monkeypatch.setattr(poison, "DefaultRecordBatch", decode)
    records = [(b"%d" % at, 1000) for at in range(500)]
    raw = built(*records, *([] if sound else [(b"bad", 1025)]))
    found, steps = in_steps(reframed(raw, codec), FAR)
    values = [value for _, value in read(found)[0]]
    assert values == [value for value, _ in records] + ([] if sound else [None])
    assert max(seen) <= PIECE
    assert steps >= len(raw) // PIECE


@pytest.mark.usefixtures("python_engine")
def test_a53_many_batches_take_many_steps() -> None:
    """Batches of one record each, and ones of old formats, cost steps by their number."""
    old = bytearray(batch(["a"])[:40])
    struct.pack_into(">i", old, 8, 28)
    old[16] = 1
    for one in (batch(["a"]), bytes(old)):
        _, steps = in_steps(one * 3000, FAR)
        assert steps >= 3000 * 512 // PIECE


def test_a53_headers_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record of a hundred thousand headers is never decoded; its neighbours in the batch come."""
    monkeypatch.setattr(poison, "DefaultRecordBatch", pieces := Pieces(DefaultRecordBatch))
    raw = reframed(built((b"a", 0), (b"bomb", 100_000), (bytes(PIECE), 1), (b"b", 0)), 4)
    assert read(cleaned(raw, FAR))[0] == [(0, b"a"), (1, None), (2, bytes(PIECE)), (3, b"b")]
    assert pieces.most < 2 * PIECE


class Pieces:
    """A decoder that notes how large the largest is of what it gets."""

    def __init__(self, decoder: Any) -> None:
        self._decoder, self.most = decoder, 0

    def __call__(self, raw: bytes) -> Any:
        """Decode."""
        self.most = max(self.most, len(raw))
        return self._decoder(raw)


def test_a53_attributes_that_readers_measure_differently() -> None:
    """Nothing about a large record hangs on how many bytes its attributes take: they are one byte, or it is poison."""
    raw = bytearray(built((bytes(PIECE), 0)))
    raw[HEADER_BYTES + 3] = 0x80
    assert read(cleaned(_with_crc(bytes(raw)), FAR)) == ([(0, None)], 1)


@pytest.mark.parametrize(("astray", "found"), [(1000, 1001), (1001, 1)])
def test_a53_a_batch_with_very_many_records_astray_is_one_record(astray: int, found: int) -> None:
    """Copies of one record, which take no bytes when compressed, do not each become a record."""
    one = built((b"a", 0))[HEADER_BYTES:]
    raw = bytearray(built((b"a", 0)) + one * astray)
    struct.pack_into(">i", raw, 23, astray)
    struct.pack_into(">i", raw, 57, astray + 1)
    records, after = read(cleaned(reframed(bytes(raw), 4), FAR))
    assert (len(records), after) == (found, astray + 1)


def test_a53_records_too_short_to_be_any() -> None:
    """A batch of a million empty records cannot be parted."""
    raw = bytearray(batch(["a"])[:HEADER_BYTES] + bytes(1_000_000))
    struct.pack_into(">i", raw, 57, 1_000_000)
    assert read(cleaned(reframed(bytes(raw), 4), FAR)) == ([(0, None)], 1)


@pytest.mark.usefixtures("python_engine")
@pytest.mark.parametrize("codec", [1, 4])
def test_a_lack_of_memory_is_not_the_message_s_fault(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be unpacked, or decoded, for lack of memory is raised: no record is replaced for it."""

    def fail(*_: Any, **__: Any) -> Any:
        raise MemoryError

    raw = batch(["a"], codec=codec)
    with monkeypatch.context() as patch:
        patch.setattr(poison, "DefaultRecordBatch", fail)
        with pytest.raises(MemoryError):
            cleaned(raw, FAR)
    patched = "_from_gzip" if codec == 1 else "_from_frames"
    monkeypatch.setattr(poison, patched, fail)
    with pytest.raises(MemoryError):
        cleaned(raw, FAR)


def test_a_codec_that_does_not_exist_is_poison() -> None:
    """A number that stands for no compression is no library that is missing."""
    raw = bytearray(batch(["a"], base_offset=3))
    raw[22] = 5
    assert read(cleaned(_with_crc(bytes(raw)), FAR)) == ([(3, None)], 4)


def numbered(number: int) -> bytes:
    """Return a number as records have it."""
    out = bytearray()
    encode_varint_py(number, out.append)
    return bytes(out)


MADE_UP = [1 << 20, 1 << 31, 1 << 46, (1 << 62) - 1, (1 << 63) - 100, (1 << 63) - 41, (1 << 63) - 1, -2, -(1 << 62)]


@pytest.mark.parametrize("is_native", [True, False], ids=["native", "python"])
@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("size", MADE_UP)
@pytest.mark.parametrize("place", ["length", "key", "value", "headers", "name", "header"])
def test_a53_a_length_that_is_made_up_costs_its_record_alone(
    place: str, size: int, codec: int, monkeypatch: pytest.MonkeyPatch, *, is_native: bool
) -> None:
    """Some decoders read, or set aside, as much as a record says, wherever that is: the process ended, or the fetch."""
    if not is_native:
        monkeypatch.setattr(engine, "native", lambda: None)
    at = ["key", "value", "headers", "name", "header"]
    parts = [(3, b"key"), (5, b"value"), (1, b""), (1, b"n"), (1, b"h")]
    body = b"\0\0" + numbered(1)
    body += b"".join(
        numbered(size if name == place else usual) + text for name, (usual, text) in zip(at, parts, strict=True)
    )
    odd = numbered(size if place == "length" else len(body)) + body
    around = [built((b"a", 0))[HEADER_BYTES:], built((b"a", 0), (b"b", 0), (b"c", 0))[HEADER_BYTES:]]
    last = around[1][2 * len(around[1]) // 3 :]
    raw = bytearray(built((b"a", 0), (b"b", 0), (b"c", 0))[:HEADER_BYTES] + around[0] + odd + last)
    records, after = read(cleaned(reframed(bytes(raw), codec), FAR))
    assert after == 3
    if place == "length":
        assert records == [(0, None)]
    elif size < 0 and place in {"key", "value", "header"}:
        assert [offset for offset, _ in records] == [0, 1, 2]
    else:
        assert records == [(0, b"a"), (1, None), (2, b"c")]


@pytest.mark.parametrize("end", [b"\x81", b"\xff" * 10, b"\x80" * 3, b"\x01\x81"])
@pytest.mark.usefixtures("python_engine")
def test_a53_nothing_is_read_behind_a_batch(end: bytes) -> None:
    """A number that does not end within its record makes it poison, whatever stands behind it in memory."""
    body = b"\0\0\0\x01\x01" + numbered(900) + end
    raw = bytearray(built((b"a", 0))[:HEADER_BYTES] + numbered(len(body)) + body)
    assert read(cleaned(reframed(bytes(raw), 1), FAR)) == ([(0, None)], 1)


def broken(raw: bytes, at: int, value: int, *, mends: bool) -> bytes:
    """Return a batch with another byte somewhere, and a checksum that fits if it ``mends`` that."""
    changed = bytearray(raw)
    changed[at % len(raw)] = value
    return _with_crc(bytes(changed)) if mends else bytes(changed)


@pytest.mark.slow
@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@given(
    batches=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "\N{SNOWMAN}", POISON]), min_size=1, max_size=4),
            st.sampled_from(sorted(CODECS)),
            st.none() | st.tuples(st.integers(0, 1 << 16), st.integers(0, 255), st.booleans()),
        ),
        max_size=4,
    ),
    log_end=st.sampled_from([0, 2, 5, FAR]),
    cut=st.integers(0, 80),
)
@settings(max_examples=500)
def test_a53_both_engines_mend_the_same(
    batches: list[tuple[list[str], int, tuple[int, int, bool] | None]], log_end: int, cut: int
) -> None:
    """Promise: what the native engine calls sound is what the Python engine leaves as it is, whatever byte is wrong."""
    raw, base_offset = b"", 0
    for names, codec, wrong in batches:
        one = batch(names, codec=codec, base_offset=base_offset)
        raw += one if wrong is None else broken(one, wrong[0], wrong[1], mends=wrong[2])
        base_offset += len(names)
    raw = raw[: len(raw) - cut] if cut < len(raw) else raw
    found = cleaned(raw, log_end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "native", lambda: None)
        assert cleaned(raw, log_end) == found


@pytest.mark.skipif(engine.native() is None, reason="the native engine is not here: make native")
@pytest.mark.parametrize("count", [1024, 1025])
def test_a53_both_engines_count_headers_alike(count: int) -> None:
    """Promise: as many headers as a message may have are sound, and one more is not."""
    raw = built((b"a", count))
    native = engine.native()
    assert native is not None
    assert native.sound_until(raw, 0, 1, FAR) == (len(raw) if count == 1024 else 0)
    assert read(cleaned(raw, FAR))[0] == [(0, b"a" if count == 1024 else None)]
