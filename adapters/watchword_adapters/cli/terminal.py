"""Standard input, and what is printed: untrusted text is escaped, so that it cannot move the cursor or hide other text.

A caller may have closed either stream.
"""

from __future__ import annotations

import select
import sys
from typing import BinaryIO, Final

from watchword import ConfigurationError, Rejected, Unavailable
from watchword.audit import escaped
from watchword_adapters.cli import OK, REJECTED, UNAVAILABLE

__all__ = ["MAX_LINE", "code_of", "escaped", "one_line", "reader_has_gone", "standard_input"]

MAX_LINE: Final = 2000
"""Most characters of an error line; a name from a message may be long."""


def code_of(verdict: object) -> int:
    """Return the exit code that a verdict calls for; of several, the highest counts."""
    if isinstance(verdict, Rejected):
        return REJECTED
    return UNAVAILABLE if isinstance(verdict, Unavailable) else OK


def one_line(text: str) -> str:
    """Return ``text`` escaped, and cut if it is too long for an error."""
    line = escaped(text)
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."


def standard_input() -> BinaryIO:
    """Return the bytes of standard input; ConfigurationError if it is closed."""
    if sys.stdin is None:
        raise ConfigurationError("standard input is closed: redirect it, such as < FILE")
    return sys.stdin.buffer


def reader_has_gone() -> bool:
    """Return True if standard output is a pipe whose reader has closed it: a write would fail."""
    if not hasattr(select, "poll"):  # the next write will fail instead
        return False
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll(0))
