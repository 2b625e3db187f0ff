"""Evidence against principals, and the trust score that results from it (docs/trust.md).

Anyone who can write to a bus can resend a captured message, hold it back, alter it, or copy it elsewhere. So a fact
counts against a principal only if only that principal can have caused it: the message is authentic, seen for the first
time, and found where it was signed for. The verifier ensures that; this module turns facts into a score, and compares
scores with the ``min_trust`` of rules. It stores nothing on disk.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from math import exp, exp2
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

HALF_LIFE: Final = 3600.0
"""Seconds after which half of a demerit is forgiven."""

PER_SECOND: Final = 0.1
"""The most demerits that the facts of one second add, and those of a first fact: a flood weighs no more than that."""

MOST: Final = 5.0
"""The most demerits of a principal: its score never falls below 0.0067."""

LEAST: Final = 0.001
"""Demerits below which a principal counts as having none."""

MAX_PRINCIPALS: Final = 100_000
MAX_REPORTED: Final = 65_536
"""The most messages that are remembered as reported."""


class Fact(StrEnum):
    """What counts against a principal: three reasons for rejecting a message of its own, and a handler's report."""

    NOT_PERMITTED = "not_permitted"
    RATE_LIMITED = "rate_limited"
    CONTAINED = "contained"
    REPORTED = "reported"


class TrustScore(Protocol):
    """Port: turns facts into trust in a principal. It must neither raise nor wait; any thread may call it."""

    def add(self, principal: str, weight: float) -> None:
        """Count a fact against a principal; ``weight`` is more than 0 and at most 1."""
        ...

    def score(self, principal: str) -> float:
        """Return the current trust in a principal, from 0 to 1; 1 if nothing counts against it."""
        ...


class Demerits:
    """The default TrustScore: ``exp(-demerits)``; only time reduces demerits.

    Good messages have no effect, so no number of them makes up for a fact. ``clock`` returns seconds since the epoch.
    If it steps back, demerits stay the same until it has caught up with the time of the latest fact.
    """

    def __init__(self, clock: Callable[[], float], *, max_principals: int = MAX_PRINCIPALS) -> None:
        self._clock = clock
        self._most = max_principals
        self._held: dict[str, tuple[float, float]] = {}

    def add(self, principal: str, weight: float) -> None:
        """See ``TrustScore``."""
        now = self._clock()
        known = self._held.get(principal)
        if known is None:
            if len(self._held) >= self._most:
                self._keep(self._most - (self._most // 10 or 1), now)
            self._held[principal] = PER_SECOND * weight, now
        elif now > known[1]:
            added = PER_SECOND * weight * min(1.0, now - known[1])
            self._held[principal] = min(MOST, _left(known, now) + added), now

    def score(self, principal: str) -> float:
        """See ``TrustScore``."""
        known = self._held.get(principal)
        if known is None:
            return 1.0
        left = _left(known, self._clock())
        return exp(-left) if left >= LEAST else 1.0

    def held(self) -> dict[str, tuple[float, float]]:
        """Return the demerits of each principal that has any, and the time as of which they are counted."""
        now = self._clock()
        return {name: one for name, one in list(self._held.items()) if _left(one, now) >= LEAST}

    def restore(self, held: Mapping[str, tuple[float, float]]) -> None:
        """Restore what ``held`` returned earlier; the greater demerits count. A time in the future counts as now."""
        now = self._clock()
        for name, (demerits, at) in held.items():
            earlier = min(demerits, MOST), min(at, now)
            known = self._held.get(name)
            if known is None or _left(earlier, now) > _left(known, now):
                self._held[name] = earlier
        self._keep(self._most, now)

    def _keep(self, most: int, now: float) -> None:
        """Forget the principals with the least demerits; this scans all, so callers drop many at once."""
        by_size = sorted(self._held, key=lambda name: _left(self._held[name], now), reverse=True)
        for name in by_size[most:]:
            del self._held[name]


def _left(held: tuple[float, float], now: float) -> float:
    """Return what is left of demerits at ``now``."""
    demerits, at = held
    return demerits * exp2(max(0.0, now - at) / -HALF_LIFE)


class Trust:
    """The facts that this process saw, their score, and the principals that it keeps out.

    A principal whose score falls below a bar (the ``min_trust`` of a rule) is kept out until the score is halfway from
    the bar back to 1: otherwise it would go in and out with each message. ``changed`` is called after each change.
    """

    def __init__(self, score: TrustScore) -> None:
        self.score: Final = score
        self.changed: Callable[[], None] = lambda: None
        self._counts: dict[str, Counter[str]] = {}
        self._out: dict[str, frozenset[float]] = {}
        self._reported: dict[tuple[str, str], None] = {}
        self._listens = True

    def note(self, principal: str, fact: Fact, *, weight: float = 1.0, bars: Iterable[float] = ()) -> None:
        """Count a fact, and keep the principal out if its score falls below one of its ``bars``."""
        if not self._listens:
            return
        self.score.add(principal, weight)
        counts = self._counts.get(principal)
        if counts is None:
            if len(self._counts) >= MAX_PRINCIPALS:
                del self._counts[next(iter(self._counts))]
            counts = self._counts[principal] = Counter()
        counts[fact.value] += 1
        for bar in bars:
            self.admits(principal, bar)
        self.changed()

    def note_report(self, principal: str, message_id: str, *, weight: float, bars: Iterable[float] = ()) -> bool:
        """Count the report of a message; return False if that message was reported before."""
        message = principal, message_id
        if message in self._reported:
            return False
        if len(self._reported) >= MAX_REPORTED:
            del self._reported[next(iter(self._reported))]
        self._reported[message] = None
        self.note(principal, Fact.REPORTED, weight=weight, bars=bars)
        return True

    def admits(self, principal: str, bar: float) -> bool:
        """Return True if a principal has enough trust for a bar."""
        out = self._out.get(principal, frozenset())
        # A principal that a lower bar keeps out is kept out by a raised one too.
        is_out = any(one <= bar for one in out)
        is_enough = self.score.score(principal) >= ((1.0 + bar) / 2 if is_out else bar)
        if is_enough and is_out:
            self._keep_out(principal, frozenset(one for one in out if one > bar))
        elif not is_enough and bar not in out:
            self._keep_out(principal, out | {bar})
        return is_enough

    def _keep_out(self, principal: str, bars: frozenset[float]) -> None:
        if bars:
            self._out[principal] = bars
        else:
            del self._out[principal]
        self.changed()

    def evidence(self) -> dict[str, tuple[float, dict[str, int]]]:
        """Return the score of each principal that has evidence against it, and how often each fact was seen."""
        names = dict.fromkeys(list(self._counts))
        if isinstance(self.score, Demerits):
            names |= dict.fromkeys(self.score.held())
        scores = {name: self.score.score(name) for name in names}
        return {name: (score, dict(self._counts.get(name, ()))) for name, score in scores.items() if score < 1.0}

    def kept_out(self) -> dict[str, tuple[float, ...]]:
        """Return the bars that keep each principal out: its score fell below them and has not recovered halfway."""
        return {name: tuple(sorted(bars)) for name, bars in list(self._out.items())}

    def restore(self, kept_out: Mapping[str, Iterable[float]]) -> None:
        """Restore what ``kept_out`` returned earlier."""
        for name, bars in kept_out.items():
            self._out[name] = self._out.get(name, frozenset()).union(bars)

    def onlooker(self) -> Trust:
        """Return a Trust with the same state that counts no facts: for messages that are judged a second time."""
        other = Trust(self.score)
        other._out = self._out
        other._listens = False
        return other
