"""The port of the journal, which stores on disk the ids seen by readers of core NATS (docs/replay.md).

A log that a broker retains can be read again after a restart. Core NATS retains nothing, so a reader could not
distinguish a message that its predecessor received from a new one. Without a journal it must treat every message issued
before it subscribed as stale. With one, it knows the ids and continues without a gap. The file is written elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchword.guard import Note


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A journal's state of a reader: messages issued before ``floor`` are stale; ids above it are in ``notes``.

    ``notes`` can be iterated once; as there may be many, the caller gives the event loop turns. ``is_shared`` is True
    while another process is the same reader.
    """

    floor: float
    notes: Iterable[Note] = ()
    is_shared: bool = False


class Journal(Protocol):
    """Port: preserves notes over restarts. It is called on the event loop, so it must not wait for a disk to sync."""

    def recall(self, logs: Sequence[str], *, birth: float) -> Sequence[Recalled]:
        """Return what is known of the readers of these logs, from this process and others; from now on they are known.

        ``birth`` is the floor of an unknown reader: its predecessor may have received any message issued before that. A
        floor is higher than ``birth`` only if the journal was written when the clock was ahead of now: messages
        received then, and forgotten since, look fresh again.
        """
        ...

    def write(self, notes: Sequence[Note]) -> None:
        """Store notes; their messages are delivered only after that.

        Any exception means that a later start could wrongly take the journal for complete: then no message may be
        delivered.
        """
        ...

    def raise_floors(self, floor: float) -> None:
        """Make every message issued before ``floor`` stale for all readers, because the machine was set back."""
        ...

    def close(self) -> None:
        """Close it cleanly; it may be used again."""
        ...
