"""Runs what goes on for as long as the process does, in a thread and an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Background:
    """A thread that begins at once, and ends with all of its works, with ``close``, or with the process."""

    def __init__(self, name: str, *works: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._works = works
        self._task: asyncio.Task[object] | None = None
        self._closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called in the thread's loop; nothing happens once it has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """End the works: each puts in order what it has open."""
        self._closed = True
        self.call(self._cancel)

    def _cancel(self) -> None:
        if (
            self._task is not None and self._closed and not self._task.cancelling()
        ):  # what it does then is not cut short
            self._task.cancel()

    async def _work(self) -> None:
        # gather() would end with the first that ends, and the others be cancelled again while they close connections.
        async with asyncio.TaskGroup() as group:
            for work in self._works:
                group.create_task(work())

    def _run(self) -> None:
        async def main() -> None:
            self._task = asyncio.ensure_future(self._work())
            self._cancel()  # it may have been closed before
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

        # At the end of the process its other threads are gone before this one.
        with suppress(RuntimeError), asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(main())
