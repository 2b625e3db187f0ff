"""The envelope's reader against cbor2: what it reads is deterministic CBOR of the specification's shape, all of it.

The shape is written down here a third time, on cbor2's values, from docs/spec.md.
"""

from itertools import pairwise
from typing import Any

import cbor2
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.unit.core.world import ALICE, NOW, kafka, press, raw_of, text
from tests.vectors.faults import GOOD_TREE
from watchword import Reason, Rejected
from watchword.envelope import Envelope, parse

pytestmark = pytest.mark.usefixtures("not_traced")

ORDER = [1, 3, 4, 6, 7, "c", "h", "m", "p", "q", "r", "v"]


def head(major: int, number: int) -> bytes:
    """Return an item's head in its shortest form (RFC 8949 section 3)."""
    if number < 24:
        return bytes([major << 5 | number])
    width = next(width for width in (1, 2, 4, 8) if number < 1 << 8 * width)
    return bytes([major << 5 | 23 + width.bit_length()]) + number.to_bytes(width)


def deterministic(value: Any) -> bytes:
    """Write deterministic CBOR (RFC 8949 section 4.2.1): keys in bytewise order, which cbor2's older rule is not."""
    match value:
        case None:
            return b"\xf6"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(deterministic, value))
        case _:
            pairs = sorted((deterministic(key), deterministic(entry)) for key, entry in value.items())
            return head(5, len(value)) + b"".join(key + entry for key, entry in pairs)


def whole(version: Any, claims: Any, protected: Any, unprotected: Any, signature: Any) -> bytes:
    """Return an envelope of these parts; those that stand in byte strings are given as values."""
    return deterministic([version, deterministic(claims), [deterministic(protected), unprotected, None, signature]])


PRINCIPALS = st.text(st.characters(codec="utf-8", min_codepoint=33), min_size=1, max_size=60).filter(
    lambda text: "\x7f" not in text
)
TIMES = st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, NOW, (1 << 32) - 1, 1 << 32, (1 << 33) - 1])
NAMES = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda name: name.lower() != "watchword")
NAME_SETS = st.sets(NAMES, min_size=1, max_size=30).map(lambda names: sorted(names, key=str.encode))
HASHES = st.binary(min_size=32, max_size=32)
IDS = st.binary(min_size=16, max_size=16)
SOME_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
CLAIMS = st.fixed_dictionaries(
    {1: PRINCIPALS, 6: TIMES | st.integers(0, (1 << 33) - 1), 7: IDS, "c": SOME_TEXT},
    optional={
        3: PRINCIPALS,
        4: TIMES,
        "h": NAME_SETS,
        "m": HASHES,
        "p": st.sampled_from([0, 23, 24, 255, 256, 65535, 65536, (1 << 31) - 1]),
        "q": IDS,
        "r": SOME_TEXT,
        "v": HASHES,
    },
).filter(lambda claims: "m" in claims or "h" not in claims)
ALGORITHMS = st.sampled_from([-19, -9, 0, 5, -25, -(1 << 64), (1 << 64) - 1])
KEY_IDS = st.binary(min_size=1, max_size=128)
SIGNATURES = st.binary(max_size=128)
INCLUSIONS = st.integers(2, 4096).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, size - 1), st.lists(HASHES, min_size=1, max_size=12)).map(list)
)
ENVELOPES = st.builds(
    lambda claims, algorithm, key_id, proof, signature: whole(
        1,
        claims,
        {1: algorithm, 4: key_id} | ({} if proof is None else {395: 1}),
        {} if proof is None else {396: {-1: [deterministic(proof)]}},
        signature,
    ),
    CLAIMS, ALGORITHMS, KEY_IDS, st.none() | INCLUSIONS, SIGNATURES,
)  # fmt: skip


def read(raw: bytes) -> Envelope | None:
    """Read with a fresh reader; None if malformed, and nothing else may be raised."""
    try:
        return parse(text(raw))
    except Rejected as refused:
        reason = refused.reason
    assert reason is Reason.MALFORMED
    return None


def is_as_cbor2_reads_it(envelope: Envelope, raw: bytes) -> None:
    """Assert that cbor2 finds the same in these bytes, and that writing what it finds gives these bytes."""
    version, claims_bytes, proof = cbor2.loads(raw)
    protected, unprotected, payload, signature = proof
    assert (type(version), version, payload) == (int, 1, None)
    assert deterministic([version, claims_bytes, proof]) == raw
    claims, fields = cbor2.loads(claims_bytes), cbor2.loads(protected)
    assert (deterministic(claims), deterministic(fields)) == (claims_bytes, protected)
    assert list(claims) == [label for label in ORDER if label in claims]
    common = envelope.common
    assert (envelope.claims_bytes, common.protected, envelope.signature) == (claims_bytes, protected, signature)
    assert fields == {1: common.algorithm, 4: common.key_id} | ({395: 1} if envelope.size else {})
    if envelope.size:
        size, index, path = cbor2.loads(unprotected[396][-1][0])
        assert unprotected == {396: {-1: [deterministic([size, index, path])]}}
        assert (envelope.size, envelope.index, list(envelope.path)) == (size, index, path)
    else:
        assert (unprotected, envelope.index, envelope.path) == ({}, 0, ())
    wanted = {
        1: common.issuer, 3: common.recipient, 4: common.expires_at, 6: envelope.issued_at, 7: envelope.id,
        "c": common.channel,
        "h": list(common.covered) or None, "m": envelope.metadata_digest, "p": common.partition, "q": common.request_id,
        "r": common.reply_to, "v": envelope.value_digest,
    }  # fmt: skip
    assert {label: value for label, value in wanted.items() if value is not None} == claims
    assert [type(value) for value in claims.values()] == [type(wanted[label]) for label in claims]
    assert all(one.encode() < other.encode() for one, other in pairwise(common.covered))
    assert common.visible == set(common.covered)


