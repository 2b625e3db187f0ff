"""Reading and writing envelopes, one fault at a time."""

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    ID,
    NOW,
    batch,
    batched,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    protected_of,
    text,
)
from tests.vectors import trees
from tests.vectors.faults import GOOD_TEXT, GOOD_TREE, MALFORMED, MALFORMED_TEXT
from watchword import Reason, Rejected
from watchword.encoding import Layout, encode_pairs, metadata_digest, value_digest
from watchword.envelope import is_envelope_name, parse

CLAIMS = claims_of(kafka())
SIGNATURE = bytes(64)
HASH = bytes(32)


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(raw: bytes) -> None:
    """Promise (A06, A07): each departure from the format is ``malformed``, and nothing else is raised."""
    with pytest.raises(Rejected) as caught:
        parse(text(raw))
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("value", [0, 1, b"abc", "abc", None, {0: 1, 1: 2, 2: 3}, []], ids=repr)
def test_what_is_no_array_is_malformed(value: object) -> None:
    """Promise (A07): an envelope of another type is malformed, as is a claims or proof of one."""
    honest = [1, cbor(CLAIMS), [cbor({1: -19, 4: b"key"}), {}, None, b""]]
    assert parse(text(cbor(honest))).common.key_id == b"key"
    for raw in (value, [1, value, honest[2]], [1, honest[1], value]):
        with pytest.raises(Rejected) as caught:
            parse(text(cbor(raw)))
        assert caught.value.reason is Reason.MALFORMED


def test_without_the_fault_they_are_read() -> None:
    """Promise: what the faults spoil is honest: direct, in a tree, and as text."""
    assert parse(text(direct(cbor(CLAIMS)))).claims_bytes == parse(text(GOOD_TREE)).claims_bytes
    assert parse(GOOD_TEXT).size == 0
    assert len(GOOD_TEXT) % 4 == 3


@pytest.mark.parametrize("header", MALFORMED_TEXT.values(), ids=MALFORMED_TEXT.keys())
def test_malformed_text(header: bytes) -> None:
    """Promise (A06): only canonical base64url without padding is read, so one envelope has one spelling."""
    with pytest.raises(Rejected) as caught:
        parse(header)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_4096_bytes(more: int) -> None:
    """Promise: an envelope of exactly 4096 bytes is read, one byte more is malformed."""
    room = 4096 - len(direct(cbor(claims_of(kafka(), r="x" * 3000)))) + 3000
    header = text(direct(cbor(claims_of(kafka(), r="x" * (room + more)))))
    if not more:
        assert parse(header).common.reply_to == "x" * room
        return
    with pytest.raises(Rejected, match="malformed"):
        parse(header)


def test_every_claim_is_read() -> None:
    """Promise: each claim ends up in its own field."""
    fields = {
        1: ALICE, 3: "bob", 4: NOW + 9, 6: NOW, 7: ID, "c": "nats://prod/a", "h": ["A", "a", "é"], "m": b"m" * 32,
        "p": 7, "q": b"q" * 16, "r": "_INBOX.1", "v": b"v" * 32,
    }  # fmt: skip
    envelope = parse(text(direct(cbor(fields))))
    common = envelope.common
    assert (common.issuer, common.recipient, common.channel, common.covered) == (
        ALICE, "bob", "nats://prod/a", ("A", "a", "é"),
    )  # fmt: skip
    assert (common.expires_at, common.partition, common.request_id, common.reply_to) == (
        NOW + 9, 7, b"q" * 16, "_INBOX.1",
    )  # fmt: skip
    assert (envelope.id, envelope.issued_at) == (ID, NOW)
    assert (envelope.metadata_digest, envelope.value_digest) == (b"m" * 32, b"v" * 32)
    layout = Layout(issuer=ALICE, channel="nats://prod/a", recipient="bob", covered=("A", "a", "é"), partition=7)
    written = layout.claims(ID, NOW, b"m" * 32, b"v" * 32, NOW + 9, b"q" * 16, "_INBOX.1")
    assert written == envelope.claims_bytes == cbor(fields)
    assert (envelope.common.algorithm, envelope.common.key_id, envelope.size) == (-19, b"alice-1", 0)


def test_zero_is_not_absent() -> None:
    """Promise: partition 0, time 0 and expiry 0 are values like any other."""
    envelope = parse(text(direct(cbor(claims_of(kafka(), p=0, c6=0, c4=0)))))
    assert (envelope.common.partition, envelope.issued_at, envelope.common.expires_at) == (0, 0, 0)


def test_a_batched_envelope_is_read() -> None:
    """Promise: the protected tree algorithm makes a batch, whose signature covers root and size."""
    entries = [cbor(claims_of(nats(), c7=bytes([index]) * 16)) for index in range(3)]
    envelope = parse(text(batch(entries)[2]))
    assert (envelope.size, envelope.index, envelope.path) == (3, 2, tuple(trees.path(2, entries)))
    assert envelope.root() == trees.root(entries)
    assert ALICE_KEY.verification_key(ALICE).verifies(envelope.signature, envelope.to_be_signed(trees.root(entries)))


def test_a_path_that_does_not_fit_signs_nothing() -> None:
    """Promise (A25): where index, size and path do not fit, there is nothing that a signature could cover."""
    raw = batched(cbor(CLAIMS), protected_of(ALICE_KEY, c395=1), SIGNATURE, size=4, index=0, path=[HASH])
    assert parse(text(raw)).root() is None


def test_the_largest_batch_fits() -> None:
    """Promise: the last leaf of a tree of 4096 is read, with its path of twelve."""
    raw = batched(cbor(CLAIMS), protected_of(ALICE_KEY, c395=1), SIGNATURE, size=4096, index=4095, path=[HASH] * 12)
    envelope = parse(text(raw))
    assert (envelope.size, envelope.index, envelope.path) == (4096, 4095, (HASH,) * 12)


def test_digests_tell_absent_from_empty() -> None:
    """Promise (A04): no value, an empty one and a null header value are three different things."""
    assert value_digest(None) is None
    assert value_digest(b"") is not None
    digests = {
        metadata_digest(b"", encode_pairs([])),
        metadata_digest(None, encode_pairs([("a", None)])),
        metadata_digest(None, encode_pairs([("a", b"")])),
        metadata_digest(b"", encode_pairs([("a", b"")])),
        metadata_digest(None, encode_pairs([])),
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("name", "ours"), [("watchword", True), ("WatchWord", True), ("watchwords", False), ("x", False)]
)
def test_our_header_in_any_letter_case(name: str, ours: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise (A06): the envelope's name is matched in any letter case."""
    assert is_envelope_name(name) is ours
