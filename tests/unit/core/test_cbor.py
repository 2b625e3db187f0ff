"""Deterministic CBOR, read at a place and written: each kind, at each of its lengths, one fault at a time."""

from collections.abc import Callable
from functools import partial

import cbor2
import pytest

from watchword.cbor import (
    ARRAY,
    BYTES,
    MAP,
    NEGATIVE,
    TEXT,
    UINT,
    head,
    of_bytes,
    of_int,
    of_text,
    read_head,
    read_int,
    read_string,
)

MAJORS = [UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP]
EDGES = [0, 23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32, (1 << 64) - 1]


@pytest.mark.parametrize("number", [*EDGES, *range(1000, 1030)])
@pytest.mark.parametrize("major", MAJORS)
def test_heads_of_each_length(major: int, number: int) -> None:
    """Promise: each head is written in its shortest form, and read back with where the next item begins."""
    written = head(major, number)
    assert written == bytes([major | written[0] & 0x1F]) + cbor2.dumps(number)[1:]
    assert written[0] & 0x1F == cbor2.dumps(number)[0]
    assert read_head(b"\xff" + written + b"\xff", 1, major) == (number, 1 + len(written))


@pytest.mark.parametrize("number", [*EDGES, *(-1 - edge for edge in EDGES)])
def test_integers(number: int) -> None:
    """Promise: integers of up to 64 bits, negative ones too, are those of the standard."""
    assert of_int(number) == cbor2.dumps(number)
    assert read_int(of_int(number), 0) == (number, len(of_int(number)))


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 65536])
def test_strings(size: int) -> None:
    """Promise: strings of each length are those of the standard, and text is not decoded on the way."""
    raw = bytes(size)
    assert of_bytes(raw) == cbor2.dumps(raw)
    assert read_string(of_bytes(raw) + b"\x00", 0, BYTES) == (raw, len(of_bytes(raw)))
    assert of_text("é" * size) == cbor2.dumps("é" * size)
    assert read_string(of_text("é" * size), 0, TEXT) == (("é" * size).encode(), len(of_text("é" * size)))
    assert of_bytes(None) == cbor2.dumps(None)


@pytest.mark.parametrize(
    "data",
    ["1800", "1817", "190000", "1900ff", "1a00000000", "1a0000ffff", "1b0000000000000000", "1b00000000ffffffff"],
)
@pytest.mark.parametrize("major", MAJORS)
def test_a_longer_form_is_refused(major: int, data: str) -> None:
    """Promise (A07): of one number there is one form, the shortest."""
    raw = bytes.fromhex(data)
    with pytest.raises(ValueError, match="shortest"):
        read_head(bytes([raw[0] | major]) + raw[1:], 0, major)


@pytest.mark.parametrize("first", range(256))
@pytest.mark.parametrize("major", MAJORS)
def test_another_kind_is_refused(major: int, first: int) -> None:
    """Promise (A07): nothing is read but the kind that was asked for: no tag, float, boolean, indefinite length."""
    data = bytes([first]) + b"\xff" * 8
    if first & 0xE0 == major and first & 0x1F < 28:
        assert read_head(data, 0, major)[1] == 1 + len(cbor2.dumps(read_head(data, 0, major)[0])[1:])
    else:
        with pytest.raises(ValueError, match="another kind"):
            read_head(data, 0, major)


@pytest.mark.parametrize(
    ("read", "kinds"),
    [
        (read_int, (UINT, NEGATIVE)),
        (partial(read_string, major=BYTES), (BYTES,)),
        (partial(read_string, major=TEXT), (TEXT,)),
    ],
)
def test_each_reader_reads_its_own_kind(read: Callable[[bytes, int], object], kinds: tuple[int, ...]) -> None:
    """Promise (A07): a number is no string, text is no bytes, null is nothing."""
    for first in (*MAJORS, 0xC0, 0xE0, 0xF4, 0xF5, 0xF6, 0xF7, 0xF9):
        if first in kinds:
            assert read(bytes([first]), 0)
        else:
            with pytest.raises(ValueError, match="another kind"):
                read(bytes([first]), 0)


@pytest.mark.parametrize("number", [24, 256, 65536, 1 << 32])
def test_what_is_cut_off_is_noticed(number: int) -> None:
    """Promise (A07): a head that ends early raises one of two errors; a string says that it ends past the data."""
    whole = head(BYTES, number)
    for end in range(len(whole)):
        with pytest.raises((IndexError, ValueError)):
            read_head(whole[:end], 0, BYTES)
    raw, end = read_string(whole + b"ab", 0, BYTES)
    assert (raw, end) == (b"ab", len(whole) + number)
    with pytest.raises(IndexError):
        read_int(b"", 0)
