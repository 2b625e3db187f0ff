"""Quotas of remembered ids per principal: memory is bounded by refusing new ids, never by forgetting known ones.

It only counts. Storing ids, and making room when a bound is near, is up to the guard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

UNVERIFIED: Final = 0
"""The owner of entries whose claims were not verified."""

BYTES_PER_ID: Final = 25
"""The most bytes that an id takes, including those used while arrays are merged."""

Warned: TypeAlias = "tuple[str, dict[str, str | float | None]]"
"""An event and its fields, as ``Audit.warn`` takes them."""

_ALL: Final = -1
_UNVERIFIED_SHARE: Final = 40
_WAITING: Final = 64
"""The most warnings that wait to be logged; beyond that the oldest are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many ids may be remembered: per principal, in all, and without verification."""

    per_principal: int
    in_all: int
    unverified: int

    @classmethod
    def within(cls, memory: int) -> Bounds:
        """Return bounds that fit in ``memory`` bytes, of which one principal may take a quarter."""
        ids = memory // BYTES_PER_ID
        unverified = ids // _UNVERIFIED_SHARE
        in_all = (ids - unverified) // 2  # up to twice as many are held, see Quota
        return cls(per_principal=in_all // 2, in_all=in_all, unverified=unverified)


class Quota:
    """Counts ids by owner, a small number for each principal.

    A principal holds at most ``per_principal`` ids over all logs. Once ``in_all`` are held, only principals below an
    equal share get more, and none once twice as many are held. Unverified entries are counted separately.

    ``crossed`` has the bounds that are now four fifths used. The caller may make room and must call ``warn``: it adds a
    warning to ``warnings`` for each bound still as full, and no second one until half of that bound is free.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds: Final = bounds
        self._near: Final = _near(bounds.per_principal)
        self._near_in_all: Final = _near(bounds.in_all)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = [""]
        self._held: list[int] = [0]
        self._free: list[int] = []
        self._total = 0
        self.crossed: Final[dict[int, str]] = {}
        self._warned: set[int] = set()
        self.warnings: Final[deque[Warned]] = deque(maxlen=_WAITING)

    def __len__(self) -> int:
        return self._total

    def take(self, principal: str) -> int | None:
        """Count one more id of a principal and return its owner number; None if it may have no more."""
        owner = self._numbers.get(principal)
        held = 0 if owner is None else self._held[owner]
        bounds = self._bounds
        if held >= bounds.per_principal or (self._total >= bounds.in_all and not self._has_share(held)):
            return None
        if owner is None:
            owner = self._numbered(principal)
        self._held[owner] = held + 1
        self._total += 1
        if held >= self._near:
            self.crossed[owner] = f"ids of {principal}"
        if self._total >= self._near_in_all:
            self.crossed[_ALL] = "ids of all principals"
        return owner

    def take_all(self, principal: str, count: int) -> int | None:
        """Count ``count`` more ids of a principal; return None, and count none, if a bound would then be near."""
        owner = self._numbers.get(principal)
        held = count if owner is None else self._held[owner] + count
        if held > self._near or self._total + count >= self._near_in_all:
            return None
        if owner is None:
            owner = self._numbered(principal)
        self._held[owner] = held
        self._total += count
        return owner

    def take_unverified(self) -> int:
        """Count one more unverified entry."""
        if self._held[UNVERIFIED] >= _near(self._bounds.unverified):
            self.crossed[UNVERIFIED] = "messages whose keys are not known"
        self._held[UNVERIFIED] += 1
        return UNVERIFIED

    def release(self, owner: int, count: int = 1) -> None:
        """Count ``count`` fewer ids."""
        self._held[owner] -= count
        if owner != UNVERIFIED:
            self._total -= count
            if not self._held[owner]:
                del self._numbers[self._names[owner]]
                self._free.append(owner)
        if self._warned:
            for warned in (owner, _ALL):
                bound, held = self._state(warned)
                if held <= bound // 2:
                    self._warned.discard(warned)

    def warn(self) -> None:
        """Warn of each bound that was crossed and is still as full."""
        for owner, what in self.crossed.items():
            bound, held = self._state(owner)
            if held >= _near(bound) and owner not in self._warned:
                self._warned.add(owner)
                remedy = "raise memory in [replay]: at the bound messages are over_quota"
                self.warnings.append(("replay.memory_filling", {"what": what, "bound": bound, "remedy": remedy}))
        self.crossed.clear()

    def is_crowded(self, principal: str) -> bool:
        """Return True if a principal is refused because of what all principals hold together."""
        owner = self._numbers.get(principal)
        held = 0 if owner is None else self._held[owner]
        return self._total >= self._bounds.in_all and held < self._bounds.per_principal

    def number(self, principal: str) -> int | None:
        """Return a principal's owner number; None if it holds no ids."""
        return self._numbers.get(principal)

    def held(self) -> dict[str, int]:
        """Return how many ids each principal holds."""
        return {principal: self._held[owner] for principal, owner in self._numbers.items()}

    def is_full_of_unverified(self) -> bool:
        """Return True if no more unverified entries may be remembered."""
        return self._held[UNVERIFIED] >= self._bounds.unverified

    def _has_share(self, held: int) -> bool:
        """Return True if ``held`` is below an equal share; such shares add up to in_all * (1 + 1/2 + 1/3 + ...)."""
        in_all = self._bounds.in_all
        return self._total < 2 * in_all and held < in_all // max(1, len(self._numbers))

    def _numbered(self, principal: str) -> int:
        if self._free:
            owner = self._free.pop()
            self._names[owner] = principal
        else:
            owner = len(self._names)
            self._names.append(principal)
            self._held.append(0)
        self._numbers[principal] = owner
        return owner

    def _state(self, owner: int) -> tuple[int, int]:
        """Return a bound, and how much of it is used."""
        if owner == _ALL:
            return self._bounds.in_all, self._total
        bound = self._bounds.unverified if owner == UNVERIFIED else self._bounds.per_principal
        return bound, self._held[owner]


def _near(bound: int) -> int:
    """Return how much of a bound is used when it is time to warn."""
    return bound * 4 // 5
