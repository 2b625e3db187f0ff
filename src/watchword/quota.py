"""How many ids each principal may have remembered: memory is bounded by refusing, never by forgetting."""

from __future__ import annotations

from typing import Final

UNVERIFIED: Final = 0
"""The owner of ids whose claims nobody has verified."""


class Quota:
    """Counts ids by owner; an owner is a small number that stands for a principal.

    A principal holds at most ``per_principal`` ids over all logs; once ``in_all`` are held, only principals below an
    equal share are served, and nobody once there are twice as many. What is not verified counts apart.
    """

    def __init__(self, *, per_principal: int, in_all: int, unverified: int) -> None:
        self._per_principal: Final = per_principal
        self._in_all: Final = in_all
        self._most_unverified: Final = unverified
        self._numbers: dict[str, int] = {}
        self._names: list[str] = [""]
        self._held: list[int] = [0]
        self._free: list[int] = []
        self._total = 0

    def __len__(self) -> int:
        return self._total

    def take(self, principal: str) -> int | None:
        """Count one more id of a principal, and return the number that stands for it; None if it may have no more."""
        owner = self._numbers.get(principal)
        held = 0 if owner is None else self._held[owner]
        if held >= self._per_principal or (self._total >= self._in_all and not self._has_share(held)):
            return None
        if owner is None:
            owner = self._numbered(principal)
        self._held[owner] += 1
        self._total += 1
        return owner

    def take_unverified(self) -> int:
        """Count one more id that nobody has verified."""
        self._held[UNVERIFIED] += 1
        return UNVERIFIED

    def release(self, owner: int) -> None:
        """Count one less."""
        self._held[owner] -= 1
        if owner != UNVERIFIED:
            self._total -= 1
            if not self._held[owner]:
                del self._numbers[self._names[owner]]
                self._free.append(owner)

    def held(self) -> dict[str, int]:
        """Return how many ids each principal holds."""
        return {principal: self._held[owner] for principal, owner in self._numbers.items()}

    def is_full_of_unverified(self) -> bool:
        """Tell whether nothing more may be remembered that nobody has verified."""
        return self._held[UNVERIFIED] >= self._most_unverified

    def _has_share(self, held: int) -> bool:
        """Tell whether a principal is below an equal share; those alone add up to in_all * (1 + 1/2 + 1/3 + ...)."""
        return self._total < 2 * self._in_all and held < self._in_all // max(1, len(self._numbers))

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
