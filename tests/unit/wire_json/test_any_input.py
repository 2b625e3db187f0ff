import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from watchword.spi import Message
from watchword.wire_json import message_from_json, message_to_json

FIELDS = ("channel", "partition", "offset", "appended_at", "created_at", "key", "value", "headers", "reply_to")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("kafka://prod/a") | st.just("YQ=="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=6,
)


@given(st.binary() | st.text())
def test_any_text_is_a_message_or_a_value_error(line: str | bytes) -> None:
    """Nothing that can stand on a line raises anything but ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(message_from_json(line), Message)


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING), st.booleans())
def test_any_fields_are_a_message_that_survives_or_a_value_error(
    members: dict[str, object],
    with_channel: bool,  # noqa: FBT001 - drawn
) -> None:
    """Fields of any type and value raise nothing but ValueError, and what is read is written so that it reads alike."""
    if with_channel:
        members["channel"] = "nats://prod/a"
    with contextlib.suppress(ValueError):
        message = message_from_json(json.dumps(members))
        assert message_from_json(json.dumps(message_to_json(message))) == message
