"""Messages at the edges of the specification: signatures that libraries judge differently, limits, absent and empty."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from itertools import count
from typing import Any, Final, NamedTuple

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    ID,
    NOW,
    P256_ORDER,
    REALM,
    batched,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    press,
    protected_of,
    signature_of,
    structure,
)
from tests.vectors import trees
from tests.vectors.curve import BASE, EIGHTH, ORDER, Point, add, challenge, encoded, scalar, times
from watchword import SigningKey, VerificationKey
from watchword.spi import Channel, Message, Position

SECRET: Final = scalar(bytes([1]) * 32)  # that of ALICE_KEY
NONCE: Final = 2**200 + 6
BAD: Final = "bad_signature"
ODD_NAMES: Final = ("", " ", "\u0000", "\u0085", "\u00a0", "\ufeff", "\U0010ffff")


class Edge(NamedTuple):
    """One message, and what becomes of it: a reason, or None where it verifies."""

    name: str
    comment: str
    message: Message
    reason: str | None = None
    more: dict[str, Any] = {}  # noqa: RUF012 - never changed
    key_id: str = "alice-1"
    principal: str = ALICE
    id: bytes = ID


def edges() -> Iterator[Edge]:
    """Yield them all."""
    yield from _edwards()
    yield from _mixed()
    yield from _ecdsa()
    yield from _trees()
    yield from _limits()
    yield from _letter_case()
    yield from _absent_and_empty()
    yield from _clocks_and_places()


def _signed(message: Message, signature: bytes, protected: bytes, **changes: Any) -> Message:
    claims = cbor(claims_of(message, **changes))
    return bear(message, cbor2.dumps([1, claims, [protected, {}, None, signature]]))


def _edwards() -> Iterator[Edge]:
    message, protected = nats(), protected_of(ALICE_KEY)
    data = structure(protected, 0, cbor(claims_of(message)))
    good = signature_of(ALICE_KEY, data)
    s = int.from_bytes(good[32:], "little")
    for name, number in {
        "0": 0, "L - 1": ORDER - 1, "L": ORDER, "L + 1": ORDER + 1, "2^256 - 1": 2**256 - 1,
        "its own and L": s + ORDER,
    }.items():  # fmt: skip
        signed = _signed(message, good[:32] + number.to_bytes(32, "little"), protected)
        yield Edge(f"Ed25519, s is {name}", "s is below L, the order of the group.", signed, "bad_signature")
    public = encoded(times(SECRET, BASE))
    neutral = bytes([1]) + bytes(31)
    for name, r, reason in (
        ("R is the neutral element", neutral, None),
        ("R is the neutral element with a sign", neutral[:31] + b"\x80", "bad_signature"),
        ("R is the neutral element, p too large", (2**255 - 18).to_bytes(32, "little"), "bad_signature"),
        ("R is of order 2", encoded(times(4, EIGHTH)), "bad_signature"),
        ("R is of order 8", encoded(EIGHTH), "bad_signature"),
    ):
        answer = challenge(r, public, data) * SECRET % ORDER
        comment = "s B - k A is the neutral element, whose one encoding R must be."
        signed = _signed(message, r + answer.to_bytes(32, "little"), protected)
        yield Edge(f"Ed25519, {name}", comment, signed, reason)
    r = encoded(add(times(NONCE, BASE), EIGHTH))
    answer = (NONCE + challenge(r, public, data) * SECRET) % ORDER
    comment = "It holds only where both sides are multiplied by the cofactor, which they are not."
    signed = _signed(message, r + answer.to_bytes(32, "little"), protected)
    yield Edge("Ed25519, R has a part of order 8", comment, signed, "bad_signature")


def _mixed() -> Iterator[Edge]:
    """Yield signatures by a key that has a part of order 8."""
    public = encoded(add(times(SECRET, BASE), EIGHTH))
    key_id = b"alice-mixed"
    known = ed25519.Ed25519PublicKey.from_public_bytes(public)
    keys = [VerificationKey.from_public_key(known, principal=ALICE, key_id=key_id)]
    protected = protected_of(ALICE_KEY, c4=key_id)
    wanted: list[tuple[str, Point | None, Callable[[int], bool], str | None]] = [
        ("k divisible by 8", times(NONCE, BASE), lambda k: k % ORDER % 8 == 0 != k % 8, None),
        ("k divisible by 8 before it is reduced", times(NONCE, BASE), lambda k: k % 8 == 0 != k % ORDER % 8, BAD),
        ("k not divisible by 8", times(NONCE, BASE), lambda k: k % ORDER % 8 == 4, BAD),
        ("R with the part that this leaves", add(times(NONCE, BASE), EIGHTH), lambda k: k % ORDER % 8 == 7, None),
        ("R of order 8 itself", EIGHTH, lambda k: k % ORDER % 8 == 7, None),
    ]
    for name, point, fits, reason in wanted:
        r = encoded(point) if point else b""
        for number in count():
            identifier = number.to_bytes(16)
            data = structure(protected, 0, cbor(claims_of(nats(), c7=identifier)))
            k = challenge(r, public, data)
            if fits(k):
                break
        nonce = 0 if point == EIGHTH else NONCE
        signature = r + ((nonce + k * SECRET) % ORDER).to_bytes(32, "little")
        comment = "The key is allowed. k is reduced modulo L, and R must be exactly the encoding of s B - k A."
        signed = _signed(nats(), signature, protected, c7=identifier)
        yield Edge(
            f"Ed25519, a key of mixed order, {name}",
            comment,
            signed,
            reason,
            {"keys": keys},
            key_id.decode(),
            id=identifier,
        )


def _ecdsa() -> Iterator[Edge]:
    key_id, message = b"alice-chosen", nats()
    protected = protected_of(ALICE_EC_KEY, c4=key_id)
    data = structure(protected, 0, cbor(claims_of(message)))
    digest = int.from_bytes(sha256(data).digest())
    r = ec.derive_private_key(NONCE, ec.SECP256R1()).public_key().public_numbers().x % P256_ORDER
    half = P256_ORDER // 2
    for name, s, given, reason in (
        ("s is 1", 1, 1, None),
        ("s is n - 1", 1, P256_ORDER - 1, "bad_signature"),
        ("s is the largest", half, half, None),
        ("s is one too high", half, half + 1, "bad_signature"),
        ("s is 0", 1, 0, "bad_signature"),
        ("s is n", 1, P256_ORDER, "bad_signature"),
        ("s is n + 1", 1, P256_ORDER + 1, "bad_signature"),
    ):
        secret = (s * NONCE - digest) * pow(r, -1, P256_ORDER) % P256_ORDER
        private = SigningKey(ec.derive_private_key(secret, ec.SECP256R1()), key_id=key_id)
        keys = [VerificationKey.from_public_key(private.public, principal=ALICE, key_id=key_id)]
        signed = _signed(message, r.to_bytes(32) + given.to_bytes(32), protected)
        comment = "The key is made to fit: s and n - s solve the equation. s is 1 to (n - 1) / 2."
        yield Edge(f"ESP256, {name}", comment, signed, reason, {"keys": keys}, key_id.decode())
    good = signature_of(ALICE_EC_KEY, structure(protected_of(ALICE_EC_KEY), 0, cbor(claims_of(message))))
    for name, number in (("0", 0), ("n", P256_ORDER)):
        signed = _signed(message, number.to_bytes(32) + good[32:], protected_of(ALICE_EC_KEY))
        yield Edge(f"ESP256, r is {name}", "r is 1 to n - 1.", signed, "bad_signature")


def _trees() -> Iterator[Edge]:
    header = protected_of(ALICE_KEY, c395=1)
    for size, index in ((4096, 0), (4096, 2731), (4096, 4095), (4095, 4094), (2049, 2048)):
        message = nats()
        entries = [b"%d" % number for number in range(size)]
        entries[index] = cbor(claims_of(message))
        signature = signature_of(ALICE_KEY, structure(header, size, trees.root(entries)))
        path = trees.path(index, entries)
        raw = batched(entries[index], header, signature, size=size, index=index, path=path)
        comment = f"Its path has {len(path)} hashes."
        yield Edge(f"leaf {index} of {size}", comment, bear(message, raw))
        if size == 2049:
            raw = batched(entries[index], header, signature, size=size, index=index, path=[*path, *path])
            yield Edge(f"leaf {index} of {size}, path too long", comment, bear(message, raw), "bad_signature")


def _limits() -> Iterator[Edge]:
    topic, subject = "t" * 249, "s" * (1024 - len("nats://prod/"))
    yield Edge("the longest topic", "249 characters.", press(kafka(reader="", channel=Channel("kafka", REALM, topic))))
    yield Edge("the longest channel that is signed", "1024.", press(nats(channel=Channel("nats", REALM, subject))))
    longer = Channel("nats", REALM, subject + "s" * 1000)
    yield Edge("a longer channel", "A limit for signers only.", press(nats(channel=longer)))
    realm = "a-" * 31 + "0"
    in_realm = press(kafka(reader="", channel=Channel("kafka", realm, "tasks")))
    yield Edge("the longest realm", "63 characters.", in_realm, more={"realm": realm})
    for name, principal in (
        ("255 bytes", "é" * 127 + "x"),
        ("one character", "x"),
        ("other blanks at its ends", "\u00a0x\u2003"),
        ("a blank and controls of C1 inside", "x y\u0085\u009f"),
        ("a line separator and a mark of direction", "x\u2028\u202e"),
        ("letters that look composed and are not", "e\u0301"),
    ):
        keys = [VerificationKey.from_public_key(ALICE_KEY.public, principal=principal, key_id=b"alice-1")]
        sent = press(nats(), principal=principal, c3=principal)
        more = {"keys": keys, "principal": principal}
        yield Edge(f"a principal of {name}", "As sender and recipient.", sent, None, more, principal=principal)
    key = VerificationKey.from_public_key(ALICE_KEY.public, principal="\u00e9", key_id=b"alice-1")
    sent = press(nats(), principal="e\u0301")
    comment = "Nothing is normalized: these are two principals."
    yield Edge("a principal composed otherwise", comment, sent, "wrong_principal", {"keys": [key]})
    for name, raw, text in (("128 bytes", b"k" * 128, "k" * 128), ("one byte", b"k", "k")):
        keys = [VerificationKey.from_public_key(ALICE_KEY.public, principal=ALICE, key_id=raw)]
        signed = bear(nats(), direct(cbor(claims_of(nats())), c4=raw))
        yield Edge(f"a key id of {name}", "", signed, None, {"keys": keys}, text)
    signed = bear(nats(), direct(cbor(claims_of(nats())), c4=b"\xff"))
    yield Edge("a key id that is not UTF-8", "It is no malformed one, and no key has it.", signed, "unknown_key")
    for name, alg in (("2^64 - 1", 2**64 - 1), ("-2^64", -(2**64)), ("0", 0)):
        signed = bear(nats(), direct(cbor(claims_of(nats())), c1=alg))
        yield Edge(f"an algorithm of {name}", "Any integer may stand there.", signed, "bad_signature")
    latest = 2**33 - 1
    last = press(kafka(reader="", appended_at=latest), c6=latest)
    yield Edge("the latest time", "", last, more={"now": latest})
    yield Edge("the latest end", "", press(nats(), c4=latest))


def _letter_case() -> Iterator[Edge]:
    both = press(kafka(reader="", headers=(("A", b"1"), ("a", b"2"))))
    upper, _, envelope = both.headers
    yield Edge("two names in two letter cases", "Two names; A stands before a in h.", both)
    swapped = replace(both, headers=(("a", b"1"), ("A", b"2"), envelope))
    yield Edge("their letter cases swapped", "", swapped, "altered")
    added = press(kafka(reader="", headers=(("a", b"2"),)))
    added = replace(added, headers=(upper, *added.headers))
    visible = {"visible": [[["a", "Mg=="]]]}
    yield Edge("another letter case, added", "It is another name, not covered, and hidden.", added, None, visible)
    tracing = press(kafka(reader="", headers=()))
    tracing = replace(tracing, headers=(("Traceparent", b"1"), ("traceparent", b"2"), *tracing.headers))
    visible = {"visible": [[["traceparent", "Mg=="]]]}
    yield Edge("tracing in two letter cases", "Only the lower one is let through.", tracing, None, visible)
    covered = press(kafka(reader="", headers=()), h=["traceparent"], m=sha256(cbor2.dumps([b"k1", []])).digest())
    yield Edge("tracing that is covered, and gone", "What is in h may be there no more than once signed.", covered)
    covered = replace(covered, headers=(("traceparent", b"1"), *covered.headers))
    yield Edge("tracing that is covered, and added", "", covered, "altered")
    sent = press(nats())
    for name in ("nats-msg-id", "NATS-MSG-ID"):
        found = replace(sent, headers=((name, b"other"), *sent.headers))
        visible = {"visible": [[["Content-Type", "YXBwbGljYXRpb24vanNvbg=="]]]}
        yield Edge(f"{name} is any other header", "", found, None, visible)
    twice = (("Nats-Msg-Id", ID.hex().encode()), ("Nats-Msg-Id", b"other"))
    comment = "Each of them is compared."
    yield Edge("a second Nats-Msg-Id", comment, replace(sent, headers=(*twice, *sent.headers)), "altered")
    capitals = (("Nats-Msg-Id", bytes(range(0xA0, 0xB0)).hex().upper().encode()),)
    found = press(nats(), c7=bytes(range(0xA0, 0xB0)))
    found = replace(found, headers=(*capitals, *found.headers))
    yield Edge("Nats-Msg-Id in capitals", "The digits are in lower case.", found, "altered")
    on_kafka = press(kafka(reader=""))
    on_kafka = replace(on_kafka, headers=(("Nats-Msg-Id", b"other"), *on_kafka.headers))
    yield Edge("Nats-Msg-Id on Kafka", "It has no meaning there.", on_kafka)


def _absent_and_empty() -> Iterator[Edge]:
    empty = kafka(reader="", key=b"", value=b"", headers=(("", b""),))
    yield Edge("everything empty", "", press(empty))
    nothing = kafka(reader="", key=None, value=None, headers=(("", None),))
    yield Edge("everything absent, a header null", "", press(nothing))
    changes: dict[str, dict[str, Any]] = {
        "an empty header to null": {"headers": (("", None),)},
        "an empty header gone": {"headers": ()},
        "an empty key to absent": {"key": None},
        "an empty value to absent": {"value": None},
    }
    envelope = press(empty).headers[-1]
    for name, change in changes.items():
        found = replace(empty, **change)
        yield Edge(name, "", replace(found, headers=(*found.headers, envelope)), "altered")
    null_to_empty = replace(press(nothing), headers=(("", b""), press(nothing).headers[-1]))
    yield Edge("a null header to empty", "", null_to_empty, "altered")
    bare = press(nats(headers=(), value=b""))
    yield Edge("nothing but an empty value on NATS", "", bare)
    without = press(nats(headers=(), value=b""), v=ABSENT)
    comment = "A payload on NATS is never absent, so v is always there."
    yield Edge("no v for an empty value on NATS", comment, without, "altered")
    nobody: dict[str, Any] = {"principal": None}
    yield Edge("no recipient, and a verifier without a name", "", press(nats()), None, nobody)
    yield Edge("an empty header named watchword", "", nats(headers=(("watchword", b""),)), "malformed")
    yield Edge("odd names", "Any Unicode text.", press(kafka(reader="", headers=[(n, b"1") for n in ODD_NAMES])))
    yield Edge("m of a null key and a name that no header has", "", press(
        kafka(reader="", key=None, headers=()), h=["x"], m=sha256(cbor2.dumps([None, []])).digest()
    ))  # fmt: skip


def _clocks_and_places() -> Iterator[Edge]:
    plain = {"position": None, "appended_at": None}
    comment = "Without a stamp or an interval both bounds are the present time."
    old = press(kafka(reader="", **plain), c6=NOW - 304)
    yield Edge("on Kafka, no append time at all, as old as allowed", comment, old)
    older = press(kafka(reader="", **plain), c6=NOW - 305)
    yield Edge("on Kafka, no append time at all, too old", comment, older, "stale")
    stored = press(nats(position=Position("", 7)), c6=NOW - 305)
    yield Edge("on NATS, a position and no append time, too old", comment, stored, "stale")
    answered = press(kafka(reader=""), r="answers")
    comment = "Kafka has no reply subject, and its offset is no stream's position."
    yield Edge("a reply subject on Kafka", comment, answered, "wrong_reply_to")
