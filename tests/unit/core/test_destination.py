"""Checks 1 to 4 in detail: the header, where and for whom a message is meant, and when."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    BOB,
    MALLORY,
    NOW,
    REALM,
    World,
    kafka,
    nats,
    press,
    rejected,
    signed,
)
from watchword import Allow, Policy, Reason
from watchword.message import MAX_HEADER_BYTES, Expected
from watchword.spi import Channel, Message, Position, Request

# Check 1


@pytest.mark.parametrize("name", ["watchword", "Watchword", "WATCHWORD"])
def test_the_header_is_found_in_any_letter_case(name: str) -> None:
    """Promise (A06): a bus or library that changes the case of header names breaks nothing."""
    message = press(nats())
    message = replace(message, headers=(*message.headers[:-1], (name, message.headers[-1][1])))
    assert World().verify(message).principal == ALICE


@pytest.mark.parametrize("value", [None, b"", b"x"])
def test_two_envelopes_are_malformed(value: bytes | None) -> None:
    """Promise (A06): a second envelope in any letter case, even an empty one, is malformed."""
    message = press(nats())
    for headers in ((("WatchWord", value), *message.headers), (*message.headers, ("WATCHWORD", value))):
        assert rejected(replace(message, headers=headers)).reason is Reason.MALFORMED


def test_a_null_envelope_is_malformed() -> None:
    """Promise: an envelope header without a value is malformed, not unsigned."""
    assert rejected(kafka(headers=(("watchword", None),))).reason is Reason.MALFORMED


@pytest.mark.parametrize("name", ["x", "é", "\ud800"])
def test_the_header_block_is_bounded_in_bytes(name: str) -> None:
    """Promise (A06): the limit counts names and values in bytes; one byte more is malformed."""
    message = press(nats())
    used = sum(len(n.encode()) + len(v or b"") for n, v in message.headers) + len(name.encode(errors="surrogatepass"))
    room = MAX_HEADER_BYTES - used
    full = replace(message, headers=(*message.headers, (name, bytes(room))))
    over = replace(message, headers=(*message.headers, (name, bytes(room + 1))))
    assert World().verify(full).headers == nats().headers
    assert rejected(over).reason is Reason.MALFORMED
    assert rejected(replace(over, headers=over.headers[-1:])).reason is Reason.UNSIGNED


# Check 3


def test_the_realm_must_be_ours() -> None:
    """Promise (A13): a message that names another realm's channel is misdirected even where it is found there."""
    other = nats(channel=Channel("nats", "other", "tasks.scale"))
    assert rejected(press(other)).reason is Reason.WRONG_CHANNEL


@pytest.mark.parametrize("uri", ["kafka://prod/tasks.scale", "nats://prod/tasks.scale2", "nats://other/tasks.scale"])
def test_the_channel_is_compared_whole(uri: str) -> None:
    """Promise (A13): bus, realm and name all count."""
    assert rejected(press(nats(), c=uri)).reason is Reason.WRONG_CHANNEL


@pytest.mark.parametrize(
    ("signed_for", "found_in", "shared", "passes"),
    [
        (0, 0, False, True),
        (0, 1, False, False),
        (None, 0, False, False),
        (0, None, False, False),
        (None, None, False, False),
        (None, 0, True, True),
        (0, 0, True, True),
        (0, 1, True, False),
    ],
)
def test_partitions(signed_for: int | None, found_in: int | None, shared: bool, passes: bool) -> None:  # noqa: FBT001 - a table's columns
    """Promise (A13): on Kafka the partition must be the signed one; only a shared store allows none."""
    message = replace(press(kafka(partition=signed_for)), partition=found_in)
    world = World(shared_replay=shared)
    if passes:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is Reason.WRONG_PARTITION


def test_a_partition_is_for_kafka() -> None:
    """Promise: a NATS message that claims a partition is misdirected, shared store or not."""
    for shared in (False, True):
        assert rejected(press(nats(), p=0), World(shared_replay=shared)).reason is Reason.WRONG_PARTITION


def test_reply_subjects() -> None:
    """Promise (A22): a signed reply subject must be there; an unsigned one is hidden."""
    message = press(nats(reply_to="_INBOX.1"))
    assert World().verify(message).reply_to == "_INBOX.1"
    for found in (None, "_INBOX.2"):
        assert rejected(replace(message, reply_to=found)).reason is Reason.WRONG_REPLY_TO
    assert World().verify(replace(press(nats()), reply_to="_INBOX.mallory")).reply_to is None


def test_a45_a_reply_subject_of_the_server_is_refused() -> None:
    """Promise (A45): where an answer would be an order to the server, a signed reply subject is wrong everywhere."""
    for message in (nats(reply_to="$JS.API.X"), nats(reply_to="$JS.ACK.x", position=Position("TASKS", 7))):
        assert rejected(press(message)).reason is Reason.WRONG_REPLY_TO
        assert rejected(press(message, r="$x")).reason is Reason.WRONG_REPLY_TO


def test_at_a_stream_position_the_broker_replaces_the_reply_subject() -> None:
    """Promise: JetStream's ack subject in place of the signed one is no attack."""
    message = press(nats(reply_to="_INBOX.1"))
    stored = replace(message, reply_to="$JS.ACK.x", position=Position("TASKS", 7))
    assert World().verify(stored).reply_to == "_INBOX.1"


