"""How long brokers may keep a fetch that finds nothing, while a memory begins.

A broker answers what comes by one connection in order, and keeps a fetch at the end of a log for half a second. What is
asked behind it waits for it: a look-up, and the fetch of what is to be read again. A beginning takes some of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from watchword_adapters.kafka._seam import Inside

SHORTEST: Final = 10
"""Milliseconds for the first fetch."""

LONGEST: Final = 10_000
"""Milliseconds for the last ones, if the caller lets them take longer."""


class Pace:
    """Lets a fetch wait briefly, and the next one twice as long, so that a memory which cannot begin is no load."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._wait = SHORTEST

    def hurry(self) -> None:
        """Begin with the shortest wait: something has come of the latest fetch, or a memory is to begin."""
        self._wait = SHORTEST
        self._inside.keep_fetches(SHORTEST)

    def fetched(self, *, settled: bool) -> None:
        """Let the next fetch wait longer; where all is ``settled``, as long as the caller has said."""
        self._wait = SHORTEST if settled else min(2 * self._wait, LONGEST)
        self._inside.keep_fetches(None if settled else self._wait)
