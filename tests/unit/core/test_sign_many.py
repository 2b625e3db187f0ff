"""Many messages under one signature: each verifies alone, and none is larger than was said."""

import os
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.beside import native_or_stand_in
from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    NOW,
    REALM,
    World,
    at_once,
    batch,
    cbor,
    claims_of,
    direct,
    ed_key,
    endings,
    kafka,
    nats,
    raw_of,
    signer,
)
from tests.vectors.generate import accepted, vector
from tests.vectors.second import judge
from watchword import ConfigurationError, SigningError, SigningKey, Unavailable, engine
from watchword.algorithms import Algorithm
from watchword.envelope import parse
from watchword.signer import Signed
from watchword.spi import Channel, Message, Position, Signer


def with_batch(size: int, key: Any = ALICE_KEY, **options: Any) -> Signer:
    """Return a signer of trees of up to that many leaves."""
    return Signer(realm=REALM, principal=ALICE, key=key, clock=lambda: NOW, batch=size, **options)


def bearing(messages: list[Message], signed: list[Signed]) -> list[Message]:
    """Return the messages with the headers that signing gave."""
    return [
        replace(message, headers=(*message.headers, made.header))
        for message, made in zip(messages, signed, strict=True)
    ]


def records(number: int) -> list[Message]:
    """Return records of one partition in a row."""
    return [kafka(position=Position("tasks/0", at), value=b"%d" % at) for at in range(number)]


def sizes(messages: list[Message]) -> list[int]:
    """Return the size of each message's tree."""
    return [parse(message.headers[-1][1] or b"").size for message in messages]


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ids be 0, 1, 2 and so on."""
    numbers = count()
    draw = lambda size: b"".join(next(numbers).to_bytes(16) for _ in range(size // 16))  # noqa: E731 - it is short
    monkeypatch.setattr(os, "urandom", draw)


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize("number", [1, 2, 3, 64, 65, 130])
def test_makes_the_bytes_of_the_specification(number: int) -> None:
    """Promise: trees are those that the independent press makes, byte for byte; a lone message is signed directly."""
    messages = records(number)
    sent = bearing(messages, at_once(signer().sign_many(messages)))
    entries = [cbor(claims_of(message, c7=at.to_bytes(16))) for at, message in enumerate(messages)]
    pressed: list[bytes] = []
    trees = -(-number // 64)
    for at in range(trees):
        part = entries[number * at // trees : number * (at + 1) // trees]
        pressed += batch(part) if len(part) > 1 else [direct(part[0])]
    assert [raw_of(message) for message in sent] == pressed


@pytest.mark.parametrize("number", [0, 1, 2, 64, 65, 130])
@pytest.mark.parametrize("key", [ALICE_KEY, ALICE_EC_KEY], ids=["Ed25519", "ESP256"])
def test_each_message_verifies_alone(number: int, key: SigningKey) -> None:
    """Promise: whatever became of the others, each message of a tree verifies, also by another implementation."""
    messages = records(number)
    sent = bearing(messages, at_once(signer(key).sign_many(messages)))
    for at in {0, 1, number // 2, number - 1} & {*range(number)}:
        message = sent[at]
        assert World().verify(message).value == b"%d" % at
        wanted = accepted(key, message_id=parse(message.headers[-1][1] or b"").id)
        assert judge(vector("alone", "", message, wanted)) == [wanted]
    assert endings(World(), sent) == ["first"] * number


@pytest.mark.parametrize(
    ("most", "number", "expected"),
    [
        (1, 3, [0, 0, 0]),
        (2, 3, [0, 2, 2]),
        (3, 7, [2] * 4 + [3] * 3),
        (64, 66, [33] * 66),
        (64, 105, [52] * 52 + [53] * 53),
        (64, 128, [64] * 128),
        (4096, 5, [5] * 5),
    ],
)
def test_trees_are_few_and_even(most: int, number: int, expected: list[int]) -> None:
    """Promise: up to ``batch`` messages share a signature, in their order: no more trees than that takes, all alike."""
    messages = records(number)
    assert sizes(bearing(messages, at_once(with_batch(most).sign_many(messages)))) == expected


@pytest.mark.parametrize("most", [0, -1, 4097, 2.5, True])
def test_a_batch_that_no_envelope_can_bear(most: Any) -> None:
    """Promise: a tree of none, or of more than the format allows, is an error when the signer is made."""
    with pytest.raises(ConfigurationError, match="choose 1 to 4096"):
        with_batch(most)


def test_names_that_fit_no_envelope_leave_nothing() -> None:
    """Promise: what is remembered of a signer's messages is bounded by what an envelope can bear."""
    signer = with_batch(64)
    for number in range(5):
        with pytest.raises(SigningError, match="envelope over"):
            at_once(signer.sign(kafka(headers=((f"{number}" + "x" * 5000, b""),))))
    assert not signer._builder._routes
    at_once(signer.sign(kafka()))
    assert len(signer._builder._routes) == 1


