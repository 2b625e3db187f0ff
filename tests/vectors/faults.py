"""Envelopes with one fault each, signed and honest in all else: what makes an envelope ``malformed``."""

from hashlib import sha256
from itertools import product
from string import ascii_letters
from typing import Any

import cbor2

from tests.unit.core.world import (
    ABSENT,
    ALICE_KEY,
    ID,
    NOW,
    cbor,
    claims_of,
    direct,
    kafka,
    protected_of,
    signature_of,
    structure,
    text,
)

MESSAGE = kafka()
CLAIMS = claims_of(MESSAGE)
ENTRY = cbor(CLAIMS)
HEADER = protected_of(ALICE_KEY)
SIGNATURE = signature_of(ALICE_KEY, structure(HEADER, 0, ENTRY))
HASH = sha256(b"the other leaf").digest()
LIMIT = 5462
NAMES = sorted(map("".join, product(ascii_letters, repeat=2)))
"""More names of headers than a message may have, sorted, and so short that an envelope holds them."""


def _envelope(*, version: Any = 1, claims: Any = ENTRY, proof: Any = None, more: tuple[Any, ...] = ()) -> bytes:
    if proof is None:
        signed = claims if isinstance(claims, bytes) else ENTRY
        proof = [HEADER, {}, None, signature_of(ALICE_KEY, structure(HEADER, 0, signed))]
    return cbor2.dumps([version, claims, proof, *more])


def _claims(**changes: Any) -> bytes:
    return direct(cbor(claims_of(MESSAGE, **changes)))


def _protected(**changes: Any) -> bytes:
    return direct(ENTRY, **changes)


def _headed(protected: bytes) -> bytes:
    signature = signature_of(ALICE_KEY, structure(protected, 0, ENTRY))
    return _envelope(proof=[protected, {}, None, signature])


def _tree(unprotected: Any, tree: Any = 1) -> bytes:
    """Return the envelope of the left leaf in a signed tree of two, whose proof is ``unprotected``."""
    header = protected_of(ALICE_KEY, c395=tree)
    root = sha256(b"\x01" + sha256(b"\x00" + ENTRY).digest() + HASH).digest()
    return _envelope(proof=[header, unprotected, None, signature_of(ALICE_KEY, structure(header, 2, root))])


def _inclusion(*proof: Any) -> bytes:
    return _tree({396: {-1: [cbor2.dumps(list(proof))]}})


HONEST = cbor2.dumps([2, 0, [HASH]])
GOOD_TREE = _tree({396: {-1: [HONEST]}})

