"""How long brokers may keep a fetch that finds nothing while a memory begins, and when the next one is sent.

A broker answers what comes by one connection in order, and keeps a fetch at the end of a log for half a second. What is
asked behind it waits for it: a look-up, and the fetch of what is to be read again. A beginning takes some of these.

One kind of fetch it does not keep: under ``read_committed``, from a position beyond the last stable offset. There a
reader is put by a commit of a member that reads everything, or by a seek, while a transaction is open before it. The
answer comes at once, with nothing, and the client would ask again at once, some thousand times a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from watchword_adapters.kafka._seam import Inside

SHORTEST: Final = 10
"""Milliseconds for the first fetch."""

LONGEST: Final = 10_000
"""Milliseconds for the last ones, if the caller lets them take longer."""

REST: Final = 0.05
"""Seconds before the next fetch where brokers keep none."""


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

    def rest(self, answer: Any) -> float:
        """Return the seconds to wait before the next fetch, where the broker did not wait for records."""
        parts = [(TopicPartition(topic, one[0]), one) for topic, found in answer.topics for one in found]
        if not self._inside.reads_committed or any(one[-1] for _, one in parts):
            return 0.0
        # Of an answer to a client that reads what is committed, the fourth is the last stable offset.
        return REST if any((self._inside.position(tp) or 0) > one[3] >= 0 for tp, one in parts) else 0.0
