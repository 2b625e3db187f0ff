"""How far each partition is: taken from the client, judged, handed over, handled."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from watchword import Rejected
    from watchword_adapters.buses.kafka.records import Record

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds between two tries to judge a record while a key source or a replay store is down."""


@dataclass(slots=True)
class Partition:
    """The records of one partition between the client and its caller, in the order of their offsets.

    The client's own position runs ahead: it is behind ``pending`` (taken, not judged), which is behind ``ready``
    (judged, not handed over). ``unhandled`` is the offset of the first record that the caller got last and may still
    be working on. Whoever judges holds ``lock``; a changed ``generation`` tells it that its record is not wanted.

    Before anything is judged the guard is ``anchored`` (by the task ``anchoring``); records from ``since`` to
    ``resume`` are only ``recalled``. ``kept`` is the position for which an earlier assignment's guard is still good.
    ``refused`` is the first pending record where it was rejected and its copy is being written: who goes on after a
    cancelled caller must not judge it again.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: deque[ConsumerRecord[Any, Any]] = field(default_factory=deque)
    ready: deque[Record] = field(default_factory=deque)
    unhandled: int | None = None
    committed: int | None = None
    generation: int = 0
    failures: int = 0
    retry_at: float = 0.0
    kept: int | None = None
    anchored: bool = False
    anchoring: asyncio.Task[None] | None = None
    resume: int | None = None
    since: int = 0
    recalled: int = 0
    refused: tuple[ConsumerRecord[Any, Any], Rejected] | None = None

    def judged(self, position: int | None) -> int | None:
        """Return the offset before which everything was handed over or rejected; ``position`` is the client's."""
        if self.resume is not None:
            return self.resume
        if self.ready:
            return self.ready[0].offset
        if self.pending:
            return self.pending[0].offset
        return position

    def handled(self, position: int | None) -> int | None:
        """Return the offset before which the caller is done with everything."""
        judged = self.judged(position)
        if judged is None or self.unhandled is None:
            return judged
        return min(judged, self.unhandled)

    def hand_over(self) -> Record:
        """Give the first judged record to the caller."""
        record = self.ready.popleft()
        if self.unhandled is None:
            self.unhandled = record.offset
        return record

    def is_guarded(self) -> bool:
        """Tell whether the guard knows all that was handed over, and nothing more: what is ready it has seen too."""
        return self.anchored and self.resume is None and not self.ready

    def discard(self, *, anchored: bool = False) -> None:
        """Drop what was taken, and its guard unless that needs no anchor: the client reads from elsewhere now."""
        self.pending.clear()
        self.ready.clear()
        self.generation += 1
        if self.anchoring is not None:
            self.anchoring.cancel()
        self.anchoring = self.resume = self.kept = self.refused = None
        self.anchored = anchored
        self.recalled = 0
        self.failures = 0
        self.retry_at = 0.0

    def hold(self, now: float) -> None:
        """Put off the next try to judge; each time for twice as long, up to a bound."""
        self.retry_at = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.failures, 10))
        self.failures += 1

    def release(self) -> None:
        """Go on without delay: judging works."""
        self.failures = 0
        self.retry_at = 0.0
