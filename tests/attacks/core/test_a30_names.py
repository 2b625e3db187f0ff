"""A30: CR/LF, non-ASCII and URI characters in names and values."""

import pytest

from tests.unit.core.world import REALM, World, kafka, nats, press, signed
from watchword import Reason, Rejected, SigningError
from watchword.spi import Channel


@pytest.mark.parametrize("bad", ["a\r\nPUB x 1", "a b", "a\x00", "é", "a..b", ">", "a.*"])
def test_a30_subjects(bad: str) -> None:
    """Promise: a subject or reply subject that could break the protocol's line is refused at signing."""
    with pytest.raises(SigningError):
        signed(nats(channel=Channel("nats", REALM, bad)))
    with pytest.raises(SigningError):
        signed(nats(reply_to=bad))


@pytest.mark.parametrize("bad", [b"x\r\nX-Admin: 1", b"x\ny", b"\xff", b" x", b"x\t"])
def test_a30_header_values(bad: bytes) -> None:
    """Promise: a value that NATS would split, strip or change is refused; Kafka carries it, and it is signed."""
    with pytest.raises(SigningError):
        signed(nats(headers=(("X", bad),)))
    assert World().verify(signed(kafka(headers=(("X", bad),)))).headers == (("X", bad),)


@pytest.mark.parametrize("bad", ["X\r\nY", "X Y", "X:", "é", ""])
def test_a30_header_names(bad: str) -> None:
    """Promise: likewise with names."""
    with pytest.raises(SigningError):
        signed(nats(headers=((bad, b"1"),)))
    assert World().verify(signed(kafka(headers=((bad, b"1"),)))).headers == ((bad, b"1"),)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("nats", "prod", "a/b"), ("nats", "prod/a", "b")),
        (("nats", "prod", "//x"), ("nats", "prod//", "x")),
        (("kafka", "prod", "a"), ("nats", "prod", "a")),
    ],
)
def test_a30_no_two_channels_look_alike(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Promise: a realm holds no slash, so that of two spellings that give one URI at most one can exist."""
    first, second = Channel(*one), Channel(*other)  # type: ignore[arg-type] # a table
    readable = [channel for channel in (first, second) if Channel.parse(channel.uri) == channel]
    assert len({channel.uri for channel in readable}) == len(readable)


def test_a30_uri_characters_are_not_decoded() -> None:
    """Promise: ``%2E`` is not ``.``: URIs are compared as bytes."""
    message = nats(channel=Channel("nats", REALM, "a%2Eb"))
    assert World().verify(signed(message)).channel.name == "a%2Eb"
    with pytest.raises(Rejected) as caught:
        World().verify(press(message, c="nats://prod/a.b"))
    assert caught.value.reason is Reason.WRONG_CHANNEL
