"""Reading and writing envelopes, one fault at a time."""

import base64
from typing import Any

import cbor2
import pytest

from tests.unit.core.world import (
    ABSENT,
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
from watchword import Reason, Rejected
from watchword.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_ENVELOPE_CHARACTERS,
    Claims,
    Inclusion,
    encode_claims,
    is_envelope_name,
    metadata_digest,
    parse,
    value_digest,
)

CLAIMS = claims_of(kafka())
HEADER = protected_of(ALICE_KEY)
SIGNATURE = bytes(64)
HASH = bytes(32)


def _envelope(*, version: Any = 1, claims: Any = None, proof: Any = None, more: tuple[Any, ...] = ()) -> bytes:
    claims = cbor(CLAIMS) if claims is None else claims
    proof = [HEADER, {}, None, SIGNATURE] if proof is None else proof
    return cbor2.dumps([version, claims, proof, *more])


def _claims(**changes: Any) -> bytes:
    return _envelope(claims=cbor(claims_of(kafka(), **changes)))


def _protected(**changes: Any) -> bytes:
    return _envelope(proof=[protected_of(ALICE_KEY, **changes), {}, None, SIGNATURE])


def _unprotected(value: Any) -> bytes:
    return _envelope(proof=[protected_of(ALICE_KEY, c395=1), value, None, SIGNATURE])


def _inclusion(*proof: Any) -> bytes:
    return _unprotected({396: {-1: [cbor2.dumps(list(proof))]}})


