"""What a handler sends waits for its signature: that it cannot be had is no fault of the message handled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from watchword import Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream import ContextRepo

    from watchword import Watchword

T = TypeVar("T")

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
"""Seconds between two tries; each pause is twice as long as the one before."""


class Holding:
    """Tries again where a signature could not be had; ``context`` says whether a handler is at work.

    An error would end the handler, and by most ack policies the message that it handles: rejected, or given back and at
    last given up. So inside a handler it is tried until it works. Elsewhere the caller hears of it at once, and nothing
    was sent.
    """

    def __init__(self, watchword: Watchword, context: Callable[[], ContextRepo]) -> None:
        self._watchword = watchword
        self._context = context

    def handled(self) -> Any:
        """Return the FastStream message whose handler is at work in this task; None where there is no such."""
        return self._context().get_local("message")

    async def until_signed(self, send: Callable[[], Awaitable[T]]) -> T:
        """Return what ``send`` returns, after as many tries as it takes; see the class."""
        pause = SHORTEST
        while True:
            try:
                return await send()
            except Unavailable as error:
                if self.handled() is None:
                    raise
                self._watchword.audit.warn("faststream.send_waits", detail=str(error), seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST)
