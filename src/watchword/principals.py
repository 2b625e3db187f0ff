"""Patterns of principals: which agents a rule, an operator's authority or a containment means."""

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
    """Return True for a principal, in which ``*`` may stand for one part and a last ``**`` for one or more.

    Parts are what slashes separate. A star within a part is refused: whoever writes it means more than it would match.
    """
    parts = text.split("/")
    starred = [part for part in parts if "*" in part]
    return is_principal(text) and _REST not in parts[:-1] and set(starred) <= {_ONE, _REST}


def is_wild(principal: str) -> bool:
    """Return True for a pattern of principals; False for one that names a single principal."""
    return any(part in {_ONE, _REST} for part in principal.split("/"))


def covers(pattern: str, other: str) -> bool:
    """Return True if all that ``other`` matches, a principal or a pattern, is matched by ``pattern`` too."""
    return patterns.covers(pattern.split("/"), other.split("/"), _ONE, _REST)


def may_meet(pattern: str, other: str) -> bool:
    """Return True if there can be a principal that both match."""
    ours, theirs = pattern.split("/"), other.split("/")
    for one, two in zip(ours, theirs, strict=False):
        if _REST in {one, two}:
            return True
        if one != two and _ONE not in {one, two}:
            return False
    return len(ours) == len(theirs)


class PrincipalIndex(Generic[T]):
    """Values by pattern; what matches is found at a cost that depends on the principal's parts, not on their number.

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
        """Return the value of exactly this pattern; None where there is none."""
        return self._values.get(pattern)

    def drop(self, pattern: str) -> None:
        """Remove a pattern, if it is there."""
        if self._values.pop(pattern, None) is not None and is_wild(pattern):
            self._wild.remove(pattern.split("/"), pattern)

    def find(self, principal: str) -> Iterator[tuple[str, T]]:
        """Give each pattern that matches: the principal's own text first, then the most exact ones."""
        for pattern in dict.fromkeys((principal, *self._wild.covering(principal.split("/")))):
            value = self._values.get(pattern)
            if value is not None:
                yield pattern, value

    def items(self) -> list[tuple[str, T]]:
        """Return all of them."""
        return [*self._values.items()]
