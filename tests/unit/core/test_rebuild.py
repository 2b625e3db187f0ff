"""From where a log is read again, and what is too old for it: the formulas of docs/replay.md."""

import pytest

from tests.unit.core.claims import claim
from tests.unit.core.world import at_once
from watchword import Policy
from watchword.spi import Admission, MemoryReplayStore

POLICY = Policy(max_age=300, max_skew=30)
ANCHOR = 10_000.0


def test_the_window_reaches_back_to_every_original_of_what_may_be_fresh() -> None:
    """Promise (A14, A39): what a clock ahead by the skew signed at the floor was appended no earlier."""
    assert POLICY.floor_at(ANCHOR) == ANCHOR - 330
    assert ANCHOR - POLICY.window == POLICY.floor_at(ANCHOR) - 30


@pytest.mark.parametrize("cut", [9_700.0, 9_999.5, 10_000.0])
def test_what_retention_took_is_too_old(cut: float) -> None:
    """Promise (A39): whatever may have been issued up to the skew after the first record that is left is too old."""
    floor = POLICY.floor_at(ANCHOR, cut=cut)
    store = MemoryReplayStore(horizon=POLICY.horizon)
    store.begin("log", floor=floor)
    gone = int(cut + 30)
    assert at_once(store.claim(claim(issued_at=gone, reference=ANCHOR))) is Admission.TOO_OLD
    assert at_once(store.claim(claim(issued_at=gone + 1, reference=ANCHOR))) is Admission.FIRST


def test_what_retention_took_before_the_window_matters_not() -> None:
    """Promise (A18): a log that holds the whole window costs nothing honest."""
    assert POLICY.floor_at(ANCHOR, cut=ANCHOR - 361) == POLICY.floor_at(ANCHOR)
