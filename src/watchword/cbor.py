"""A strict reader for the part of CBOR that envelopes use: whatever is not deterministic (RFC 8949 4.2.1) is refused.

Integers, byte and text strings, arrays, maps keyed by integer or text, and null; no tag, float, boolean, indefinite
length, longer form than needed, unsorted or repeated map key, or trailing byte. It rejects by construction, since
comparing with a re-encoding lets through what Python calls equal (``True == 1``).
"""

from __future__ import annotations

from typing import Final, TypeAlias, Union

Value: TypeAlias = Union[int, bytes, str, list["Value"], dict["int | str", "Value"], None]  # noqa: UP007 - recursive

MAX_DEPTH: Final = 6
"""Deepest nesting read; an envelope needs five."""

_NULL: Final = 0xF6
_UINT, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)
_ONE_BYTE: Final = 24
_EIGHT_BYTES: Final = 27


class CborError(ValueError):
    """These bytes are not deterministic CBOR of the supported kinds."""


def decode(data: bytes) -> Value:
    """Read one item that fills ``data`` exactly; CborError otherwise."""
    value, end = _item(data, 0, MAX_DEPTH)
    if end != len(data):
        raise CborError("bytes after the end")
    return value


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """Read an item's major type and argument; the argument must be in its shortest form."""
    if at >= len(data):
        raise CborError("ends too early")
    first = data[at]
    major, argument = first >> 5, first & 0x1F
    at += 1
    if argument < _ONE_BYTE:
        return major, argument, at
    if argument > _EIGHT_BYTES:
        raise CborError("indefinite or reserved length")
    width: int = 1 << (argument - _ONE_BYTE)
    value = int.from_bytes(data[at : at + width])
    if at + width > len(data):
        raise CborError("ends too early")
    if value < (_ONE_BYTE if width == 1 else 1 << (width * 4)):
        raise CborError("number not in its shortest form")
    return major, value, at + width


def _item(data: bytes, at: int, depth: int) -> tuple[Value, int]:
    if data[at : at + 1] == b"\xf6":
        return None, at + 1
    major, argument, at = _head(data, at)
    if major == _UINT:
        return argument, at
    if major == _NEGATIVE:
        return -1 - argument, at
    if major in {_BYTES, _TEXT}:
        end = at + argument
        if end > len(data):
            raise CborError("ends too early")
        return (data[at:end] if major == _BYTES else _text(data[at:end])), end
    if major > _MAP:
        raise CborError("tag, float or simple value")
    if not depth:
        raise CborError("nested too deep")
    return _array(data, at, argument, depth - 1) if major == _ARRAY else _map(data, at, argument, depth - 1)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise CborError("text that is not UTF-8") from None


def _array(data: bytes, at: int, count: int, depth: int) -> tuple[list[Value], int]:
    items: list[Value] = []
    for _ in range(count):
        item, at = _item(data, at, depth)
        items.append(item)
    return items, at


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[int | str, Value], int]:
    entries: dict[int | str, Value] = {}
    previous = b""
    for _ in range(count):
        start = at
        key, at = _item(data, at, 0)
        if not isinstance(key, int | str):
            raise CborError("map key that is neither integer nor text")
        if data[start:at] <= previous:
            raise CborError("map keys unsorted or repeated")
        previous = data[start:at]
        entries[key], at = _item(data, at, depth)
    return entries, at
