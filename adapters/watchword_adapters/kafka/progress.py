"""How far each partition is: taken from the client, judged, handed over, handled."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from watchword_adapters.freshness import FRESH

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from watchword import Delivered, Message, Rejected, Unavailable
    from watchword_adapters.kafka.records import Record

FIRST_DELAY: Final = 0.1
LONGEST_DELAY: Final = 5.0
"""Seconds between two tries to judge a record while a key source or a replay store is down."""

FARTHEST: Final = 128
"""Records judged ahead of a caller who takes one at a time, at most."""

BRISK: Final = 0.05
"""Seconds in which a caller must have taken what was judged ahead, to get more the next time."""


class Judged(NamedTuple):
    """A record that verified, and the message that it was."""

    record: Record
    message: Message


@dataclass(slots=True)
class Partition:
    """The records of one partition between the client and its caller, in the order of their offsets.

    The client's own position runs ahead: it is behind ``pending`` (taken, not judged), which is behind ``ready``
    (judged, not handed over). ``unhandled`` is the offset of the first record that the caller got last and may still
    be working on. Whoever judges holds ``lock``; a changed ``generation`` tells it that its record is not wanted.

    Before anything is judged the guard is ``anchored`` (by the task ``anchoring``); records from ``since`` to
    ``resume`` are only ``recalled``. ``kept`` is the position for which an earlier assignment's guard is still good,
    ``kept_ready`` what that one had judged from there on.

    ``verdicts`` are those on the first pending records, which are being acted upon: a copy may be on its way into
    quarantine, and who goes on after a cancelled caller must not judge anew. ``doubtful`` says that the latest record
    could not be judged.

    ``ahead`` is how many records are judged at once for a caller who takes one at a time. Of those that are ready,
    ``ready_since`` is from when on their keys were looked for, ``ready_at`` when the verdicts were there.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    pending: deque[ConsumerRecord[Any, Any]] = field(default_factory=deque)
    ready: deque[Judged] = field(default_factory=deque)
    unhandled: int | None = None
    committed: int | None = None
    generation: int = 0
    failures: int = 0
    retry_at: float = 0.0
    kept: int | None = None
    kept_ready: tuple[Judged, ...] = ()
    anchored: bool = False
    anchoring: asyncio.Task[None] | None = None
    resume: int | None = None
    since: int = 0
    recalled: int = 0
    verdicts: deque[tuple[Message, Delivered | Rejected | Unavailable]] = field(default_factory=deque)
    doubtful: bool = False
    ahead: int = 1
    ready_since: float = -inf
    ready_at: float = -inf

    def judged(self, position: int | None) -> int | None:
        """Return the offset before which everything was handed over or rejected; ``position`` is the client's."""
        if self.resume is not None:
            return self.resume
        if self.ready:
            return self.ready[0].record.offset
        if self.pending:
            return self.pending[0].offset
        return position

    def handled(self, position: int | None) -> int | None:
        """Return the offset before which the caller is done with everything."""
        judged = self.judged(position)
        if judged is None or self.unhandled is None:
            return judged
        return min(judged, self.unhandled)

    def hand_over(self, count: int = 1) -> None:
        """Give the first judged records to the caller."""
        if self.unhandled is None:
            self.unhandled = self.ready[0].record.offset
        if count == len(self.ready):
            self.ready.clear()
        else:
            for _ in range(count):
                self.ready.popleft()

    def is_guarded(self) -> bool:
        """Tell whether the guard knows all that was handed over or is ready, and nothing more."""
        return self.anchored and self.resume is None and not self.verdicts and not self.lock.locked()

    def is_fresh(self, now: float) -> bool:
        """Tell whether what is ready may be handed over: a verdict must not grow old, for a key may be revoked."""
        return now - self.ready_since < FRESH

    def look_ahead(self, now: float) -> int:
        """Return how many records to judge for a caller who takes one at a time, and has taken all that were ready.

        Only who takes them quickly gets many: what grows old is judged twice.
        """
        quick = now - self.ready_at < BRISK
        self.ahead = min(2 * self.ahead, FARTHEST) if quick else max(1, self.ahead // 4)
        return self.ahead

    def discard(self, *, anchored: bool = False) -> None:
        """Drop what was taken, and its guard unless that needs no anchor: the client reads from elsewhere now."""
        for queue in (self.pending, self.verdicts, self.ready):
            queue.clear()
        self.generation += 1
        if self.anchoring is not None:
            self.anchoring.cancel()
        self.anchoring = self.resume = self.kept = None
        self.kept_ready = ()
        self.anchored = anchored
        self.recalled = 0
        self.ahead, self.ready_since, self.ready_at = 1, -inf, -inf
        self.doubtful = False
        self.release()

    def hold(self, now: float) -> None:
        """Put off the next try to judge; each time for twice as long, up to a bound."""
        self.retry_at = now + min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self.failures, 10))
        self.failures += 1

    def release(self) -> None:
        """Go on without delay: judging works."""
        self.failures = 0
        self.retry_at = 0.0
