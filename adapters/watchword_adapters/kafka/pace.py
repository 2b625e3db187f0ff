"""Limits how long brokers may hold a fetch that finds nothing while a memory is built, and paces empty fetches.

A broker answers the requests of one connection in order, and holds a fetch at the end of a log for half a second.
Requests queued after it wait for it, such as a look-up and the fetch that rereads the log; building a memory takes
several of these.

One kind of fetch is not held: under ``read_committed``, from a position beyond the last stable offset. A reader gets
there by a commit of a member that reads everything, or by a seek, while a transaction before it is open. The response
is immediate and empty, and the client would fetch again at once, some thousand times a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from watchword_adapters.kafka._seam import Inside

SHORTEST: Final = 10
"""Longest wait of the first fetch, in milliseconds."""

LONGEST: Final = 10_000
"""Upper bound of later waits, in milliseconds, if the caller's setting is higher."""

REST: Final = 0.05
"""Seconds before the next fetch, if the broker does not hold it."""


class Pace:
    """Limits the first fetch to a short wait and doubles it, so that a memory that cannot be built causes no load."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._wait = SHORTEST

    def hurry(self) -> None:
        """Restart with the shortest wait: the latest fetch made progress, or a memory is to be built."""
        self._wait = SHORTEST
        self._inside.keep_fetches(SHORTEST)

    def fetched(self, *, settled: bool) -> None:
        """Let the next fetch wait longer; once ``settled``, as long as the caller has configured."""
        self._wait = SHORTEST if settled else min(2 * self._wait, LONGEST)
        self._inside.keep_fetches(None if settled else self._wait)

    def rest(self, answer: Any) -> float:
        """Return the seconds to wait before the next fetch, if the broker did not hold this one."""
        parts = [(TopicPartition(topic, one[0]), one) for topic, found in answer.topics for one in found]
        if not self._inside.reads_committed or any(one[-1] for _, one in parts):
            return 0.0
        # In a response under read_committed, index 3 is the last stable offset.
        return REST if any((self._inside.position(tp) or 0) > one[3] >= 0 for tp, one in parts) else 0.0
