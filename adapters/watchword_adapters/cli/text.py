"""Escapes untrusted text for a terminal: it cannot move the cursor, or hide or reverse other text."""

from __future__ import annotations

from typing import Final

from watchword.audit import escaped

__all__ = ["MAX_LINE", "escaped", "one_line"]

MAX_LINE: Final = 2000
"""Most characters of an error line; a name from a message may be long."""


def one_line(text: str) -> str:
    """Return ``text`` escaped, and cut if it is too long for an error."""
    line = escaped(text)
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."
