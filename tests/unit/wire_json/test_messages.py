import json
from math import inf

import pytest

from watchword import MemoryKeys, Policy, Reason, Rejected, SigningKey, Unavailable
from watchword.spi import Channel, MemoryReplayStore, Message, Position, Signer, Verifier
from watchword.wire_json import message_from_json, message_to_json, verdict_to_json

KAFKA = {
    "channel": "kafka://prod/tasks",
    "partition": 0,
    "offset": 12,
    "appended_at": 1763928000.5,
    "key": "azE=",
    "value": "e30=",
    "headers": [["content-type", "YXBwbGljYXRpb24vanNvbg=="], ["none", None], ["", ""]],
    "reply_to": None,
}


def test_a_message_of_every_field_is_read_and_written_alike() -> None:
    """What is written as JSON and read again is the same message."""
    message = message_from_json(json.dumps(KAFKA))
    assert message == Message(
        channel=Channel("kafka", "prod", "tasks"),
        value=b"{}",
        key=b"k1",
        headers=(("content-type", b"application/json"), ("none", None), ("", b"")),
        partition=0,
        position=Position("tasks/0", 12),
        appended_at=1763928000.5,
    )
    assert message_to_json(message) == KAFKA


def test_a_stream_message_keeps_what_only_streams_have() -> None:
    """Sequence, reply subject and the consumer that delivered survive; the log of a stream has no name here."""
    members = {
        "channel": "nats://prod/tasks.new",
        "partition": None,
        "offset": 7,
        "created_at": 5,
        "delivered_by": ["S", "c"],
        "key": None,
        "value": "",
        "headers": [],
        "reply_to": "_INBOX.1",
    }
    message = message_from_json(json.dumps(members).encode())
    assert message.position == Position("", 7)
    assert (message.value, message.delivered_by, message.created_at) == (b"", ("S", "c"), 5)
    assert message_to_json(message) == members


def test_what_is_left_out_is_absent() -> None:
    """A channel alone is a message without value, key, headers or position, and is written without a position."""
    message = message_from_json('{"channel": "nats://prod/a"}')
    assert message == Message(channel=Channel("nats", "prod", "a"), value=None)
    left_out = {"offset", "appended_at", "appended_between", "created_at", "delivered_by"}
    assert not left_out & message_to_json(message).keys()


@pytest.mark.parametrize(
    ("written", "between"), [([None, 7.5], (-inf, 7.5)), ([1, 2], (1, 2)), ([3.5, 3.5], (3.5, 3.5))]
)
def test_bounds_of_an_append_time_are_read_and_written_alike(
    written: list[float | None], between: tuple[float, float]
) -> None:
    """Where the broker stamps nothing, the reader's bounds survive; without a look before, the first is null."""
    message = message_from_json(json.dumps({"channel": "kafka://prod/a", "appended_between": written}))
    assert message.appended_between == between
    assert message_to_json(message)["appended_between"] == written


def test_an_offset_without_a_partition_names_no_log() -> None:
    """A Kafka message whose partition is unknown still has its offset."""
    message = message_from_json('{"channel": "kafka://prod/a", "offset": 1}')
    assert message.position == Position("", 1)


