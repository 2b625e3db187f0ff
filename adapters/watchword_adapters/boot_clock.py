"""The machine's monotonic clock, which cannot be set."""

from __future__ import annotations

import time
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Return seconds since the machine was started, including sleep if the system counts it."""
    return time.clock_gettime(_CLOCK)
