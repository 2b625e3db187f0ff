"""Headers compared with those of the last message: what is made of them is what is made of them alone."""

from dataclasses import replace
from typing import Any

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, kafka, nats
from watchword import Message, Signer, SigningError
from watchword.checks import Covering

VALUES = st.sampled_from([b"", b"x", b"y", b"x" * 64, b"x" * 65, b"x" * 1100])
NAMES = st.sampled_from(["a", "b", "traceparent", "watchword", "Watchword", "Nats-Msg-Id"])
HEADERS = st.lists(st.tuples(NAMES, VALUES | st.none()), max_size=4).map(tuple)
COVERED = st.frozensets(st.sampled_from(["a", "b", "traceparent"]))


@given(st.lists(st.tuples(HEADERS, COVERED), max_size=8))
@settings(max_examples=300, deadline=None)
def test_covering_forgets_nothing_and_mixes_nothing_up(messages: list[tuple[Any, frozenset[str]]]) -> None:
    """Promise (A03): whatever came before, headers are seen and digested as if nothing had."""
    covering = Covering()
    for headers, covered in messages:
        assert covering.of(headers, covered) == covering.of(headers, covered) == Covering().of(headers, covered)


@given(st.lists(st.tuples(st.booleans(), HEADERS), max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_signer_mixes_no_headers_up(messages: list[tuple[bool, Any]]) -> None:
    """Promise (A03): a message is signed, or refused, with its own headers, whatever was signed before."""
    warm = signer()
    for on_kafka, headers in messages:
        message = (kafka if on_kafka else nats)(headers=headers)
        assert digest_of(warm, message) == digest_of(signer(), message)


def signer() -> Signer:
    """Return one that has signed nothing."""
    return Signer(realm="prod", principal=ALICE, key=ALICE_KEY, clock=lambda: NOW)


def digest_of(signer: Signer, message: Message) -> bytes | str | None:
    """Return the digest of key and headers that is signed, or what the signer says against it."""
    try:
        claims = cbor2.loads(signer.draft(message).claims)
    except SigningError as error:
        return str(error)
    digest: bytes | None = claims.get("m")
    return digest


def test_what_can_change_is_not_kept() -> None:
    """Promise (A03): a value that is no bytes, and was changed since, is digested as it is now."""
    value: Any = bytearray(b"x" * 100)
    headers, covering, ours = (("a", value),), Covering(), signer()
    message = replace(kafka(), headers=headers)
    before = covering.of(headers, frozenset("a"))[1], digest_of(ours, message)
    value[0] ^= 1
    after = covering.of(headers, frozenset("a"))[1], digest_of(ours, message)
    assert before[0] != after[0]
    assert before[1] != after[1]
