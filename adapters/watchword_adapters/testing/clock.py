"""A clock that a test moves."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the epoch: ``clock()`` returns the time, ``advance`` moves it.

    With a start time ``at`` it stands still until it is moved; without one it runs like the machine's clock.
    """

    def __init__(self, at: float | None = None) -> None:
        self._stands_at = at
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self._ahead + (time.time() if self._stands_at is None else self._stands_at)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass; a negative number sets the clock back."""
        self._ahead += seconds
