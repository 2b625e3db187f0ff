"""How many look-ups a process may have under way for keys that it has never seen: strangers can name any key.

A look-up is the one thing that a message without a valid signature can make others do, and a key source that hangs or
fails makes it dear. So look-ups for *unfamiliar* keys have budgets, and what finds none left is shed: it ends as
Unavailable, is nobody's fault, and may come again. Familiar is a pair of principal and key id under which the source
has found a key before, or which it lists. Nobody can make a pair familiar that is none, so no flood of invented names,
nor one under an honest agent's name, can shut out an agent whose key is at hand.

- So many look-ups for unfamiliar keys may be under way at once.
- So many may fail in a row; then one in a while finds out whether the source is back.
- After one that failed and took long, none is made for ten times as long, so that a source with a time-out of
  seconds, which a partition waits for in turn, takes up one part in eleven of the time, not all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.errors import Shed
from watchword.keys import VerificationKey, listed

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from watchword.keys import KeySource
    from watchword.quota import Warned

MOST: Final = 256
"""Look-ups under way at once for keys that are not familiar."""

MOST_FAMILIAR: Final = 4096
"""Look-ups under way at once for those that are: more than any process has readers, so a bound for memory only."""

MOST_KNOWN: Final = 1 << 16
"""Pairs that are remembered as familiar, some 200 bytes each; those known longest are forgotten first."""

FAILURES: Final = 128
"""Look-ups for unfamiliar keys that may fail in a row."""

PER_SECOND: Final = 10.0
"""Failures that are forgiven in a second."""

_SLOW: Final = 0.1
"""Seconds from which on a failure counts as one that took long."""

_QUIET: Final = 10.0
_LONGEST_QUIET: Final = 30.0
_LISTED_FOR: Final = 2.0
_TOLD_EVERY: Final = 60.0

_Pair: TypeAlias = tuple[str, bytes]


class KeyBudget:
    """A key source, in front of which what is not familiar has to find a budget; without a source nobody is known.

    The source may become another one. ``clock`` returns seconds, and may step. ``warnings`` gets one a minute at most.
    """

    def __init__(
        self,
        source: KeySource | None,
        *,
        clock: Callable[[], float],
        warnings: deque[Warned],
        most: int = MOST,
    ) -> None:
        self._source = source
        self._clock: Final = clock
        self._warnings: Final = warnings
        self._most: Final = most
        self._familiar: dict[_Pair, None] = {}
        self._listed: frozenset[_Pair] = frozenset()
        self._listed_at: float | None = None
        self._strangers = self._acquainted = 0
        self._forgiven = float(FAILURES)
        self._forgiven_at = clock()
        self._quiet: tuple[float, float] | None = None
        self._shed = 0
        self._told_at: float | None = None

    @property
    def source(self) -> KeySource | None:
        """The source that is asked; another one begins with all budgets full."""
        return self._source

    @source.setter
    def source(self, source: KeySource | None) -> None:
        self._source, self._listed_at, self._quiet = source, None, None
        self._forgiven = float(FAILURES)

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Shed where no look-up may be made now."""
        source, pair = self._source, (principal, key_id)
        if source is None:
            return None
        if pair in self._familiar:
            return await self._find_familiar(source, pair)
        if self._lacks_budget() is None:
            key = await self._find_stranger(source, pair)
        else:
            self.require(principal, key_id)
            key = await self._find_familiar(source, pair)
        # The source is not taken at its word: a key of another principal makes nobody familiar.
        found: object = key
        if isinstance(found, VerificationKey) and (found.principal, found.key_id) == pair:
            self._note(pair)
        return key

    def require(self, principal: str, key_id: bytes) -> None:
        """Raise Shed if a look-up for this key may not be made now."""
        pair = principal, key_id
        if pair in self._familiar or self._source is None:
            return
        why = self._lacks_budget()
        if why is not None and not self._is_listed(pair):
            self._tell(why)
            raise Shed(why)

    async def _find_familiar(self, source: KeySource, pair: _Pair) -> VerificationKey | None:
        if self._acquainted >= MOST_FAMILIAR:
            why = f"{MOST_FAMILIAR} look-ups for known keys are under way"
            self._tell(why)
            raise Shed(why)
        self._acquainted += 1
        try:
            return await source.find(*pair)
        finally:
            self._acquainted -= 1

    async def _find_stranger(self, source: KeySource, pair: _Pair) -> VerificationKey | None:
        self._strangers += 1
        begun = self._clock()
        try:
            key = await source.find(*pair)
        except Exception:
            self._failed(self._clock() - begun)
            raise
        finally:
            self._strangers -= 1
        self._forgiven = float(FAILURES)
        return key

    def _note(self, pair: _Pair) -> None:
        if pair not in self._familiar:
            if len(self._familiar) >= MOST_KNOWN:
                del self._familiar[next(iter(self._familiar))]
            self._familiar[pair] = None

    def _lacks_budget(self) -> str | None:
        """Return why no look-up may be made for a key that is not familiar; None where one may."""
        if self._strangers >= self._most:
            return f"{self._most} look-ups for unknown keys are under way"
        if self._quiet is not None:
            since, seconds = self._quiet
            if 0 <= self._clock() - since < seconds:
                return f"a look-up has failed after a long time; no unknown key is looked for during {seconds:.0f} s"
            self._quiet = None
        if self._forgiven < 1 and self._forgive() < 1:
            return f"{FAILURES} look-ups in a row have failed"
        return None

    def _failed(self, took: float) -> None:
        self._forgiven = self._forgive() - 1
        if took >= _SLOW:
            self._quiet = self._clock(), min(_QUIET * took, _LONGEST_QUIET)

    def _forgive(self) -> float:
        now = self._clock()
        passed, self._forgiven_at = max(0.0, now - self._forgiven_at), now
        self._forgiven = min(float(FAILURES), self._forgiven + passed * PER_SECOND)
        return self._forgiven

    def _is_listed(self, pair: _Pair) -> bool:
        """Return True for a key that the source lists; its list is read again every few seconds while some are shed."""
        now = self._clock()
        if self._listed_at is None or not 0 <= now - self._listed_at < _LISTED_FOR:
            self._listed_at = now
            self._listed = frozenset((key.principal, key.key_id) for key in listed(self._source))
        return pair in self._listed

    def _tell(self, why: str) -> None:
        """Warn at once, and then once a minute, of how many were shed since."""
        self._shed += 1
        now = self._clock()
        if self._told_at is None or not 0 <= now - self._told_at < _TOLD_EVERY:
            remedy = "see to the key source; what was shed is judged when it comes again"
            self._warnings.append(("keys.look_ups_shed", {"count": self._shed, "why": why, "remedy": remedy}))
            self._told_at, self._shed = now, 0
