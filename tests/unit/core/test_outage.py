"""How long an outage may hold messages up."""

import pytest

from watchword.endings import QUIET, Outage

HOLD = 30.0


def test_an_outage_holds_for_max_hold_and_no_longer() -> None:
    """Promise (A38): messages are held for ``max_hold`` from the first that could not be judged."""
    outage = Outage(HOLD)
    assert [outage.holds(at) for at in (1000.0, 1029.9, 1030.0, 1031.0, 1300.0)] == [True, True, False, False, False]


def test_the_brake_is_per_outage_not_per_message() -> None:
    """Promise (A38): one failing look-up now and then holds messages up for one part in eleven of the time at most."""
    outage, held, at = Outage(HOLD), 0, 1000.0
    for _ in range(100_000):
        held += outage.holds(at)
        at += 0.5
    assert held * 0.5 <= HOLD
    pulses = sum(outage.holds(at + n * (QUIET * HOLD + 1)) for n in range(1, 11))
    assert pulses == 10


@pytest.mark.parametrize("pause", [QUIET * HOLD + 0.1, None])
def test_a_new_outage_has_its_own_time(pause: float | None) -> None:
    """Promise: after quiet, or once a held message could be judged, the next outage may hold messages again."""
    outage = Outage(HOLD)
    outage.holds(1000.0)
    assert not outage.holds(1040.0)
    if pause is None:
        outage.over()
    assert outage.holds(1040.0 + (pause or 1.0))


def test_no_hold_at_all() -> None:
    """Promise: with ``max_hold`` 0 nothing is held."""
    outage = Outage(0.0)
    assert not outage.holds(1000.0)
    assert not outage.holds(1000.0)
