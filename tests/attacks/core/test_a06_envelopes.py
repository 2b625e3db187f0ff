"""A06, A07: two envelopes, half an envelope, oversize ones, garbage."""

import random
from dataclasses import replace

import pytest

from tests.unit.core.world import World, bear, cbor, claims_of, direct, kafka, nats, raw_of, signed, text
from watchword import Reason, Rejected
from watchword.message import MAX_HEADER_BYTES
from watchword.spi import Message


def malformed(message: Message) -> None:
    """Assert that the message is malformed, and that no key was looked up to find out."""
    world = World()
    with pytest.raises(Rejected) as caught:
        world.verify(message)
    assert caught.value.reason is Reason.MALFORMED
    assert world.keys.asked == 0


@pytest.mark.parametrize("name", ["watchword", "Watchword", "WATCHWORD"])
def test_a06_two_envelopes(name: str) -> None:
    """Promise: of two envelopes, equal or not, in any letter case and order, none is chosen."""
    message = signed(nats())
    for second in (message.headers[-1][1], signed(nats()).headers[-1][1], b"", None):
        malformed(replace(message, headers=(*message.headers, (name, second))))
        malformed(replace(message, headers=((name, second), *message.headers)))


@pytest.mark.parametrize("name", ["signature", "watchwor", "watchwords", "watch-word", "xwatchword"])
def test_a06_header_of_another_name_is_no_envelope(name: str) -> None:
    """Promise: an application's own header counts as no envelope, however much its name looks like it."""
    message = signed(nats(headers=((name, b"own"),)))
    assert World().verify(message).headers == ((name, b"own"),)
    with pytest.raises(Rejected) as caught:
        World().verify(nats(headers=((name, message.headers[-1][1]),)))
    assert caught.value.reason is Reason.UNSIGNED


def test_a06_half_an_envelope_and_oversize() -> None:
    """Promise: every prefix of an envelope, one over its limit, and an oversize header block are malformed."""
    message = signed(nats())
    value = message.headers[-1][1] or b""
    for end in range(len(value)):
        malformed(replace(message, headers=(("watchword", value[:end]),)))
    malformed(bear(nats(), direct(cbor(claims_of(nats(), r="x" * 5000)))))
    malformed(replace(message, headers=(*message.headers, ("x", bytes(MAX_HEADER_BYTES)))))


@pytest.mark.slow
@pytest.mark.usefixtures("not_traced")
def test_a07_every_byte_flipped() -> None:
    """Promise: no byte of an envelope can be changed, whatever it is changed to, in base64url or below it."""
    message = signed(kafka())
    value, raw = message.headers[-1][1] or b"", raw_of(message)
    for at in range(len(value)):
        for change in (value[at] ^ 1, value[at] ^ 0x20, 0, 255):
            forged = value[:at] + bytes([change]) + value[at + 1 :]
            if forged != value:
                _not_delivered(replace(message, headers=(*message.headers[:-1], ("watchword", forged))))
    for at in range(len(raw)):
        for bit in range(8):
            forged = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
            _not_delivered(replace(message, headers=(*message.headers[:-1], ("watchword", text(forged)))))


def _not_delivered(message: Message) -> None:
    with pytest.raises(Rejected):
        World().verify(message)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x81" * 4000,
        b"\xa1" * 4000,
        b"\x9b" + b"\xff" * 8,
        b"\xbb" + b"\xff" * 8,
        b"\x5b" + b"\xff" * 8,
        b"\x7b\x7f" + b"\xff" * 7,
        b"\x83\x01\x5b\x7f" + b"\xff" * 7,
        b"\xd9\xd9\xf7" * 1000,
        b"\xc2\x5a\x00\x00\x0f\xff" + b"\xff" * 4000,
    ],
)
def test_a07_bombs(raw: bytes) -> None:
    """Promise: deep, huge or tagged CBOR is malformed without recursion, allocation or waiting."""
    malformed(bear(nats(headers=()), raw))


def test_a07_random_bytes() -> None:
    """Promise: random bytes are malformed, as text and below base64url."""
    source = random.Random(7)  # noqa: S311 - a repeatable test, no secret
    for _ in range(300):
        noise = source.randbytes(source.randrange(200))
        malformed(nats(headers=(("watchword", noise),)))
        malformed(bear(nats(headers=()), noise))