MALFORMED = {
    "not an array": cbor2.dumps({}),
    "version missing": cbor2.dumps([ENTRY, [HEADER, {}, None, SIGNATURE]]),
    "version 2": _envelope(version=2),
    "version 0": _envelope(version=0),
    "version true": _envelope(version=True),
    "version as float": _envelope(version=1.0),
    "version as text": _envelope(version="1"),
    "a fourth part": _envelope(more=(0,)),
    "claims not bytes": _envelope(claims=CLAIMS),
    "claims not a map": _envelope(claims=cbor2.dumps([])),
    "claims not CBOR": _envelope(claims=b"\xff"),
    "claims with bytes after them": _envelope(claims=ENTRY + b"\x00"),
    "claims unsorted": _envelope(claims=cbor2.dumps(dict(reversed(CLAIMS.items())))),
    "proof not an array": _envelope(proof={}),
    "proof tagged": _envelope(proof=cbor2.CBORTag(18, [HEADER, {}, None, SIGNATURE])),
    "proof of three": _envelope(proof=[HEADER, {}, SIGNATURE]),
    "proof of five": _envelope(proof=[HEADER, {}, None, SIGNATURE, 0]),
    "protected not bytes": _envelope(proof=[{1: -19}, {}, None, SIGNATURE]),
    "protected empty": _headed(b""),
    "protected not a map": _headed(cbor2.dumps([])),
    "protected unsorted": _headed(cbor2.dumps({4: b"alice-1", 1: -19})),
    "protected with another field": _protected(c2=[1]),
    "unprotected not a map": _envelope(proof=[HEADER, [], None, SIGNATURE]),
    "unprotected key id": _envelope(proof=[HEADER, {4: b"alice-1"}, None, SIGNATURE]),
    "unprotected proof beside a direct signature": _envelope(proof=[HEADER, {396: {-1: [b""]}}, None, SIGNATURE]),
    "payload attached": _envelope(proof=[HEADER, {}, ENTRY, SIGNATURE]),
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
    "tree algorithm unknown": _tree({396: {-1: [HONEST]}}, 2),
    "tree algorithm null": _tree({396: {-1: [HONEST]}}, None),
    "tree without proof": _tree({}),
    "tree with two proofs": _tree({396: {-1: [HONEST] * 2}}),
    "tree with no inclusion proof": _tree({396: {-1: []}}),
    "tree with a consistency proof": _tree({396: {-2: [HONEST]}}),
    "tree with more": _tree({396: {-1: [HONEST]}, 397: 0}),
    "tree with more proofs": _tree({396: {-1: [HONEST], 1: 0}}),
    "inclusion not bytes": _tree({396: {-1: [[2, 0, [HASH]]]}}),
    "inclusion not CBOR": _tree({396: {-1: [b"\xff"]}}),
    "inclusion cut off": _tree({396: {-1: [HONEST[:-1]]}}),
    "inclusion with bytes after it": _tree({396: {-1: [HONEST + b"\x00"]}}),
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
    "path of 2^36 that is not there": _tree({396: {-1: [b"\x83\x02\x00\x9b" + (1 << 36).to_bytes(8)]}}),
    "path of 2^64 - 1 that is not there": _tree({396: {-1: [b"\x83\x02\x00\x9b" + b"\xff" * 8]}}),
    "names of 2^64 - 1 that are not there": direct(ENTRY[: ENTRY.index(b"\x61h") + 2] + b"\x9b" + b"\xff" * 8),
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
    "1025 names": _claims(h=NAMES[:1025]),
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
    "an integer in a longer form": direct(ENTRY.replace(b"\x06\x1a" + NOW.to_bytes(4), b"\x06\x1b" + NOW.to_bytes(8))),
    "an array of indefinite length": b"\x9f" + _envelope()[1:] + b"\xff",
    "a claim twice": direct(bytes([ENTRY[0] + 1]) + b"\x01\x63bob" + ENTRY[1:]),
    "bytes after the envelope": _envelope() + b"\x00",
    "over 4096 bytes": _claims(r="x" * 4000),
}


def _text() -> bytes:
    """Return an honest envelope's text that holds both characters by which the two alphabets differ."""
    for number in range(1 << 16):
        found = text(_claims(c7=number.to_bytes(16)))
        if b"-" in found and b"_" in found:
            return found
    raise AssertionError("no such envelope")


GOOD_TEXT = _text()
"""Its length leaves 3 when divided by 4, so one '=' would pad it, and two bits of its last character are idle."""

MALFORMED_TEXT = {
    "empty": b"",
    "one character": b"g",
    "padded": GOOD_TEXT + b"=",
    "a standard slash": GOOD_TEXT.replace(b"_", b"/"),
    "a standard plus": GOOD_TEXT.replace(b"-", b"+"),
    "a blank at the end": GOOD_TEXT + b" ",
    "a line break inside": GOOD_TEXT[:40] + b"\n" + GOOD_TEXT[40:],
    "not ASCII": GOOD_TEXT[:40] + b"\xc3\xa9" + GOOD_TEXT[40:],
    "stray low bits": GOOD_TEXT[:-1] + bytes([GOOD_TEXT[-1] + 1]),
    "over the limit": b"A" * (LIMIT + 1),
    "half of it": GOOD_TEXT[: len(GOOD_TEXT) // 2],
    "a character missing": GOOD_TEXT[:-1],
}
