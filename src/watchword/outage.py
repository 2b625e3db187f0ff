"""How long an outage of a key source or a replay store may hold messages up."""

from __future__ import annotations

from math import inf
from typing import Final

QUIET: Final = 10
"""An outage is over when nothing failed for this many times ``max_hold``; so who can make a look-up fail whenever he
likes holds messages up for at most one part in eleven of the time."""


class Outage:
    """Grants each outage, not each message, ``max_hold`` seconds; times are of a clock that never steps back."""

    def __init__(self, max_hold: float) -> None:
        self._max_hold: Final = max_hold
        self._since = self._last = -inf

    def holds(self, now: float) -> bool:
        """Note that a message could not be judged; tell whether it is to be held and judged again."""
        if now - self._last > QUIET * self._max_hold:
            self._since = now
        self._last = now
        return now - self._since < self._max_hold

    def over(self) -> None:
        """Note that a message that was held could be judged."""
        self._last = -inf
