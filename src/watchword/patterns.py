"""Indexes of values by pattern, for channels and principals: the cost of a look-up depends little on their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_V = TypeVar("_V")

PREFIX: Final = "*"
"""At the end of a topic: all topics with this prefix, as in Kafka's prefixed ACLs."""

_TOPICS: Final = "kafka://"


def covers(pattern: Sequence[str], other: Sequence[str], one: str, rest: str) -> bool:
    """Return True if ``pattern`` matches everything that ``other``, plain tokens or a pattern, matches."""
    for at, token in enumerate(pattern):
        if at >= len(other):
            return False
        if token == rest:
            return True
        if other[at] == rest or token not in {one, other[at]}:
            return False
    return len(pattern) == len(other)


class _Node(Generic[_V]):
    """A node of the tree; ``values`` are those of the pattern that ends here."""

    __slots__ = ("values", "ways")

    def __init__(self) -> None:
        self.ways: dict[str, _Node[_V]] = {}
        self.values: list[_V] = []


class TokenTree(Generic[_V]):
    """Values by patterns of tokens, in which ``one`` matches one token, and ``rest`` at the end one or more."""

    def __init__(self, one: str, rest: str) -> None:
        self._one: Final = one
        self._rest: Final = rest
        self._root: Final = _Node[_V]()

    def add(self, tokens: Iterable[str], value: _V) -> None:
        """Add a value for a pattern."""
        node = self._root
        for token in tokens:
            node = node.ways.setdefault(token, _Node())
        node.values.append(value)

    def remove(self, tokens: Sequence[str], value: _V) -> None:
        """Remove a value of a pattern, and the nodes that led to no other."""
        nodes = [self._root]
        for token in tokens:
            nodes.append(nodes[-1].ways[token])
        nodes[-1].values.remove(value)
        for token, node, child in zip(reversed(tokens), reversed(nodes[:-1]), reversed(nodes[1:]), strict=True):
            if child.ways or child.values:
                break
            del node.ways[token]

    def covering(self, tokens: Sequence[str]) -> Iterator[_V]:
        """Yield the values of the patterns that match these tokens, or all that a pattern matches, most exact first.

        Of two patterns, the first token from the left that differs decides: a word is more exact than ``one``, and
        ``one`` more than ``rest``.
        """
        one_token, rest_of_them, end = self._one, self._rest, len(tokens)
        ahead = [(self._root, 0)]
        while ahead:
            node, at = ahead.pop()
            if at == end:
                yield from node.values
                continue
            token, ways = tokens[at], node.ways
            if (rest := ways.get(rest_of_them)) is not None:
                ahead.append((rest, end))
            if token == rest_of_them:
                continue
            if (one := ways.get(one_token)) is not None:
                ahead.append((one, at + 1))
            if token != one_token and (same := ways.get(token)) is not None:
                ahead.append((same, at + 1))

    def meeting(self, tokens: Sequence[str]) -> Iterator[_V]:
        """Yield the values of the patterns that overlap with this one, in any order."""
        one_token, rest_of_them, end = self._one, self._rest, len(tokens)
        ahead = [(self._root, 0)]
        while ahead:
            node, at = ahead.pop()
            if at == end:
                yield from node.values
                continue
            token, ways = tokens[at], node.ways
            if token == rest_of_them:
                for found in ways.values():
                    yield from found.values
                    ahead.append((found, at))
                continue
            if (rest := ways.get(rest_of_them)) is not None:
                yield from rest.values
            if token == one_token:
                ahead += [(found, at + 1) for way, found in ways.items() if way != rest_of_them]
            else:
                ahead += [(ways[way], at + 1) for way in (token, one_token) if way in ways]


class Patterns(Generic[_V]):
    """Values by URIs of channels.

    In a NATS subject ``*`` matches one token, and a final ``>`` one or more; a topic with a final ``*`` matches all
    topics with that prefix.
    """

    def __init__(self, written: Iterable[tuple[str, _V]]) -> None:
        self._subjects: Final = TokenTree[_V]("*", ">")
        self._topics: Final[dict[str, list[_V]]] = {}
        self._prefixes: Final[dict[str, list[_V]]] = {}
        for uri, value in written:
            if not uri.startswith(_TOPICS):
                self._subjects.add(_tokens(uri), value)
            elif uri.endswith(PREFIX):
                self._prefixes.setdefault(uri.removesuffix(PREFIX), []).append(value)
            else:
                self._topics.setdefault(uri, []).append(value)
        self._lengths: Final = sorted({len(prefix) for prefix in self._prefixes}, reverse=True)

    def covering(self, uri: str) -> Iterator[_V]:
        """Yield the values of the patterns that match a channel, or all that a pattern matches, most exact first.

        Of two subjects, the first token from the left that differs decides: a word is more exact than ``*``, and ``*``
        more than ``>``. For topics, the whole name comes first, then longer prefixes before shorter ones.
        """
        if not uri.startswith(_TOPICS):
            yield from self._subjects.covering(_tokens(uri))
            return
        yield from self._topics.get(uri, ())
        for length in self._lengths:  # at most as many as a topic has characters, whatever the number of rules
            if length <= len(uri):
                yield from self._prefixes.get(uri[:length], ())

    def meeting(self, uri: str) -> Iterator[_V]:
        """Yield the values of the patterns that share a channel with this one, in any order."""
        if not uri.startswith(_TOPICS):
            yield from self._subjects.meeting(_tokens(uri))
            return
        yield from self.covering(uri)
        if uri.endswith(PREFIX):
            begin = uri.removesuffix(PREFIX)
            for topic, values in self._topics.items():
                if topic.startswith(begin):
                    yield from values
            for prefix, values in self._prefixes.items():
                if prefix.startswith(begin) and prefix != begin:  # which covers all of it
                    yield from values


def _tokens(uri: str) -> list[str]:
    """Return the tokens of a subject's URI: bus, realm, and each token of the name."""
    bus, _, realm, name = uri.split("/", 3)
    return [bus, realm, *name.split(".")]
