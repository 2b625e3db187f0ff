"""What a handler's unit test is given."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from watchword import Reason, Rejected, SigningError, VerifiedMessage
from watchword.kafka import DeserializationError, ObservedRecord, VerifiedRecord
from watchword.nats import DeliveredMsg, ObservedMsg, VerifiedMsg
from watchword.testing import Agents, answers_to, observed_msg, observed_record, verified_msg, verified_record
from watchword_adapters.testing.at_once import at_once

PLANNER = "agent://acme/planner"


def text(raw: bytes | None) -> str | None:
    """Read a key."""
    return None if raw is None else raw.decode()


def decode(raw: bytes | None) -> Any:
    """Read a value."""
    return None if raw is None else json.loads(raw)


async def scale(msg: DeliveredMsg) -> None:
    """Answer as an agent's handler might."""
    if msg.verified is None or msg.verified.principal != PLANNER:
        await msg.respond(b"no", headers={"why": "you are not the planner"})
    else:
        await msg.respond(b"scaled by " + msg.data)


async def test_a_handlers_unit_test_is_short() -> None:
    """A message of someone's, the handler, and what it answered: three lines."""
    msg = verified_msg(b"3", subject="cloud.scale", principal=PLANNER, reply="_INBOX.1")
    await scale(msg)
    assert answers_to(msg) == [(b"scaled by 3", {})]


async def test_a_handler_meets_what_would_be_dropped() -> None:
    """In observe mode it is given unsigned messages, too, and can be tested with one."""
    msg = observed_msg(b"3", subject="cloud.scale", reply="_INBOX.1")
    await scale(msg)
    assert answers_to(msg) == [(b"no", {"why": "you are not the planner"})]


def test_a_message_is_as_the_client_gives_it() -> None:
    """Payload, covered headers, the signed reply subject, and who wrote it."""
    msg = verified_msg(b"3", subject="cloud.scale", principal=PLANNER, headers={"kind": "order"}, reply="_INBOX.1")
    assert type(msg) is VerifiedMsg
    assert (msg.subject, msg.data, msg.headers, msg.reply) == ("cloud.scale", b"3", {"kind": "order"}, "_INBOX.1")
    verified = msg.verified
    assert isinstance(verified, VerifiedMessage)
    assert (verified.principal, verified.channel.uri, verified.value) == (PLANNER, "nats://test/cloud.scale", b"3")
    assert (verified.reply_to, verified.position, verified.redelivered) == ("_INBOX.1", None, False)


async def test_a_delivery_of_a_stream_can_be_acknowledged() -> None:
    """It bears its stream and sequence as a client reads them, and each way to end it works once."""
    for end in ("ack", "ack_sync", "nak", "term"):
        msg = verified_msg(b"3", subject="cloud.scale", principal=PLANNER, stream="CLOUD", sequence=7)
        assert (msg.metadata.stream, msg.metadata.sequence.stream, msg.metadata.num_delivered) == ("CLOUD", 7, 1)
        assert msg.verified.position is not None
        assert (msg.verified.position.log, msg.verified.position.offset) == ("CLOUD", 7)
        assert not msg.is_acked
        await getattr(msg, end)()
        assert msg.is_acked


def test_an_observed_message_has_its_verdict() -> None:
    """Signed by nobody it has none that it verified; signed it is verified, and still of the observer's type."""
    unsigned = observed_msg(b"3", subject="cloud.scale", headers={"kind": "order"})
    assert type(unsigned) is ObservedMsg
    assert isinstance(unsigned.verdict, Rejected)
    assert (unsigned.verdict.reason, unsigned.verified, unsigned.headers) == (
        Reason.UNSIGNED,
        None,
        {"kind": "order"},
    )
    signed = observed_msg(b"3", subject="cloud.scale", principal=PLANNER, stream="CLOUD")
    assert type(signed) is ObservedMsg
    assert signed.verified is not None
    assert signed.verified.principal == PLANNER


def test_a_record_is_as_the_consumer_gives_it() -> None:
    """Key and value by the consumer's deserializers, covered headers, its place, and who wrote it."""
    record = verified_record(
        b'{"by": 3}',
        topic="tasks",
        principal=PLANNER,
        key=b"eu",
        headers=[("kind", b"order")],
        partition=2,
        offset=41,
        key_deserializer=text,
        value_deserializer=decode,
    )
    assert type(record) is VerifiedRecord
    assert (record.topic, record.partition, record.offset) == ("tasks", 2, 41)
    assert (record.key, record.value, record.headers) == ("eu", {"by": 3}, (("kind", b"order"),))
    assert (record.serialized_key_size, record.serialized_value_size) == (2, 9)
    assert (record.verified.principal, record.verified.channel.uri) == (PLANNER, "kafka://test/tasks")


def test_a_tombstone_is_a_record() -> None:
    """A record may have neither key nor value, as on a topic."""
    record = verified_record(None, topic="tasks", principal=PLANNER)
    assert (record.key, record.value, record.verified.value) == (None, None, None)
    assert (record.serialized_key_size, record.serialized_value_size) == (-1, -1)


def test_an_observed_record_has_its_verdict() -> None:
    """As for messages: unsigned by nobody, and verified where someone signed it."""
    unsigned = observed_record(b"3", topic="tasks")
    assert type(unsigned) is ObservedRecord
    assert isinstance(unsigned.verdict, Rejected)
    assert (unsigned.verdict.reason, unsigned.verified) == (Reason.UNSIGNED, None)
    signed = observed_record(b"3", topic="tasks", principal=PLANNER, value_deserializer=decode)
    assert (type(signed), signed.value) == (ObservedRecord, 3)
    assert signed.verified is not None
    assert signed.verified.principal == PLANNER


def test_a_deserializer_fails_as_in_a_consumer() -> None:
    """A handler's test sees the error that the consumer's caller would."""
    with pytest.raises(DeserializationError):
        verified_record(b"three", topic="tasks", principal=PLANNER, value_deserializer=decode)


@pytest.mark.parametrize(
    "given",
    [
        {"subject": "tasks.*", "principal": PLANNER},
        {"subject": "tasks", "principal": PLANNER, "reply": "$JS.API.STREAM.DELETE.CLOUD"},
        {"subject": "tasks", "principal": PLANNER, "headers": {"kind": "two\nlines"}},
    ],
)
def test_what_nobody_could_send_is_not_made(given: Mapping[str, Any]) -> None:
    """A test cannot be written for a message that the signer refuses."""
    with pytest.raises(SigningError):
        verified_msg(b"", **given)


async def test_what_waits_is_not_taken_for_done() -> None:
    """A plain function can make messages, for nothing that signs or judges them here waits; what does is an error."""
    with pytest.raises(RuntimeError, match="there is no event loop"):
        at_once(asyncio.sleep(0))


async def test_what_is_made_here_verifies_nowhere_else() -> None:
    """Its key is known to nobody: a process that believes the principal rejects the same bytes."""
    msg = observed_msg(b"3", subject="cloud.scale", principal=PLANNER)
    agents = Agents()
    agents.key(PLANNER)
    with pytest.raises(Rejected) as caught:
        await agents("agent://acme/cloud").admit(msg.message)
    assert caught.value.reason is Reason.UNKNOWN_KEY
