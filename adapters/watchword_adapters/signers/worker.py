"""Separate threads for a signer's calls to a network or a device, some of which have no timeout.

A forked child has none of its parent's threads, and must not use its connections: both are recreated there.
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
"""Most calls that wait for a thread; more would only time out."""

IDLE: Final = 10.0
"""Seconds after which an idle thread ends."""


class PerProcess(Generic[T]):
    """An object that each process creates for itself, at first use; it is closed with this one."""

    def __init__(self, make: Callable[[], T], close: Callable[[T], object]) -> None:
        self._make = make
        self._close = close
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        """Return this process's object; create it at first use."""
        made = self._made
        if made is None or made[0] != os.getpid():
            self._made = made = os.getpid(), self._make()
            weakref.finalize(self, self._close, made[1])
        return made[1]


class Workers:
    """Runs calls on at most ``count`` threads, in order, for any event loop.

    A call is not started if its caller has given up. Threads end when they are idle. They do not keep the process from
    exiting, since a device may block one for good. A forked child starts its own threads.
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
        """Return what the call returns; TimeoutError if that takes longer than ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(self._submit(call))

    def run_now(self, call: Callable[[], T], *, timeout: float) -> T:
        """Return what the call returns, without an event loop; TimeoutError as for ``run``."""
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
                raise Unavailable("signing", f"{MOST_WAITING} calls are waiting for an answer already")
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
            del future, call, taken  # so that waiting for the next call keeps nothing of this one alive

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
