"""The queue of one subscription, to whose front a message comes back that had to wait for its key."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque

    from nats.aio.msg import Msg

    from watchword_adapters.nats._seam import BaseSubscription


class WaitingQueue(asyncio.Queue["Msg"]):
    """What ``asyncio.Queue`` is to its callers; ``join`` waits for what is held back as well."""

    _queue: deque[Msg]
    _unfinished_tasks: int
    _finished: asyncio.Event

    def __init__(self, subscription: BaseSubscription) -> None:
        super().__init__(subscription.most_waiting)
        self._subscription = subscription

    def hold_back(self) -> None:
        """Let ``join`` wait for a message that was taken, and will come back."""
        self._unfinished_tasks += 1
        self._finished.clear()

    def come_back(self, raw: Msg) -> None:
        """Put a message that was held back before all others; the limit does not count for it, it was in before."""
        self._subscription.came_back(len(raw.data))
        self._queue.appendleft(raw)
        self._wakeup_next(self._getters)  # type: ignore[attr-defined]  # as put_nowait does
