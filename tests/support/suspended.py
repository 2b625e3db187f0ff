"""A machine that was suspended: its wall clock and its boot clock have gone on, its monotonic clock has not.

The monotonic clock of Linux stands still while the machine sleeps, and so does the event loop's, which is that clock.
"""

import sys
import time
from typing import Any

import pytest

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


class Suspension:
    """Moves the clocks that go on during a suspension, for all of Watchword's modules and for callers of `clock`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._time = time.time

    def clock(self) -> float:
        """Return the wall clock's time."""
        return self._time() + self.seconds

    def sleep(self, seconds: float) -> None:
        """Suspend the machine, and wake it up."""
        self.seconds += seconds

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put these clocks in place of the true ones until the end of the test."""
        plain, plain_ns = time.clock_gettime, time.clock_gettime_ns
        moved = {_BOOT, time.CLOCK_REALTIME}
        fakes: dict[Any, Any] = {
            time.time: self.clock,
            time.time_ns: lambda: int(self.clock() * 1_000_000_000),
            plain: lambda which: plain(which) + (self.seconds if which in moved else 0.0),
            plain_ns: lambda which: plain_ns(which) + (int(self.seconds * 1e9) if which in moved else 0),
        }
        for name in ("time", "time_ns", "clock_gettime", "clock_gettime_ns"):
            patch.setattr(time, name, fakes[getattr(time, name)])
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in {"watchword", "watchword_adapters"}:
                for attribute, value in list(vars(module).items()):
                    if callable(value) and _is_key(fakes, value):
                        patch.setattr(module, attribute, fakes[value])


def _is_key(fakes: dict[Any, Any], value: Any) -> bool:
    try:
        return value in fakes
    except TypeError:  # something that cannot be hashed is none of them
        return False
