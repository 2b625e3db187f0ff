"""Headers compared with those of the last message: what is made of them is what is made of them alone."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, kafka, nats
from watchword import SigningError
from watchword.checks import HeaderCoverage
from watchword.encoding import may_be_kept
from watchword.spi import Message, Signer

pytestmark = pytest.mark.usefixtures("not_traced")

VALUES = st.sampled_from([b"", b"x", b"y", b"x" * 64, b"x" * 65, b"x" * 1100])
NAMES = st.sampled_from(["a", "b", "traceparent", "watchword", "Watchword", "Nats-Msg-Id"])
HEADERS = st.lists(st.tuples(NAMES, VALUES | st.none()), max_size=4).map(tuple)
COVERED = st.frozensets(st.sampled_from(["a", "b", "traceparent"]))


@given(st.lists(st.tuples(HEADERS, COVERED), max_size=8))
@settings(max_examples=300)
def test_covering_forgets_nothing_and_mixes_nothing_up(messages: list[tuple[Any, frozenset[str]]]) -> None:
    """Promise (A03): whatever came before, headers are seen and digested as if nothing had."""
    coverage = HeaderCoverage()
    for headers, covered in messages:
        assert coverage.of(headers, covered) == coverage.of(headers, covered) == HeaderCoverage().of(headers, covered)


@given(st.lists(st.tuples(st.booleans(), HEADERS), max_size=8))
@settings(max_examples=300)
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
        claims = cbor2.loads(signer.prepare(message).draft[0])
    except SigningError as error:
        return str(error)
    digest: bytes | None = claims.get("m")
    return digest


def test_what_is_kept_is_small_and_cannot_change() -> None:
    """Promise (A21): what a verifier or signer remembers of headers is bounded, and is what they were."""
    assert may_be_kept((("a", b"x" * 1023),))
    assert not may_be_kept((("a", b"x" * 1024),))
    assert not may_be_kept((("a", None),))
    changing: list[Any] = [
        [("a", b"x")],
        (["a", b"x"],),
        (("a", bytearray(b"x")),),
        (("a", Bytes(b"x")),),
        ((Name("a"), b"x"),),
    ]
    assert not any(map(may_be_kept, changing))


class Name(str):
    """A name that may have an equality of its own."""

    __slots__ = ()


class Bytes(bytes):
    """Bytes that may have an equality of their own."""


def test_a_list_that_is_used_again_is_read_again() -> None:
    """Promise (A03): if a caller changes the list that it gave before, its new content counts."""
    headers: Any = [("a", b"1"), ("watchword", b""), ("b", b"2")]
    carried: Any = [("a", b"1")]
    coverage, ours, message = HeaderCoverage(), signer(), replace(kafka(), headers=carried)
    before = coverage.of(headers, frozenset("ab")), digest_of(ours, message)
    headers[0] = carried[0] = ("a", b"9")
    after = coverage.of(headers, frozenset("ab")), digest_of(ours, message)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_what_can_change_is_not_kept() -> None:
    """Promise (A03): a value that is no bytes, and was changed since, is digested as it is now."""
    value: Any = bytearray(b"x" * 100)
    headers, coverage, ours = (("a", value),), HeaderCoverage(), signer()
    message = replace(kafka(), headers=headers)
    before = coverage.of(headers, frozenset("a"))[1], digest_of(ours, message)
    value[0] ^= 1
    after = coverage.of(headers, frozenset("a"))[1], digest_of(ours, message)
    assert before[0] != after[0]
    assert before[1] != after[1]
