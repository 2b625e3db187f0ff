"""What passed without a verdict where a shared store keeps the ids: the process remembers it, not the store."""

from dataclasses import replace

import pytest

from tests.unit.core.world import (
    ALICE,
    ALICE_KEY,
    BOB,
    BOB_KEY,
    MALLORY,
    MALLORY_KEY,
    NOW,
    REALM,
    at_once,
    endings,
    kafka,
    nats,
    press,
    public,
)
from watchword import MemoryKeys, Mode, Policy, Rejected, Unavailable, Watchword
from watchword.message import Message
from watchword.spi import ObservedMessage, Position, Verifier
from watchword.testing import SharedMemoryStore

KNOWN = MemoryKeys([public(ALICE_KEY, ALICE), public(BOB_KEY, BOB)])


class Group:
    """A member of a queue group whose ids a store keeps, and who knows nobody yet."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.now = NOW + 1.0
        self.store = SharedMemoryStore(clock=lambda: self.now, open_to_all=True)
        self.agent = Watchword(realm=REALM, keys=MemoryKeys(), replay=self.store, policy=policy, clock=lambda: self.now)
        self.verifier: Verifier = self.agent.verifier

    def know(self, policy: Policy | None = None) -> None:
        """Let the keys be given out."""
        self.agent.switch(policy or self.verifier.policy, KNOWN)

    def judge(self, *messages: Message) -> list[str]:
        """Return how messages end."""
        return endings(self, messages)  # type: ignore[arg-type] # a verifier is all that it asks of a world


def arrival(message: Message, number: int = 0) -> Message:
    """Return a message as it arrived, as the copy of this number."""
    return replace(message, arrival=b"%016d" % number)


def test_a_copy_of_what_was_dropped_for_want_of_its_key_is_a_replay() -> None:
    """Promise (A39): at no reader of this process; and nothing of it is written where others would pay for it."""
    group, message, other = Group(), press(nats()), press(nats(), c7=b"2" * 16)
    assert group.judge(arrival(message)) == ["unknown_key"]
    assert len(group.store) == 0
    group.know()
    assert group.judge(arrival(message, 1), arrival(other), arrival(message, 2)) == ["replayed", "first", "replayed"]
    assert len(group.store) == 1
    assert group.judge(replace(arrival(message, 3), reader="another group")) == ["first"]  # which was never given it


def test_a_copy_of_what_was_observed_without_its_key_is_a_replay() -> None:
    """Promise (A38, A39): what was handed over unverified is not handed over again once enforcing has begun."""
    group, message = Group(Policy(mode=Mode.OBSERVE)), press(nats())
    assert isinstance(at_once(group.agent.admit(arrival(message))), ObservedMessage)
    group.know(Policy())
    with pytest.raises(Rejected, match="replayed"):
        at_once(group.agent.admit(arrival(message, 1)))


def test_what_was_observed_while_the_store_was_down_is_a_replay() -> None:
    """Promise (A38): a verdict that never came stands in the way of a second handing over as well."""
    group, message = Group(Policy(mode=Mode.OBSERVE)), press(nats())
    group.know()
    group.store.is_down = True
    found = at_once(group.agent.admit(arrival(message)))
    assert isinstance(found, ObservedMessage)
    assert isinstance(found.verdict, Unavailable)
    group.store.is_down = False
    group.know(Policy())
    with pytest.raises(Rejected, match="replayed"):
        at_once(group.agent.admit(arrival(message, 1)))


def test_what_is_offered_again_is_no_copy_of_anything() -> None:
    """Promise (A43): the store knows at which place it may be delivered, and that may be the other one of two.

    Another member may have claimed the copy, and ended before it handed it over: this one is offered both.
    """
    group, message = Group(), press(nats())
    group.know()
    group.store.is_down = True
    with pytest.raises(Unavailable):
        at_once(group.verifier.verify(arrival(message)))
    group.verifier.remember_unjudged(arrival(message))
    group.store.is_down = False
    assert group.judge(arrival(message, 1), arrival(message)) == ["first", "replayed"]


@pytest.mark.parametrize(("after", "verdict"), [(0, "stale"), (1, "replayed")])
def test_it_is_remembered_as_long_as_a_copy_could_be_judged(
    after: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: it leaves when the store would call a copy stale, not before; forgeries do not fill memory for good."""
    monkeypatch.setattr("watchword.unjudged.MOST", 1)
    policy = Policy(max_age=60.0, max_skew=5.0, max_lag=600.0)
    group = Group(policy)
    assert group.judge(arrival(press(nats()))) == ["unknown_key"]
    group.now = NOW + policy.longest + after
    late = press(nats(), c6=int(group.now), c7=b"2" * 16)
    assert group.judge(arrival(late)) == ["unknown_key"]
    group.know()
    assert group.judge(arrival(late, 1)) == [verdict], "there was room for it once the first had left"


def test_a_flood_of_forgeries_costs_a_newcomer_the_skew_and_nobody_else_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: beyond the bound what a key signed up to then counts as seen; memory and store take no more."""
    monkeypatch.setattr("watchword.unjudged.MOST", 1)
    group = Group()
    message, first = press(nats()), press(nats(), key=MALLORY_KEY, principal=MALLORY)
    assert group.judge(arrival(first), arrival(message)) == ["unknown_key"] * 2
    assert len(group.store) == 0
    group.know()
    later = press(nats(), c6=NOW + 1, c7=b"2" * 16)
    theirs = press(nats(), key=BOB_KEY, principal=BOB, c7=b"3" * 16)
    assert group.judge(arrival(message, 1), arrival(later), arrival(theirs)) == ["stale", "first", "first"]
    assert group.judge(replace(arrival(theirs), reader="another group")) == ["first"]


def test_what_is_remembered_already_stays_at_its_place() -> None:
    """Promise: a copy that came before the key, too, does not make its own place the one that is judged."""
    group, message = Group(), press(kafka())
    copy = replace(message, position=Position("tasks/0", 13))
    assert group.judge(message, copy) == ["unknown_key"] * 2
    group.know()
    assert group.judge(copy, message) == ["replayed", "first"]
