"""Any bytes give a result or ``Rejected``; any change of what is covered is rejected."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.core.world import (
    ALICE,
    ALICE_EC_KEY,
    World,
    batch,
    bear,
    cbor,
    claims_of,
    direct,
    kafka,
    nats,
    press,
    raw_of,
    signed,
    signer,
    text,
)
from watchword import Reason, Rejected, SigningError, VerifiedMessage
from watchword.spi import Message

pytestmark = pytest.mark.usefixtures("not_traced")

NAMES = st.text(max_size=6) | st.sampled_from(["watchword", "WATCHWORD", "traceparent", "a", "Nats-Msg-Id"])
HEADERS = st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=8)), max_size=4).map(tuple)
OPTIONAL = st.none() | st.binary(max_size=20)


def verdict(message: Message, world: World | None = None) -> VerifiedMessage | Reason:
    """Return the verified message, or the reason; anything else that is raised fails the test."""
    try:
        return (world or World()).verify(message)
    except Rejected as refused:
        return refused.reason


def delivered(message: Message) -> VerifiedMessage | None:
    """Return the verified message; None if rejected."""
    found = verdict(message)
    return found if isinstance(found, VerifiedMessage) else None


@given(st.binary(max_size=300))
@example(b"")
@example(b"=")
@example(b"gw")
def test_any_bytes_as_header(value: bytes) -> None:
    """Promise (A07): whatever stands in the header, the end is a verdict of ours."""
    assert delivered(nats(headers=(("watchword", value),))) is None
    assert delivered(bear(nats(headers=()), value)) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.binary(max_size=40) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.integers(-2, 400) | st.sampled_from("chmpqrv"), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(st.data())
def test_any_cbor_in_any_place(data: st.DataObject) -> None:
    """Promise (A07): any CBOR in place of any part of an envelope gives a verdict of ours, and no delivery."""
    honest = claims_of(nats())
    place = data.draw(st.sampled_from(["whole", "claims", "claim", "unsigned"]))
    value = data.draw(ANYTHING)
    match place:
        case "whole":
            raw = cbor(value)
        case "claims":
            raw = direct(cbor(value))
        case "claim":
            label = data.draw(st.sampled_from([1, 3, 4, 6, 7, "c", "h", "m", "p", "q", "r", "v"]))
            if label in {1, 3, 4, 6} and type(value) in {str, int}:
                return  # may be an honest claim
            raw = direct(cbor(honest | {label: value}))
            if raw == direct(cbor(honest)):
                return
        case _:
            raw = cbor([1, cbor(honest), value])
    assert delivered(bear(nats(), raw)) is None


@given(st.data(), st.sampled_from(["ed25519", "esp256", "batch"]))
@settings(max_examples=300)
def test_any_one_byte_change_of_an_envelope(data: st.DataObject, kind: str) -> None:
    """Promise (A07): an envelope with one byte changed, added or taken out is rejected, as text and below it."""
    message = kafka()
    claims = cbor(claims_of(message))
    if kind == "batch":
        raw = batch([claims, cbor(claims_of(message, c7=b"x" * 16))])[0]
    else:
        raw = direct(claims, ALICE_EC_KEY) if kind == "esp256" else direct(claims)
    assert delivered(bear(message, raw)) is not None
    whole = data.draw(st.sampled_from([raw, text(raw)]))
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = data.draw(
        st.sampled_from(
            [
                whole[:at] + bytes([byte]) + whole[at + 1 :],
                whole[:at] + whole[at + 1 :],
                whole[:at] + bytes([byte]) + whole[at:],
            ]
        )
    )
    if changed == whole:
        return
    header = text(changed) if whole is raw else changed
    assert delivered(replace(message, headers=(*message.headers, ("watchword", header)))) is None


@given(value=OPTIONAL, key=OPTIONAL, headers=HEADERS)
def test_whatever_kafka_carries_can_be_signed_and_verified(
    value: bytes | None, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    """Promise: any value, key and headers pass unchanged, unless a header is an envelope already."""
    message = kafka(value=value, key=key, headers=headers)
    try:
        sent = signed(message)
    except SigningError:
        assert any(name.lower() == "watchword" for name, _ in headers)
        return
    verified = delivered(sent)
    assert verified is not None
    assert (verified.principal, verified.value, verified.key, verified.headers) == (ALICE, value, key, headers)


@given(value=OPTIONAL, key=OPTIONAL, headers=HEADERS)
def test_what_nats_headers_sign_verifies(
    value: bytes | None, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    """Promise: on NATS a message is refused at signing, or verifies; nothing is signed that could not verify."""
    try:
        sent = signed(nats(value=value, key=key, headers=headers))
    except SigningError:
        return
    verified = delivered(sent)
    assert verified is not None
    assert verified.headers == headers


@given(
    st.data(),
    st.fixed_dictionaries(
        {
            "value": OPTIONAL,
            "key": OPTIONAL,
            "headers": st.lists(
                st.tuples(st.sampled_from(["a", "b", "é"]), st.none() | st.binary(max_size=4)), max_size=3
            ).map(tuple),
        }
    ),
)
def test_any_change_of_what_is_covered(data: st.DataObject, parts: dict[str, object]) -> None:
    """Promise (A02): any other value, key or list of covered headers than the signed one is ``altered``."""
    message = kafka(**parts)
    sent = signed(message)
    envelope = sent.headers[-1]
    part = data.draw(st.sampled_from(sorted(parts)))
    names = {name for name, _ in message.headers}
    pairs = st.tuples(st.sampled_from(["a", "b", "é", "A"]), st.none() | st.binary(max_size=4))
    match part:
        case "value":
            forged = replace(sent, value=data.draw(OPTIONAL))
        case "key":
            forged = replace(sent, key=data.draw(OPTIONAL))
        case _:
            forged = replace(sent, headers=(*data.draw(st.lists(pairs, max_size=4)), envelope))
    covered = tuple(header for header in forged.headers if header[0] in names)
    if (forged.value, forged.key, covered) == (message.value, message.key, message.headers):
        assert delivered(forged) is not None
    else:
        assert verdict(forged) is Reason.ALTERED


@given(st.floats(allow_nan=True), st.floats(allow_nan=True), st.none() | st.floats(allow_nan=True))
@example(1e300, 0.0, None)
def test_any_times(now: float, appended_at: float, created_at: float | None) -> None:
    """Promise: any clock and any stamp, NaN and infinity too, give a verdict: fresh exactly within the bounds."""
    world = World()
    world.now = now
    message = press(kafka(appended_at=appended_at, created_at=created_at))
    age = appended_at - claims_of(message)[6]
    stamped_well = created_at is None or abs(created_at - claims_of(message)[6]) <= world.policy.max_skew
    fresh = -world.policy.max_skew <= age <= world.policy.max_age + world.policy.max_skew
    found = verdict(message, world)
    if fresh and stamped_well:
        assert isinstance(found, VerifiedMessage)
    else:
        assert found in ({Reason.ALTERED} if fresh else {Reason.STALE, Reason.FROM_FUTURE})


@given(st.integers(0, 2**33 - 1))
def test_any_issue_time_is_written_and_read(at: int) -> None:
    """Promise: times up to 2^33 survive the wire."""
    world = World()
    world.now = float(at)
    message = signed(nats(), signer(clock=lambda: at))
    assert raw_of(message)
    assert world.verify(message).issued_at == at