@given(ENVELOPES)
@settings(max_examples=300)
def test_whatever_is_of_the_specifications_shape_is_read(raw: bytes) -> None:
    """Promise: each deterministic envelope of the specification's CDDL is read, up to 4096 bytes, as cbor2 reads it."""
    assume(len(raw) <= 4096)
    envelope = read(raw)
    assert envelope is not None
    is_as_cbor2_reads_it(envelope, raw)


BASES = [raw_of(press(kafka(), c3="bob", c4=NOW, q=b"q" * 16, r="x")), raw_of(press(kafka())), GOOD_TREE]
OTHER = [
    True, False, 1.0, float(NOW), None, cbor2.undefined, cbor2.CBORTag(2, b"\x01"), "1", b"1", [1], {1: 1}, -1, 0,
    1 << 33, 1 << 64, "", b"", "x" * 300, bytes(16), bytes(32), ["a"], ["b", "a"], [b"a"], ALICE,
]  # fmt: skip


@pytest.mark.slow
@given(st.data())
@settings(max_examples=500)
def test_bytes_changed_anywhere_are_read_alike_or_malformed(data: st.DataObject) -> None:
    """Promise (A07): flipped, cut, inserted and repeated bytes are malformed, or mean the same to cbor2."""
    raw = data.draw(st.sampled_from(BASES) | ENVELOPES)
    for _ in range(data.draw(st.integers(1, 3))):
        at, end = (data.draw(st.integers(0, len(raw))) for _ in range(2))
        some = data.draw(st.binary(max_size=3) | st.sampled_from([b"\x18", b"\x1b" + bytes(8), b"\xff", b"\xf5"]))
        match data.draw(st.sampled_from(["put", "insert", "cut", "end", "repeat"])):
            case "put":
                raw = raw[:at] + some + raw[at + len(some) :]
            case "insert":
                raw = raw[:at] + some + raw[at:]
            case "cut":
                raw = raw[: min(at, end)] + raw[max(at, end) :]
            case "end":
                raw = raw[:at]
            case _:
                raw = raw[:at] + raw[min(at, end) : max(at, end)] + raw[at:]
    envelope = read(raw)
    if envelope is not None:
        is_as_cbor2_reads_it(envelope, raw)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_every_byte_with_every_value(base: bytes) -> None:
    """Promise (A07): each byte, set to each value, taken out or doubled, is malformed or means the same to cbor2."""
    for at in range(len(base)):
        for byte in range(256):
            changed = base[:at] + bytes([byte]) + base[at + 1 :]
            envelope = read(changed)
            if envelope is not None:
                is_as_cbor2_reads_it(envelope, changed)
        assert read(base[:at]) is None
        assert read(base[:at] + base[at + 1 :]) is None
    assert read(base + b"\x00") is None


def loose(pairs: list[tuple[Any, Any]]) -> bytes:
    """Return a map as it is given: repeats, and out of order."""
    return head(5, len(pairs)) + b"".join(cbor2.dumps(key) + cbor2.dumps(value) for key, value in pairs)


@given(st.data())
@settings(max_examples=500)
def test_claims_of_another_make(data: st.DataObject) -> None:
    """Promise (A07): claims repeated, reordered, unknown, of another type or in a longer form are malformed."""
    version, claims, proof = cbor2.loads(data.draw(st.sampled_from(BASES)))
    pairs = list(cbor2.loads(claims).items())
    at = data.draw(st.integers(0, len(pairs) - 1))
    label, value = pairs[at]
    match data.draw(st.sampled_from(["twice", "order", "unknown", "other", "missing"])):
        case "twice":
            pairs.insert(data.draw(st.integers(0, len(pairs))), (label, value))
        case "order":
            pairs = data.draw(st.permutations(pairs))
        case "unknown":
            strange = data.draw(st.sampled_from([0, 2, 5, 8, -1, "", "a", "cc", "z", True, 1.0, None, b"c"]))
            pairs.insert(data.draw(st.integers(0, len(pairs))), (strange, value))
        case "other":
            pairs[at] = label, data.draw(st.sampled_from(OTHER))
        case _:
            del pairs[at]
    raw = cbor2.dumps([version, loose(pairs), proof])
    envelope = read(raw)
    if envelope is not None:
        is_as_cbor2_reads_it(envelope, raw)


@given(st.data())
@settings(max_examples=500)
def test_parts_of_another_make(data: st.DataObject) -> None:
    """Promise (A07): anything else in place of any part, tags and indefinite lengths too, is malformed."""
    raw = data.draw(st.sampled_from(BASES))
    version, claims, (protected, unprotected, payload, signature) = cbor2.loads(raw)
    strange = data.draw(st.sampled_from(OTHER))
    parts = [version, claims, protected, unprotected, payload, signature]
    at = data.draw(st.integers(0, 5))
    parts[at] = strange
    changed = cbor2.dumps([parts[0], parts[1], parts[2:]])
    how = data.draw(st.sampled_from(["as it is", "tagged", "indefinite", "in bytes"]))
    if how == "tagged":
        changed = cbor2.dumps(cbor2.CBORTag(18, cbor2.loads(raw)))
    elif how == "indefinite":
        changed = b"\x9f" + raw[1:] + b"\xff"
    elif how == "in bytes":
        changed = cbor2.dumps(raw)
    envelope = read(changed)
    if envelope is not None:
        assert how == "as it is"
        assert at in {2, 5} or changed == raw
        is_as_cbor2_reads_it(envelope, changed)
