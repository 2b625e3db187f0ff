"""A01: no signature, or a signature stripped on the way."""

from dataclasses import replace

import pytest

from tests.unit.core.world import World, kafka, nats, signed
from watchword import Reason, Rejected
from watchword.spi import Message


@pytest.mark.parametrize("message", [kafka(), nats(), kafka(headers=(("watchwords", b"x"), ("x-watchword", b"y")))])
def test_a01_without_a_signature(message: Message) -> None:
    """Promise: what bears no envelope is ``unsigned``."""
    with pytest.raises(Rejected) as caught:
        World().verify(message)
    assert caught.value.reason is Reason.UNSIGNED


def test_a01_stripped() -> None:
    """Promise: taking the envelope off a signed message is no way round; with it the message passes."""
    world, message = World(), signed(nats())
    with pytest.raises(Rejected) as caught:
        world.verify(replace(message, headers=message.headers[:-1]))
    assert caught.value.reason is Reason.UNSIGNED
    assert world.verify(message).value == message.value
