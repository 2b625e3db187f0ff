"""A clock that jumps ahead and comes back: log time never goes back, and the operator is warned."""

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.core.world import ALICE, ALICE_KEY, NOW, REALM
from watchword import MemoryKeys, Policy, Reason, Rejected, Watchword
from watchword.replay_check import shown_time
from watchword.spi import Admission, Channel, Claim, MemoryReplayStore, Message, Signer, Verifier

HOURS = 3 * 3600


class World:
    """A reader, and who speaks to it, by one clock."""

    def __init__(self, **policy: Any) -> None:
        self.now = float(NOW)
        self.reader = Watchword(
            realm=REALM, keys=[ALICE_KEY.verification_key(ALICE)], policy=Policy(**policy), clock=lambda: self.now
        )
        self.signer = Signer(realm=REALM, principal=ALICE, key=ALICE_KEY, clock=lambda: self.now)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.reader.audit.warn = lambda event, **fields: self.told.append((event, fields))  # type: ignore[method-assign]

    async def says(self, subject: str = "tasks") -> str:
        """Sign a message and judge it at once; return what became of it."""
        message = Message(channel=Channel("nats", REALM, subject), value=b"", reader=f"sub:{subject}", exclusive=True)
        signature = await self.signer.sign(message)
        try:
            await self.reader.admit(replace(message, headers=(signature.header,)))
        except Rejected as rejected:
            return str(rejected)
        return "delivered"


async def test_a_clock_that_was_ahead_is_told_while_it_costs() -> None:
    """Promise: what is stale for it says so, and one warning says since when, until when, what to do."""
    world = World(max_age=60, max_skew=5)
    assert await world.says() == "delivered"
    world.now += HOURS
    assert [await world.says(), await world.says("other")] == ["delivered"] * 2
    world.now -= HOURS
    floor = shown_time(NOW + HOURS - 65)
    for _ in range(3):
        told = f"{Reason.STALE}: issued before {floor}, and this memory may have forgotten ids up to then"
        assert [await world.says(), await world.says("other")] == [told] * 2
    ((event, fields),) = world.told
    assert event == "replay.clock_was_ahead"
    assert fields["log"] == "sub:tasks#"
    assert (fields["since"], fields["until"]) == (shown_time(NOW), floor)
    assert "restart this process" in fields["remedy"]
    world.now += HOURS - 64
    assert await world.says() == "delivered"


async def test_a_floor_of_a_beginning_is_no_clock_that_was_ahead() -> None:
    """Promise: what is stale because this reader has just begun is not blamed on a clock."""
    world = World(max_age=60, max_skew=5)
    world.reader.verifier.begin("sub:tasks#", floor=world.now + 5)
    assert (await world.says()).startswith("stale: issued before 2")
    world.reader.verifier.begin("sub:tasks#", floor=world.now + 6.5)
    assert not world.told
    assert (await world.says()).startswith("stale: issued before 2")
    assert [event for event, _ in world.told] == ["replay.clock_was_ahead"]


async def test_a_floor_of_one_sender_is_no_clock_that_was_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what is stale by the floor of its principal or key, as under a full memory, says that."""
    world = World()
    assert await world.says() == "delivered"
    monkeypatch.setattr(MemoryReplayStore, "admit", lambda *_: Admission.TOO_OLD)
    monkeypatch.setattr(MemoryReplayStore, "admit_all", lambda *_: False)
    assert await world.says() == "stale: issued before the floor of its sender or key in this memory"
    assert not world.told


async def test_a_further_jump_is_told_as_well() -> None:
    """Promise: a warning that names an end is not left wrong by a higher floor."""
    world = World(max_age=60, max_skew=5)
    for hours in (1, 2):
        world.now += hours * 3600
        assert await world.says() == "delivered"
        world.now -= hours * 3600
        assert await world.says() != "delivered"
    assert [fields["until"] for _, fields in world.told] == [shown_time(NOW + n * 3600 - 65) for n in (1, 2)]


async def test_what_a_store_finds_too_old_says_so() -> None:
    """Promise: no rejection for its age is without a word of why."""

    class Old:
        async def claim(self, _: Claim) -> Admission:
            return Admission.TOO_OLD

    world = World()
    keys = MemoryKeys([ALICE_KEY.verification_key(ALICE)])
    verifier = Verifier(realm=REALM, keys=keys, replay=Old(), policy=Policy(), clock=lambda: NOW)
    message = Message(channel=Channel("nats", REALM, "tasks"), value=b"")
    message = replace(message, headers=((await world.signer.sign(message)).header,))
    with pytest.raises(Rejected, match="stale: issued before the store knew this reader"):
        await verifier.verify(message)


@pytest.mark.parametrize(("time", "text"), [(0.0, "1970-01-01T00:00:00+00:00"), (1e20, "1e+20"), (float("inf"), "inf")])
def test_any_time_can_be_shown(time: float, text: str) -> None:
    """Promise: what a broker stamps, whatever it is, breaks no warning."""
    assert shown_time(time) == text
