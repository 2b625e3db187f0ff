"""What is in the background ends in order."""

import asyncio
import threading

import pytest

from watchword_adapters import background as threads
from watchword_adapters.background import Background


def test_each_work_puts_in_order_what_it_has_open() -> None:
    """One that ends at once does not cut short another, which has a connection to close."""
    begun, closed, ended = threading.Event(), threading.Event(), threading.Event()

    async def connected() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)  # as if a server had to be notified
            closed.set()

    async def brief() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    background = Background("works", connected, brief)
    assert begun.wait(20)
    background.close()
    assert ended.wait(20)
    assert closed.wait(20)


def test_a_lost_cancellation_keeps_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Python 3.11 ``asyncio.wait_for``, which clients use, returns a result that comes with a cancellation."""
    monkeypatch.setattr(threads, "AGAIN", 0.01)
    begun, lost, ended = threading.Event(), list[int](), threading.Event()

    async def work() -> None:
        try:
            while True:
                begun.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    lost.append(1)
                    if len(lost) == 3:
                        raise
        finally:
            ended.set()

    background = Background("works", work)
    assert begun.wait(20)
    background.close()
    background.close()  # cancels nothing a second time by itself
    assert ended.wait(20)


def test_what_is_closed_at_once_ends() -> None:
    """Before its thread runs as well: nothing of it runs on."""
    begun: list[threading.Thread] = []

    async def work() -> None:
        await asyncio.Event().wait()

    def later(thread: threading.Thread) -> None:
        begun.append(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", later)
        background = Background("work", work)
        background.close()
    (thread,) = begun
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
