import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core.world import NOW, REALM, kafka
from watchword import Reason, Rejected, Unavailable
from watchword.envelope import is_envelope_name
from watchword.quarantine_copy import Copy, Kept, make_copy, message_digest, read_copy
from watchword.spi import Channel, HeaderStyle, Message, Position

ALTERED = Rejected(Reason.ALTERED, "value", claimed_principal="agent://acme/planner")
OWN = {
    "watchword-reason": b"altered",
    "watchword-detail": b"value",
    "watchword-channel": b"kafka://prod/tasks",
    "watchword-position": b"tasks/0@12",
    "watchword-appended-at": b"1763928000.5",
    "watchword-time": b"2025-11-23T20:00:00.000+00:00",
    "watchword-principal-claimed": b"agent://acme/planner",
    "watchword-reader": b"group",
}


def copy_of(
    message: Message, verdict: Rejected | Unavailable = ALTERED, style: HeaderStyle = HeaderStyle.WATCHWORD
) -> Copy:
    """Make a copy now."""
    return make_copy(message, verdict, now=NOW, style=style)


def read_back(copy: Copy) -> Kept:
    """Read a copy as Kafka gives it."""
    return read_copy(copy.value, copy.key, copy.headers)


def read_from_nats(copy: Copy) -> Kept:
    """Read a copy as NATS gives it: each value stripped and encoded."""
    carried = copy.nats_headers()
    assert all(value.isascii() and value.isprintable() for value in carried.values())
    return read_copy(copy.value or b"", None, [(name, value.strip().encode()) for name, value in carried.items()])


def test_a_copy_tells_all_about_the_message() -> None:
    """Value, key and foreign headers are as they were; reason, place and time stand beside them as text."""
    message = kafka()
    copy = copy_of(message)
    assert (copy.value, copy.key, copy.original) == (message.value, message.key, message.headers)
    own = dict(copy.own)
    assert own.pop("watchword-sha256") == message_digest(message).encode()
    assert own == OWN
    assert datetime.fromisoformat((own["watchword-time"] or b"").decode()).timestamp() == NOW


def test_what_is_absent_is_left_out() -> None:
    """A core NATS message has no position, time of storing or reader's name; an empty header says nothing."""
    message = Message(channel=Channel("nats", REALM, "tasks.a"), value=b"x", reply_to="_INBOX.1")
    names = {name for name, _ in copy_of(message, Unavailable("keys")).own}
    told = {"reason", "detail", "channel", "time", "reply-to", "sha256"}
    assert names == {f"watchword-{name}" for name in told}


def test_the_undetermined_are_labelled() -> None:
    """What could not be judged bears a reason of its own, and which part was down."""
    own = dict(copy_of(kafka(), Unavailable("keys", "ConnectionError")).own)
    assert (own["watchword-reason"], own["watchword-detail"]) == (b"undetermined", b"keys ConnectionError")


@pytest.mark.parametrize(
    "name",
    [
        "watchword", "Watchword", "WATCHWORD", "watchword-reason", "WatchWord-Position", "watchword-original-watchword",
        "watchword-headers", "watchword-sha256", "Nats-Msg-Id", "nats-rollup", "kafka_dlt-original-topic",
        "\u212aafka_dlt-exception-fqcn", "__connect.errors.topic",
    ],
)  # fmt: skip
def test_nobody_elses_header_survives_under_a_name_of_ours(name: str) -> None:
    """An attacker can forge no reason, place or preset's header, nor give orders to the server that stores copies."""
    for style in HeaderStyle:
        copy = copy_of(kafka(headers=((name, b"forged"),)), style=style)
        assert (name, b"forged") not in copy.headers
        assert copy.original == ((f"watchword-original-{name}", b"forged"),)
        assert not any(is_envelope_name(held) for held, _ in copy.headers)
        assert read_back(copy).message.headers == ((name, b"forged"),)


names = st.text(max_size=20) | st.sampled_from(["watchword", "watchword-original-x", "Nats-TTL", "watchword-headers"])
header_lists = st.lists(st.tuples(names, st.none() | st.binary(max_size=30)), max_size=6)


