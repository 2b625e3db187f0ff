"""What an interceptor asks of its agent before it begins: that it is one, and that it can do what is wanted."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import ALICE, BOB, NOW, REALM, World, at_once, nats, press, signer
from watchword import Algorithm, ConfigurationError, MemoryKeys, Mode, Policy, SigningKey, VerifiedMessage, Watchword
from watchword.agent import require
from watchword.spi import Channel, KeyChain, MemoryReplayStore, Message, ObservedMessage


def keyless(mode: Mode = Mode.ENFORCE) -> Watchword:
    """Return an agent without a key source."""
    return Watchword(realm=REALM, principal=ALICE, policy=Policy(mode=mode), clock=lambda: NOW)


def test_who_reads_without_a_key_source_is_refused() -> None:
    """All that it read would be ``unknown_key``, for good: the error says what to write instead."""
    agent = keyless()
    require(agent)
    with pytest.raises(ConfigurationError, match=r'no key source.*\[\[keys\]\].*source = "files".*mode = "observe"'):
        require(agent, reads=True)
    require(Watchword.of(verifier=World(keys=[]).verifier), reads=True)  # a source that trusts nobody was meant


def test_who_observes_needs_no_key_source_yet() -> None:
    """Before keys are given out it shows what is signed by whom; nothing verifies."""
    agent = keyless(Mode.OBSERVE)
    require(agent, reads=True)
    delivered = at_once(agent.admit(press(nats())))
    assert isinstance(delivered, ObservedMessage)
    assert getattr(delivered.verdict, "reason", None) == "unknown_key"


@pytest.mark.parametrize("given", ["watchword.toml", None, World().verifier, Watchword])
@pytest.mark.parametrize("reads", [False, True])
def test_what_is_no_watchword_is_refused(given: Any, *, reads: bool) -> None:
    """A path in its place, say, is answered with the call that makes one of it."""
    told = rf'^watchword=: write watchword\.load\("watchword.toml"\).*type {type(given).__name__}$'
    with pytest.raises(ConfigurationError, match=told):
        require(given, reads=reads)


async def _later(*_: object) -> str:
    return ALICE


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"recipient": ALICE}, r"recipient=: write a function \(channel, key, headers\) that returns .* type str"),
        ({"recipient": 5}, r"recipient=: write a function.* type int"),
        ({"recipient": _later}, "recipient=: write a plain function, not one with 'async def'"),
        ({"quarantine": "copies"}, r"quarantine=: .*write copies of what is not delivered.* type str"),
    ],
)
def test_what_an_interceptor_cannot_use_is_refused(given: dict[str, Any], why: str) -> None:
    """A value of the wrong type, such as a principal for a function, raises an error at once, not per message."""
    with pytest.raises(ConfigurationError, match=why):
        require(keyless(), **given)


def test_a_chain_of_no_sources_is_refused() -> None:
    """It would know no key, as if there were a source that says so."""
    with pytest.raises(ConfigurationError, match="KeyChain: give at least one key source"):
        KeyChain([])


def test_an_agent_is_made_of_who_it_is_its_key_and_whom_it_believes() -> None:
    """Everything else has a default: two agents that know each other's public keys talk at once, by real clocks."""
    planner_key, cloud_key = SigningKey.generate(), SigningKey.generate(Algorithm.ESP256)
    public = [planner_key.verification_key("planner"), cloud_key.verification_key("cloud")]
    planner = Watchword(realm="prod", principal="planner", key=planner_key, keys=public)
    cloud = Watchword(realm="prod", principal="cloud", key=cloud_key, keys=MemoryKeys(public))
    message = Message(channel=Channel.parse("nats://prod/tasks"), value=b"scale up")
    for speaker, reader in ((planner, cloud), (cloud, planner)):
        signed = at_once(speaker.signer.sign(message))
        delivered = at_once(reader.admit(replace(message, headers=(signed.header,))))
        assert isinstance(delivered, VerifiedMessage)
        assert delivered.principal == speaker.verifier.principal
    assert isinstance(cloud.verifier.replay, MemoryReplayStore)
    assert cloud.verifier.policy == Policy()


def test_a_store_that_is_empty_is_the_store_that_was_given() -> None:
    """What is given is used; a length of zero is not the same as nothing."""
    store = MemoryReplayStore(horizon=None)
    assert Watchword(realm="prod", replay=store).verifier.replay is store


class _Vault:
    """A back-end that does not know whose key it has."""

    async def sign(self, data: bytes) -> bytes:
        """Sign."""
        raise NotImplementedError(data)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no name to sign under": ({"key": SigningKey.generate()}, 'principal: missing; .*"agent://'),
    "a path for a key": ({"principal": "a", "key": "planner.pem"}, "key: a str has no key_id and algorithm"),
    "a back-end without names": ({"principal": "a", "key": _Vault()}, "key: a _Vault has no key_id and algorithm"),
    "a path for a source": ({"keys": "agents.jwks"}, r"keys: a str is not a source.*watchword\.load\(\)"),
    "a number for a source": ({"keys": 5}, "keys: a int is not a source"),
    "names for keys": ({"keys": ["agents.jwks"]}, "keys: str given: give VerificationKeys"),
    "one key of two agents": (
        {"keys": [(key := SigningKey.generate()).verification_key("a"), key.verification_key("b")]},
        "one public key for 'a' and 'b'",
    ),
    "a realm with blanks": ({"realm": "my realm"}, "realm 'my realm'"),
    "no such batch": ({"principal": "a", "key": SigningKey.generate(), "batch": 0}, "batch of 0 messages"),
}


@pytest.mark.parametrize(("given", "told"), MISTAKES.values(), ids=MISTAKES.keys())
def test_what_does_not_fit_is_told_by_what_to_write(given: dict[str, Any], told: str) -> None:
    """Each mistake at the constructor is one ConfigurationError, and no library's own error."""
    with pytest.raises(ConfigurationError, match=told):
        Watchword(**{"realm": "prod"} | given)


def test_parts_of_two_agents_make_none() -> None:
    """A process that speaks as one and reads as another would answer in a name that nobody asked."""
    with pytest.raises(ConfigurationError, match="signer and verifier differ in realm or principal"):
        Watchword.of(World(principal=BOB).verifier, signer())
