"""A quarantine in memory."""

from watchword import Rejected, Unavailable
from watchword.spi import Message


class Kept:
    """A quarantine in memory, which cannot be written while ``down``, and takes nothing while ``full``."""

    def __init__(self, *, full: bool = False) -> None:
        self.down, self.full = False, full
        self.copies: list[tuple[bytes | None, str]] = []

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        if self.down:
            raise Unavailable("quarantine")
        if not self.full:
            reason = str(verdict.reason) if isinstance(verdict, Rejected) else "undetermined"
            self.copies.append((message.value, reason))
        return not self.full
