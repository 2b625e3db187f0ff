"""Evidence against principals, and how much trust it leaves them (docs/trust.md).

Anybody who can write to a bus can send a captured message again, hold it back, alter it, or copy it elsewhere. So a
fact counts against a principal only if that principal alone can cause it: the message is authentic, was seen for the
first time, and was found where it was signed for. The verifier sees to that; here facts become a score.
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
"""Demerits that all facts of one second add at most, and the first fact at once: a flood weighs no more."""

MOST: Final = 5.0
"""Demerits that one principal may have: its score never falls below 0.0067."""

LEAST: Final = 0.001
"""Demerits below which a principal counts as one without any."""

MAX_PRINCIPALS: Final = 100_000
MAX_REPORTED: Final = 65_536
"""Messages of which it is remembered that they were reported."""


class Fact(StrEnum):
    """What counts against a principal: three reasons for which its own message was rejected, and a handler's report."""

    NOT_PERMITTED = "not_permitted"
    RATE_LIMITED = "rate_limited"
    CONTAINED = "contained"
    REPORTED = "reported"


class TrustScore(Protocol):
    """Port: what facts make of the trust in a principal. It must neither raise nor wait; any thread may ask."""

    def add(self, principal: str, weight: float) -> None:
        """Let a fact count against a principal; it weighs more than 0 and at most 1."""
        ...

    def score(self, principal: str) -> float:
        """Return the trust in a principal now, from 0 to 1; 1 where nothing counts against it."""
        ...


class Demerits:
    """The default TrustScore: ``exp(-demerits)``, where nothing but time takes demerits away.

    Good messages add nothing, so no volume of them makes up for anything. ``clock`` returns seconds since the epoch.
    When it steps back, demerits stand still until it shows again what it showed at the latest fact.
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
        """Return the demerits of each principal that has any, and the time at which it had them."""
        now = self._clock()
        return {name: one for name, one in list(self._held.items()) if _left(one, now) >= LEAST}

    def restore(self, held: Mapping[str, tuple[float, float]]) -> None:
        """Take over what ``held`` returned earlier; of two the greater holds. A time that is ahead counts as now."""
        now = self._clock()
        for name, (demerits, at) in held.items():
            earlier = min(demerits, MOST), min(at, now)
            known = self._held.get(name)
            if known is None or _left(earlier, now) > _left(known, now):
                self._held[name] = earlier
        self._keep(self._most, now)

    def _keep(self, most: int, now: float) -> None:
        """Forget those with the smallest demerits; it takes a look at all, so many go at once."""
        by_size = sorted(self._held, key=lambda name: _left(self._held[name], now), reverse=True)
        for name in by_size[most:]:
            del self._held[name]


def _left(held: tuple[float, float], now: float) -> float:
    """Return what time has left of demerits."""
    demerits, at = held
    return demerits * exp2(max(0.0, now - at) / -HALF_LIFE)


class Trust:
    """The facts that this process saw, the score that they make, and who is kept out by it.

    A principal whose score falls below a bar (the ``min_trust`` of a rule) stays out until the score has passed halfway
    from the bar back to 1: otherwise it would come and go with each message. ``changed`` is called after each fact.
    """

    def __init__(self, score: TrustScore) -> None:
        self.score: Final = score
        self.changed: Callable[[], None] = lambda: None
        self._counts: dict[str, Counter[str]] = {}
        self._out: dict[str, frozenset[float]] = {}
        self._reported: dict[tuple[str, str], None] = {}
        self._listens = True

    def note(self, principal: str, fact: Fact, *, weight: float = 1.0, bars: Iterable[float] = ()) -> None:
        """Let a fact count, and keep the principal out where that brings it below one of its ``bars``."""
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
        """Let the report of a message count; False if that message was reported before."""
        message = principal, message_id
        if message in self._reported:
            return False
        if len(self._reported) >= MAX_REPORTED:
            del self._reported[next(iter(self._reported))]
        self._reported[message] = None
        self.note(principal, Fact.REPORTED, weight=weight, bars=bars)
        return True

    def admits(self, principal: str, bar: float) -> bool:
        """Return True if the trust in a principal is enough for a bar."""
        out = self._out.get(principal, frozenset())
        # A bar that was raised meanwhile keeps out whoever the lower one kept out.
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
        """Return the score of each principal against which something counts, and how often each fact was seen."""
        names = dict.fromkeys(list(self._counts))
        if isinstance(self.score, Demerits):
            names |= dict.fromkeys(self.score.held())
        scores = {name: self.score.score(name) for name in names}
        return {name: (score, dict(self._counts.get(name, ()))) for name, score in scores.items() if score < 1.0}

    def kept_out(self) -> dict[str, tuple[float, ...]]:
        """Return the bars below which principals were, and halfway above which they have not been since."""
        return {name: tuple(sorted(bars)) for name, bars in list(self._out.items())}

    def restore(self, kept_out: Mapping[str, Iterable[float]]) -> None:
        """Keep out whom ``kept_out`` named earlier."""
        for name, bars in kept_out.items():
            self._out[name] = self._out.get(name, frozenset()).union(bars)

    def onlooker(self) -> Trust:
        """Return what judges by the same trust and adds nothing to it: for messages that are judged once more."""
        other = Trust(self.score)
        other._out = self._out
        other._listens = False
        return other
