"""The queue of one subscription, to whose front a message comes back that had to wait for its key."""

from __future__ import annotations

import asyncio
from itertools import count, takewhile
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections import deque

    from nats.aio.msg import Msg

    from watchword_adapters.nats._seam import BaseSubscription

_HELD: Final = "_watchword_held"
"""Where a message has its number among those that were held back, in the order in which they were taken first."""


class WaitingQueue(asyncio.Queue["Msg"]):
    """What ``asyncio.Queue`` is to its callers; ``join`` waits for what is held back as well."""

    _queue: deque[Msg]
    _unfinished_tasks: int
    _finished: asyncio.Event

    def __init__(self, subscription: BaseSubscription) -> None:
        super().__init__(subscription.most_waiting)
        self._subscription = subscription
        self._held: Final = count()

    def hold_back(self, raw: Msg) -> None:
        """Let ``join`` wait for a message that was taken, and will come back."""
        vars(raw).setdefault(_HELD, next(self._held))
        self._unfinished_tasks += 1
        self._finished.clear()

    def come_back(self, raw: Msg) -> None:
        """Put a message before all that were not held back, and behind those that were before it.

        The limit does not count for it: it was in before.
        """
        self._subscription.came_back(len(raw.data))
        number = vars(raw)[_HELD]
        before = [*takewhile(lambda one: vars(one).get(_HELD, inf) < number, self._queue)]
        for _ in before:
            self._queue.popleft()
        self._queue.extendleft(reversed([*before, raw]))
        self._wakeup_next(self._getters)  # type: ignore[attr-defined]  # as put_nowait does

    def has_earlier(self, raw: Msg) -> bool:
        """Return True if a message has come back that was taken before ``raw``."""
        number = vars(raw).get(_HELD, inf)
        return bool(self._queue) and vars(self._queue[0]).get(_HELD, inf) < number