MALFORMED = {
    "not an array": cbor2.dumps({}),
    "version missing": cbor2.dumps([cbor(CLAIMS), [HEADER, {}, None, SIGNATURE]]),
    "version 2": _envelope(version=2),
    "version 0": _envelope(version=0),
    "version true": _envelope(version=True),
    "version as float": _envelope(version=1.0),
    "version as text": _envelope(version="1"),
    "a fourth part": _envelope(more=(0,)),
    "claims not bytes": _envelope(claims=CLAIMS),
    "claims not a map": _envelope(claims=cbor2.dumps([])),
    "claims not CBOR": _envelope(claims=b"\xff"),
    "claims with bytes after them": _envelope(claims=cbor(CLAIMS) + b"\x00"),
    "claims unsorted": _envelope(claims=cbor2.dumps(dict(reversed(CLAIMS.items())))),
    "proof not an array": _envelope(proof={}),
    "proof tagged": _envelope(proof=cbor2.CBORTag(18, [HEADER, {}, None, SIGNATURE])),
    "proof of three": _envelope(proof=[HEADER, {}, SIGNATURE]),
    "proof of five": _envelope(proof=[HEADER, {}, None, SIGNATURE, 0]),
    "protected not bytes": _envelope(proof=[{1: -19}, {}, None, SIGNATURE]),
    "protected empty": _envelope(proof=[b"", {}, None, SIGNATURE]),
    "protected not a map": _envelope(proof=[cbor2.dumps([]), {}, None, SIGNATURE]),
    "protected unsorted": _envelope(proof=[cbor2.dumps({4: b"alice-1", 1: -19}), {}, None, SIGNATURE]),
    "protected with another field": _protected(c2=[1]),
    "unprotected not a map": _envelope(proof=[HEADER, [], None, SIGNATURE]),
    "unprotected key id": _envelope(proof=[HEADER, {4: b"alice-1"}, None, SIGNATURE]),
    "unprotected proof beside a direct signature": _envelope(proof=[HEADER, {396: {-1: [b""]}}, None, SIGNATURE]),
    "payload attached": _envelope(proof=[HEADER, {}, cbor(CLAIMS), SIGNATURE]),
    "payload empty": _envelope(proof=[HEADER, {}, b"", SIGNATURE]),
    "signature as text": _envelope(proof=[HEADER, {}, None, "x" * 64]),
    "signature missing": _envelope(proof=[HEADER, {}, None, None]),
    "signature huge": _envelope(proof=[HEADER, {}, None, bytes(129)]),
    "algorithm missing": _protected(c1=ABSENT),
    "algorithm as text": _protected(c1="EdDSA"),
    "algorithm null": _protected(c1=None),
    "key id missing": _protected(c4=ABSENT),
    "key id empty": _protected(c4=b""),
    "key id as text": _protected(c4="alice-1"),
    "key id huge": _protected(c4=b"x" * 129),
    "tree algorithm unknown": _protected(c395=2),
    "tree algorithm null": _protected(c395=None),
    "tree without proof": _unprotected({}),
    "tree with two proofs": _unprotected({396: {-1: [cbor2.dumps([2, 0, [HASH]])] * 2}}),
    "tree with no inclusion proof": _unprotected({396: {-1: []}}),
    "tree with a consistency proof": _unprotected({396: {-2: [cbor2.dumps([2, 0, [HASH]])]}}),
    "tree with more": _unprotected({396: {-1: [cbor2.dumps([2, 0, [HASH]])]}, 397: 0}),
    "tree with more proofs": _unprotected({396: {-1: [cbor2.dumps([2, 0, [HASH]])], 1: 0}}),
    "inclusion not bytes": _unprotected({396: {-1: [[2, 0, [HASH]]]}}),
    "inclusion not CBOR": _unprotected({396: {-1: [b"\xff"]}}),
    "inclusion not an array": _inclusion(),
    "inclusion of two": _inclusion(2, 0),
    "inclusion of four": _inclusion(2, 0, [HASH], 0),
    "tree of none": _inclusion(0, 0, [HASH]),
    "tree of one": _inclusion(1, 0, [HASH]),
    "tree of 4097": _inclusion(4097, 0, [HASH]),
    "size as text": _inclusion("2", 0, [HASH]),
    "size null": _inclusion(None, 0, [HASH]),
    "index at size": _inclusion(2, 2, [HASH]),
    "index negative": _inclusion(2, -1, [HASH]),
    "index as bytes": _inclusion(2, b"", [HASH]),
    "path not an array": _inclusion(2, 0, HASH),
    "path empty": _inclusion(2, 0, []),
    "path with a short hash": _inclusion(2, 0, [bytes(31)]),
    "path with text": _inclusion(2, 0, ["x" * 32]),
    "path of thirteen": _inclusion(4096, 0, [HASH] * 13),
    "issuer missing": _claims(c1=ABSENT),
    "issuer empty": _claims(c1=""),
    "issuer as bytes": _claims(c1=b"alice"),
    "issuer null": _claims(c1=None),
    "issuer with a line break": _claims(c1="agent\nx"),
    "issuer of 256 bytes": _claims(c1="x" * 256),
    "recipient empty": _claims(c3=""),
    "recipient null": _claims(c3=None),
    "recipient with a blank at its end": _claims(c3="bob "),
    "recipients as a list": _claims(c3=["bob"]),
    "expiry negative": _claims(c4=-1),
    "expiry as float": _claims(c4=1.5),
    "expiry as text": _claims(c4="1"),
    "expiry at 2^33": _claims(c4=1 << 33),
    "not-before, which we do not know": _claims(c5=NOW),
    "issue time missing": _claims(c6=ABSENT),
    "issue time true": _claims(c6=True),
    "issue time as float": _claims(c6=float(NOW)),
    "issue time negative": _claims(c6=-1),
    "issue time at 2^33": _claims(c6=1 << 33),
    "issue time null": _claims(c6=None),
    "id missing": _claims(c7=ABSENT),
    "id of 15 bytes": _claims(c7=ID[:15]),
    "id of 17 bytes": _claims(c7=ID + b"x"),
    "id as text": _claims(c7="0123456789abcdef"),
    "channel missing": _claims(c=ABSENT),
    "channel empty": _claims(c=""),
    "channel as bytes": _claims(c=b"kafka://prod/tasks"),
    "names empty": _claims(h=[]),
    "names null": _claims(h=None),
    "names as text": _claims(h="content-type"),
    "names unsorted": _claims(h=["b", "a"]),
    "a name twice": _claims(h=["a", "a"]),
    "a name as bytes": _claims(h=[b"a"]),
    "the envelope covers itself": _claims(h=["Watchword"]),
    "names without a digest": _claims(m=ABSENT),
    "digest of 31 bytes": _claims(m=HASH[:31]),
    "digest null": _claims(m=None),
    "partition negative": _claims(p=-1),
    "partition at 2^31": _claims(p=1 << 31),
    "partition null": _claims(p=None),
    "request id short": _claims(q=b"x"),
    "reply subject empty": _claims(r=""),
    "reply subject as bytes": _claims(r=b"_INBOX"),
    "value digest of 33 bytes": _claims(v=HASH + b"x"),
    "value digest as text": _claims(v="x" * 32),
    "another claim": _claims(x=1),
    "another numbered claim": _claims(c8={}),
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed(raw: bytes) -> None:
    """Promise (A06, A07): each departure from the format is ``malformed``, and nothing else is raised."""
    with pytest.raises(Rejected) as caught:
        parse(text(raw))
    assert caught.value.reason is Reason.MALFORMED


GOOD_TEXT = text(direct(cbor(CLAIMS)))


@pytest.mark.parametrize(
    "header",
    {
        "empty": b"",
        "one character": b"g",
        "padded": base64.urlsafe_b64encode(base64.urlsafe_b64decode(GOOD_TEXT + b"==")[:-1]) + b"=",
        "standard alphabet": text(direct(cbor(claims_of(kafka(), c1="\u00ff?>~" * 20)))).replace(b"_", b"/"),
        "standard alphabet, plus": text(direct(cbor(claims_of(kafka(), c1="\u00fb\u00ef>~" * 20)))).replace(b"-", b"+"),
        "blank at the end": GOOD_TEXT + b" ",
        "line break inside": GOOD_TEXT[:40] + b"\n" + GOOD_TEXT[40:],
        "not ASCII": GOOD_TEXT[:40] + b"\xc3\xa9" + GOOD_TEXT[40:],
        "stray low bits": text(b"\x81\x01\x02\x03")[:-1] + b"9",
        "over the limit": b"A" * (MAX_ENVELOPE_CHARACTERS + 1),
        "half": GOOD_TEXT[: len(GOOD_TEXT) // 2],
    }.values(),
)
def test_malformed_text(header: bytes) -> None:
    """Promise (A06): only canonical base64url without padding is read, so one envelope has one spelling."""
    with pytest.raises(Rejected) as caught:
        parse(header)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize("more", [0, 1])
def test_the_limit_is_4096_bytes(more: int) -> None:
    """Promise: an envelope of exactly 4096 bytes is read, one byte more is malformed."""
    room = MAX_ENVELOPE_BYTES - len(direct(cbor(claims_of(kafka(), r="x" * 3000)))) + 3000
    header = text(direct(cbor(claims_of(kafka(), r="x" * (room + more)))))
    if not more:
        assert parse(header).claims.reply_to == "x" * room
        return
    with pytest.raises(Rejected, match="malformed"):
        parse(header)


def test_every_claim_is_read() -> None:
    """Promise: each claim ends up in its own field."""
    fields = {
        1: ALICE, 3: "bob", 4: NOW + 9, 6: NOW, 7: ID, "c": "nats://prod/a", "h": ["A", "a", "é"], "m": b"m" * 32,
        "p": 7, "q": b"q" * 16, "r": "_INBOX.1", "v": b"v" * 32,
    }  # fmt: skip
    expected = Claims(
        issuer=ALICE, id=ID, issued_at=NOW, channel="nats://prod/a", recipient="bob", expires_at=NOW + 9,
        covered=("A", "a", "é"), metadata_digest=b"m" * 32, partition=7, request_id=b"q" * 16, reply_to="_INBOX.1",
        value_digest=b"v" * 32,
    )  # fmt: skip
    envelope = parse(text(direct(cbor(fields))))
    assert envelope.claims == expected
    assert encode_claims(expected) == envelope.claims_bytes == cbor(fields)
    assert (envelope.algorithm, envelope.key_id, envelope.inclusion) == (-19, b"alice-1", None)


def test_zero_is_not_absent() -> None:
    """Promise: partition 0, time 0 and expiry 0 are values like any other."""
    claims = parse(text(direct(cbor(claims_of(kafka(), p=0, c6=0, c4=0))))).claims
    assert (claims.partition, claims.issued_at, claims.expires_at) == (0, 0, 0)


def test_a_batched_envelope_is_read() -> None:
    """Promise: the protected tree algorithm makes a batch, whose signature covers root and size."""
    entries = [cbor(claims_of(nats(), c7=bytes([index]) * 16)) for index in range(3)]
    envelope = parse(text(batch(entries)[2]))
    assert envelope.inclusion == Inclusion(3, 2, tuple(trees.path(2, entries)))
    assert ALICE_KEY.verification_key(ALICE).verifies(envelope.signature, envelope.to_be_signed() or b"")


def test_a_path_that_does_not_fit_signs_nothing() -> None:
    """Promise (A25): where index, size and path do not fit, there is nothing that a signature could cover."""
    raw = batched(cbor(CLAIMS), protected_of(ALICE_KEY, c395=1), SIGNATURE, size=4, index=0, path=[HASH])
    assert parse(text(raw)).to_be_signed() is None


def test_the_largest_batch_fits() -> None:
    """Promise: the last leaf of a tree of 4096 is read, with its path of twelve."""
    raw = batched(cbor(CLAIMS), protected_of(ALICE_KEY, c395=1), SIGNATURE, size=4096, index=4095, path=[HASH] * 12)
    assert parse(text(raw)).inclusion == Inclusion(4096, 4095, (HASH,) * 12)


def test_digests_tell_absent_from_empty() -> None:
    """Promise (A04): no value, an empty one and a null header value are three different things."""
    assert value_digest(None) is None
    assert value_digest(b"") is not None
    assert metadata_digest(None, (("a", b"1"),), ()) is None
    digests = {
        metadata_digest(b"", (), ()),
        metadata_digest(None, (("a", None),), ("a",)),
        metadata_digest(None, (("a", b""),), ("a",)),
        metadata_digest(b"", (("a", b""),), ("a",)),
        metadata_digest(None, (), ("a",)),
    }
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("name", "ours"), [("watchword", True), ("WatchWord", True), ("watchwords", False), ("x", False)]
)
def test_our_header_in_any_letter_case(name: str, ours: bool) -> None:  # noqa: FBT001 - a table's column
    """Promise (A06): the envelope's name is matched in any letter case."""
    assert is_envelope_name(name) is ours
