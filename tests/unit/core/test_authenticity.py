"""Checks 5 to 7 in detail: keys, signatures, content."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    ID,
    MALLORY,
    NOW,
    World,
    batch,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    press,
    public,
    rejected,
)
from watchword import Reason, Unavailable, VerificationKey
from watchword.spi import Message

# Check 5


class Source:
    """A key source that returns or raises what it was created with."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def find(self, *_: object) -> VerificationKey | None:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return] # lies on purpose


def _lying(answer: Any) -> World:
    world = World()
    world.keys.source = Source(answer)
    return world


@pytest.mark.parametrize(
    "answer", [TimeoutError("key=s3cret"), "a key", b"", object(), public(BOB_KEY, BOB), public(BOB_KEY, ALICE)]
)
def test_the_key_source_is_not_taken_at_its_word(answer: Any) -> None:
    """Promise: an error, no key at all, or a key of another id is an outage of ours, not a verdict."""
    with pytest.raises(Unavailable, match="keys") as caught:
        _lying(answer).verify(press(nats()))
    assert "s3cret" not in str(caught.value)


def test_a_key_of_another_principal_verifies_nothing() -> None:
    """Promise (A10): a key source that answers with another's key of this id gives ``wrong_principal``."""
    assert rejected(press(nats()), _lying(public(ALICE_KEY, MALLORY))).reason is Reason.WRONG_PRINCIPAL
    assert rejected(press(nats()), _lying(None)).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"not_before": NOW}, None),
        ({"not_before": NOW + 1}, Reason.KEY_NOT_VALID),
        ({"not_after": NOW + 1}, None),
        ({"not_after": NOW}, Reason.KEY_NOT_VALID),
        ({"revoked_at": NOW + 101}, None),
        ({"revoked_at": NOW + 100}, Reason.KEY_REVOKED),
        ({"revoked_at": 0}, Reason.KEY_REVOKED),
    ],
)
def test_key_times(times: dict[str, int], reason: Reason | None) -> None:
    """Promise (A23): validity is judged at the reference time, without skew; revocation at the present time."""
    world = World(keys=[public(ALICE_KEY, ALICE, **times)])
    world.now = NOW + 100.0
    message = press(kafka(appended_at=float(NOW)))
    if reason is None:
        assert world.verify(message).principal == ALICE
    else:
        assert rejected(message, world).reason is reason


# Check 6


def test_the_algorithm_is_the_keys() -> None:
    """Promise (A08): a message that names another algorithm than its key's is not verified by either."""
    for alg in (-9, -8, -7, 5, 0, -19 - (1 << 40)):
        raw = direct(cbor(claims_of(nats())), ALICE_KEY, c1=alg)
        assert rejected(bear(nats(), raw)).reason is Reason.BAD_SIGNATURE
    raw = direct(cbor(claims_of(nats())), ALICE_EC_KEY, c1=-19)
    assert rejected(bear(nats(), raw)).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("count", [2, 3, 7])
def test_batches(count: int) -> None:
    """Promise: each message of a batch is verifiable alone, and its id used once."""
    world = World()
    messages = [nats(value=bytes([index])) for index in range(count)]
    entries = [cbor(claims_of(message, c7=bytes([index]) * 16)) for index, message in enumerate(messages)]
    for message, raw in zip(messages, batch(entries), strict=True):
        assert world.verify(bear(message, raw)).value == message.value
        assert rejected(bear(message, raw), world).reason is Reason.REPLAYED


# Check 7

CHANGES: dict[str, Callable[[Message], Message]] = {
    "value": lambda m: replace(m, value=b"other"),
    "value emptied": lambda m: replace(m, value=b""),
    "tombstone": lambda m: replace(m, value=None),
    "key": lambda m: replace(m, key=b"k2"),
    "key emptied": lambda m: replace(m, key=b""),
    "key removed": lambda m: replace(m, key=None),
    "covered value": lambda m: replace(m, headers=(("content-type", b"text/plain"), *m.headers[1:])),
    "covered value null": lambda m: replace(m, headers=(("content-type", None), *m.headers[1:])),
    "covered removed": lambda m: replace(m, headers=m.headers[1:]),
    "covered renamed": lambda m: replace(m, headers=(("Content-type", m.headers[0][1]), *m.headers[1:])),
    "covered twice": lambda m: replace(m, headers=(m.headers[0], *m.headers)),
    "record timestamp": lambda m: replace(m, created_at=NOW + 5.5),
    "record timestamp before": lambda m: replace(m, created_at=NOW - 30.5),
    "record timestamp is not a number": lambda m: replace(m, created_at=float("nan")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_altered(change: Callable[[Message], Message]) -> None:
    """Promise (A02, A04): whatever is covered and changed is ``altered``."""
    message = press(kafka())
    assert World().verify(message).principal == ALICE
    assert rejected(change(message)).reason is Reason.ALTERED


def test_what_was_added_to_an_absent_part_is_altered() -> None:
    """Promise (A04): a message signed without value or key accepts neither."""
    bare = press(kafka(value=None, key=None, headers=()))
    assert World().verify(bare).value is None
    assert rejected(replace(bare, value=b"")).reason is Reason.ALTERED
    assert rejected(replace(bare, key=b"")).reason is Reason.ALTERED


def test_a_digest_of_nothing_is_altered() -> None:
    """Promise: ``m`` is absent when there is neither key nor covered header; a needless one has no second spelling."""
    bare = kafka(key=None, headers=())
    assert rejected(press(bare, m=bytes(32))).reason is Reason.ALTERED


def test_record_timestamps_within_the_skew() -> None:
    """Promise (A39): a producer's record timestamp may differ from the signed time by the skew, no more."""
    message = press(kafka(appended_at=None))
    for created_at in (NOW - 5, NOW, NOW + 5.0):
        assert World().verify(replace(message, created_at=created_at)).principal == ALICE


def test_uncovered_headers_are_hidden() -> None:
    """Promise (A03): what the sender did not sign does not reach the handler, trace headers apart."""
    message = press(nats())
    added = (("Authorization", b"x"), ("tracestate", b"s"), ("traceparent", b"t"), ("Nats-Msg-Id", ID.hex().encode()))
    seen = World().verify(replace(message, headers=(*added, *message.headers))).headers
    assert seen == (("tracestate", b"s"), ("traceparent", b"t"), ("Content-Type", b"application/json"))


@pytest.mark.parametrize("value", [b"", b"other", ID.hex().upper().encode(), None])
def test_nats_msg_id_is_the_id(value: bytes | None) -> None:
    """Promise (A19): on NATS an uncovered ``Nats-Msg-Id`` must be the message's id; Kafka has no such header."""

    def added(message: Message) -> Message:
        return replace(message, headers=(*message.headers, ("Nats-Msg-Id", value)))

    assert rejected(added(press(nats()))).reason is Reason.ALTERED
    assert World().verify(added(press(kafka()))).headers == kafka().headers


def test_an_applications_own_nats_msg_id_is_covered() -> None:
    """Promise: an application's own ``Nats-Msg-Id`` is a header like any other."""
    message = press(nats(headers=(("Nats-Msg-Id", b"order-7"),)))
    assert World().verify(message).headers == (("Nats-Msg-Id", b"order-7"),)
    assert (
        rejected(replace(message, headers=(("Nats-Msg-Id", b"order-8"), message.headers[-1]))).reason is Reason.ALTERED
    )
