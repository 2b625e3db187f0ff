"""The strict CBOR reader, one fault at a time."""

import pytest

from watchword.cbor import MAX_DEPTH, CborError, Value, decode

GOOD: list[tuple[str, Value]] = [
    ("00", 0),
    ("17", 23),
    ("1818", 24),
    ("18ff", 255),
    ("190100", 256),
    ("19ffff", 65535),
    ("1a00010000", 65536),
    ("1b0000000100000000", 1 << 32),
    ("1bffffffffffffffff", (1 << 64) - 1),
    ("20", -1),
    ("3818", -25),
    ("3bffffffffffffffff", -(1 << 64)),
    ("40", b""),
    ("42abcd", b"\xab\xcd"),
    ("60", ""),
    ("62c3a9", "é"),
    ("80", []),
    ("82f600", [None, 0]),
    ("a0", {}),
    ("a2016161206162", {1: "a", -1: "b"}),
    ("a2613101613202", {"1": 1, "2": 2}),
    ("f6", None),
]

BAD = [
    ("", "ends too early"),
    ("18", "ends too early"),
    ("19ff", "ends too early"),
    ("42ab", "ends too early"),
    ("62c3", "ends too early"),
    ("5bffffffffffffffff", "ends too early"),
    ("81", "ends too early"),
    ("9bffffffffffffffff", "ends too early"),
    ("a101", "ends too early"),
    ("bbffffffffffffffff", "ends too early"),
    ("1817", "shortest"),
    ("1900ff", "shortest"),
    ("1a0000ffff", "shortest"),
    ("1b00000000ffffffff", "shortest"),
    ("5800", "shortest"),
    ("1c", "reserved"),
    ("1e", "reserved"),
    ("5fff", "indefinite"),
    ("9fff", "indefinite"),
    ("bfff", "indefinite"),
    ("c000", "tag"),
    ("f4", "simple"),
    ("f5", "simple"),
    ("f7", "simple"),
    ("f93c00", "float"),
    ("fb3ff0000000000000", "float"),
    ("61ff", "not UTF-8"),
    ("63eda080", "not UTF-8"),
    ("0000", "after the end"),
    ("a201000100", "repeated"),
    ("a202000100", "unsorted"),
    ("a2616201616100", "unsorted"),
    ("a2200118180a", "unsorted"),
    ("a14000", "map key"),
    ("a1f600", "map key"),
    ("a18000", "nested"),
    ("81" * (MAX_DEPTH + 1) + "00", "nested"),
    ("81" * 4000 + "00", "nested"),
]


@pytest.mark.parametrize(("data", "value"), GOOD, ids=[data for data, _ in GOOD])
def test_reads(data: str, value: Value) -> None:
    """Promise: every supported kind is read, at each of its lengths."""
    found = decode(bytes.fromhex(data))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("data", "why"), BAD, ids=[data[:20] or "empty" for data, _ in BAD])
def test_refuses(data: str, why: str) -> None:
    """Promise (A07): whatever is not deterministic, or not needed, is refused with one named error."""
    with pytest.raises(CborError, match=why):
        decode(bytes.fromhex(data))


def test_reads_to_the_stated_depth() -> None:
    """Promise: the depth that is stated can be read, one more cannot."""
    assert decode(b"\x81" * MAX_DEPTH + b"\x00") is not None
