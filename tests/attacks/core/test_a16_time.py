"""A16, A34: after the window, ahead of time, and clocks that move."""

from math import inf

import pytest

from tests.unit.core.world import NOW, World, kafka, nats, press, signed, signer
from watchword import Reason, Rejected
from watchword.spi import MemoryReplayStore, Message


def reason_of(world: World, message: Message) -> Reason | None:
    """Return why the message is rejected; None if it is delivered."""
    try:
        world.verify(message)
    except Rejected as refused:
        return refused.reason
    return None


def test_a16_after_the_window() -> None:
    """Promise: a captured message is stale once the window closed, also for a verifier that never saw it."""
    world = World()
    message = signed(nats())
    world.now = NOW + 306.0
    assert reason_of(world, message) is Reason.STALE


def test_a16_dated_in_the_future_to_live_longer() -> None:
    """Promise: a message cannot be signed ahead of time beyond the skew, to be replayed for longer."""
    ahead = signed(nats(), signer(clock=lambda: NOW + 7.0))
    assert reason_of(World(), ahead) is Reason.FROM_FUTURE


def test_a16_no_gap_between_memory_and_freshness() -> None:
    """Promise: at every moment after its delivery a message is replayed or stale, never delivered again."""
    world = World()
    message = press(nats(), c6=NOW + 6)
    assert reason_of(world, message) is None
    for second in range(800):
        world.now = NOW + 1.0 + second
        world.verify(signed(nats(), signer(clock=lambda: world.now)))  # honest traffic moves the log's time
        assert reason_of(world, message) in {Reason.REPLAYED, Reason.STALE}


@pytest.mark.parametrize("jump", [-86_400.0, -3600.0, -306.0, -60.0, 60.0, 306.0, 3600.0])
def test_a34_the_verifiers_clock_jumps(jump: float) -> None:
    """Promise: whichever way the clock jumps, and back again, no replay is accepted."""
    world = World()
    message = signed(nats())
    assert reason_of(world, message) is None
    for now in (world.now + jump, world.now, world.now + jump / 2, world.now):
        world.now = now
        assert reason_of(world, message) is not None


def test_a34_the_attack_without_the_floor() -> None:
    """Promise: we know what the floor is for: a store that forgets without one takes the replay after a jump back."""
    world, message = World(), signed(nats())
    assert reason_of(world, message) is None
    world.now += 3600
    assert reason_of(world, signed(nats(), signer(clock=lambda: world.now))) is None
    assert len(world.memory) == 1, "the first id was forgotten"
    world.now = NOW + 1.0
    assert reason_of(world, message) is Reason.STALE
    world.memory.begin("sub#", floor=-inf)
    assert reason_of(world, message) is None


@pytest.mark.parametrize("skew", [-5.0, -2.5, 0.0, 2.5, 5.0])
def test_a34_clocks_that_differ_by_the_skew(skew: float) -> None:
    """Promise: no honest message is lost within the skew, freshly written or at the end of its age."""
    world = World()
    world.now = float(NOW)
    assert reason_of(world, signed(nats(), signer(clock=lambda: NOW + skew))) is None
    world.now = NOW + 300.0
    assert reason_of(world, signed(nats(), signer(clock=lambda: NOW + skew))) is None


def test_a18_an_honest_backlog() -> None:
    """Promise (A18): on a log that the broker stamps, a reader hours behind loses nothing."""
    world = World()
    for hour in range(6):
        at = NOW + 3600 * hour
        message = signed(kafka(appended_at=at + 1.0), signer(clock=lambda at=at: float(at)))  # type: ignore[misc] # binds the loop's value
        world.now = NOW + 6 * 3600.0
        assert reason_of(world, message) is None


def test_a34_a_brokers_clock_that_steps_back() -> None:
    """Promise (A39): a broker clock that steps back opens no gap for what was forgotten."""
    world = World()
    first = signed(kafka())
    assert reason_of(world, first) is None
    late = signed(kafka(appended_at=NOW + 1000.0), signer(clock=lambda: NOW + 999.0))
    assert reason_of(world, late) is None
    again = Message(**{name: getattr(first, name) for name in first.__slots__} | {"appended_at": NOW + 0.5})
    assert reason_of(world, again) is Reason.STALE
    assert isinstance(world.memory, MemoryReplayStore)
