"""JSON and base64 from outside: one spelling for each value, and one clear error for anything else."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword.strict import base64url, from_base64, from_base64url, json_object, json_value, to_base64

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_json_is_read_as_it_was_written(value: object) -> None:
    """Promise: what is JSON comes back, from text and from bytes."""
    text = json.dumps(value)
    assert json_value(text) == json_value(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xff", "not UTF-8"),
        ("{", "not JSON: .* at character 2"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 1}', "a duplicate name"),
        ('[{"b": {"a": 1, "\\u0061": 2}}]', "a duplicate name"),
        ("[NaN]", "NaN is not a number"),
        ("-Infinity", "-Infinity is not a number"),
        ("1" * 21, "a number of 21 digits"),
        ("1" * 5_000, "a number of 5000 digits"),
    ],
)
def test_two_readers_cannot_see_two_things(text: str | bytes, says: str) -> None:
    """Promise: what another reader may understand in another way, or pay dearly for, is refused."""
    with pytest.raises(ValueError, match=says):
        json_value(text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"'])
def test_an_object_is_wanted(text: str) -> None:
    """Promise: any other value is refused with what to write."""
    assert json_object('{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="not a JSON object: write"):
        json_object(text)


@given(st.binary())
def test_bytes_come_back(raw: bytes) -> None:
    """Promise: both alphabets give back what was written, and write as the standard library does."""
    assert from_base64(to_base64(raw)) == from_base64url(base64url(raw)) == raw
    assert to_base64(raw) == base64.b64encode(raw).decode()
    assert base64url(raw) == base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_nothing_is_null() -> None:
    """Promise: a value that is absent stays absent in JSON, and is not an empty one."""
    assert to_base64(None) is None
    assert to_base64(b"") == ""


@given(st.text(alphabet="AB/+-_= \n\u00e9", max_size=9))
def test_one_spelling(text: str) -> None:
    """Promise: a text that is read is the one that would be written; every other spelling is a ValueError."""
    for read, write in ((from_base64, to_base64), (from_base64url, base64url)):
        try:
            raw = read(text)
        except ValueError:
            continue
        assert write(raw) == text


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", "Q Q==", "QQ=", "_w==", "\u00e9", 1, None, b"QQ==", ["QQ=="]])
def test_sloppy_base64(text: object) -> None:
    """Promise: no padding, stray bits, blanks, the other alphabet and other types are refused."""
    with pytest.raises(ValueError, match="not standard base64 with padding"):
        from_base64(text)


@pytest.mark.parametrize("text", ["QQ==", "QR", "Q", "QQ\n", "/w", "\u00e9", 1, None, b"QQ", ["QQ"]])
def test_sloppy_base64url(text: object) -> None:
    """Promise: padding, stray bits, blanks, the other alphabet and other types are refused."""
    with pytest.raises(ValueError, match="not base64url without padding"):
        from_base64url(text)
