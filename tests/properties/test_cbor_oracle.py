"""Our CBOR reader against cbor2: it accepts exactly what is deterministic and of the supported kinds."""

import struct
from typing import Any

import cbor2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchword.cbor import CborError, decode

SUPPORTED = st.recursive(
    st.none() | st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(-(2**64), 2**64 - 1) | st.text(max_size=30), inner, max_size=5)
    ),
    max_leaves=15,
)


def head(major: int, number: int) -> bytes:
    """Return an item's head in its shortest form (RFC 8949 section 3)."""
    if number < 24:
        return bytes([major << 5 | number])
    for extra, form, limit in ((24, ">B", 1 << 8), (25, ">H", 1 << 16), (26, ">I", 1 << 32), (27, ">Q", 1 << 64)):
        if number < limit:
            return bytes([major << 5 | extra]) + struct.pack(form, number)
    raise OverflowError


def deterministic(value: Any) -> bytes:
    """Write deterministic CBOR (RFC 8949 section 4.2.1): keys in bytewise order, which cbor2's older rule is not."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(deterministic, value))
        case _:
            pairs = sorted((deterministic(key), deterministic(entry)) for key, entry in value.items())
            return head(5, len(value)) + b"".join(key + entry for key, entry in pairs)


def depth(value: Any) -> int:
    """Return how deep arrays and maps are nested."""
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def supported(value: Any) -> bool:
    """Tell whether a value has only the kinds that envelopes use; types compared exactly."""
    if isinstance(value, dict):
        return all(type(key) in {int, str} and supported(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(map(supported, value))
    if type(value) is int:
        return -(2**64) <= value < 2**64
    return value is None or type(value) in {bytes, str}


@given(SUPPORTED)
def test_reads_what_is_deterministic(value: Any) -> None:
    """Promise: whatever is written deterministically is read as what it was, and cbor2 reads the same."""
    data = deterministic(value)
    assert cbor2.loads(data) == value
    if depth(value) <= 6:
        assert decode(data) == value
        return
    try:
        decode(data)
    except CborError:
        return
    raise AssertionError("nested too deep, and read")


NEARLY = st.builds(
    lambda value, cut, more: deterministic(value)[cut:] + more, SUPPORTED, st.integers(0, 3), st.binary(max_size=2)
)


@given(st.binary(max_size=40) | NEARLY)
@settings(max_examples=1000)
@example(b"\xf9\x3c\x00")
@example(b"\xa2\x01\x00\x01\x00")
@example(b"\xa2\x01\x00\xf5\x00")
@example(b"\xc2\x41\x01")
@example(b"\x18\x01")
def test_reads_nothing_else(data: bytes) -> None:
    """Promise: what we read, cbor2 reads alike, and it is what deterministic writing gives; else CborError."""
    try:
        ours = decode(data)
    except CborError:
        try:
            theirs = cbor2.loads(data)
        except Exception:  # noqa: BLE001 - the oracle may raise anything at garbage
            return
        assert not supported(theirs) or depth(theirs) > 6 or deterministic(theirs) != data
        return
    assert cbor2.loads(data) == ours
    assert deterministic(ours) == data
