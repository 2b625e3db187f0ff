"""Threads of a signer's own, for calls that wait for a network or a device, of which some know no time-out.

A forked child has none of its parent's threads, and must not speak on its connections: both are recreated there.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from watchword import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MOST_WAITING: Final = 256
"""Calls that wait for a thread; more would only wait out their time."""

IDLE: Final = 10.0
"""Seconds after which a thread that has nothing to do ends."""


class PerProcess(Generic[T]):
    """What a process has of its own: made when it is first asked for, and closed when nobody holds this any more."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], object]) -> None:
        self._make = make
        self._close = close
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        """Return what this process made, or make it."""
        made = self._made
        if made is None or made[0] != os.getpid():
            self._made = made = os.getpid(), self._make()
            weakref.finalize(self, self._close, made[1])
        return made[1]


class Workers:
    """Runs calls on at most ``count`` threads, in the order in which they come, for any event loop.

    A call whose caller has given up is not begun. The threads are there while there is something to do, and keep no
    process from ending: a device may hold one up for good. A forked child begins with threads of its own.
    """

    def __init__(self, count: int = 1) -> None:
        self._count = count
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = self._idle = 0

    async def run(self, call: Callable[[], T], *, timeout: float) -> T:  # noqa: ASYNC109 - as run_now has it
        """Return what the call returns; TimeoutError where that takes longer than ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(self._submit(call))

    def run_now(self, call: Callable[[], T], *, timeout: float) -> T:
        """Return what the call returns, where there is no event loop to wait in; TimeoutError as for ``run``."""
        waiting = self._submit(call)
        try:
            return waiting.result(timeout)
        finally:
            waiting.cancel()

    def _submit(self, call: Callable[[], T]) -> Future[T]:
        if self._pid != os.getpid():
            self._begin()
        future: Future[T] = Future()
        with self._changed:
            if len(self._calls) >= MOST_WAITING:
                raise Unavailable("signing", f"{MOST_WAITING} calls wait for an answer already")
            self._calls.append((future, call))
            if len(self._calls) <= self._idle or self._threads == self._count:
                self._changed.notify()
            else:
                self._threads += 1
                threading.Thread(target=self._work, name="watchword-signer", daemon=True).start()
        return future

    def _work(self) -> None:
        while taken := self._take():
            future, call = taken
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - it is the caller's
                    future.set_exception(error)
            del future, call, taken  # while it waits for the next it keeps nothing of this one alive

    def _take(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            if not self._calls:
                self._idle += 1
                self._changed.wait(IDLE)
                self._idle -= 1
            if self._calls:
                return self._calls.popleft()
            self._threads -= 1
            return None
