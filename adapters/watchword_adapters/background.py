"""Runs work beside its caller: coroutines in a thread with its own event loop, and calls after some seconds."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

AGAIN: Final = 5.0
"""Seconds after which what still runs is cancelled again: on Python 3.11, clients lose some cancellations."""


class Background:
    """A thread that starts at once, and ends with its last coroutine, with ``close``, or with the process."""

    def __init__(self, name: str, *works: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._works = works
        self._tasks: list[asyncio.Task[object]] = []
        self._closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function in the thread's event loop; does nothing once the thread has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Cancel the coroutines; each may still close its connections, within ``AGAIN`` seconds."""
        if not self._closed:
            self._closed = True
            self.call(self._cancel)

    def _cancel(self) -> None:
        running = [task for task in self._tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            self._loop.call_later(AGAIN, self._cancel)

    async def _work(self) -> None:
        # gather() would end at the first error, and cancel the others again while they close connections.
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(work()) for work in self._works]
            if self._closed:  # before this thread ran
                self._cancel()

    def _run(self) -> None:
        # At process exit the executor's threads end before this one.
        with suppress(RuntimeError), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._work())


def call_later(seconds: float, call: Callable[[], None]) -> None:
    """Make a call after ``seconds`` in the event loop that runs in this thread; RuntimeError if no loop runs."""
    asyncio.get_running_loop().call_later(seconds, call)