@given(header_lists, st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=20), st.text(max_size=20))
def test_a_copy_reads_back_as_the_message(
    headers: list[tuple[str, bytes | None]], value: bytes | None, key: bytes | None, subject: str
) -> None:
    """Whatever was in a message comes back from its copy, bit for bit, on either bus."""
    record = kafka(headers=tuple(headers), value=value, key=key)
    kept = read_back(copy_of(record))
    again = kept.message
    assert (again.headers, again.value, again.key, again.partition) == (record.headers, value, key, 0)
    assert (kept.position, kept.appended_at, kept.complete) == (record.position, record.appended_at, True)
    assert kept.digest == message_digest(record)

    if value is not None and subject.strip():  # no subject of NATS has white space
        told = Message(channel=Channel("nats", REALM, subject), value=value, headers=tuple(headers))
        found = read_from_nats(copy_of(told)).message
        assert (found.headers, found.value) == (told.headers, value)
        if subject == subject.strip():
            assert found.channel == told.channel


def test_nats_carries_plain_headers_as_they_are() -> None:
    """A reader that knows nothing of Watchword finds the sender's headers under their names."""
    copy = copy_of(kafka(headers=(("Content-Type", b"text/plain"), ("empty", b""))))
    carried = copy.nats_headers()
    assert (carried["Content-Type"], carried["empty"]) == ("text/plain", "")
    assert "watchword-headers" not in carried


