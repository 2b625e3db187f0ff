"""Retries what a handler publishes while it cannot be signed, so that the handled message is not rejected for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from watchword import Unavailable
from watchword.endings import delay_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faststream import ContextRepo

    from watchword import Watchword

T = TypeVar("T")

SHORTEST: Final = 0.1
LONGEST: Final = 5.0
"""Longest pause in seconds between two tries; each is twice as long as the one before."""


class Holding:
    """Retries while a signature is Unavailable; ``context`` tells whether a handler is running.

    An error would end the handler, and with most ack policies the message would be rejected, or redelivered and finally
    given up. Inside a handler, sending is therefore retried until it succeeds. Elsewhere the caller receives the error
    at once, and nothing was sent.
    """

    def __init__(self, watchword: Watchword, context: Callable[[], ContextRepo]) -> None:
        self._watchword = watchword
        self._context = context

    def handled(self) -> Any:
        """Return the FastStream message that this task is handling; None outside a handler."""
        return self._context().get_local("message")

    async def until_signed(self, send: Callable[[], Awaitable[T]]) -> T:
        """Call ``send`` until it succeeds, and return its result; see the class."""
        failures = 0
        while True:
            try:
                return await send()
            except Unavailable as error:
                if self.handled() is None:
                    raise
                pause = delay_after(failures, SHORTEST, LONGEST)
                self._watchword.audit.warn("faststream.send_waits", detail=str(error), seconds=pause)
            await asyncio.sleep(pause)
            failures += 1