def test_one_message_that_cannot_be_signed() -> None:
    """Promise: where one message is refused none is signed, so that nobody sends half of them by mistake."""
    with pytest.raises(SigningError, match="partition"):
        at_once(signer().sign_many([*records(3), kafka(partition=-1)]))


def test_options_hold_for_all() -> None:
    """Promise: recipient and expiry stand in each message."""
    sent = bearing(records(3), at_once(signer().sign_many(records(3), recipient="bob", expires_at=NOW + 9)))
    found = [parse(message.headers[-1][1] or b"") for message in sent]
    assert {(one.common.recipient, one.common.expires_at) for one in found} == {("bob", NOW + 9)}
    assert len({one.id for one in found}) == 3


class Backend:
    """A back-end that returns or raises the answers it was created with, and counts the calls."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked = 0

    async def sign(self, data: bytes) -> bytes:
        """Answer, or fail."""
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return answer or ALICE_KEY.sign_now(data)


def remote(*answers: Any) -> Signer:
    """Return a signer whose key is held elsewhere."""
    return with_batch(64, Backend(*answers), key_id=ALICE_KEY.key_id, algorithm=Algorithm.ED25519)


def test_a_key_held_elsewhere_signs_once_for_each_tree() -> None:
    """Promise: a slow back-end is asked once for 64 messages, and its trees verify like any other."""
    backend, messages = Backend(None), records(130)
    by = with_batch(64, backend, key_id=ALICE_KEY.key_id, algorithm=Algorithm.ED25519)
    assert not by.in_memory
    sent = bearing(messages, at_once(by.sign_many(messages)))
    assert endings(World(), sent) == ["first"] * 130
    assert backend.asked == 3
    with pytest.raises(ConfigurationError, match=r"await sign_prepared\(\)"):
        by.sign_now([by.prepare(messages[0])])


@pytest.mark.parametrize("answer", [OSError("token=s3cret"), b"short", "x" * 64, bytearray(64)])
def test_a_back_end_that_fails_at_the_second_tree(answer: Any) -> None:
    """Promise: a back-end that fails or answers nonsense gives Unavailable, and nothing of what it signed before."""
    by = remote(None, answer)
    with pytest.raises(Unavailable, match="signing") as caught:
        at_once(by.sign_many(records(65)))
    assert "s3cret" not in str(caught.value)


def test_a_key_in_memory_signs_at_once() -> None:
    """Promise: envelopes signed without waiting are what signing gives: in order, with their ids and times."""
    by, messages = signer(), records(70)
    assert by.in_memory
    envelopes = [by.prepare(message) for message in messages]
    values = by.sign_now(envelopes)
    pressed = zip(messages, values, strict=True)
    signed = [replace(message, headers=(*message.headers, ("watchword", value))) for message, value in pressed]
    assert endings(World(), signed) == ["first"] * 70
    assert by.sign_now([]) == []


NAMES = st.text(st.characters(codec="utf-8"), max_size=40).filter(lambda name: name.lower() != "watchword")


@given(
    key=st.none() | st.binary(max_size=40),
    names=st.lists(NAMES, max_size=12),
    channel=st.integers(1, 249),
    partition=st.sampled_from([0, 23, 24, 255, 256, 65536, (1 << 31) - 1]),
    recipient=st.none() | st.integers(1, 255).map("x".__mul__),
    expires_at=st.none() | st.integers(NOW + 1, (1 << 33) - 1),
    most=st.sampled_from([1, 2, 3, 4, 64, 65, 300, 4096]),
    number=st.sampled_from([1, 2, 3, 64, 300]),
    esp=st.booleans(),
)
@settings(max_examples=100)
def test_no_envelope_is_larger_than_was_said(  # noqa: PLR0917 - drawn by name
    key: bytes | None,
    names: list[str],
    channel: int,
    partition: int,
    recipient: str | None,
    expires_at: int | None,
    most: int,
    number: int,
    esp: bool,  # noqa: FBT001 - drawn by name
) -> None:
    """Promise: ``largest`` holds for each envelope, alone or in whatever tree, and is hardly more than the largest."""
    message = kafka(
        channel=Channel("kafka", REALM, "t" * channel), key=key, partition=partition,
        headers=tuple((name, b"") for name in names),
    )  # fmt: skip
    by = with_batch(most, ALICE_EC_KEY if esp else ALICE_KEY)
    try:
        unsigned = by.prepare(message, recipient=recipient, expires_at=expires_at)
    except SigningError:
        return
    assert unsigned.largest <= by.max_characters
    found = [*map(len, by.sign_now([unsigned] * number))]
    assert max(found) <= unsigned.largest
    if number % most == 0:  # trees are full
        assert unsigned.largest - max(found) <= 24


HEADERS: list[tuple[tuple[str, bytes | None], ...]] = [
    (), (("a", b"1"),), (("a", b""), ("traceparent", b"t")), (("traceparent", b"t"),), (("a", None),), (("a", b" x"),),
    (("a", b"1"), ("a", b"2")), (("b", b"1"), ("a", b"2")), (("\ud800", b""),), (("Watchword", b""),),
    (("a" * 3000, b""),), (("a", bytes(1 << 16)),), (("é", b"x"),),
]  # fmt: skip
PLACES = [
    Channel("kafka", REALM, "a"), Channel("nats", REALM, "a"), Channel("nats", REALM, "a.>"),
    Channel("kafka", REALM, "a/b"), Channel("kafka", "other", "a"), Channel("nats", REALM, "\ud800"),
]  # fmt: skip


def drafted(by: Signer, message: Message, options: dict[str, Any]) -> object:
    """Return what drafting gives, with the id all zero; or the error."""
    try:
        unsigned = by.prepare(message, **options)
    except SigningError as error:
        return str(error)
    return unsigned.draft, unsigned.largest, unsigned.moment


@given(
    st.lists(
        st.tuples(
            st.builds(
                Message,
                channel=st.sampled_from(PLACES),
                value=st.sampled_from([None, b"", b"v"]),
                key=st.sampled_from([None, b"", b"k"]),
                headers=st.sampled_from(HEADERS),
                partition=st.sampled_from([None, 0, 1, True, 1.0, -1, 1 << 31]),
                reply_to=st.sampled_from([None, "a", "a b", "_INBOX.1"]),
            ),
            st.fixed_dictionaries(
                {
                    "recipient": st.sampled_from([None, "bob", "", "bob ", 5, ["bob"]]),
                    "expires_at": st.sampled_from([None, 0, NOW, NOW + 1, True, 1.0]),
                    "in_reply_to": st.sampled_from([None, bytes(16), b"short", "x" * 16]),
                }
            ),
        ),
        max_size=10,
    )
)
@settings(max_examples=200)
def test_what_was_signed_before_changes_nothing(envelopes: list[tuple[Message, dict[str, Any]]]) -> None:
    """Promise (A30): a signer that has signed envelopes, and refuses, what one that has not does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", bytes)
        warm = signer()
        for message, options in envelopes:
            assert drafted(warm, message, options) == drafted(signer(), message, options)


