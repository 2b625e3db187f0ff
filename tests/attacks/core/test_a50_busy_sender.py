"""A50: one honest principal that sends as fast as it can, into one reader with default settings."""

from dataclasses import dataclass
from math import ceil, inf
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, REALM, at_once, in_turns, kafka, known_keys, press
from watchword import MemoryKeys, Policy, Rejected, Watchword
from watchword.guard import SLICES, Kind, Note
from watchword.quota import Bounds
from watchword.replay import Claim
from watchword.spi import Admission, MemoryReplayStore, Position, ReplayStore, Verifier

POLICY = Policy()


@dataclass
class Sight:
    """What a claim says, changed in place from one message to the next: a million of them are offered."""

    id: bytes = b""
    digest: bytes = b""
    place: tuple[Position, float | None] | None = None
    issued_at: int = NOW
    reference: float = NOW
    log: str = "group#tasks/0"
    principal: str = ALICE
    key_id: bytes = ALICE_KEY.key_id
    keep_until: float = NOW + 1e6
    unacked: bool = False
    solicited: bool = False
    appended_after: float | None = None


@pytest.mark.usefixtures("not_traced")
@pytest.mark.parametrize(("rate", "scale"), [(1000, 1), (5000, 20)])
def test_a50_one_busy_sender_loses_nothing(rate: int, scale: int) -> None:
    """Promise: at 1,000 a second over more than the window nothing is over quota, nor near it.

    Nor at 5,000: in a twentieth of the window and of the memory, which takes a twentieth of the time.
    """
    policy = Policy(max_age=POLICY.max_age / scale, max_skew=POLICY.max_skew / scale, memory=POLICY.memory // scale)
    memory = MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
    sight: Any = Sight()
    held = 0
    seconds = ceil(policy.window * (1 + 1 / SLICES)) + 2
    for number in range(rate * seconds):
        second, part = divmod(number, rate)
        sight.id = number.to_bytes(16)
        sight.digest = sight.id * 2
        sight.place = Position("tasks/0", number), None
        sight.issued_at = NOW + second + int(policy.max_skew)  # its clock is ahead: so ids stay longest
        sight.reference = NOW + second + part / rate
        assert memory.admit(sight) is Admission.FIRST
        held = max(held, len(memory))
    assert held < rate * seconds, "what is older than the window has left"
    assert list(memory.warnings) == []


def test_a50_the_default_bounds_fit_their_memory() -> None:
    """Promise: what all bounds together allow takes no more than the memory that was given."""
    bounds = Bounds.within(POLICY.memory)
    assert (2 * bounds.in_all + bounds.unverified) * 25 <= POLICY.memory
    assert bounds.per_principal <= bounds.in_all // 2, "one principal leaves room for others"
    assert bounds.unverified > 50_000


@pytest.mark.parametrize("shared", [True, False])
def test_a50_the_policys_memory_bounds_what_one_process_reads(*, shared: bool) -> None:
    """Promise: the bound that was set is the one that holds, beside a shared store too, and it is announced."""
    policy = Policy(memory=1_000_000)
    bounds = Bounds.within(policy.memory)
    own = MemoryReplayStore(horizon=policy.horizon, bounds=bounds)
    replay: ReplayStore = Shared() if shared else own
    verifier = Verifier(
        realm=REALM, keys=MemoryKeys(known_keys()), replay=replay, policy=policy, clock=lambda: NOW + 1.0
    )
    agent, logged = Watchword.of(verifier=verifier), list[str]()
    agent.audit.warn = lambda event, **fields: logged.append(f"{event}: {fields['remedy']}")  # type: ignore[method-assign] # the test listens
    log, known = "group#tasks/0", range(bounds.per_principal - 1)
    notes = [Note(log, Kind.ID, ALICE, ALICE_KEY.key_id, NOW, number.to_bytes(16)) for number in known]
    in_turns(verifier.resume(log, floor=-inf, notes=notes))
    assert verifier.ids_held == len(known)
    record = kafka(exclusive=True, position=Position("tasks/0", 1))
    at_once(agent.admit(press(record, c7=b"1" * 16)))
    with pytest.raises(Rejected, match="over_quota"):
        at_once(agent.admit(press(record, c7=b"2" * 16)))
    assert logged == ["replay.memory_filling: raise memory in [replay]: at the bound messages are over_quota"]


class Shared:
    """A store that others share; what one process reads alone never reaches it."""

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        raise AssertionError(claim)
