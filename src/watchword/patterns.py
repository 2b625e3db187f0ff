"""Patterns of channels, and what was written for each: found in steps of one token, however many patterns there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_V = TypeVar("_V")

_ONE: Final = "*"
_REST: Final = ">"


class _Node(Generic[_V]):
    """Where patterns part; ``values`` are those of the pattern that ends here."""

    __slots__ = ("values", "ways")

    def __init__(self) -> None:
        self.ways: dict[str, _Node[_V]] = {}
        self.values: list[_V] = []


class Patterns(Generic[_V]):
    """Values by URIs of channels; in a NATS subject '*' stands for one token, and a final '>' for one or more."""

    def __init__(self, written: Iterable[tuple[str, _V]]) -> None:
        self._root: Final = _Node[_V]()
        for uri, value in written:
            node = self._root
            for token in _tokens(uri):
                found = node.ways.get(token)
                if found is None:
                    found = node.ways[token] = _Node()
                node = found
            node.values.append(value)

    def covering(self, uri: str) -> Iterator[_V]:
        """Give the values of the patterns that cover a channel, or all of a pattern; the most exact ones first.

        The first token from the left that differs decides which of two is: '*' says less than a word, '>' the least.
        """
        tokens = _tokens(uri)
        end = len(tokens)
        ahead = [(self._root, 0)]
        while ahead:
            node, at = ahead.pop()
            if at == end:
                yield from node.values
                continue
            token, ways = tokens[at], node.ways
            if (rest := ways.get(_REST)) is not None:
                ahead.append((rest, end))
            if token == _REST:
                continue
            if (one := ways.get(_ONE)) is not None:
                ahead.append((one, at + 1))
            if token != _ONE and (same := ways.get(token)) is not None:
                ahead.append((same, at + 1))

    def meeting(self, uri: str) -> Iterator[_V]:
        """Give the values of the patterns that cover a channel which this pattern covers, in any order."""
        tokens = _tokens(uri)
        end = len(tokens)
        ahead = [(self._root, 0)]
        while ahead:
            node, at = ahead.pop()
            if at == end:
                yield from node.values
                continue
            token, ways = tokens[at], node.ways
            if token == _REST:
                for found in ways.values():
                    yield from found.values
                    ahead.append((found, at))
                continue
            if (rest := ways.get(_REST)) is not None:
                yield from rest.values
            if token == _ONE:
                ahead += [(found, at + 1) for way, found in ways.items() if way != _REST]
            else:
                ahead += [(ways[way], at + 1) for way in (token, _ONE) if way in ways]


def _tokens(uri: str) -> list[str]:
    """Return the steps to a channel: its bus, its realm, and each token of its name."""
    bus, _, realm, name = uri.split("/", 3)
    return [bus, realm, *name.split(".")]
