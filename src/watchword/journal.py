"""The journal: what a process keeps on disk of the readers whose bus keeps nothing (docs/replay.md).

A log that a broker retains is its own memory: a reader that starts again reads it again. Core NATS retains nothing, so
there a reader could not tell a message that its predecessor was given from a new one. Without a journal it must treat
whatever was issued before it subscribed as stale. With one it knows the ids, and goes on without a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchword.guard import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """What a journal knows of a reader: what was issued below ``floor`` is stale; ids above it are in ``notes``.

    Where there are many, to go through them takes its time, so it is done once, with others between them. While another
    process is this reader it ``is_shared``.
    """

    floor: float
    notes: Iterable[Note] = ()
    is_shared: bool = False


class Journal(Protocol):
    """Port: keeps notes over restarts. It is called on the event loop, so it must not wait for a disk to sync."""

    def recall(self, logs: Sequence[str], *, birth: float) -> Sequence[Recalled]:
        """Return what is known of the readers of these logs, by this process and others; they are known from now on.

        ``birth`` is the floor of a reader of which nothing is known: its predecessor may have been given whatever was
        issued below it. A floor is only higher where the journal was written when the clock showed more than now: what
        was given then and forgotten since looks fresh again.
        """
        ...

    def write(self, notes: Sequence[Note]) -> None:
        """Keep notes, before anything is handed over that they stand for.

        Any exception means that a later start could take the journal for complete, which it is not: then nothing may be
        handed over.
        """
        ...

    def raise_floors(self, floor: float) -> None:
        """Let whatever was issued below ``floor`` be stale for all readers, since the machine was set back."""
        ...

    def close(self) -> None:
        """Close it in good order; it may be used again."""
        ...
