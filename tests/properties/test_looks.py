"""Looks at a log's end, against a list of all that ever were."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from watchword.looks import Looks

LOOKS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(-3, 20), st.integers(0, 3)),  # how far on, at what time, how long
    max_size=40,
)


class Naive:
    """Every look, and the two sentences that define an interval."""

    def __init__(self) -> None:
        self.looks: list[tuple[float, int, float]] = []

    def add(self, asked: float, end: int, answered: float) -> None:
        """Keep it; of the ends the highest so far counts."""
        self.looks.append((asked, max([end, *(known for _, known, _ in self.looks)]), answered))

    def bounds(self, offset: int, now: float) -> tuple[float, float]:
        """Return the bounds of a record's time of appending, which a clock that steps back may turn round."""
        low = max((asked for asked, end, _ in self.looks if end <= offset), default=-inf)
        high = min((answered for _, end, answered in self.looks if end > offset), default=now)
        return low, high

    def interval(self, offset: int, now: float) -> tuple[float, float]:
        """Return them in order."""
        low, high = self.bounds(offset, now)
        return low, max(low, high)


def played(looks: list[tuple[int, int, int]], most: int) -> tuple[Looks, Naive, int]:
    """Play looks at a log that grows or names an earlier end, by a clock that may step back; return that end too."""
    thin, naive = Looks(most), Naive()
    end, now = 100, 1000.0
    for by, passed, took in looks:
        end, now = end + by - 3, now + passed
        thin.add(now, end, now + took)
        naive.add(now, end, now + took)
    return thin, naive, end


@given(LOOKS, st.integers(980, 2000))
def test_an_interval_is_what_all_looks_say(looks: list[tuple[int, int, int]], now: int) -> None:
    """Promise: while there is room for all looks the interval is exact, idle logs and stepping clocks included."""
    kept, naive, end = played(looks, most=64)
    for offset in range(95, end + 5):
        assert kept.interval(offset, now) == naive.interval(offset, now)


@given(LOOKS, st.integers(0, 40), st.integers(980, 2000), st.integers(4, 9))
def test_what_is_dropped_makes_intervals_wider_only(
    looks: list[tuple[int, int, int]], position: int, now: int, most: int
) -> None:
    """Promise: in bounded memory, and pruned below a position, no record's interval is narrower than it was."""
    kept, naive, end = played(looks, most)
    assert len(kept) <= most
    kept.prune(100 + position)
    for offset in range(95, end + 50):
        (low, high), (all_low, all_high) = kept.interval(offset, now), naive.bounds(offset, now)
        assert low <= all_low
        assert high >= all_high


@given(LOOKS, st.integers(0, 40), st.integers(980, 2000))
def test_pruning_costs_nothing_behind_the_position(looks: list[tuple[int, int, int]], position: int, now: int) -> None:
    """Promise: from the position on, intervals are as they were, and the looks before it are gone."""
    kept, naive, end = played(looks, most=64)
    kept.prune(100 + position)
    assert sum(known <= 100 + position for known in kept._ends) <= 1
    for offset in range(100 + position, end + 50):
        assert kept.interval(offset, now) == naive.interval(offset, now)


def test_a_backlog_keeps_its_resolution() -> None:
    """Promise: of a thousand looks in an hour those that stay are spread over the hour, the last one among them."""
    looks = Looks(most=64)
    for number in range(1000):
        looks.add(number * 3.6, number * 10, number * 3.6 + 0.1)
    assert 32 <= len(looks) <= 64
    assert looks.interval(9_990, 9999.0) == (999 * 3.6, 9999.0)
    for offset in range(0, 9_990, 7):
        low, high = looks.interval(offset, 9999.0)
        assert high - low < 5 * 3600 / 32


def test_a_log_at_rest_takes_one_look() -> None:
    """Promise: however long nothing is written, one look says since when, and none that matters gives way to it."""
    looks = Looks(most=4)
    looks.add(0.0, 5, 1.0)
    for number in range(100):
        looks.add(10.0 + number, 9, 11.0 + number)
    assert (len(looks), looks.interval(5, 999.0), looks.interval(9, 999.0)) == (2, (0.0, 11.0), (109.0, 999.0))


def test_times_that_stand_still_take_no_more_memory() -> None:
    """Promise: whatever the clock shows, memory is bounded."""
    looks = Looks(most=8)
    for number in range(100):
        looks.add(5.0, number, 5.0)
    assert len(looks) <= 8
    assert looks.interval(99, 7.0) == (5.0, 7.0)
