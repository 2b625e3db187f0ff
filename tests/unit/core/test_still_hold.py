"""What verified and was not handed on is judged once more: a verdict rests on things that change."""

from dataclasses import replace

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, World, at_once, kafka, press, public
from watchword import Allow, MemoryKeys, Policy, Rate, Unavailable
from watchword.spi import Message

MESSAGES = [press(kafka(), c7=bytes([number]) * 16) for number in range(3)]


def again(world: World, messages: list[Message] | None = None) -> list[str | None]:
    """Return how messages fare that were judged before."""
    found = at_once(world.verifier.reverify(MESSAGES if messages is None else messages))
    return [one if one is None else one.what if isinstance(one, Unavailable) else str(one.reason) for one in found]


def test_what_holds_is_neither_claimed_nor_charged_again() -> None:
    """Promise (A17, A40): no id is offered to the store a second time, and no rate is spent."""
    policy = Policy(allow=(Allow(ALICE, ("kafka://prod/tasks",), Rate(3, 3600.0)),))
    world = World(policy=policy)
    at_once(world.verifier.verify_many(MESSAGES[:2]))
    claims = len(world.store.claims)
    assert [again(world, MESSAGES[:2]) for _ in range(5)] == [[None, None]] * 5
    assert len(world.store.claims) == claims
    world.verify(MESSAGES[2])


@pytest.mark.parametrize("way", ["key_revoked", "unknown_key", "contained", "not_permitted", "expired"])
def test_what_has_changed_since_is_seen(way: str) -> None:
    """Promise (A23, A24): a key revoked or withdrawn, a principal contained or cut off, a time that is up."""
    world = World()
    messages = [press(kafka(), c4=NOW + 5)] if way == "expired" else MESSAGES
    at_once(world.verifier.verify_many(messages))
    match way:
        case "key_revoked":
            world.keys.source = MemoryKeys([public(ALICE_KEY, ALICE, revoked_at=NOW)])
        case "unknown_key":
            world.keys.source = MemoryKeys([])
        case "contained":
            world.verifier.policy = replace(world.policy, contained=frozenset({ALICE}))
        case "not_permitted":
            world.verifier.policy = replace(world.policy, allow=(Allow(ALICE, ("kafka://prod/other",)),))
        case _:
            world.now = NOW + 6
    assert again(world, messages) == [way] * len(messages)


def test_what_cannot_be_asked_is_unavailable() -> None:
    """Promise (A35): where nobody can say, it ends there, as a bulk does."""

    class Down:
        async def find(self, principal: str, key_id: bytes) -> None:
            raise OSError(principal, key_id)

    world = World()
    at_once(world.verifier.verify_many(MESSAGES))
    world.keys.source = Down()
    assert again(world) == ["keys"]
    (ending,) = at_once(world.verifier.reverify(MESSAGES))
    assert isinstance(ending, Unavailable)
