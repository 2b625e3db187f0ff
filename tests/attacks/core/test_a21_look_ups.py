"""A21: a flood of invented keys while the key source hangs, fails or takes its time."""

from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, BOB, MALLORY, World, at_once, ed_key, endings, kafka, press, public
from watchword import Unavailable, VerificationKey
from watchword.key_budget import FAILURES, MOST
from watchword.spi import Message, Position

FORGER = ed_key(9)


class Down:
    """A source that knows Alice, and hangs or fails for everybody else."""

    def __init__(self, *, hangs: bool) -> None:
        self.asked = 0
        self._hangs = hangs

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if key_id == ALICE_KEY.key_id and principal == ALICE:
            return public(ALICE_KEY, ALICE)
        self.asked += 1
        if self._hangs:
            await _Never()
        raise ConnectionError


class _Never:
    def __await__(self) -> Generator[None, None, None]:
        yield


def forged(number: int, *, name: str = MALLORY) -> Message:
    """Return a message under an invented key id, and any name."""
    where = kafka(position=Position("tasks/0", 1000 + number))
    return press(where, key=ed_key(9, kid=b"invented-%d" % number), principal=name, c7=b"%016d" % number)


def honest(number: int) -> Message:
    """Return one of Alice's messages."""
    return press(kafka(position=Position("tasks/0", number)), c7=b"honest%010d" % number)


def ended(work: Coroutine[Any, Any, object]) -> str:
    """Return how a message ends that is judged without waiting."""
    try:
        work.send(None)
    except StopIteration:
        return "delivered"
    except Unavailable as verdict:
        return verdict.detail
    return "waits"


def down(*, hangs: bool) -> tuple[World, Down]:
    """Return a world whose key source is down for strangers, and to which Alice has spoken before."""
    world, source = World(), Down(hangs=hangs)
    world.verifier.keys.source = source
    assert endings(world, [honest(0)]) == ["first"]
    return world, source


@pytest.mark.parametrize("name", [MALLORY, ALICE, BOB])
def test_a21_a_source_that_hangs_costs_few_look_ups_and_no_honest_message(name: str) -> None:
    """Promise: a flood that no budget is left for is Unavailable at once, and whose key is at hand is delivered."""
    world, source = down(hangs=True)
    waiting = [world.verifier.verify(forged(number, name=name)) for number in range(3 * MOST)]
    found = [ended(work) for work in waiting]
    assert found == ["waits"] * MOST + [f"{MOST} look-ups for unknown keys are under way"] * 2 * MOST
    assert source.asked == MOST
    assert [ended(world.verifier.verify(honest(number))) for number in range(1, 50)] == ["delivered"] * 49
    ((event, fields),) = world.verifier.warnings
    assert (event, fields["count"]) == ("keys.look_ups_shed", 1)
    for work in waiting[:MOST]:
        work.close()


def test_a21_a_source_that_fails_is_not_asked_for_each_message_of_a_flood() -> None:
    """Promise: after so many failures in a row the flood is shed; nothing of it is rejected, which would be final."""
    world, source = down(hangs=False)
    flood = [forged(number) for number in range(4 * FAILURES)]
    assert {ended(world.verifier.verify(message)) for message in flood} == {
        "ConnectionError", f"{FAILURES} look-ups in a row have failed",
    }  # fmt: skip
    assert source.asked == FAILURES
    assert endings(world, [honest(number) for number in range(1, 9)]) == ["first"] * 8


def test_a21_a_newcomer_is_judged_once_the_source_is_back() -> None:
    """Promise: what was shed was not remembered as anything else: it is delivered when it comes again."""
    world, _ = down(hangs=False)
    for number in range(2 * FAILURES):
        ended(world.verifier.verify(forged(number)))
    world.verifier.keys.source = Down(hangs=False)
    newcomer = press(kafka(position=Position("tasks/0", 77)), key=FORGER, principal=BOB, c7=b"n" * 16)
    assert endings(world, [newcomer]) == ["keys"]
    world.verifier.keys.source = _Knows(public(FORGER, BOB))
    assert endings(world, [newcomer]) == ["first"]


class _Knows:
    def __init__(self, key: VerificationKey) -> None:
        self._key = key

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        return self._key if (principal, key_id) == (self._key.principal, self._key.key_id) else None


def test_a21_what_is_shed_ends_a_run_only_where_order_is_kept() -> None:
    """Promise: in a log nothing is judged before what stands in front of it; where nobody keeps order, no run ends."""
    world, source = down(hangs=False)
    for number in range(2 * FAILURES):
        ended(world.verifier.verify(forged(number)))
    mixed = [honest(1), forged(5000), honest(2), forged(5001), honest(3)]
    assert endings(world, mixed) == ["first", "keys"]
    assert endings(world, mixed[1:], keys=world.verifier.keys) == ["keys", "first", "keys", "first"]
    asked = source.asked
    assert at_once(world.verifier.reverify([honest(3), forged(5002)]))[0] is None
    assert source.asked == asked
