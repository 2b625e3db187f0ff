"""Patterns of principals, as used in rules, operators' authority and containments: matching, and an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from watchword import patterns
from watchword.message import is_principal

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

_ONE: Final = "*"
_REST: Final = "**"


def is_principal_pattern(text: str) -> bool:
    """Return True if ``text`` is a principal, in which ``*`` may stand for one part and a final ``**`` for one or more.

    Parts are separated by slashes. A star within a part is refused, because it would not match what its writer expects.
    """
    parts = text.split("/")
    starred = [part for part in parts if "*" in part]
    return is_principal(text) and _REST not in parts[:-1] and set(starred) <= {_ONE, _REST}


def is_wild(principal: str) -> bool:
    """Return True if ``principal`` has wildcards, and is not just one principal's name."""
    return any(part in {_ONE, _REST} for part in principal.split("/"))


def covers(pattern: str, other: str) -> bool:
    """Return True if ``pattern`` matches every principal that ``other``, a principal or a pattern, matches."""
    return patterns.covers(pattern.split("/"), other.split("/"), _ONE, _REST)


def may_meet(pattern: str, other: str) -> bool:
    """Return True if some principal can match both patterns."""
    ours, theirs = pattern.split("/"), other.split("/")
    for one, two in zip(ours, theirs, strict=False):
        if _REST in {one, two}:
            return True
        if one != two and _ONE not in {one, two}:
            return False
    return len(ours) == len(theirs)


class PrincipalIndex(Generic[T]):
    """Values by pattern; a look-up costs time by the principal's parts, not by the number of patterns.

    One thread may change it while others look up.
    """

    def __init__(self) -> None:
        self._values: dict[str, T] = {}
        self._wild = patterns.TokenTree[str](_ONE, _REST)

    def __len__(self) -> int:
        return len(self._values)

    def put(self, pattern: str, value: T) -> None:
        """Set the value of a pattern."""
        if pattern not in self._values and is_wild(pattern):
            self._wild.add(pattern.split("/"), pattern)
        self._values[pattern] = value

    def get(self, pattern: str) -> T | None:
        """Return the value of exactly this pattern; None if there is none."""
        return self._values.get(pattern)

    def drop(self, pattern: str) -> None:
        """Remove a pattern, if it is there."""
        if self._values.pop(pattern, None) is not None and is_wild(pattern):
            self._wild.remove(pattern.split("/"), pattern)

    def find(self, principal: str) -> Iterator[tuple[str, T]]:
        """Yield each matching pattern and its value: the principal's own name first, then the most exact first."""
        for pattern in dict.fromkeys((principal, *self._wild.covering(principal.split("/")))):
            value = self._values.get(pattern)
            if value is not None:
                yield pattern, value

    def items(self) -> list[tuple[str, T]]:
        """Return all patterns and their values."""
        return [*self._values.items()]