@pytest.mark.parametrize(
    "headers",
    [
        (("a", b"1"), ("a", b"2")),
        (("a", b"\xff"),),
        (("a", None),),
        (("a b", b""),),
        (("a", b" x"),),
        (("a", b"x\r\ny"),),
    ],
)
def test_nats_carries_odd_headers_as_json(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    """What NATS would change or refuse stands in one header, and is read back."""
    copy = copy_of(kafka(headers=headers))
    assert json.loads(copy.nats_headers()["watchword-headers"])
    assert read_from_nats(copy).message.headers == headers


def test_what_others_wrote_is_capped_and_escaped() -> None:
    """No control character, and no more than a bounded length, of an attacker's text stands in our headers."""
    verdict = Rejected(Reason.UNKNOWN_KEY, "d" * 10_000, claimed_principal="\x1b[2J\u202e" + "p" * 10_000)
    message = kafka(channel=Channel("nats", REALM, "\x1b\r\n%" + "s" * 10_000), reader="r" * 10_000)
    for name, value in copy_of(message, verdict).own:
        assert (value or b"").decode().isprintable()
        assert (value or b"").isascii()
        assert len(value or b"") < 4200, name


def test_a_pointer_keeps_the_envelope_of_sound_size_only() -> None:
    """A pointer is small, whatever the message was: no oversize or second envelope stays."""
    sound, huge = ("watchword", b"e" * 300), ("watchword", b"e" * 10_000)
    pointer = copy_of(kafka(headers=(huge, sound, sound))).pointer()
    assert pointer.original == (("watchword-original-watchword", b"e" * 300),)
    assert pointer.pointer() is pointer
    kept = read_back(pointer)
    assert (kept.complete, kept.message.value) == (False, None)


def test_the_spring_preset_is_what_spring_writes() -> None:
    """Topic, group and exception are text; partition, offset and timestamp are big-endian numbers."""
    found = dict(copy_of(kafka(), style=HeaderStyle.SPRING).own)
    assert {name: value for name, value in found.items() if name.startswith("kafka_dlt-")} == {
        "kafka_dlt-original-topic": b"tasks",
        "kafka_dlt-original-partition": b"\x00\x00\x00\x00",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x00\x00\x00\x00\x0c",
        "kafka_dlt-original-timestamp": (NOW * 1000 + 500).to_bytes(8, "big"),
        "kafka_dlt-original-timestamp-type": b"LogAppendTime",
        "kafka_dlt-original-consumer-group": b"group",
        "kafka_dlt-exception-fqcn": b"watchword.Rejected",
        "kafka_dlt-exception-message": b"altered: value",
    }
    created = dict(copy_of(kafka(appended_at=None, created_at=1.0), style=HeaderStyle.SPRING).own)
    assert created["kafka_dlt-original-timestamp"] == (1000).to_bytes(8, "big")
    assert created["kafka_dlt-original-timestamp-type"] == b"CreateTime"


def test_the_connect_preset_is_what_connect_writes() -> None:
    """All of it is text."""
    found = dict(copy_of(kafka(), Unavailable("keys"), style=HeaderStyle.CONNECT).own)
    assert {name: value for name, value in found.items() if name.startswith("__connect")} == {
        "__connect.errors.topic": b"tasks",
        "__connect.errors.partition": b"0",
        "__connect.errors.offset": b"12",
        "__connect.errors.connector.name": b"group",
        "__connect.errors.task.id": b"0",
        "__connect.errors.stage": b"KAFKA_CONSUME",
        "__connect.errors.class.name": b"watchword.Verifier",
        "__connect.errors.exception.class.name": b"watchword.Unavailable",
        "__connect.errors.exception.message": b"undetermined: keys",
    }


@pytest.mark.parametrize("style", [HeaderStyle.SPRING, HeaderStyle.CONNECT])
def test_presets_do_without_what_is_absent(style: HeaderStyle) -> None:
    """A record without partition, position and time leaves these headers out; NATS copies bear no preset at all."""
    bare = kafka(partition=None, position=None, appended_at=None)
    assert all(value is not None for _, value in copy_of(bare, style=style).own)
    told = Message(channel=Channel("nats", REALM, "a"), value=b"")
    assert all(name.startswith("watchword-") for name, _ in copy_of(told, style=style).own)


def headers_with(**fields: bytes | None) -> list[tuple[str, bytes | None]]:
    """Return the headers of a copy, some of them others."""
    found: dict[str, Any] = OWN | {f"watchword-{name.replace('_', '-')}": value for name, value in fields.items()}
    return list(found.items())


@pytest.mark.parametrize(
    "headers",
    [
        [],
        headers_with(reason=None),
        headers_with(channel=b"http://prod/x"),
        headers_with(headers=b"{"),
        headers_with(headers=b"7"),
        headers_with(headers=b'[["a", 7]]'),
        headers_with(headers=b'[["a", "!"]]'),
        headers_with(headers=b"[" * 100_000),
        headers_with(headers=b" " * 300_000 + b"[]"),
        [*headers_with(), ("watchword-reason", b"stale")],
    ],
)
def test_what_is_no_copy_is_refused(headers: list[tuple[str, bytes | None]]) -> None:
    """Anyone who may write to the quarantine can write anything: it is a ValueError, and nothing else."""
    with pytest.raises(ValueError):  # noqa: PT011 - many texts
        read_copy(b"", None, headers)


@pytest.mark.parametrize(
    "position", [b"tasks/0", b"@1", b"tasks/0@-1", b"tasks/0@1e3", b"tasks/0@" + b"9" * 5000, b"\xff"]
)
def test_a_broken_pointer_points_nowhere(position: bytes) -> None:
    """A malformed position or time is left out."""
    kept = read_copy(b"", None, headers_with(position=position, appended_at=b"x", reader=b"%FF"))
    assert (kept.position, kept.appended_at, kept.reader) == (None, None, "\xff")


def test_a_pointer_elsewhere_than_its_channel_has_no_partition() -> None:
    """The partition is the position's only where that lies in the channel."""
    for position in (b"other/0@1", b"tasks/x@1", b"tasks@1"):
        assert read_copy(b"", None, headers_with(position=position)).message.partition is None


def test_headers_that_hide_among_ours_are_passed_over() -> None:
    """An envelope or preset header that someone wrote beside a copy's own is not taken for the message's."""
    beside = [
        ("watchword", b"envelope"),
        ("Watchword-Reason", b"x"),
        ("kafka_dlt-original-topic", b"x"),
        ("Nats-TTL", b"1"),
    ]
    kept = read_copy(b"", None, [*headers_with(), *beside, ("mine", b"1")])
    assert kept.message.headers == (("mine", b"1"),)


def test_a_digest_tells_messages_apart() -> None:
    """Value, key, headers and their order all count, an absent value is not an empty one."""
    message = kafka()
    others = [
        kafka(value=None),
        kafka(value=b""),
        kafka(key=None),
        kafka(headers=()),
        kafka(headers=(("\ud800", b""),)),
    ]
    assert len({message_digest(other) for other in [message, *others]}) == 6
    assert message_digest(kafka(position=Position("tasks/0", 99))) == message_digest(message)
