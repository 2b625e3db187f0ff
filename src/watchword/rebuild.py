"""From where a log is read again when its guard must be built anew, and what is too old for it (docs/replay.md)."""

from __future__ import annotations

from math import inf, nextafter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword.policy import Policy


def anchor_without_record(policy: Policy, now: float) -> float:
    """Return what stands for the next record's reference time where none can be read yet; ``now`` from before looking.

    Whatever comes later is appended after that, by any clock within the skew.
    """
    return now - policy.max_skew


def anchor_of_backlog(policy: Policy, now: float, *, issued: Iterable[float], looked: float) -> float:
    """Return the anchor on a log that the broker does not stamp, where nothing is known of what passed before.

    ``issued`` are the issue times of the verified messages among the first that can be read from the position; where
    there is none yet, ``looked`` counts, the time before the look that found the end there. Any anchor is sound, for
    what passed is read again from there; this one is as high as those messages allow, and not lower than ``max_lag``.
    """
    return max(min(issued, default=looked), now - policy.max_lag)


def window_start(policy: Policy, anchor: float) -> float:
    """Return the append time from which on to read, up to the record whose reference time is ``anchor``."""
    return anchor - policy.window


def floor_at(policy: Policy, anchor: float, *, cut: float | None = None) -> float:
    """Return the floor of a guard that goes on at ``anchor``.

    ``cut`` is the append time of the first record that retention has left, where that lies inside the window: what is
    gone was issued up to the skew after it.
    """
    floor = anchor - policy.horizon
    return floor if cut is None else max(floor, nextafter(cut + policy.max_skew, inf))
