"""The port through which an agent is measured: it hears how long things take, and reads what was counted."""

from __future__ import annotations

from typing import Final, Protocol


class Meter(Protocol):
    """Port: hears what the audit trail does not count. It is called for each batch, never for each message.

    It must neither raise nor wait. ``bus`` is ``kafka`` or ``nats``; durations are in seconds.
    """

    def now(self) -> float:
        """Return the time in seconds, by a clock that never steps back."""
        ...

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """Note how long it took until a batch was judged, waiting for key sources and stores included."""
        ...

    def started(self, bus: str, seconds: float) -> None:
        """Note how long a client took to start."""
        ...

    def told(self, event: str, log: object) -> None:
        """Note an event of the audit trail, and the log that it is about, if it names one."""
        ...


class _Silence:
    """Measures nothing."""

    def now(self) -> float:
        """See ``Meter``."""
        return 0.0

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """See ``Meter``."""

    def started(self, bus: str, seconds: float) -> None:
        """See ``Meter``."""

    def told(self, event: str, log: object) -> None:
        """See ``Meter``."""


SILENT: Final[Meter] = _Silence()
