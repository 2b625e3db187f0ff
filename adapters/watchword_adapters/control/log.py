"""The port behind which a bus keeps the control log; one for each client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from types import TracebackType

    from watchword.spi import Message

TOGETHER: Final = 256
"""Entries that are handed over at once, at most."""


class End(NamedTuple):
    """How far a log goes: ``first`` and ``next`` are positions, of its first entry and of one that is to come.

    ``identity`` is another one after the log was deleted and made again.
    """

    identity: str
    first: int
    next: int


class ControlLog(Protocol):
    """A stream or a topic of one partition on which operators make statements.

    It is a context: entering connects. The client's errors where it is not there, WatchwordErrors of ours for what the
    operator has to mend.
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
        """Make the log where there is none, and check it; return True if it was made."""
        ...

    async def check(self) -> None:
        """Raise ConfigurationError for a log that is missing, or that could lose or change what was said."""
        ...

    async def end(self) -> End:
        """Return how far it goes now."""
        ...

    def read(self, position: int) -> AsyncGenerator[tuple[Sequence[Message], int]]:
        """Yield the entries from ``position`` on, as they came, and the position behind them; it goes on for ever.

        Positions at which there is nothing are passed over: a yield may bear no entry. Each entry has ``appended_at``.
        """
        ...

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """Sign a statement, append it and return its position."""
        ...
