"""Text of others on a terminal: nothing in it moves the cursor, hides or turns round what stands beside it."""

from __future__ import annotations

from typing import Final

from watchword.audit import escaped

__all__ = ["MAX_LINE", "escaped", "one_line"]

MAX_LINE: Final = 2000
"""Characters of an error line; a name out of somebody's message may be long."""


def one_line(text: str) -> str:
    """Return ``text`` escaped, and cut where it is too long for an error."""
    line = escaped(text)
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."