def test_on_kafka_a_position_replaces_no_reply_subject() -> None:
    """Promise: a reply subject that someone signed for Kafka, which has none, is not excused by the position."""
    message = press(kafka(position=Position("tasks/0", 7)), r="_INBOX.1")
    assert rejected(message).reason is Reason.WRONG_REPLY_TO


def test_recipients() -> None:
    """Promise (A36): addressed to this agent or to nobody in particular; a nameless process gets only the latter."""
    to_bob, to_all = press(nats(), c3=BOB), press(nats())
    assert World(principal=BOB).verify(to_bob).recipient == BOB
    assert World(principal=None).verify(to_all).recipient is None
    assert rejected(to_bob, World(principal=MALLORY)).reason is Reason.WRONG_RECIPIENT
    assert rejected(to_bob, World(principal=None)).reason is Reason.WRONG_RECIPIENT


QUESTION = Request(id=b"q" * 16, channel=Channel("nats", REALM, "tasks.scale"))


def _answer(**changes: Any) -> Message:
    inbox = nats(channel=Channel("nats", REALM, "_INBOX.bob.1"))
    return press(inbox, **{"q": QUESTION.id} | changes)


def _asked(**changes: Any) -> Expected:
    return Expected(requests={QUESTION.id: replace(QUESTION, **changes)}, only_replies=True)


def test_replies() -> None:
    """Promise (A22): an answer is bound to a pending request; one to nothing, or to another, is rejected."""
    assert World().verify(_answer(), _asked()).in_reply_to == QUESTION.id.hex()
    assert rejected(_answer(q=b"p" * 16), expected=_asked()).reason is Reason.WRONG_REQUEST
    assert rejected(_answer()).reason is Reason.WRONG_REQUEST
    echoed = press(nats(channel=Channel("nats", REALM, "_INBOX.bob.1")))
    assert rejected(echoed, expected=_asked()).reason is Reason.WRONG_REQUEST


def test_who_may_answer() -> None:
    """Promise (A22): the request's recipient alone, else any agent that may speak where the request went."""
    assert World().verify(_answer(), _asked(recipient=ALICE)).principal == ALICE
    assert rejected(_answer(), expected=_asked(recipient=MALLORY)).reason is Reason.NOT_PERMITTED
    policy = Policy(allow=(Allow(ALICE, ("nats://prod/tasks.>",)),))
    assert World(policy=policy).verify(_answer(), _asked()).principal == ALICE
    other = Policy(allow=(Allow(ALICE, ("nats://prod/_INBOX.>",)),))
    assert rejected(_answer(), World(policy=other), _asked()).reason is Reason.NOT_PERMITTED
    assert World(policy=other).verify(_answer(), _asked(recipient=ALICE)).principal == ALICE


def test_deliveries_of_another_consumer() -> None:
    """Promise: an ack subject of another stream or consumer than the bound one is no delivery of ours."""
    message = press(nats(position=Position("TASKS", 7), delivered_by=("TASKS", "worker")))
    assert World().verify(message, Expected(consumer=("TASKS", "worker"))).position == Position("TASKS", 7)
    for delivered_by in (("TASKS", "other"), ("OTHER", "worker"), None):
        wrong = replace(message, delivered_by=delivered_by)
        assert rejected(wrong, expected=Expected(consumer=("TASKS", "worker"))).reason is Reason.WRONG_DELIVERY


# Check 4

MAX_AGE, SKEW = Policy().max_age, Policy().max_skew


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (MAX_AGE + SKEW, None),
        (MAX_AGE + SKEW + 0.1, Reason.STALE),
        (-SKEW, None),
        (-SKEW - 0.1, Reason.FROM_FUTURE),
        (float("nan"), Reason.STALE),
        (float("inf"), Reason.STALE),
        (float("-inf"), Reason.FROM_FUTURE),
    ],
)
@pytest.mark.parametrize("stamped", [True, False])
def test_freshness(age: float, reason: Reason | None, stamped: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise (A16, A18): fresh at the broker's append time where there is one, else now; bounds included."""
    world = World()
    message = press(kafka(appended_at=NOW + age if stamped else None))
    world.now = NOW + 10_000.0 if stamped else NOW + age
    if reason is None:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is reason


@pytest.mark.parametrize(("at", "passes"), [(NOW + 8.9, True), (NOW + 9.0, False), (NOW + 50_000.0, False)])
def test_a_messages_own_expiry(at: float, passes: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise: ``exp`` is judged at the present time, strictly, also in a backlog that the broker stamped."""
    world = World()
    world.now = at
    message = press(kafka(), c4=NOW + 9)
    if passes:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is Reason.EXPIRED


def test_a_signed_message_for_nobody_else() -> None:
    """Promise: the product's own signer addresses, expires and answers as the verifier expects."""
    message = signed(
        nats(channel=Channel("nats", REALM, "_INBOX.bob.1")),
        recipient=BOB,
        expires_at=NOW + 60,
        in_reply_to=QUESTION.id,
    )
    assert World().verify(message, _asked()).recipient == BOB
