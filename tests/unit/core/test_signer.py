"""The signer: what it refuses, and that its envelopes are those of the specification."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    ALICE_KEY,
    BOB,
    ID,
    NOW,
    World,
    at_once,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    raw_of,
    signed,
    signer,
)
from watchword import ConfigurationError, Rejected, SigningError, SigningKey, Unavailable
from watchword.algorithms import Algorithm
from watchword.message import MAX_HEADER_BYTES, MAX_HEADERS, Message
from watchword.spi import Channel, Signer

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Backend:
    """A back-end that returns or raises what it was created with, or signs."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def sign(self, data: bytes) -> bytes:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or await ALICE_KEY.sign(data)


def test_makes_the_bytes_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: signer and specification agree byte for byte, every claim included."""
    monkeypatch.setattr(os, "urandom", lambda count: ID[:count])
    message = nats(reply_to="_INBOX.1", partition=3, key=b"k", headers=(("b", b"1"), ("a", b""), ("traceparent", b"t")))
    options: dict[str, Any] = {"recipient": BOB, "expires_at": NOW + 9, "in_reply_to": b"q" * 16}
    pressed = direct(cbor(claims_of(message, c3=BOB, c4=NOW + 9, q=b"q" * 16)))
    assert raw_of(signed(message, **options)) == pressed


@pytest.mark.parametrize("key", [ALICE_KEY, ALICE_EC_KEY], ids=["Ed25519", "ESP256"])
@pytest.mark.parametrize("message", [kafka(), kafka(value=None), nats(), nats(value=b"", headers=())])
def test_what_is_signed_verifies(message: Message, key: Any) -> None:
    """Promise: what the signer signs, the verifier delivers unchanged."""
    verified = World().verify(signed(message, signer(key)))
    assert (verified.value, verified.key, verified.headers) == (message.value, message.key, message.headers)


def test_two_messages_never_share_an_id() -> None:
    """Promise: the same message signed twice has two ids."""
    one, two = (at_once(signer().sign(nats())) for _ in range(2))
    assert one.id != two.id
    assert one.issued_at == NOW


NATS_HEADERS: list[tuple[str, bytes | None]] = [
    ("", b"x"), ("a b", b"x"), ("a:b", b"x"), ("é", b"x"), ("a\r\nb", b"x"), ("x", None), ("x", b" x"), ("x", b"x "),
    ("x", b"a\r\nb: c"), ("x", b"\xc3\xa9"), ("x", b"\t"), ("x", b"a\x00b"),
]  # fmt: skip


@pytest.mark.parametrize("header", NATS_HEADERS)
def test_headers_that_nats_would_change_are_refused(header: tuple[str, bytes | None]) -> None:
    """Promise (A30): CR/LF, non-ASCII, blanks and absent values are refused on NATS, and carried by Kafka."""
    with pytest.raises(SigningError):
        signed(nats(headers=(header,)))
    assert World().verify(signed(kafka(headers=(header,)))).headers == (header,)


@pytest.mark.parametrize("value", [b"", b"a", b"a b", b"~!"])
def test_headers_that_nats_carries_are_signed(value: bytes) -> None:
    """Promise: an empty value and inner blanks pass NATS unchanged, and are signed."""
    assert World().verify(signed(nats(headers=(("X", value),)))).headers == (("X", value),)


def test_duplicates() -> None:
    """Promise: a header twice is refused on NATS, whose clients keep one; Kafka keeps both."""
    twice = (("x", b"1"), ("x", b"2"))
    with pytest.raises(SigningError, match="twice"):
        signed(nats(headers=twice))
    assert World().verify(signed(kafka(headers=twice))).headers == twice


@pytest.mark.parametrize(
    ("message", "options", "why"),
    [
        (nats(channel=Channel("nats", "other", "a")), {}, "realm"),
        (nats(channel=Channel("nats", "prod", "a.*")), {}, "wildcard"),
        (nats(), {"recipient": ""}, "recipient"),
        (nats(), {"recipient": 5}, "recipient of type int: write the principal"),
        (nats(), {"recipient": b"agent://acme/bob"}, "recipient of type bytes: write the principal"),
        (nats(), {"recipient": [BOB]}, "recipient of type list: write the principal"),
        (nats(), {"recipient": "\ud800"}, "recipient"),
        (nats(), {"expires_at": -1}, "expires_at"),
        (nats(), {"expires_at": 1 << 33}, "expires_at"),
        (nats(), {"expires_at": NOW + 60.5}, "whole seconds"),
        (nats(), {"expires_at": True}, "whole seconds"),
        (nats(), {"expires_at": "soon"}, r"expires_at 'soon': .*int\(time.time\(\)\) \+ 60"),
        (nats(), {"expires_at": NOW * 1000}, r"whole seconds since the epoch, as int\(time.time\(\)\) \+ 60"),
        (nats(), {"expires_at": NOW - 9}, "9 s ago, so no reader would accept it"),
        (nats(), {"expires_at": NOW}, "0 s ago"),
        (nats(), {"expires_at": 60}, r"seconds since the epoch, as int\(time.time\(\)\) \+ 60"),
        (nats(), {"in_reply_to": b"short"}, "in_reply_to"),
        (nats(), {"in_reply_to": "f" * 16}, "in_reply_to of type str: give the request's id, 16 bytes"),
        (nats(), {"in_reply_to": 16}, "in_reply_to of type int"),
        (nats(reply_to=5), {}, "reply subject 5"),
        (nats(reply_to="$JS.API.STREAM.PURGE.X"), {}, "order to the server"),
        (kafka(partition=-1), {}, "partition"),
        (kafka(partition=1 << 31), {}, "partition"),
        (kafka(partition=True), {}, "partition"),
        (nats(reply_to="a b"), {}, "reply"),
        (nats(reply_to=""), {}, "reply"),
        (nats(headers=(("WATCHWORD", b""),)), {}, "has an envelope already"),
        (kafka(headers=(("\ud800", b""),)), {}, "Unicode"),
        (kafka(headers=(("x", bytes(MAX_HEADER_BYTES)),)), {}, "headers of"),
        (kafka(headers=(("", b""),) * (MAX_HEADERS - 23)), {}, "1001 headers: at most 1000"),
        (kafka(headers=tuple((f"{n:04}" * 20, b"") for n in range(60))), {}, "fewer or shorter"),
    ],
)
def test_what_cannot_be_signed(message: Message, options: dict[str, Any], why: str) -> None:
    """Promise: what no verifier would accept is refused before it is sent, with what to do about it."""
    with pytest.raises(SigningError, match=why):
        signed(message, **options)


def test_true_is_no_partition_beside_the_first() -> None:
    """Promise: a value that equals a signed partition, but is not an int, is refused as ever."""
    signer = Signer(realm="prod", principal=ALICE, key=ALICE_KEY, clock=lambda: NOW)
    signer.prepare(kafka(partition=1))
    for partition in (True, 1.0):
        with pytest.raises(SigningError, match="partition"):
            signer.prepare(kafka(partition=partition))


def test_the_largest_headers_that_are_signed_verify() -> None:
    """Promise: signer and verifier agree on the limit of the header block, to the byte."""
    room = MAX_HEADER_BYTES - 5462
    message = kafka(headers=(("é", bytes(room - 2)),))
    assert World().verify(signed(message)).headers == message.headers
    with pytest.raises(SigningError):
        signed(kafka(headers=(("é", bytes(room - 1)),)))


@pytest.mark.parametrize("answer", [OSError("token=s3cret"), b"short", "x" * 64])
def test_a_failing_backend_is_an_outage(answer: Any) -> None:
    """Promise: a back-end that fails or answers nonsense gives Unavailable, without its message's text."""
    slow = Signer(
        realm="prod", principal=ALICE, key=Backend(answer), clock=lambda: NOW, key_id=b"k", algorithm=Algorithm.ED25519
    )
    with pytest.raises(Unavailable, match="signing") as caught:
        signed(nats(), slow)
    assert "s3cret" not in str(caught.value)


