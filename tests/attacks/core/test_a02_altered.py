"""A02, A04, A05: value, key and covered headers changed, swapped, emptied or run together."""

from dataclasses import replace
from itertools import permutations

import pytest

from tests.unit.core.world import World, kafka, signed
from watchword import Reason, Rejected
from watchword.spi import Message


def altered(message: Message) -> None:
    """Assert that the message is rejected as altered."""
    with pytest.raises(Rejected) as caught:
        World().verify(message)
    assert caught.value.reason is Reason.ALTERED


HEADERS = (("a", b"1"), ("b", b"2"), ("a", b"3"))


def test_a02_headers_reordered() -> None:
    """Promise: covered headers pass in the order in which they were signed, and in no other."""
    message = signed(kafka(headers=HEADERS))
    envelope = message.headers[-1]
    for order in set(permutations(HEADERS)):
        changed = replace(message, headers=(*order, envelope))
        if order == HEADERS:
            assert World().verify(changed).headers == HEADERS
        else:
            altered(changed)


def test_a02_headers_removed_or_repeated() -> None:
    """Promise: a covered header cannot be removed, nor one of its name added, before or after."""
    message = signed(kafka(headers=HEADERS))
    for at in range(3):
        altered(replace(message, headers=message.headers[:at] + message.headers[at + 1 :]))
        altered(replace(message, headers=(*message.headers, HEADERS[at])))
        altered(replace(message, headers=(HEADERS[at], *message.headers)))


def test_a02_value_of_one_with_key_of_another() -> None:
    """Promise: of two validly signed messages no third can be put together."""
    one, two = signed(kafka(key=b"k1", value=b"v1")), signed(kafka(key=b"k2", value=b"v2"))
    altered(replace(one, value=two.value))
    altered(replace(one, key=two.key))
    altered(replace(two, headers=one.headers))


@pytest.mark.parametrize(("signed_value", "forged"), [(b"", None), (None, b""), (b"x", None), (None, b"x")])
def test_a04_tombstones(signed_value: bytes | None, forged: bytes | None) -> None:
    """Promise: an absent value is not an empty one; no tombstone is made of a message, no message of a tombstone."""
    altered(replace(signed(kafka(value=signed_value)), value=forged))


@pytest.mark.parametrize(("signed_value", "forged"), [(b"", None), (None, b"")])
def test_a04_null_headers_and_keys(signed_value: bytes | None, forged: bytes | None) -> None:
    """Promise: an absent header value or key is not an empty one either."""
    message = signed(kafka(headers=(("a", signed_value),)))
    altered(replace(message, headers=(("a", forged), message.headers[-1])))
    altered(replace(signed(kafka(key=signed_value)), key=forged))


@pytest.mark.parametrize(
    "moved",
    [
        {"key": b"k", "headers": (("ab", b"c"),)},
        {"key": b"ka", "headers": (("b", b"c"),)},
        {"key": b"k", "headers": (("a", b"bc"),)},
        {"key": b"k", "headers": (("a", b""), ("b", b"c"))},
        {"key": b"kab", "headers": ()},
        {"key": None, "headers": (("ab", b"c"),)},
        {"key": b"", "headers": (("kab", b"c"),)},
    ],
)
def test_a05_no_byte_moves_between_parts(moved: dict[str, object]) -> None:
    """Promise: bytes moved between key, header names and values change what is signed."""
    message = signed(kafka(key=b"k", headers=(("a", b"b"), ("c", b""))))
    altered(replace(message, **{**moved, "headers": (*moved["headers"], message.headers[-1])}))  # type: ignore[misc,arg-type] # a table
