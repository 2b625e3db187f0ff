"""A32, A09, A21: what a key server that lies, floods or is down can make a verifier deliver. Verdicts, end to end."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.key_server import Answer, KeyServer, serving
from watchword import MemoryKeys, Reason, Rejected, SigningKey, Unavailable, VerificationKey, VerifiedMessage, Watchword
from watchword.jwk import to_jwks
from watchword.spi import Channel, KeyChain, Message
from watchword_adapters.keys.https import Https
from watchword_adapters.keys.jwks import JwksKeys

PLANNER, MALLORY = "agent://acme/planner", "agent://elsewhere/mallory"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class World:
    """A reader that fetches the sets of two organisations, from a server of each."""

    def __init__(self, acme: KeyServer, elsewhere: KeyServer) -> None:
        self.acme, self.elsewhere, self.clock = acme, elsewhere, Clock()
        self.reader = Watchword(
            realm="prod",
            keys=KeyChain([self.source(elsewhere, "agent://elsewhere/**"), self.source(acme, "agent://acme/**")]),
        )

    def source(self, server: KeyServer, pattern: str) -> JwksKeys:
        """Return a source that fetches the set of one server."""
        url = server.url(host="127.0.0.1")
        return JwksKeys(url, principals=[pattern], https=Https(allow_private=True), clock=self.clock)

    async def hears(self, principal: str, key: SigningKey, value: bytes = b"scale up") -> VerifiedMessage:
        """Let the reader judge what someone signed under a name."""
        message = Message(channel=Channel("nats", "prod", "tasks"), value=value)
        signed = await Watchword(realm="prod", principal=principal, key=key).signer.sign(message)
        return await self.reader.verifier.verify(
            Message(channel=message.channel, value=message.value, headers=(signed.header,))
        )

    async def rejects(self, principal: str, key: SigningKey) -> Reason:
        """Return why the reader does not deliver it."""
        with pytest.raises(Rejected) as verdict:
            await self.hears(principal, key)
        return verdict.value.reason


def publish(server: KeyServer, *keys: VerificationKey) -> None:
    """Have a server say this set."""
    server.answers["/agents.jwks"] = Answer(to_jwks(keys).encode())


@pytest.fixture
def world() -> Iterator[World]:
    """Return two organisations and their reader."""
    with serving() as acme, serving() as elsewhere:
        yield World(acme, elsewhere)


async def test_another_organisations_set_does_not_speak_for_ours(world: World) -> None:
    """A key that a foreign set gives to our planner signs nothing in the planner's name; ours and theirs are heard."""
    real, false, theirs = (SigningKey.generate() for _ in range(3))
    publish(world.acme, real.verification_key(PLANNER))
    publish(world.elsewhere, false.verification_key(PLANNER), theirs.verification_key(MALLORY))
    assert await world.rejects(PLANNER, false) is Reason.UNKNOWN_KEY
    assert (await world.hears(PLANNER, real)).principal == PLANNER
    assert (await world.hears(MALLORY, theirs)).principal == MALLORY


async def test_a_foreign_set_cannot_take_our_key_for_its_own_agent(world: World) -> None:
    """Our planner's public key under Mallory's name makes nothing of the planner's his, and stops nothing of ours."""
    real = SigningKey.generate()
    publish(world.acme, real.verification_key(PLANNER))
    publish(world.elsewhere, real.verification_key(MALLORY))
    assert (await world.hears(PLANNER, real)).principal == PLANNER


async def test_a_server_that_is_down_is_no_rejection_and_no_delivery(world: World) -> None:
    """Nobody is called unknown by an outage, and nobody is believed; the other organisation is heard as before."""
    theirs = SigningKey.generate()
    world.acme.refuses = True
    publish(world.elsewhere, theirs.verification_key(MALLORY))
    with pytest.raises(Unavailable, match="keys"):
        await world.hears(PLANNER, SigningKey.generate())
    assert (await world.hears(MALLORY, theirs)).principal == MALLORY


async def test_a_flood_of_invented_keys_does_not_reach_the_servers(world: World) -> None:
    """A thousand forgeries of strangers are one question to each server, and the planner is heard after them (A21)."""
    real = SigningKey.generate()
    publish(world.acme, real.verification_key(PLANNER))
    publish(world.elsewhere)
    for name in (PLANNER, MALLORY):
        for _ in range(500):
            assert await world.rejects(name, SigningKey.generate()) is Reason.UNKNOWN_KEY
    assert (world.acme.count(), world.elsewhere.count()) == (1, 1)
    assert (await world.hears(PLANNER, real)).principal == PLANNER


async def test_a_key_that_was_taken_out_is_not_heard_any_more(world: World) -> None:
    """Within check_every its messages are rejected, and a new one is heard (A23)."""
    old, new = SigningKey.generate(), SigningKey.generate()
    publish(world.acme, old.verification_key(PLANNER))
    publish(world.elsewhere)
    assert (await world.hears(PLANNER, old)).principal == PLANNER
    publish(world.acme, new.verification_key(PLANNER))
    world.clock.now += 300
    assert await world.rejects(PLANNER, old) is Reason.UNKNOWN_KEY
    assert (await world.hears(PLANNER, new)).principal == PLANNER


async def test_cutting_off_the_server_does_not_undo_a_revocation(world: World) -> None:
    """A key that the server revoked stays so beyond ``keep``, though another source has it without the revocation."""
    stolen = SigningKey.generate()
    key = stolen.verification_key(PLANNER)
    chain = KeyChain([world.source(world.acme, "agent://acme/**"), MemoryKeys([key])])
    world.reader = Watchword(realm="prod", keys=chain)
    publish(world.acme, replace(key, revoked_at=5))
    assert await world.rejects(PLANNER, stolen) is Reason.KEY_REVOKED
    world.acme.refuses = True
    for seconds in (300, 3600):
        world.clock.now += seconds
        assert await world.rejects(PLANNER, stolen) is Reason.KEY_REVOKED


async def test_one_public_key_in_two_sources_speaks_in_each_name_only_by_its_own_signature(world: World) -> None:
    """Each source speaks for its own principals; no message of one becomes a message of the other (A10)."""
    shared = SigningKey.generate()
    publish(world.acme, shared.verification_key(PLANNER))
    publish(world.elsewhere, shared.verification_key(MALLORY))
    for name in (PLANNER, MALLORY):
        assert (await world.hears(name, shared)).principal == name
    publish(world.elsewhere)
    world.clock.now += 300
    assert await world.rejects(MALLORY, shared) is Reason.UNKNOWN_KEY
