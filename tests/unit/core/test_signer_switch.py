"""A signer whose key is replaced while it signs, or that is held back."""

import asyncio
from dataclasses import replace

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, REALM, World, at_once, nats, public, signer
from watchword import ConfigurationError, SigningError, SigningKey
from watchword.algorithms import Algorithm
from watchword.message import Message
from watchword.spi import KeySwitch, RotatingBackend, Signed, Signer

NEW_KEY = SigningKey.from_pem(SigningKey.generate(Algorithm.ESP256).to_pem(), key_id=b"alice-2")


def bearing(message: Message, signed: Signed) -> Message:
    """Return a message with its envelope."""
    return replace(message, headers=(*message.headers, signed.header))


class Waiting:
    """A key that takes its time."""

    key_id, algorithm = ALICE_KEY.key_id, ALICE_KEY.algorithm

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def sign(self, data: bytes) -> bytes:
        """Sign once it is let."""
        self.asked.set()
        await self.answer.wait()
        return ALICE_KEY.sign_now(data)


async def test_a_signature_that_is_under_way_is_that_of_its_key() -> None:
    """A switch meanwhile, by whatever thread, neither spoils it nor what is signed with it."""
    slow = Waiting()
    by = Signer(realm=REALM, principal=ALICE, key=slow, key_id=slow.key_id, algorithm=slow.algorithm,
                clock=lambda: float(NOW), batch=2)  # fmt: skip
    messages = [nats(value=b"%d" % number) for number in range(4)]  # two trees
    work = asyncio.ensure_future(by.sign_many(messages))
    await slow.asked.wait()
    by.switch(NEW_KEY)
    slow.answer.set()
    world = World()
    for message, signed in zip(messages, await work, strict=True):
        assert (await world.verifier.verify(bearing(message, signed))).key_id == "alice-1"


def test_a_signer_may_be_held_for_two_reasons() -> None:
    """It signs again when both have gone."""
    by = signer()
    by.hold("contained")
    by.hold("no key", by="identity")
    with pytest.raises(SigningError, match="contained"):
        at_once(by.sign(nats()))
    by.hold(None)
    with pytest.raises(SigningError, match="no key"):
        at_once(by.sign(nats()))
    by.hold(None, by="identity")
    assert at_once(by.sign(nats())).issued_at == NOW


class Rotating:
    """A key that another one takes the place of."""

    key_id, algorithm = ALICE_KEY.key_id, ALICE_KEY.algorithm
    signer: KeySwitch | None = None

    async def sign(self, data: bytes) -> bytes:
        """Sign by the first key."""
        return ALICE_KEY.sign_now(data)

    def serve(self, signer: KeySwitch) -> None:
        """Take note of whom to tell."""
        self.signer = signer


def test_a_key_may_have_itself_replaced() -> None:
    """A signer with a rotating key signs with the new one, under its id, from the switch on."""
    key = Rotating()
    assert isinstance(key, RotatingBackend)
    by = Signer(realm=REALM, principal=ALICE, key=key, key_id=key.key_id, algorithm=key.algorithm,
                clock=lambda: float(NOW))  # fmt: skip
    assert (key.signer, by.key_id, by.in_memory) == (by, ALICE_KEY.key_id, False)
    assert key.signer is not None
    key.signer.switch(NEW_KEY)
    assert (by.key_id, by.in_memory) == (b"alice-2", True)
    message = nats()
    sent = bearing(message, at_once(by.sign(message)))
    assert World(keys=[public(NEW_KEY, ALICE)]).verify(sent).key_id == "alice-2"
    with pytest.raises(ConfigurationError, match="another length"):
        key.signer.switch(SigningKey.from_pem(NEW_KEY.to_pem(), key_id=b"x"))
