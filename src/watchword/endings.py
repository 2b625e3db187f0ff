"""Decides what happens to each message of one log after its verdict; all adapters share these rules.

A verdict goes in, and the ending comes out: deliver the message, drop it, hold it and everything after it, or give it
up. Holding is for outages: if a key source or a replay store does not answer, the fault is ours, and the message must
be judged again. An outage may hold a log for ``max_hold`` seconds in all, not per message. After that, a message that
cannot be judged is given up: it is copied to the quarantine as undetermined, and can be redriven from there. If the
quarantine cannot take it, it is held after all, because no message may be lost. The adapter carries the ending out.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from watchword.errors import Reason, Rejected, Unavailable
from watchword.message import ObservedMessage, VerifiedMessage, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds between two attempts to judge a message while a key source or a replay store is down."""

_MOST_DOUBLINGS: Final = 16

QUIET: Final = 10
"""An outage is over after this many times ``max_hold`` without a failure. So an attacker who can make look-ups fail at
will delays messages for at most one eleventh of the time."""


def delay_after(failures: int, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY) -> float:
    """Return the seconds until the next attempt, of which ``failures`` have failed: doubled each time."""
    return min(longest, first * 2.0 ** min(failures, _MOST_DOUBLINGS))


class Outage:
    """Allows ``max_hold`` seconds per outage, not per message; times are of a clock that never steps back."""

    def __init__(self, max_hold: float) -> None:
        self._max_hold: Final = max_hold
        self._since = self._last = -inf

    def holds(self, now: float) -> bool:
        """Note that a message could not be judged; return True if it must be held and judged again."""
        if now - self._last > QUIET * self._max_hold:
            self._since = now
        self._last = now
        return now - self._since < self._max_hold

    def over(self) -> None:
        """End the outage: a message that was held could be judged."""
        self._last = -inf


class Ending(Enum):
    """What to do with a message."""

    DELIVER = "deliver"
    DROP = "drop"
    HOLD = "hold"
    GIVE_UP = "give up"


class Endings:
    """Decides how the messages of one log end; ``outage`` is shared by all logs of a reader.

    ``doubtful`` is True after a message that could not be judged, until one can be: meanwhile messages are judged one
    at a time, because each may wait for its key. ``failures`` counts failed attempts in a row; ``retry_at`` is the time
    of the next attempt, in seconds of the clock of ``now``.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self.doubtful = False
        self.failures = 0
        self.retry_at = 0.0

    def of(self, verdict: VerifiedMessage | ObservedMessage | Rejected | Unavailable, now: float) -> Ending:
        """Return the ending of the next message; after GIVE_UP, call ``kept`` with the result of the quarantine."""
        if isinstance(verdict, Unavailable):
            self.doubtful = True
            return self.hold(now) if self._outage.holds(now) else Ending.GIVE_UP
        if self.doubtful or self.failures or isinstance(verdict, ObservedMessage):
            self._judged(verdict_of(verdict))
        return Ending.DROP if isinstance(verdict, Rejected) else Ending.DELIVER

    def delivers(self, verdicts: Sequence[object]) -> bool:
        """Return True if all verdicts, at least one, are to deliver, and this object's state would not change."""
        return not (self.doubtful or self.failures) and {*map(type, verdicts)} == {VerifiedMessage}

    def kept(self, now: float, *, in_quarantine: bool) -> Ending:
        """Return the ending of a message that was given up, by whether its copy is in the quarantine."""
        if not in_quarantine:
            return self.hold(now)
        self.release()
        return Ending.DROP

    def hold(self, now: float) -> Ending:
        """Delay the next attempt, each time twice as long, up to a bound."""
        self.retry_at = now + delay_after(self.failures)
        self.failures += 1
        return Ending.HOLD

    def release(self) -> None:
        """Continue without delay."""
        self.failures = 0
        self.retry_at = 0.0

    def remembered(self, now: float, *, complete: bool, observing: bool) -> Ending:
        """Return what to do after messages were recalled, ``complete`` or up to one that could not be judged."""
        self.doubtful = not complete
        if not complete and not observing and self._outage.holds(now):
            return self.hold(now)
        self.release()
        return Ending.DROP

    def _judged(self, verdict: VerifiedMessage | Rejected | Unavailable) -> None:
        """Continue; any verdict but UNKNOWN_KEY, which a half-failed key source may give too, ends the outage."""
        if isinstance(verdict, Unavailable):
            self.doubtful = True
        elif not (isinstance(verdict, Rejected) and verdict.reason is Reason.UNKNOWN_KEY):
            self.doubtful = False
            if self.failures:
                self._outage.over()
        self.release()
