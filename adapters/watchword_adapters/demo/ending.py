"""Runs an act so that Control-C and a supervisor's SIGTERM end it cleanly."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

_Result = TypeVar("_Result")

_AGAIN: Final = 0.2  # seconds until a task that is still running is cancelled again


def run(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``main`` as ``asyncio.run`` does; KeyboardInterrupt, once ``main`` has ended, if SIGINT or SIGTERM came.

    Raised where the signal finds the loop, the exception would cost a task the step it was about to take, and the loop
    would wait for that task forever. And a client may swallow a cancellation (``asyncio.wait_for`` of Python 3.11
    does, CPython issue 86296), so there is one after another.
    """
    interrupted = False
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)

        def cancel() -> None:
            task.cancel()
            loop.call_later(_AGAIN, cancel)

        def interrupt() -> None:
            nonlocal interrupted
            interrupted = True
            loop.call_soon_threadsafe(cancel)

        with _signalled(interrupt):
            try:
                return loop.run_until_complete(task)
            finally:
                if interrupted:  # whatever errors its clean-up raised
                    raise KeyboardInterrupt


@contextmanager
def _signalled(call: Callable[[], None]) -> Iterator[None]:
    """Let either signal call ``call``; only possible in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: call()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
