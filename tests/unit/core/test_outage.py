import pytest

from watchword.outage import QUIET, Outage


def test_an_outage_is_granted_its_time_once() -> None:
    """Promise (A38): however many messages fail, they are held for max_hold together, not each."""
    outage = Outage(30.0)
    assert [outage.holds(float(now)) for now in (100, 110, 129, 130, 131, 400)] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    assert outage.holds(400 + QUIET * 30.0 + 1)


def test_a_message_that_could_be_judged_after_all_ends_it() -> None:
    """Promise: the next outage has its own time."""
    outage = Outage(30.0)
    outage.holds(100.0)
    outage.over()
    assert outage.holds(131.0)


@pytest.mark.parametrize("now", [0.0, 5.0])
def test_without_patience_nothing_is_held(now: float) -> None:
    """Promise: max_hold = 0 holds nothing."""
    assert not Outage(0.0).holds(now)
