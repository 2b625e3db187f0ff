"""The port to a control log on a bus; one implementation per client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from watchword.spi import Message

TOGETHER: Final = 256
"""Most entries that are returned at once."""


class End(NamedTuple):
    """How far a log goes: ``first`` is the position of its first entry, ``next`` that of the next one to be appended.

    ``identity`` changes when the log is deleted and recreated.
    """

    identity: str
    first: int
    next: int


class ControlLog(Protocol):
    """A stream or a topic of one partition on which operators make statements.

    An async context: entering connects. Raises the client's errors if the log is out of reach, and WatchwordErrors for
    what the operator must fix.
    """

    async def __aenter__(self) -> Self:
        """Connect."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        ...

    async def make(self) -> bool:
        """Create the log if it is missing, and check it; return True if it was created."""
        ...

    async def check(self) -> None:
        """Raise ConfigurationError for a log that is missing, or that could lose or change statements."""
        ...

    async def end(self) -> End:
        """Return how far the log goes now."""
        ...

    def read(self, position: int) -> AsyncGenerator[tuple[Sequence[Message], int]]:
        """Yield the entries from ``position`` on, unverified, and the position after them; never ends.

        Positions without an entry are skipped: a yield may have no entries. Each entry has ``appended_at``.
        """
        ...

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """Sign a statement, append it and return its position."""
        ...
