"""Writes the test vectors: ``python -m tests.vectors.generate``. The same bytes come out every time.

Envelopes are pressed from the specification (see ``tests/unit/core/world.py``), not by the product's signer.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, Final

import cbor2

from tests.unit.core.world import (
    ABSENT,
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    ID,
    MALLORY,
    MALLORY_KEY,
    NOW,
    P256_ORDER,
    REALM,
    batch,
    batched,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    known_keys,
    nats,
    press,
    protected_of,
    public,
    raw_of,
    signature_of,
    structure,
)
from tests.vectors import faults, post_quantum, trees
from tests.vectors.edges import Edge, edges
from tests.vectors.keysets import keysets
from watchword import SigningKey, VerificationKey
from watchword.jwk import to_jwk
from watchword.spi import Channel, Message, Position

FOLDER: Final = Path(__file__).parent / "v1"
KEYSETS: Final = Path(__file__).parent / "keysets.json"
KEYSETS_ML_DSA: Final = Path(__file__).parent / "keysets_ml_dsa.json"
SEEN_AT: Final = NOW + 1
Vector = dict[str, Any]

_INBOX: Final = Channel("nats", REALM, "_INBOX.bob.1")
_STORED: Final = {"position": Position("", 7), "appended_at": NOW + 0.5}


def files() -> dict[str, list[Vector]]:
    """Return all vectors by file name."""
    made = {
        "accepted": _accepted(),
        "unsigned": _unsigned(),
        "malformed": _malformed(),
        "misdirected": _misdirected(),
        "time": _time(),
        "keys": _keys(),
        "signature": _signature(),
        "altered": _altered(),
        "replay": _replay(),
        "policy": _policy(),
        "edges": _of(edges()),
        "ml_dsa": _ml_dsa(),
    }
    return {name: list(vectors) for name, vectors in made.items()}


def main() -> None:
    """Write all files."""
    for name, vectors in files().items():
        (FOLDER / f"{name}.json").write_text(render(vectors), encoding="utf-8")
    KEYSETS.write_text(render(list(keysets())), encoding="utf-8")
    KEYSETS_ML_DSA.write_text(render(list(post_quantum.keysets())), encoding="utf-8")


def render(vectors: Sequence[Vector]) -> str:
    """Return the text of a file: a JSON list with one case a line, so that a diff shows the cases that differ."""
    return "[\n" + ",\n".join(json.dumps(each, ensure_ascii=False) for each in vectors) + "\n]\n"


def accepted(key: SigningKey = ALICE_KEY, *, message_id: bytes = ID, **changes: Any) -> Vector:
    """Return the verdict on a message that verifies."""
    return {
        "verdict": "verified",
        "principal": ALICE,
        "key_id": key.key_id.decode(),
        "id": message_id.hex(),
        "redelivered": False,
    } | changes


def rejected(reason: str) -> Vector:
    """Return the verdict on a message that does not."""
    return {"verdict": "rejected", "reason": reason}


def vector(
    name: str,
    comment: str,
    messages: Message | Sequence[Message],
    verdicts: str | Vector | Sequence[Vector],
    *,
    keys: Sequence[VerificationKey] | None = None,
    **more: Any,
) -> Vector:
    """Return one vector; ``verdicts`` may be a single one, or a reason."""
    messages = [messages] if isinstance(messages, Message) else messages
    if isinstance(verdicts, str):
        verdicts = rejected(verdicts)
    if isinstance(verdicts, dict):
        verdicts = [verdicts]
    return {
        "name": name,
        "comment": comment,
        "realm": REALM,
        "principal": BOB,
        "now": SEEN_AT,
        "keys": {"keys": [to_jwk(key) for key in (known_keys() if keys is None else keys)]},
        **more,
        "messages": [as_json(message) for message in messages],
        "verdicts": list(verdicts),
    }


def as_json(message: Message) -> Vector:
    """Return a message in the shape that the specification gives."""
    found: Vector = {"channel": message.channel.uri, "partition": message.partition}
    if message.position is not None:
        found["offset"] = message.position.offset
    if message.appended_between is not None:
        earliest, latest = message.appended_between
        found["appended_between"] = [None if earliest == -inf else earliest, latest]
    for name in ("appended_at", "created_at"):
        if getattr(message, name) is not None:
            found[name] = getattr(message, name)
    if message.delivered_by is not None:
        found["delivered_by"] = list(message.delivered_by)
    return found | {
        "key": _base64(message.key),
        "value": _base64(message.value),
        "headers": [[name, _base64(value)] for name, value in message.headers],
        "reply_to": message.reply_to,
    }


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _record(**fields: Any) -> Message:
    return kafka(reader="", **fields)


def _accepted() -> Iterator[Vector]:
    shapes: list[tuple[str, str, Message]] = [
        ("kafka", "A record with key, value and one header.", _record()),
        ("kafka null value", "A tombstone: no v claim.", _record(value=None)),
        ("kafka empty value", "v is the digest of nothing, which is not absent.", _record(value=b"")),
        ("kafka large value", "100 kB; the envelope does not grow.", _record(value=bytes(range(250)) * 400)),
        ("kafka binary value", "A value need not be text.", _record(value=bytes(range(256)))),
        ("kafka no key", "m covers the headers, with null for the key.", _record(key=None)),
        ("kafka empty key", "An empty key is not an absent one.", _record(key=b"")),
        ("kafka no headers", "m covers the key alone; h is absent.", _record(headers=())),
        (
            "kafka nothing",
            "No key, no value, no header: neither m, h nor v.",
            _record(key=None, value=None, headers=()),
        ),
        ("kafka null header value", "", _record(headers=(("a", None), ("b", b"")))),
        (
            "kafka duplicate headers",
            "h names them once; m has all, in order.",
            _record(headers=(("b", b"1"), ("a", b"2"), ("b", b"1"))),
        ),
        (
            "kafka header names",
            "Sorted by their UTF-8 bytes.",
            _record(
                headers=(("é", b"1"), ("Z", b"2"), ("a", b"3"), ("", b"4"), ("\U0001f600", b"5"), ("\uffff", b"6"))
            ),
        ),
        ("kafka partition", "Another partition than 0.", _record(partition=11, position=Position("tasks/11", 12))),
        ("kafka largest partition", "", _record(partition=(1 << 31) - 1)),
        (
            "kafka create time",
            "The record's timestamp is a producer's, 5 s off: the skew.",
            _record(appended_at=None, created_at=NOW - 5),
        ),
        ("nats", "A core NATS message with one header.", nats(reader="")),
        ("nats no headers", "", nats(headers=())),
        ("nats empty value", "", nats(value=b"")),
        ("nats reply subject", "Signed, and there.", nats(reply_to="_INBOX.alice.7")),
        (
            "nats reply subject at a stream",
            "The broker has put its ack subject in place of the signed reply subject.",
            nats(reply_to="_INBOX.alice.7", **_STORED),
        ),
        (
            "nats own message id",
            "An application's own Nats-Msg-Id is covered.",
            nats(headers=(("Nats-Msg-Id", b"order-7"),)),
        ),
    ]
    for name, comment, message in shapes:
        found = press(message)
        if name == "nats reply subject at a stream":
            found = replace(found, reply_to="$JS.ACK.TASKS.worker.1.7.1.0.0")
        yield vector(name, comment, found, accepted())
    id_header = ("Nats-Msg-Id", ID.hex().encode())
    stored = press(nats(**_STORED))
    yield vector(
        "nats message id",
        "Nats-Msg-Id is the message's id: not covered, compared, and hidden from the handler.",
        replace(stored, headers=(*stored.headers, id_header)),
        accepted(),
        visible=[[["Content-Type", _base64(b"application/json")]]],
    )
    message = press(nats())
    added = (("Authorization", b"x"), ("traceparent", b"00-1"), ("tracestate", b"s"))
    yield vector(
        "added headers",
        "What the sender did not cover is hidden from the handler, traceparent and tracestate apart.",
        replace(message, headers=(*added, *message.headers)),
        accepted(),
        visible=[
            [
                ["traceparent", _base64(b"00-1")],
                ["tracestate", _base64(b"s")],
                ["Content-Type", _base64(b"application/json")],
            ]
        ],
    )
    yield vector(
        "unsigned reply subject", "It is hidden.", replace(press(nats()), reply_to="_INBOX.mallory"), accepted()
    )
    yield vector(
        "header in capitals", "The name is matched in any letter case.", _renamed(message, "WATCHWORD"), accepted()
    )
    yield vector("recipient", "", press(nats(), c3=BOB), accepted())
    yield vector("expiry", "exp lies one second ahead.", press(nats(), c4=SEEN_AT + 1), accepted())
    yield vector("esp256", "", press(nats(), key=ALICE_EC_KEY), accepted(ALICE_EC_KEY))
    yield vector(
        "answer",
        "q is the id of a pending request; the reply comes from the one it was addressed to.",
        press(nats(channel=_INBOX), q=b"q" * 16),
        accepted(),
        expected_context=_asked(ALICE),
    )
    yield vector(
        "shared store without partition",
        "With a replay store that all readers share, a Kafka message needs no p.",
        press(_record(), p=ABSENT),
        accepted(),
        shared_replay=True,
    )
    yield vector(
        "delivery of the bound consumer",
        "",
        press(nats(delivered_by=("TASKS", "worker"), **_STORED)),
        accepted(),
        expected_context={"consumer": ["TASKS", "worker"]},
    )
    for size in (2, 3, 7, 64):
        yield _batch(size, ALICE_KEY)
    yield _batch(3, ALICE_EC_KEY)


def _batch(size: int, key: SigningKey) -> Vector:
    ids = [bytes([index]) * 16 for index in range(size)]
    messages = [_record(value=bytes([index]), position=Position("tasks/0", index)) for index in range(size)]
    entries = [cbor(claims_of(message, c7=number)) for message, number in zip(messages, ids, strict=True)]
    return vector(
        f"batch of {size}, {key.algorithm.name}",
        "One signed tree; each message is verifiable alone.",
        [bear(message, raw) for message, raw in zip(messages, batch(entries, key), strict=True)],
        [accepted(key, message_id=number) for number in ids],
    )


def _asked(recipient: str | None, *, only_replies: bool = True) -> Vector:
    request = {"id": (b"q" * 16).hex(), "channel": "nats://prod/tasks.scale", "recipient": recipient}
    return {"requests": [request], "only_replies": only_replies}


def _renamed(message: Message, name: str) -> Message:
    return replace(message, headers=(*message.headers[:-1], (name, message.headers[-1][1])))


def _unsigned() -> Iterator[Vector]:
    yield vector("no header", "", nats(headers=()), "unsigned")
    yield vector("other headers", "", _record(headers=(("watchwords", b"x"), ("watch-word", b"y"))), "unsigned")
    huge = nats(headers=(("x", bytes(66_000)),))
    yield vector("huge headers", "Without an envelope they are unsigned, whatever their size.", huge, "unsigned")


def _malformed() -> Iterator[Vector]:
    message = press(_record())
    twice = replace(message, headers=(*message.headers, message.headers[-1]))
    yield vector("two envelopes", "", twice, "malformed")
    yield vector("two envelopes in two letter cases", "", _renamed(twice, "Watchword"), "malformed")
    yield vector("a second, null envelope", "", _with_header(message, "WATCHWORD", None), "malformed")
    yield vector("a null envelope", "", _record(headers=(("watchword", None),)), "malformed")
    room = 65_536 - sum(len(name) + len(value or b"") for name, value in message.headers) - len("é".encode())
    full = _with_header(message, "é", bytes(room))
    yield vector("headers at the limit", "65536 bytes of UTF-8 names and values.", full, accepted())
    yield vector("headers over the limit", "65537 bytes.", _with_header(message, "é", bytes(room + 1)), "malformed")
    alices = [public(ALICE_KEY, ALICE)]
    for count, signed, bare in ((1024, accepted(), "unsigned"), (1025, rejected("malformed"), "malformed")):
        crowded = count - len(message.headers)
        yield vector(f"{count} headers", "One is the envelope.", message, signed, empty_headers=crowded)
        yield vector(f"{count} headers, no envelope", "", _record(headers=()), bare, empty_headers=count)
    names = sorted([*faults.NAMES[:1023], "content-type"])
    yield vector("1024 names", "As many as a message may have headers.", press(_record(), h=names), accepted())
    for name, header in faults.MALFORMED_TEXT.items():
        yield vector(name, "", _record(headers=(("watchword", header),)), "malformed", keys=alices)
    for name, raw in faults.MALFORMED.items():
        yield vector(name, "", bear(_record(), raw), "malformed", keys=alices)


def _with_header(message: Message, name: str, value: bytes | None) -> Message:
    return replace(message, headers=(*message.headers, (name, value)))


def _misdirected() -> Iterator[Vector]:
    for name, uri in {
        "another topic": "kafka://prod/other",
        "another bus": "nats://prod/tasks",
        "another realm": "kafka://staging/tasks",
        "a percent-encoded name": "kafka://prod/task%73",
    }.items():
        yield vector(name, "", press(_record(), c=uri), "wrong_channel")
    foreign = _record(channel=Channel("kafka", "staging", "tasks"))
    yield vector("a channel of another realm than the verifier's", "", press(foreign), "wrong_channel")
    yield vector("another partition", "", press(_record(), p=1), "wrong_partition")
    yield vector("no partition", "", press(_record(), p=ABSENT), "wrong_partition")
    yield vector("a partition on NATS", "", press(nats(), p=0), "wrong_partition")
    shared = press(_record(), p=1)
    yield vector("another partition, shared store", "", shared, "wrong_partition", shared_replay=True)
    swapped = replace(press(nats(reply_to="_INBOX.1")), reply_to="_INBOX.2")
    yield vector("reply subject swapped", "", swapped, "wrong_reply_to")
    yield vector("reply subject removed", "", replace(swapped, reply_to=None), "wrong_reply_to")
    order = press(nats(reply_to="$JS.API.STREAM.PURGE.X"))
    yield vector("reply subject of the server", "An answer there would be an order.", order, "wrong_reply_to")
    stored = press(nats(**_STORED), r="$JS.API.STREAM.PURGE.X")
    yield vector("reply subject of the server, at a stream position", "", stored, "wrong_reply_to")
    yield vector("another recipient", "", press(nats(), c3=MALLORY), "wrong_recipient")
    nameless = vector("a recipient, and a verifier without a name", "", press(nats(), c3=BOB), "wrong_recipient")
    yield nameless | {"principal": None}
    answer = press(nats(channel=_INBOX), q=b"p" * 16)
    yield vector("answer to another request", "", answer, "wrong_request", expected_context=_asked(ALICE))
    yield vector("answer to nothing", "q without any pending request.", answer, "wrong_request")
    echo = press(nats(channel=_INBOX))
    yield vector("no answer at all", "", echo, "wrong_request", expected_context=_asked(None))
    for name, by in {"another consumer": ("TASKS", "other"), "another stream": ("OTHER", "worker")}.items():
        message = press(nats(delivered_by=by, **_STORED))
        yield vector(name, "", message, "wrong_delivery", expected_context={"consumer": ["TASKS", "worker"]})
    message = press(nats(**_STORED))
    context = {"consumer": ["TASKS", "worker"]}
    yield vector("no ack subject", "", message, "wrong_delivery", expected_context=context)


def _time() -> Iterator[Vector]:
    oldest, newest = _record(appended_at=NOW + 305), _record(appended_at=NOW - 5)
    yield vector("as old as allowed", "max_age + max_skew = 305 s.", press(oldest), accepted())
    yield vector("too old", "", press(_record(appended_at=NOW + 305.5)), "stale")
    yield vector("as new as allowed", "max_skew = 5 s.", press(newest), accepted())
    yield vector("from the future", "", press(_record(appended_at=NOW - 5.5)), "from_future")
    yield vector("too old at the present time", "Without a broker's stamp.", press(nats(), c6=SEEN_AT - 306), "stale")
    yield vector("from the present's future", "", press(nats(), c6=SEEN_AT + 6), "from_future")
    backlog = vector("a backlog", "Fresh when the broker appended it; read a day later.", press(_record()), accepted())
    yield backlog | {"now": NOW + 86_400}
    yield vector("expired", "exp is the present second.", press(nats(), c4=SEEN_AT), "expired")
    late = vector(
        "expired in a backlog", "exp is judged at the present time.", press(_record(), c4=NOW + 60), "expired"
    )
    yield late | {"now": NOW + 61}
    policy = {"max_age": 10, "max_skew": 2}
    yield vector("another policy", "", press(_record(appended_at=NOW + 13)), "stale", policy=policy)
    comment = "By the reader's looks at the log's end it was appended in this interval."
    for name, between, verdict in (
        ("as old as allowed at the earliest", (NOW + 305.0, NOW + 900.0), accepted()),
        ("too old even at the earliest", (NOW + 305.5, NOW + 900.0), rejected("stale")),
        ("as new as allowed at the latest", (NOW - 90.0, NOW - 5.0), accepted()),
        ("from the future even at the latest", (NOW - 90.0, NOW - 5.5), rejected("from_future")),
        ("a backlog without a look", (-inf, NOW + 86_400.0), accepted()),
    ):
        yield vector(name, comment, press(_looked(between)), verdict) | {"now": NOW + 86_400}
    stamped = replace(_looked((-inf, NOW + 900.0)), appended_at=NOW + 305.5)
    yield vector("a stamp comes before looks", "", press(stamped), "stale")
    yield vector("at time 0", "", press(_record(appended_at=0), c6=0), accepted())


def _looked(between: tuple[float, float], **fields: Any) -> Message:
    return _record(appended_at=None, created_at=NOW, appended_between=between, **fields)


def _keys() -> Iterator[Vector]:
    message = press(_record())
    yield vector("no such key", "", message, "unknown_key", keys=[public(BOB_KEY, BOB)])
    raw = direct(cbor(claims_of(nats())), MALLORY_KEY, c4=b"mallory-own")
    yield vector("the attacker's own key", "", bear(nats(), raw), "unknown_key")
    yield vector("another agent's key", "", press(nats(), key=BOB_KEY), "wrong_principal")
    for name, times, reason in (
        ("not yet valid", {"not_before": NOW + 1}, "key_not_valid"),
        ("valid from now", {"not_before": NOW}, None),
        ("no longer valid", {"not_after": NOW}, "key_not_valid"),
        ("valid until now", {"not_after": NOW + 1}, None),
        ("revoked", {"revoked_at": SEEN_AT}, "key_revoked"),
        ("revoked later", {"revoked_at": SEEN_AT + 1}, None),
    ):
        comment = "nbf and exp of a key are judged at the reference time, without skew; revoked at the present time."
        verdict = accepted() if reason is None else rejected(reason)
        yield vector(name, comment, message, verdict, keys=[public(ALICE_KEY, ALICE, **times)])
    backlog = vector(
        "revoked before a backlog was read",
        "",
        message,
        "key_revoked",
        keys=[public(ALICE_KEY, ALICE, revoked_at=NOW + 9)],
    )
    yield backlog | {"now": NOW + 3600}
    ended = [public(ALICE_KEY, ALICE, not_after=NOW + 9)]
    backlog = vector(
        "ended before a backlog was read", "It was valid at the reference time.", message, accepted(), keys=ended
    )
    yield backlog | {"now": NOW + 3600}
    for name, earliest, verdict in (
        ("ended before a backlog was read, no look", -inf, accepted()),
        ("ended before it can have been appended", NOW + 9.0, rejected("key_not_valid")),
    ):
        comment = "The reference time is iat, moved into the interval."
        found = vector(name, comment, press(_looked((earliest, NOW + 3600.0))), verdict, keys=ended)
        yield found | {"now": NOW + 3600}


def _signature() -> Iterator[Vector]:
    message = nats()
    claims = cbor(claims_of(message))
    good = bytearray(raw_of(press(message)))
    good[-1] ^= 1
    yield vector("one bit", "", bear(message, bytes(good)), "bad_signature")
    protected = protected_of(ALICE_KEY)
    data = structure(protected, 0, claims)
    signature = signature_of(ALICE_KEY, data)
    for name, wrong in {
        "empty": b"",
        "zero": bytes(64),
        "short": signature[:-1],
        "long": signature + b"\x00",
        "of the bare claims": signature_of(ALICE_KEY, claims),
        "without external data": signature_of(ALICE_KEY, cbor2.dumps(["Signature1", protected, b"", claims])),
        "for a tree size of 1": signature_of(ALICE_KEY, structure(protected, 1, claims)),
        "by another key": signature_of(MALLORY_KEY, data),
    }.items():
        raw = cbor2.dumps([1, claims, [protected, {}, None, wrong]])
        yield vector(f"signature {name}", "", bear(message, raw), "bad_signature")
    for context in ("watchword/2", "watchword", ""):
        raw = direct(claims, context=context)
        yield vector(f"signature for {context!r}", "", bear(message, raw), "bad_signature")
    for alg in (-8, -9, -7, 5):
        comment = "The algorithm belongs to the key; the message's must be the same."
        yield vector(f"algorithm {alg}", comment, bear(message, direct(claims, c1=alg)), "bad_signature")
    raw = raw_of(press(message, key=ALICE_EC_KEY))
    high = (P256_ORDER - int.from_bytes(raw[-32:])).to_bytes(32)
    comment = "Valid ECDSA; s is over half of the group's order."
    yield vector("esp256, high s", comment, bear(message, raw[:-32] + high), "bad_signature")
    yield from _inclusion()


def _inclusion() -> Iterator[Vector]:
    messages = [nats(value=bytes([index])) for index in range(3)]
    entries = [cbor(claims_of(message, c7=bytes([index]) * 16)) for index, message in enumerate(messages)]
    header = protected_of(ALICE_KEY, c395=1)
    signature = signature_of(ALICE_KEY, structure(header, 3, trees.root(entries)))
    path = trees.path(2, entries)
    for name, size, index, nodes in (
        ("tree of another size", 4, 2, path),
        ("index and size that fit the path too", 2, 1, path),
        ("another index", 3, 1, path),
        ("path too long", 3, 2, [*path, bytes(32)]),
        ("path of another leaf", 3, 2, trees.path(1, entries)),
    ):
        raw = batched(entries[2], header, signature, size=size, index=index, path=nodes)
        yield vector(name, "The signed tree has 3 leaves, this is the last.", bear(messages[2], raw), "bad_signature")
    raw = cbor2.dumps([1, entries[2], [protected_of(ALICE_KEY), {}, None, signature]])
    yield vector("a tree's signature as a direct one", "", bear(messages[2], raw), "bad_signature")
    sized = batch(entries, signed_size=0)[2]
    yield vector("a tree signed as of size 0", "", bear(messages[2], sized), "bad_signature")


def _altered() -> Iterator[Vector]:
    message = press(_record(headers=(("a", b"1"), ("b", b"2"))))
    a, b, envelope = message.headers
    changes: dict[str, dict[str, Any]] = {
        "value": {"value": b"{}"},
        "value emptied": {"value": b""},
        "value to null": {"value": None},
        "key": {"key": b"k2"},
        "key emptied": {"key": b""},
        "key to null": {"key": None},
        "covered header's value": {"headers": (a, ("b", b"3"), envelope)},
        "covered header's value to null": {"headers": (a, ("b", None), envelope)},
        "covered header's letter case": {"headers": (a, ("B", b"2"), envelope)},
        "covered header removed": {"headers": (a, envelope)},
        "covered headers reordered": {"headers": (b, a, envelope)},
        "covered header twice": {"headers": (a, b, b, envelope)},
        "bytes moved from key to header": {"key": b"k", "headers": (("a", b"11"), b, envelope)},
        "record timestamp": {"created_at": NOW + 5.5},
    }
    for name, change in changes.items():
        yield vector(name, "", replace(message, **change), "altered")
    bare = press(_record(key=None, value=None, headers=()))
    yield vector("null value to empty", "", replace(bare, value=b""), "altered")
    yield vector("null key to empty", "", replace(bare, key=b""), "altered")
    needless = press(_record(key=None, headers=()), m=bytes(32))
    yield vector("m of nothing", "m is absent when there is neither a key nor a covered header.", needless, "altered")
    yield vector("another Nats-Msg-Id", "", _with_header(press(nats()), "Nats-Msg-Id", b"other"), "altered")


def _replay() -> Iterator[Vector]:
    message = press(_record())
    again = accepted(redelivered=True)
    yield vector("redelivery", "The same claims at the same place.", [message] * 2, [accepted(), again])
    for name, change in {
        "another offset": {"position": Position("tasks/0", 13)},
        "another append time": {"appended_at": NOW + 0.75},
    }.items():
        copy = replace(message, **change)  # type: ignore[arg-type] # one table
        yield vector(name, "", [message, copy], [accepted(), rejected("replayed")])
    yield vector("without a position", "Core NATS.", [press(nats())] * 2, [accepted(), rejected("replayed")])
    other = press(_record(value=b"other"))
    yield vector("an id twice", "Other claims under the same id.", [message, other], [accepted(), rejected("replayed")])
    mallory = press(_record(), key=MALLORY_KEY, principal=MALLORY)
    theirs = accepted(MALLORY_KEY, principal=MALLORY)
    yield vector("another principal's id", "Ids belong to their principal.", [mallory, message], [theirs, accepted()])
    forged = replace(message, value=b"forged")
    yield vector("poison", "What is rejected takes no id.", [forged, message], [rejected("altered"), accepted()])
    later = press(_record(position=Position("tasks/0", 13), appended_at=NOW + 306.0), c6=NOW + 306, c7=b"2" * 16)
    yield vector(
        "below the floor",
        "306 s passed in the log, so the first id is forgotten; it is too old to come back, whatever its append time.",
        [message, later, message],
        [accepted(), accepted(message_id=b"2" * 16), rejected("stale")],
    )

    def looked(number: int, earliest: float, issued: int, key: SigningKey = ALICE_KEY, name: str = ALICE) -> Message:
        found = _looked((earliest, NOW + 9000.0), position=Position("tasks/0", number))
        return press(replace(found, created_at=issued), key=key, principal=name, c6=issued, c7=bytes([number]) * 16)

    def verified(number: int, key: SigningKey = ALICE_KEY, name: str = ALICE) -> Vector:
        return accepted(key, message_id=bytes([number]) * 16, principal=name)

    yield vector(
        "a principal's own floor",
        "In a backlog, which no look bounds, a principal's latest message makes its own older ones stale, no others.",
        [
            looked(1, -inf, NOW + 400),
            looked(2, -inf, NOW + 94),
            looked(3, -inf, NOW + 95),
            looked(4, -inf, NOW, MALLORY_KEY, MALLORY),
        ],
        [verified(1), rejected("stale"), verified(3), verified(4, MALLORY_KEY, MALLORY)],
    )
    yield vector(
        "a floor by looks",
        "Log time is what looks tell for certain; it never falls, whatever later records' intervals are.",
        [
            looked(1, NOW + 400.0, NOW + 401),
            looked(2, -inf, NOW + 94, MALLORY_KEY, MALLORY),
            looked(3, -inf, NOW + 95, MALLORY_KEY, MALLORY),
        ],
        [verified(1), rejected("stale"), verified(3, MALLORY_KEY, MALLORY)],
    )
    early = press(_looked((NOW - 60.0, NOW - 59.0)))
    copy = replace(early, position=Position("tasks/0", 13), appended_between=(NOW - 1.0, NOW + 1.0))
    again_early = replace(early, appended_between=(-inf, NOW + 1.0))
    yield vector(
        "from the future, then copied",
        "The claims are remembered at their place; there they may be judged again, anywhere else they are a replay.",
        [early, copy, again_early, copy],
        [rejected("from_future"), rejected("replayed"), accepted(), rejected("replayed")],
    )
    forged = replace(early, value=b"forged")
    yield vector(
        "a forgery from the future",
        "Of what does not verify nothing is remembered.",
        [forged, copy],
        [rejected("from_future"), accepted()],
    )
    yield vector(
        "over quota",
        "The store holds at most one id per principal.",
        [message, press(_record(position=Position("tasks/0", 13)), c7=b"2" * 16), message],
        [accepted(), rejected("over_quota"), again],
        ids_per_principal=1,
    )

    def sent(number: int, issued: int, at: float, key: SigningKey = ALICE_KEY) -> Message:
        record = _record(position=Position("tasks/0", number), appended_at=at)
        return press(record, key=key, c6=issued, c7=bytes([number]) * 16)

    yield vector(
        "over quota, then room",
        "What found no room raised the floor of its principal and key id to its iat; no other key's.",
        [
            sent(1, NOW, NOW),
            sent(2, NOW, NOW),
            sent(3, NOW + 300, NOW + 300),
            sent(4, NOW + 580, NOW + 580),
            sent(5, NOW + 300, NOW + 580.5),
            sent(6, NOW + 300, NOW + 580.5, ALICE_EC_KEY),
        ],
        [
            verified(1),
            verified(2),
            rejected("over_quota"),
            verified(4),
            rejected("stale"),
            verified(6, ALICE_EC_KEY),
        ],
        ids_per_principal=2,
    )
    unclear = press(_looked((NOW + 9.0, NOW + 3600.0)))
    copy = replace(unclear, position=Position("tasks/0", 13), appended_between=(-inf, NOW + 3600.0))
    original = replace(unclear, appended_between=(-inf, NOW + 3600.0))
    yield vector(
        "ended in check 5, then copied",
        "Its claims are remembered at their place, where they may be judged again.",
        [unclear, copy, original],
        [rejected("key_not_valid"), rejected("replayed"), accepted()],
        keys=[public(ALICE_KEY, ALICE, not_after=NOW + 9)],
    ) | {"now": NOW + 3600}


def _policy() -> Iterator[Vector]:
    def allowed(*channels: str, rate: str | None = None, **more: Any) -> Vector:
        rule = {"principal": ALICE, "channels": list(channels)}
        return {"allow": [rule if rate is None else rule | {"rate": rate}], **more}

    kafka_message, nats_message = press(_record()), press(nats())
    for pattern in ("nats://prod/tasks.scale", "nats://prod/tasks.*", "nats://prod/>", "nats://prod/*.>"):
        yield vector(f"permitted by {pattern}", "", nats_message, accepted(), policy=allowed(pattern))
    for pattern in ("nats://prod/tasks", "nats://prod/tasks.scale.>", "nats://prod/*", "kafka://prod/tasks.scale"):
        yield vector(f"not permitted by {pattern}", "", nats_message, "not_permitted", policy=allowed(pattern))
    yield vector(
        "permitted topic", "", kafka_message, accepted(), policy=allowed("nats://prod/a", "kafka://prod/tasks")
    )
    stranger = press(nats(), key=MALLORY_KEY, principal=MALLORY)
    yield vector("no rule for the principal", "", stranger, "not_permitted", policy=allowed("nats://prod/>"))
    answer = press(nats(channel=_INBOX), q=b"q" * 16)
    for name, recipient, pattern, verdict in (
        ("answer by another than was asked", MALLORY, "nats://prod/>", rejected("not_permitted")),
        ("answer by one who may speak where the request went", None, "nats://prod/tasks.>", accepted()),
        ("answer by one who may not", None, "nats://prod/_INBOX.>", rejected("not_permitted")),
        ("answer by the one who was asked needs no rule", ALICE, "nats://prod/other", accepted()),
    ):
        yield vector(name, "", answer, verdict, policy=allowed(pattern), expected_context=_asked(recipient))
    messages = [
        press(_record(position=Position("tasks/0", index), appended_at=NOW + at), c7=bytes([index]) * 16)
        for index, at in enumerate((0, 0, 1, 30, 31))
    ]
    verdicts = [accepted(message_id=bytes([index]) * 16) for index in range(5)]
    verdicts[2] = verdicts[4] = rejected("rate_limited")
    yield vector(
        "rate",
        "2 a minute, saved up for a minute, in reference time.",
        messages,
        verdicts,
        policy=allowed("kafka://prod/tasks", rate="2/m"),
    )
    replays = [
        messages[0],
        *[replace(messages[0], position=Position("tasks/0", 9 + index)) for index in range(3)],
        messages[1],
    ]
    yield vector(
        "replays spend no rate",
        "",
        replays,
        [verdicts[0], *[rejected("replayed")] * 3, verdicts[1]],
        policy=allowed("kafka://prod/tasks", rate="2/m"),
    )
    yield vector("contained", "", nats_message, "contained", policy={"contained": [ALICE]})
    yield vector(
        "what policy dropped is not brought back",
        "The id was claimed before policy judged.",
        [nats_message] * 2,
        [rejected("contained"), rejected("replayed")],
        policy={"contained": [ALICE]},
    )

    for rate, period in (("2/s", 1), ("2/m", 60), ("2/h", 3600)):
        times = (0, 0, period / 2, period / 2, 90 * period, 90 * period, 90 * period)
        messages = [
            press(
                _record(position=Position("tasks/0", at), appended_at=NOW + time),
                c6=NOW + int(time),
                c7=bytes([at]) * 16,
            )
            for at, time in enumerate(times)
        ]
        verdicts = [accepted(message_id=bytes([at]) * 16) for at in range(len(times))]
        verdicts[3] = verdicts[6] = rejected("rate_limited")
        yield vector(
            f"rate {rate}",
            "Half a period gives one of two, and no time gives more than two.",
            messages,
            verdicts,
            policy=allowed("kafka://prod/tasks", rate=rate),
        )
    answers = [press(nats(channel=_INBOX), q=b"q" * 16, c7=bytes([number]) * 16) for number in range(2)]
    for name, pattern, second in (
        ("rate of an answer", "nats://prod/tasks.>", rejected("rate_limited")),
        ("no rate of an answer", "nats://prod/_INBOX.>", accepted(message_id=bytes([1]) * 16)),
    ):
        yield vector(
            name,
            "It is that of the rule for the channel that the request went to, also where it was addressed to someone.",
            answers,
            [accepted(message_id=bytes(16)), second],
            policy=allowed(pattern, rate="1/m"),
            expected_context=_asked(ALICE),
        )
    yield from _patterns()
    yield from _order()


def _patterns() -> Iterator[Vector]:
    kafka_message, nats_message = press(_record()), press(nats())
    for principal in ("agent://acme/*", "agent://acme/**", "agent://**", "*//acme/*", "**"):
        yield vector(
            f"permitted as {principal}",
            "",
            nats_message,
            accepted(),
            policy=_ruled(principal, "nats://prod/tasks.scale"),
        )
    for principal in ("agent://*", "agent://acme/planner/*", "agent://acme/planner/**", "agent://acme2/**"):
        yield vector(
            f"not permitted as {principal}",
            "",
            nats_message,
            "not_permitted",
            policy=_ruled(principal, "nats://prod/tasks.scale"),
        )
    for pattern in ("kafka://prod/tasks*", "kafka://prod/ta*", "kafka://prod/*"):
        yield vector(f"permitted by {pattern}", "", kafka_message, accepted(), policy=_ruled(ALICE, pattern))
    for pattern in ("kafka://prod/tasks.*", "kafka://prod/asks*", "kafka://other/*", "nats://prod/>"):
        yield vector(f"not permitted by {pattern}", "", kafka_message, "not_permitted", policy=_ruled(ALICE, pattern))
    both = [press(nats(), c7=bytes(16)), press(nats(), key=MALLORY_KEY, principal=MALLORY, c7=bytes(16))]
    yield vector(
        "two principals of one rule",
        "Each has a bucket of its own.",
        [*both, press(nats(), c7=b"1" * 16)],
        [accepted(message_id=bytes(16)), _by_mallory(), rejected("rate_limited")],
        policy={"allow": [{"principal": "agent://**", "channels": ["nats://prod/>"], "rate": "1/h"}]},
    )
    yield vector("contained by a pattern", "", nats_message, "contained", policy={"contained": ["agent://acme/*"]})
    yield vector("contained by no pattern", "", nats_message, accepted(), policy={"contained": ["agent://acme/*/**"]})


def _order() -> Iterator[Vector]:
    for name, more, less in (
        ("a name says more than a pattern", (ALICE, "nats://prod/>"), ("agent://acme/*", "nats://prod/tasks.scale")),
        ("one part says more than the rest", ("agent://acme/*", "nats://prod/>"), ("agent://acme/**", "nats://prod/>")),
        (
            "the first part that differs decides",
            ("agent://acme/**", "nats://prod/>"),
            ("*//acme/planner", "nats://prod/>"),
        ),
        ("a token says more than any token", (ALICE, "nats://prod/tasks.*"), (ALICE, "nats://prod/*.scale")),
        ("any token says more than the rest", (ALICE, "nats://prod/*.scale"), (ALICE, "nats://prod/>")),
        ("of equal ones the first", (ALICE, "nats://prod/>"), (ALICE, "nats://prod/>")),
    ):
        rules = [
            {"principal": who, "channels": [where], "rate": rate}
            for (who, where), rate in ((less, "9/h"), (more, "1/h"))
        ]
        rules = rules[::-1] if more == less else rules
        yield _rated(name, [press(nats(), c7=bytes([at]) * 16) for at in range(2)], rules)
    for name, more_exact, less_exact in (
        ("a topic says more than a prefix", "kafka://prod/tasks", "kafka://prod/tasks*"),
        ("a longer prefix says more than a shorter one", "kafka://prod/task*", "kafka://prod/ta*"),
    ):
        rules = [
            {"principal": ALICE, "channels": [less_exact], "rate": "9/h"},
            {"principal": ALICE, "channels": [more_exact], "rate": "1/h"},
        ]
        records = [press(_record(position=Position("tasks/0", at)), c7=bytes([at]) * 16) for at in range(2)]
        yield _rated(name, records, rules)


def _ruled(principal: str, channel: str) -> Vector:
    return {"allow": [{"principal": principal, "channels": [channel]}]}


def _rated(name: str, messages: list[Message], rules: list[Vector]) -> Vector:
    """Return a vector in which the rule that holds has a rate of one an hour, and another one that of nine."""
    first = accepted(message_id=bytes(16))
    return vector(name, "", messages, [first, rejected("rate_limited")], policy={"allow": rules})


def _by_mallory() -> Vector:
    return accepted(principal=MALLORY, key_id=MALLORY_KEY.key_id.decode(), message_id=bytes(16))


def _ml_dsa() -> Iterator[Vector]:
    yield from _of(post_quantum.edges())
    for name, key, messages in post_quantum.batches():
        verdicts = [accepted(key, message_id=bytes([number]) * 16) for number in range(len(messages))]
        comment = "One signed tree; each message is verifiable alone."
        yield vector(f"{name}, batch of {len(messages)}", comment, messages, verdicts, keys=post_quantum.keys())


def _of(found_edges: Iterator[Edge]) -> Iterator[Vector]:
    for edge in found_edges:
        verified = accepted(key_id=edge.key_id, principal=edge.principal, message_id=edge.id)
        verdict = verified if edge.reason is None else rejected(edge.reason)
        more = dict(edge.more)
        found = vector(edge.name, edge.comment, edge.message, verdict, keys=more.pop("keys", None))
        yield found | more


if __name__ == "__main__":
    main()
