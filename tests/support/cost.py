"""What a stretch of a test costs this process."""

import asyncio
import time
from typing import Self


class Cost:
    """What reading costs: processor seconds, and for how many seconds the event loop did not come round, at worst."""

    def __init__(self) -> None:
        self.spent = self.stall = 0.0

    async def __aenter__(self) -> Self:
        self.spent = -time.process_time()
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ticking.cancel()
        self.spent += time.process_time()

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            self.stall, last = max(self.stall, now - last), now

    def is_at_most(self, times: float, other: "Cost") -> bool:
        """Compare with what the client itself needs, which hands over what the broker stores."""
        return self.spent <= times * other.spent + 0.1 and self.stall <= times * other.stall + 0.1