def test_each_draft_has_its_own_time_and_headers() -> None:
    """Promise (A30): of the message before, which differed in time or in a value, nothing stays."""
    times = iter(seconds := [NOW, NOW, NOW + 1, NOW, NOW + 1])
    values = [b"1", None, b"1", b"1", b"2"]
    by = Signer(realm=REALM, principal=ALICE, key=ALICE_KEY, clock=lambda: next(times))
    messages = [kafka(headers=(("a", value),)) for value in values]
    sent = bearing(messages, at_once(by.sign_prepared([by.prepare(message) for message in messages])))
    for message, second in zip(sent, seconds, strict=True):
        assert World().verify(message).issued_at == second


def test_the_largest_claims_fit_in_the_largest_batch() -> None:
    """Promise: signer and reader agree on the limit: what is drafted at the edge is read in a full tree."""
    by = with_batch(4096)
    room = 249
    while True:
        message = kafka(headers=(("h" * room, b""),))
        try:
            unsigned = by.prepare(message)
        except SigningError:
            break
        room += 1
    assert room > 3000
    message = kafka(headers=(("h" * (room - 1), b""),))
    unsigned = by.prepare(message)
    value = by.sign_now([unsigned] * 4096)[-1]
    assert unsigned.largest - 24 <= len(value) <= unsigned.largest <= by.max_characters
    assert World().verify(replace(message, headers=(*message.headers, ("watchword", value)))).principal == ALICE


def test_the_sizes_that_are_promised() -> None:
    """Promise: 380 characters direct and 680 in a batch of 64, for names of 25, a key, a header and a partition."""
    by = Signer(realm=REALM, principal="agent://acme/planner-0001", key=ed_key(1), clock=lambda: NOW)
    message = kafka(channel=Channel("kafka", REALM, "t" * 12), headers=(("content-type", b"application/json"),))
    assert (len(by.principal), len(message.channel.uri)) == (25, 25)
    assert len(at_once(by.sign(message)).header[1] or b"") <= 380
    assert max(len(made.header[1] or b"") for made in at_once(by.sign_many([message] * 64))) <= 680
    assert by.prepare(message).largest <= 688 < by.max_characters == 5462
    assert by.prepare(nats()).largest <= by.max_characters


def test_headers_that_are_not_kept_are_signed_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A30): what is too large to be kept for the next message is no other's, whatever stood before it."""
    native = native_or_stand_in()
    monkeypatch.setattr(engine, "native", lambda: native)
    messages = [kafka(headers=(("a", value),)) for value in (b"1", b"1", bytes(2000), bytes(2000), b"1")]
    sent = bearing(messages, at_once(signer().sign_many(messages)))
    assert endings(World(), sent) == ["first"] * 5
