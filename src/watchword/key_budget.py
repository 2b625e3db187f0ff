"""Budgets for key look-ups: they limit what strangers, who can name any key, make a process do.

A look-up is the only work that a message without a valid signature can cause elsewhere, and it is costly when a key
source hangs or fails. So look-ups for *unfamiliar* keys have budgets. A message that finds no budget left is shed: it
ends as Unavailable, and may be judged later. A pair of principal and key id is familiar if the source has found its key
before, or lists it. A sender cannot make an invented pair familiar, so no flood of invented names, nor one under an
honest agent's name, can shut out an agent whose key the source has. The budgets are:

- how many look-ups for unfamiliar keys may be under way at once;
- how many of them may fail in a row; after that, an occasional one finds out whether the source is back;
- after one that failed slowly, no look-ups for ten times as long as it took. So a source with a time-out of seconds,
  for which a partition waits each time, takes up one eleventh of the time and not all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from watchword.errors import Shed
from watchword.keys import VerificationKey, listed
from watchword.plugged import answer

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from watchword.keys import KeySource
    from watchword.quota import Warned

MOST: Final = 256
"""The most look-ups under way at once for unfamiliar keys."""

MOST_FAMILIAR: Final = 4096
"""The most look-ups under way at once for familiar keys: more than any process has readers; it only bounds memory."""

MOST_KNOWN: Final = 1 << 16
"""The most familiar pairs, some 200 bytes each; those known longest are forgotten first."""

FAILURES: Final = 128
"""How many look-ups for unfamiliar keys may fail in a row."""

PER_SECOND: Final = 10.0
"""Failures that are forgiven per second."""

_SLOW: Final = 0.1
"""Seconds from which a failure counts as slow."""

_QUIET: Final = 10.0
_LONGEST_QUIET: Final = 30.0
_LIST_TTL: Final = 2.0
_WARN_EVERY: Final = 60.0

_Pair: TypeAlias = tuple[str, bytes]


class KeyBudget:
    """A key source behind budgets for unfamiliar keys; without a source no key is found.

    The source may be replaced. ``clock`` returns seconds and may step. ``warnings`` gets at most one warning a minute.
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
        self._unfamiliar_under_way = self._familiar_under_way = 0
        self._forgiven = float(FAILURES)
        self._forgiven_at = clock()
        self._quiet: tuple[float, float] | None = None
        self._shed = 0
        self._warned_at: float | None = None

    @property
    def source(self) -> KeySource | None:
        """The source to ask; a new one begins with full budgets."""
        return self._source

    @source.setter
    def source(self, source: KeySource | None) -> None:
        self._source, self._listed_at, self._quiet = source, None, None
        self._forgiven = float(FAILURES)

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``; Shed if no look-up may be made now."""
        source, pair = self._source, (principal, key_id)
        if source is None:
            return None
        if pair in self._familiar:
            return await self._find_familiar(source, pair)
        if self._lacks_budget() is None:
            key = await self._find_unfamiliar(source, pair)
        else:
            self.require(principal, key_id)
            key = await self._find_familiar(source, pair)
        # The source is not trusted blindly: a key of another principal makes no pair familiar.
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
            self._warn(why)
            raise Shed(why)

    def knows(self, principal: str, key_id: bytes) -> bool:
        """Return True if the source has found this key before, or lists it."""
        pair = principal, key_id
        return pair in self._familiar or self._is_listed(pair)

    async def _find_familiar(self, source: KeySource, pair: _Pair) -> VerificationKey | None:
        if self._familiar_under_way >= MOST_FAMILIAR:
            why = f"{MOST_FAMILIAR} look-ups for known keys are under way"
            self._warn(why)
            raise Shed(why)
        self._familiar_under_way += 1
        try:
            return await source.find(*pair)
        finally:
            self._familiar_under_way -= 1

    async def _find_unfamiliar(self, source: KeySource, pair: _Pair) -> VerificationKey | None:
        self._unfamiliar_under_way += 1
        begun = self._clock()
        try:
            key = await answer(source.find(*pair))
        except Exception:
            self._failed(self._clock() - begun)
            raise
        finally:
            self._unfamiliar_under_way -= 1
        self._forgiven = float(FAILURES)
        return key

    def _note(self, pair: _Pair) -> None:
        if pair not in self._familiar:
            if len(self._familiar) >= MOST_KNOWN:
                del self._familiar[next(iter(self._familiar))]
            self._familiar[pair] = None

    def _lacks_budget(self) -> str | None:
        """Return why no look-up may be made for an unfamiliar key; None if one may."""
        if self._unfamiliar_under_way >= self._most:
            return f"{self._most} look-ups for unknown keys are under way"
        if self._quiet is not None:
            since, seconds = self._quiet
            if 0 <= self._clock() - since < seconds:
                return f"a look-up failed slowly, so unknown keys are not looked up for {seconds:.0f} s"
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
        """Return True if the source lists this key; the list is refreshed every few seconds while messages are shed."""
        now = self._clock()
        if self._listed_at is None or not 0 <= now - self._listed_at < _LIST_TTL:
            self._listed_at = now
            self._listed = frozenset((key.principal, key.key_id) for key in listed(self._source))
        return pair in self._listed

    def _warn(self, why: str) -> None:
        """Warn at once, and then at most once a minute, with the number shed since."""
        self._shed += 1
        now = self._clock()
        if self._warned_at is None or not 0 <= now - self._warned_at < _WARN_EVERY:
            remedy = "check the key source; shed messages are judged when offered again, which core NATS does not do"
            self._warnings.append(("keys.look_ups_shed", {"count": self._shed, "why": why, "remedy": remedy}))
            self._warned_at, self._shed = now, 0
