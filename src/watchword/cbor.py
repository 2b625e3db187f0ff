"""Deterministic CBOR (RFC 8949 4.2.1), as far as envelopes need it: strict decoding and encoding of single items.

Envelopes have one fixed layout, so a caller asks for the one kind of item that is allowed at an offset, and anything
else is refused. Kinds that cannot be asked for (tags, floats, booleans, indefinite lengths) cannot be decoded.

Each ``read_`` function returns the item and the offset of the next one; ValueError if the item is of another kind or is
not deterministic. They may read past the end of ``data`` without an error, or raise IndexError: after the last item,
the caller must compare its end with the length of ``data``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

UINT, NEGATIVE, BYTES, TEXT, ARRAY, MAP = range(0, 0xC0, 0x20)
"""Major types, as they appear in an item's first byte."""

NULL: Final = 0xF6
_ONE_BYTE: Final = 24
_EIGHT_BYTES: Final = 27


def read_head(data: bytes, at: int, major: int) -> tuple[int, int]:
    """Read the head of an item of this major type: its argument, which must be in its shortest form."""
    argument = data[at] - major
    if 0 <= argument < _ONE_BYTE:
        return argument, at + 1
    if argument == _ONE_BYTE:
        argument = data[at + 1]
        if argument >= _ONE_BYTE:
            return argument, at + 2
        raise ValueError("number not in its shortest form")
    if not _ONE_BYTE < argument <= _EIGHT_BYTES:
        raise ValueError("item of another kind")
    width: int = 1 << (argument - _ONE_BYTE)
    raw = data[at + 1 : at + 1 + width]
    number = int.from_bytes(raw)
    if len(raw) < width or number < 1 << (width * 4):
        raise ValueError("number cut off or not in its shortest form")
    return number, at + 1 + width


def read_int(data: bytes, at: int) -> tuple[int, int]:
    """Read an unsigned or negative integer."""
    if data[at] < NEGATIVE:
        return read_head(data, at, UINT)
    number, at = read_head(data, at, NEGATIVE)
    return -1 - number, at


def read_string(data: bytes, at: int, major: int) -> tuple[bytes, int]:
    """Read a byte or text string; text is returned as bytes, not decoded."""
    size, at = read_head(data, at, major)
    end = at + size
    return data[at:end], end


@lru_cache(1024)
def head(major: int, number: int) -> bytes:
    """Return the head of an item; cached, because envelopes need few different ones."""
    if number < _ONE_BYTE:
        return bytes((major | number,))
    width = next(width for width in (1, 2, 4, 8) if number < 1 << 8 * width)
    return bytes((major + _ONE_BYTE - 1 + width.bit_length(),)) + number.to_bytes(width)


def of_int(number: int) -> bytes:
    """Return an integer's item."""
    return head(UINT, number) if number >= 0 else head(NEGATIVE, -1 - number)


def of_bytes(raw: bytes | None) -> bytes:
    """Return the item of a byte string; null for None."""
    return b"\xf6" if raw is None else head(BYTES, len(raw)) + raw


def of_text(text: str) -> bytes:
    """Return the item of a text string."""
    raw = text.encode()
    return head(TEXT, len(raw)) + raw
