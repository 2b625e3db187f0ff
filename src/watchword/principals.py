"""Patterns of principals: which agents a rule, an operator's authority or a containment means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from watchword.message import is_principal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def covers(pattern: str, other: str) -> bool:
    """Return True if all that ``other`` matches, a principal or a pattern, is matched by ``pattern`` too."""
    ours, theirs = pattern.split("/"), other.split("/")
    for at, part in enumerate(ours):
        if at >= len(theirs):
            return False
        if part == _REST:
            return True
        if theirs[at] == _REST or part not in {_ONE, theirs[at]}:
            return False
    return len(ours) == len(theirs)


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
        self._exact: dict[str, T] = {}
        self._wild: dict[str, T] = {}
        self._root = _Node()

    def __len__(self) -> int:
        return len(self._exact) + len(self._wild)

    def put(self, pattern: str, value: T) -> None:
        """Set the value of a pattern."""
        parts = pattern.split("/")
        if not {_ONE, _REST} & set(parts):
            self._exact[pattern] = value
            return
        if pattern not in self._wild:
            self._root.add(parts, pattern)
        self._wild[pattern] = value

    def get(self, pattern: str) -> T | None:
        """Return the value of exactly this pattern; None where there is none."""
        return self._exact.get(pattern, self._wild.get(pattern))

    def drop(self, pattern: str) -> None:
        """Remove a pattern, if it is there."""
        self._exact.pop(pattern, None)
        if self._wild.pop(pattern, None) is not None:
            self._root.remove(pattern.split("/"))

    def find(self, principal: str) -> Iterator[tuple[str, T]]:
        """Give each pattern that matches, the principal's own text first."""
        exact = self._exact.get(principal)
        if exact is not None:
            yield principal, exact
        if self._wild:
            for pattern in self._root.find(principal.split("/")):
                value = self._wild.get(pattern)
                if value is not None:
                    yield pattern, value

    def items(self) -> list[tuple[str, T]]:
        """Return all of them."""
        return [*self._exact.items(), *self._wild.items()]


class _Node:
    """What patterns have in common from their beginning to here; ``pattern`` is the one that ends here."""

    __slots__ = ("below", "pattern")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.pattern: str | None = None

    def add(self, parts: Sequence[str], pattern: str) -> None:
        node = self
        for part in parts:
            node = node.below.setdefault(part, _Node())
        node.pattern = pattern

    def remove(self, parts: Sequence[str]) -> None:
        """Let go of a pattern, and of the nodes that led to no other."""
        nodes = [self]
        for part in parts:
            nodes.append(nodes[-1].below[part])
        nodes[-1].pattern = None
        for part, node, child in zip(reversed(parts), reversed(nodes[:-1]), reversed(nodes[1:]), strict=True):
            if child.below or child.pattern is not None:
                break
            del node.below[part]

    def find(self, parts: Sequence[str]) -> Iterator[str]:
        """Give the patterns that match; level by level, so that no name is too deep."""
        level = [self]
        for part in parts:
            found: list[_Node | None] = []
            for node in level:
                rest = node.below.get(_REST)
                if rest is not None and rest.pattern is not None:
                    yield rest.pattern
                found += [node.below.get(part), node.below.get(_ONE) if part != _ONE else None]
            level = [node for node in found if node is not None]
            if not level:
                return
        yield from (node.pattern for node in level if node.pattern is not None)
