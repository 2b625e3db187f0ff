"""What an interceptor asks of its agent before it begins: that it is one, and that it can do what is wanted."""

from typing import Any

import pytest

from tests.unit.core.world import ALICE, NOW, REALM, World, at_once, nats, press
from watchword import (
    ConfigurationError,
    KeyChain,
    MemoryReplayStore,
    Mode,
    ObservedMessage,
    Policy,
    Verifier,
    Watchword,
)
from watchword.agent import require


def keyless(mode: Mode = Mode.ENFORCE) -> Watchword:
    """Return an agent that was told no key source."""
    policy = Policy(mode=mode)
    replay = MemoryReplayStore(horizon=policy.horizon)
    return Watchword(
        verifier=Verifier(realm=REALM, principal=ALICE, keys=None, replay=replay, policy=policy, clock=lambda: NOW)
    )


def test_who_reads_without_a_key_source_is_refused() -> None:
    """All that it read would be ``unknown_key``, for good: the error says what to write instead."""
    agent = keyless()
    require(agent)
    with pytest.raises(ConfigurationError, match=r'no key source.*\[\[keys\]\].*source = "files".*mode = "observe"'):
        require(agent, reads=True)
    require(Watchword(verifier=World(keys=[]).verifier), reads=True)  # a source that trusts nobody was meant


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
    with pytest.raises(
        ConfigurationError, match=rf'^watchword=: write load\("watchword.toml"\).*type {type(given).__name__}$'
    ):
        require(given, reads=reads)


def test_a_chain_of_no_sources_is_refused() -> None:
    """It would know no key, as if there were a source that says so."""
    with pytest.raises(ConfigurationError, match="KeyChain: name at least one key source"):
        KeyChain([])