def test_an_outage_that_says_what_it_is_is_told_so() -> None:
    """Promise: a back-end's own Unavailable is raised with its words, as an outage of signing, whatever it names."""
    slow = Signer(
        realm="prod", principal=ALICE, key=Backend(Unavailable("keys", "sealed")), clock=lambda: NOW, key_id=b"k",
        algorithm=Algorithm.ED25519,
    )  # fmt: skip
    with pytest.raises(Unavailable, match=r"^signing unavailable: sealed$"):
        signed(nats(), slow)


@pytest.mark.parametrize("high", [False, True])
def test_a_backend_may_return_either_form_of_an_ecdsa_signature(*, high: bool) -> None:
    """Promise: a KMS that does not know of low s still makes messages that verify."""

    class Kms:
        async def sign(self, data: bytes) -> bytes:
            signature = await ALICE_EC_KEY.sign(data)
            s = int.from_bytes(signature[32:])
            return signature[:32] + (P256_ORDER - s).to_bytes(32) if high else signature

    key_id = ALICE_EC_KEY.key_id
    remote = Signer(
        realm="prod", principal=ALICE, key=Kms(), clock=lambda: NOW, key_id=key_id, algorithm=Algorithm.ESP256
    )
    assert World().verify(signed(nats(), remote)).key_id == key_id.decode()


def test_what_is_no_ecdsa_signature_is_not_mended() -> None:
    """Promise: nonsense of the right length is sent as it is, and nobody accepts it."""
    remote = Signer(
        realm="prod", principal=ALICE, key=Backend(b"\xff" * 64), clock=lambda: NOW, key_id=ALICE_EC_KEY.key_id,
        algorithm=Algorithm.ESP256,
    )  # fmt: skip
    with pytest.raises(Rejected, match="bad_signature"):
        World().verify(signed(nats(), remote))


