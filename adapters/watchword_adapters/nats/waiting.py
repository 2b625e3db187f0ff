"""The queue of one subscription, to whose front a message returns after waiting for its key."""

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
"""Attribute with the number of a message among those held back, in the order in which they were first taken."""


class WaitingQueue(asyncio.Queue["Msg"]):
    """An ``asyncio.Queue`` whose ``join`` also waits for messages that are held back."""

    _queue: deque[Msg]
    _unfinished_tasks: int
    _finished: asyncio.Event

    def __init__(self, subscription: BaseSubscription) -> None:
        super().__init__(subscription.most_waiting)
        self._subscription = subscription
        self._held: Final = count()

    def hold_back(self, raw: Msg) -> None:
        """Make ``join`` wait for a message that was taken and will return."""
        vars(raw).setdefault(_HELD, next(self._held))
        self._unfinished_tasks += 1
        self._finished.clear()

    def come_back(self, raw: Msg) -> None:
        """Put a message before all that were not held back, and after those that were held back before it.

        It is exempt from the size limit, since it was in the queue before.
        """
        self._subscription.came_back(len(raw.data))
        number = vars(raw)[_HELD]
        before = [*takewhile(lambda one: vars(one).get(_HELD, inf) < number, self._queue)]
        for _ in before:
            self._queue.popleft()
        self._queue.extendleft(reversed([*before, raw]))
        self._wakeup_next(self._getters)  # type: ignore[attr-defined]  # as put_nowait does

    def has_earlier(self, raw: Msg) -> bool:
        """Return True if the queue begins with a returned message that was first taken before ``raw``."""
        number = vars(raw).get(_HELD, inf)
        return bool(self._queue) and vars(self._queue[0]).get(_HELD, inf) < number
