"""How many ids each principal may have remembered: memory is bounded by refusing, never by forgetting."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

UNVERIFIED: Final = 0
"""The owner of ids whose claims nobody has verified."""

BYTES_PER_ID: Final = 25
"""Bytes that an id takes at most, what it takes while arrays are merged included."""

Warned: TypeAlias = "tuple[str, dict[str, str | float | None]]"
"""An event and its fields, as ``Audit.warn`` takes them."""

_ALL: Final = -1
_UNVERIFIED_SHARE: Final = 40
_WAITING: Final = 64
"""Warnings that wait for somebody to log them; the newest ones stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How many ids may be remembered: of one principal, of all together, and of what nobody has verified."""

    per_principal: int
    in_all: int
    unverified: int

    @classmethod
    def within(cls, memory: int) -> Bounds:
        """Return bounds for which ``memory`` bytes are enough, of which one principal may take a quarter."""
        ids = memory // BYTES_PER_ID
        unverified = ids // _UNVERIFIED_SHARE
        in_all = (ids - unverified) // 2  # up to twice as many are held, see Quota
        return cls(per_principal=in_all // 2, in_all=in_all, unverified=unverified)


class Quota:
    """Counts ids by owner; an owner is a small number that stands for a principal.

    A principal holds at most ``per_principal`` ids over all logs; once ``in_all`` are held, only principals below an
    equal share are served, and nobody once there are twice as many. What is not verified counts apart.

    ``crossed`` holds the bounds of which four fifths are used since the last id. Whoever counts may then make room, and
    has to call ``warn``: for those that are still as full ``warnings`` gets one, and no other until half of it is free.
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
        """Count one more id of a principal, and return the number that stands for it; None if it may have no more."""
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
        """Count ``count`` more ids of a principal; None, and none is counted, if a bound would be near by that."""
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
        """Count one more id that nobody has verified."""
        if self._held[UNVERIFIED] >= _near(self._bounds.unverified):
            self.crossed[UNVERIFIED] = "messages whose keys are not known"
        self._held[UNVERIFIED] += 1
        return UNVERIFIED

    def release(self, owner: int, count: int = 1) -> None:
        """Count ``count`` ids less."""
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
        """Warn of the bounds that were crossed and that nobody has made room for."""
        for owner, what in self.crossed.items():
            bound, held = self._state(owner)
            if held >= _near(bound) and owner not in self._warned:
                self._warned.add(owner)
                remedy = "raise memory in [replay]: at the bound messages are over_quota"
                self.warnings.append(("replay.memory_filling", {"what": what, "bound": bound, "remedy": remedy}))
        self.crossed.clear()

    def is_crowded(self, principal: str) -> bool:
        """Return True if what a principal is refused for is what all hold together."""
        owner = self._numbers.get(principal)
        held = 0 if owner is None else self._held[owner]
        return self._total >= self._bounds.in_all and held < self._bounds.per_principal

    def number(self, principal: str) -> int | None:
        """Return the number that stands for a principal; None if it holds nothing."""
        return self._numbers.get(principal)

    def held(self) -> dict[str, int]:
        """Return how many ids each principal holds."""
        return {principal: self._held[owner] for principal, owner in self._numbers.items()}

    def is_full_of_unverified(self) -> bool:
        """Return True if nothing more may be remembered that nobody has verified."""
        return self._held[UNVERIFIED] >= self._bounds.unverified

    def _has_share(self, held: int) -> bool:
        """Return True below an equal share; those below one add up to in_all * (1 + 1/2 + 1/3 + ...)."""
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