async def test_a_key_that_takes_over_meanwhile_leaves_what_another_signs_as_it_is() -> None:
    """Promise: an Ed25519 signature that is made while the signer switches to ESP256 is not taken for one of those."""
    gate, alone = asyncio.Event(), SigningKey.from_pem(ALICE_KEY.to_pem(), key_id=b"alice-1")

    class Kms:
        async def sign(self, data: bytes) -> bytes:
            await gate.wait()
            return await alone.sign(data)

    remote = Signer(
        realm="prod", principal=ALICE, key=Kms(), clock=lambda: NOW, key_id=b"alice-1", algorithm=Algorithm.ED25519
    )
    messages = [nats(value=b"%d" % number) for number in range(8)]  # of eight signatures one at least would be spoilt
    signing = [asyncio.create_task(remote.sign(message)) for message in messages]
    await asyncio.sleep(0)
    remote.switch(SigningKey(ec.generate_private_key(ec.SECP256R1()), key_id=b"alice-2"))
    gate.set()
    world = World()
    for message, header in zip(messages, [one.header for one in await asyncio.gather(*signing)], strict=True):
        verified = await world.verifier.verify(replace(message, headers=(*message.headers, header)))
        assert verified.value == message.value


def test_a_backend_signs_like_a_key() -> None:
    """Promise: a private key held elsewhere signs what a key in memory would."""
    remote = Signer(
        realm="prod",
        principal=ALICE,
        key=Backend(None),
        clock=lambda: NOW,
        key_id=b"alice-1",
        algorithm=Algorithm.ED25519,
    )
    assert World().verify(signed(nats(), remote)).principal == ALICE


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"principal": ""}, "principal"),
        ({"realm": "PROD"}, "realm"),
        ({"key": Backend(None)}, "key_id and algorithm"),
        ({"key": Backend(None), "key_id": b"k"}, "key_id and algorithm"),
        ({"key_id": b"x" * 129}, "key id"),
        ({"key_id": b"\xff"}, "key id"),
    ],
)
def test_bad_construction(options: dict[str, Any], why: str) -> None:
    """Promise: a signer whose envelopes nobody could verify is an error when it is made."""
    given: dict[str, Any] = {"realm": "prod", "principal": ALICE, "key": ALICE_KEY, "clock": lambda: NOW}
    with pytest.raises(ConfigurationError, match=why):
        Signer(**given | options)


def test_uncovered_headers_can_be_chosen() -> None:
    """Promise: what is left uncovered may change on the way, and is hidden from the handler."""
    choosy = Signer(realm="prod", principal=ALICE, key=ALICE_KEY, clock=lambda: NOW, uncovered={"hop"})
    message = signed(nats(headers=(("hop", b"1"), ("traceparent", b"t"))), choosy)
    changed = replace(message, headers=(("hop", b"2"), *message.headers[1:]))
    assert World().verify(changed).headers == (("traceparent", b"t"),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": "text"},
        {"value": 5},
        {"key": "text"},
        {"key": 5},
        {"headers": None},
        {"headers": (("a", "text"),)},
        {"headers": (("a", 5),)},
        {"headers": ((b"a", b"x"),)},
        {"headers": ((None, b"x"),)},
        {"headers": (("a",),)},
        {"headers": (("a", b"x", b"y"),)},
        {"headers": {"a": b"x"}},
        {"headers": {"ab": b"x"}},
        {"headers": 5},
        {"channel": "kafka://prod/tasks"},
        {"partition": "0"},
        {"partition": [0]},
        {"reply_to": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [kafka, nats])
def test_parts_of_a_wrong_type_cannot_be_signed(make: Callable[..., Message], wrong: dict[str, Any]) -> None:
    """Promise: whatever a message is made of, what cannot be signed is one SigningError that says what to give."""
    alice = signer()
    at_once(alice.sign(make()))
    at_once(alice.sign(make(headers=(("a", b"x"),))))  # on a way that is known, too
    with pytest.raises(SigningError) as caught:
        at_once(alice.sign(replace(make(), **wrong)))
    assert re.search("give|write", str(caught.value))


@pytest.mark.parametrize(
    "options", [{"recipient": 5}, {"recipient": b"agent://a"}, {"in_reply_to": 5}, {"in_reply_to": "x" * 16}]
)
def test_options_of_a_wrong_type_cannot_be_signed(options: dict[str, Any]) -> None:
    """Promise: so are the options of signing."""
    with pytest.raises(SigningError):
        at_once(signer().sign(kafka(), **options))


def test_what_is_no_message_cannot_be_signed() -> None:
    """Promise: so is anything else."""
    wrong: Any = b"text"
    with pytest.raises(SigningError, match="write a Message"):
        at_once(signer().sign(wrong))


def test_a_fault_of_a_part_of_ours_is_told_as_it_is() -> None:
    """Promise: a clock that fails is not blamed on the message."""

    def clock() -> float:
        raise ValueError("no clock")

    broken = Signer(realm="prod", principal=ALICE, key=ALICE_KEY, clock=clock)
    with pytest.raises(ValueError, match="no clock"):
        at_once(broken.sign(kafka()))
