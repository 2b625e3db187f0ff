"""Access to standard input and output, which a caller may have closed."""

from __future__ import annotations

import select
import sys
from typing import BinaryIO

from watchword import ConfigurationError


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
