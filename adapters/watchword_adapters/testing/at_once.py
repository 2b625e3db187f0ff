"""Runs a coroutine that never waits without an event loop, so that a test may be a plain function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns; RuntimeError if it waits for anything."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("this waited for something, and there is no event loop: use keys and stores in memory")
