"""Messages that this process passed over without a verdict, where a shared store has the ids.

They were not verified, so the store does not learn of them: otherwise a stranger could fill or overload it
(docs/stores.md). They are remembered in this process only, in bounded memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from watchword.key_floors import KeyFloors, ProvenKeys
from watchword.replay import Admission

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.replay import Claim, Place

MOST: Final = 1 << 14
"""The most messages of all readers; each takes some 400 bytes."""


class Unjudged:
    """Claims passed over without a verdict, by reader and digest, for as long as a store would keep them.

    Beyond MOST, the key's floor rises instead: all that it signed up to then counts as seen. ``clock`` is in seconds
    since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._claims: dict[tuple[str, bytes], tuple[Place | None, float]] = {}
        self._floors: dict[str, KeyFloors] = {}
        self._proven = ProvenKeys()

    def remember(self, claim: Claim) -> None:
        """Remember a message that is passed over without a verdict; of several with the same claims, the first."""
        now = self._clock()
        # In order of arrival, so the oldest come first; one that must be kept longer only delays those after it.
        while self._claims and self._claims[first := next(iter(self._claims))][1] < now:
            del self._claims[first]
        known = claim.reader, claim.digest
        if known not in self._claims:
            if len(self._claims) < MOST:
                self._claims[known] = claim.place, claim.keep_until
            else:
                floors = self._floors.setdefault(claim.reader, KeyFloors(self._proven))
                floors.rise((claim.principal, claim.key_id), claim.issued_at)

    def admission(self, claim: Claim) -> Admission | None:
        """Return why a verified message must not be delivered; None if that is for the store to decide."""
        if self._claims and (known := self._claims.get((claim.reader, claim.digest))) is not None:
            return None if claim.place is not None and claim.place == known[0] else Admission.REPLAYED
        floors = self._floors.get(claim.reader)
        if floors is None:
            return None
        pair = claim.principal, claim.key_id
        if pair not in self._proven:
            self._proven.prove(pair, self._floors.values())
        return Admission.TOO_OLD if claim.issued_at <= floors.of(pair) else None
