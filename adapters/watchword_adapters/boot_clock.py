"""The machine's own clock, which nobody sets."""

from __future__ import annotations

import time
from typing import Final

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def since_boot() -> float:
    """Return seconds since the machine was started, sleep included where the system counts it."""
    return time.clock_gettime(_CLOCK)