def test_headers_are_added_after_those_of_the_message() -> None:
    """Signing adds one header at the end and leaves the others in place."""
    message = message_from_json(json.dumps(KAFKA))
    headers = message_to_json(message, ("watchword", b"x"))["headers"]
    assert headers == [*KAFKA["headers"], ["watchword", "eA=="]]  # type: ignore[misc]  # the literal above is a list


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"\xff", "not UTF-8"),
        ("{", "not JSON: .* at character 2"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not a JSON object: write"),
        ('{"channel": "kafka://prod/a", "channel": "kafka://prod/b"}', "a duplicate name"),
        ('{"channel": "kafka://prod/a", "appended_at": NaN}', "NaN is not a number"),
        ('{"channel": "kafka://prod/a", "offset": %s}' % ("9" * 5000), "5000 digits"),
        ('{"channel": "kafka://prod/a", "valeu": null}', "unknown field 'valeu': use appended_at, appended_between"),
        ("{}", "write kafka://<realm>/<topic>"),
        ('{"channel": "amqp://prod/a"}', "the scheme is kafka or nats"),
        ('{"channel": "nats://prod/\\ud800"}', "channel: write text"),
        ('{"channel": 5}', "channel: write text"),
        ('{"channel": "kafka://prod/a", "value": 1}', "value: write bytes as standard base64"),
        ('{"channel": "kafka://prod/a", "value": "e30"}', "value: write bytes as standard base64"),
        ('{"channel": "kafka://prod/a", "value": "e31="}', "value: write bytes as standard base64"),
        ('{"channel": "kafka://prod/a", "value": "\\u00e9"}', "value: write bytes as standard base64"),
        ('{"channel": "kafka://prod/a", "partition": true}', "partition: write a whole number"),
        ('{"channel": "kafka://prod/a", "partition": 1.0}', "partition: write a whole number"),
        ('{"channel": "kafka://prod/a", "partition": 2147483648}', "partition: write a whole number"),
        ('{"channel": "kafka://prod/a", "offset": -1}', "offset: write a whole number"),
        ('{"channel": "kafka://prod/a", "appended_at": 1e999}', "appended_at: write seconds"),
        ('{"channel": "kafka://prod/a", "appended_at": true}', "appended_at: write seconds"),
        ('{"channel": "kafka://prod/a", "appended_at": "1"}', "appended_at: write seconds"),
        ('{"channel": "kafka://prod/a", "appended_between": 5}', "appended_between: write"),
        ('{"channel": "kafka://prod/a", "appended_between": [1]}', "appended_between: write"),
        ('{"channel": "kafka://prod/a", "appended_between": [1, null]}', "appended_between: write"),
        ('{"channel": "kafka://prod/a", "appended_between": [2, 1]}', "appended_between: write"),
        ('{"channel": "kafka://prod/a", "appended_between": ["1", 2]}', "appended_between: write"),
        ('{"channel": "kafka://prod/a", "reply_to": ""}', "reply_to: write text, not empty"),
        ('{"channel": "kafka://prod/a", "headers": {}}', "headers: write a list of pairs"),
        ('{"channel": "kafka://prod/a", "headers": [["a"]]}', "headers: pair 1: write"),
        ('{"channel": "kafka://prod/a", "headers": [["a", null], [1, null]]}', "headers: pair 2: write"),
        ('{"channel": "kafka://prod/a", "headers": [["a", "-_"]]}', "headers: pair 1: write bytes"),
        ('{"channel": "kafka://prod/a", "headers": [["\\udfff", null]]}', "headers: pair 1: write text"),
        ('{"channel": "kafka://prod/a", "delivered_by": ["s"]}', "delivered_by: write"),
        ('{"channel": "kafka://prod/a", "delivered_by": ["s", ""]}', "delivered_by: write text"),
    ],
)
def test_a_wrong_line_is_refused_with_what_to_write(line: str | bytes, complaint: str) -> None:
    """No sloppy JSON becomes a message: two readers would take it for two different ones."""
    with pytest.raises(ValueError, match=complaint):
        message_from_json(line)


@pytest.mark.parametrize(
    ("verdict", "members"),
    [
        (
            Rejected(Reason.STALE, "secret detail", claimed_principal="agent://evil"),
            {"verdict": "rejected", "reason": "stale"},
        ),
        (Unavailable("keys", "ConnectionError"), {"verdict": "unavailable", "what": "keys"}),
    ],
)
def test_a_refusal_says_its_reason_and_nothing_unverified(
    verdict: Rejected | Unavailable, members: dict[str, str]
) -> None:
    """The JSON of a refusal holds only the reason: detail and claimed names come from the message."""
    assert verdict_to_json(verdict) == members


async def test_a_verified_message_says_who_wrote_it() -> None:
    """The JSON of a verified message names principal, key id, id and whether it was redelivered."""

    def clock() -> float:
        return 1_000_000.0

    key = SigningKey.generate()
    signer = Signer(realm="prod", principal="agent://a", key=key, clock=clock)
    message = Message(channel=Channel("nats", "prod", "a"), value=b"x")
    signed = await signer.sign(message)
    verifier = Verifier(
        realm="prod",
        keys=MemoryKeys([key.verification_key("agent://a")]),
        replay=MemoryReplayStore(horizon=None),
        policy=Policy(),
        clock=clock,
    )
    received = message_from_json(json.dumps(message_to_json(message, signed.header)))
    assert verdict_to_json(await verifier.verify(received)) == {
        "verdict": "verified",
        "principal": "agent://a",
        "key_id": key.key_id.decode(),
        "id": signed.id.hex(),
        "redelivered": False,
    }
