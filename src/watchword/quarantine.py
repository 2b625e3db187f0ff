"""The port through which what was not delivered is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from watchword.errors import Rejected, Unavailable
    from watchword.message import Message


class Quarantine(Protocol):
    """Port: keeps messages that were not delivered, out of every handler's way."""

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Keep a copy and return True; False if a cap leaves it out, which is counted.

        Unavailable (``quarantine``) where it cannot be written; so bound the time that it may take.
        """
        ...
