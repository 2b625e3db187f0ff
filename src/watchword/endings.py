"""The three endings of a message, decided one after the other for one log: no adapter has rules of its own.

A verdict goes in, and what is to be done comes out: deliver the message, drop it, hold it and everything behind it, or
give it up. Holding is for outages: a key source or a replay store that does not answer is our fault, so the message
must be judged again. An outage may hold a log for ``max_hold`` seconds once, and not once for each message. After that
a message that cannot be judged is given up, which means: copied into quarantine as undetermined, from where it can be
driven again. Where the quarantine cannot take it, it is held after all, for nothing may be lost.
"""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import TYPE_CHECKING, Final

from watchword.errors import Reason, Rejected, Unavailable
from watchword.message import ObservedMessage, VerifiedMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds between two attempts to judge a message while a key source or a replay store is down."""

_MOST_DOUBLINGS: Final = 10

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


class Ending(Enum):
    """What to do with a message."""

    DELIVER = "deliver"
    DROP = "drop"
    HOLD = "hold"
    GIVE_UP = "give up"


class Endings:
    """Decides how the messages of one log end; ``outage`` is shared by all logs of a reader.

    ``doubtful`` is True from a message that could not be judged up to one that could: messages are judged one at a time
    meanwhile, for each may wait for its key. ``failures`` counts attempts in a row; ``retry_at`` is the time of the
    next one, in seconds of the clock of ``now``.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self.doubtful = False
        self.failures = 0
        self.retry_at = 0.0

    def of(self, verdict: VerifiedMessage | ObservedMessage | Rejected | Unavailable, now: float) -> Ending:
        """Return the ending of the next message; one that is to be given up waits for ``kept``."""
        if isinstance(verdict, Unavailable):
            self.doubtful = True
            return self.hold(now) if self._outage.holds(now) else Ending.GIVE_UP
        if self.doubtful or self.failures or isinstance(verdict, ObservedMessage):
            self._judged(verdict.verdict if isinstance(verdict, ObservedMessage) else verdict)
        return Ending.DROP if isinstance(verdict, Rejected) else Ending.DELIVER

    def delivers(self, verdicts: Sequence[object]) -> bool:
        """Return True if all of these verdicts, one at least, let their messages through, and change nothing else."""
        return not (self.doubtful or self.failures) and {*map(type, verdicts)} == {VerifiedMessage}

    def kept(self, now: float, *, in_quarantine: bool) -> Ending:
        """Return the ending of a message that was given up, by what became of its copy."""
        if not in_quarantine:
            return self.hold(now)
        self.release()
        return Ending.DROP

    def hold(self, now: float) -> Ending:
        """Put off the next attempt: each time for twice as long, up to a bound."""
        self.retry_at = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.failures, _MOST_DOUBLINGS))
        self.failures += 1
        return Ending.HOLD

    def release(self) -> None:
        """Go on without delay."""
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
        """Go on; an outage ends with a verdict that a source which is down half of the time would not have given."""
        if isinstance(verdict, Unavailable):
            self.doubtful = True
        elif not (isinstance(verdict, Rejected) and verdict.reason is Reason.UNKNOWN_KEY):
            self.doubtful = False
            if self.failures:
                self._outage.over()
        self.release()
