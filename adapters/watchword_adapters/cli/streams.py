"""Standard input, which a caller may have closed."""

from __future__ import annotations

import sys
from typing import BinaryIO

from watchword import ConfigurationError


def standard_input() -> BinaryIO:
    """Return the bytes of standard input; ConfigurationError where it is closed."""
    if sys.stdin is None:
        raise ConfigurationError("standard input is closed: give the messages there, as < FILE")
    return sys.stdin.buffer
