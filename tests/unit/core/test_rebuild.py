from watchword import Policy
from watchword.rebuild import anchor_without_record, floor_at, window_start

POLICY = Policy(max_age=100.0, max_skew=10.0)


def test_the_window_reaches_as_far_as_an_original_of_what_is_still_accepted() -> None:
    """Promise (A14): whatever is at the floor was appended at the window's start at the earliest."""
    assert floor_at(POLICY, 1000.0) == 890.0
    assert window_start(POLICY, 1000.0) == floor_at(POLICY, 1000.0) - POLICY.max_skew


def test_where_nothing_can_be_read_the_local_time_stands_for_it() -> None:
    """Promise: what comes later is appended after our time less the skew, by whichever clock."""
    assert anchor_without_record(POLICY, 1000.0) == 990.0


def test_what_retention_cut_is_too_old() -> None:
    """Promise (A39): what stood before the first record that is left was issued up to the skew after it."""
    assert floor_at(POLICY, 1000.0, cut=950.0) > 960.0
    assert floor_at(POLICY, 1000.0, cut=950.0) < 961.0
    assert floor_at(POLICY, 1000.0, cut=800.0) == 890.0
