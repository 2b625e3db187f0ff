"""Awaits what a plug-in does, and tells its failures from the cancellation of the task that waits for it.

A plug-in may wait for a task that somebody else cancels, say a fetch that it shares among callers. What it raises then
is CancelledError, as if this task had been cancelled; let through, it would silently end the reader. asyncio is
imported for that one question: has somebody asked this task to end?
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class AbandonedError(Exception):
    """A plug-in's own work was cancelled, and so it has no answer."""


async def answer(coming: Awaitable[T]) -> T:
    """Return what a plug-in answers; AbandonedError if its own work was cancelled while nobody cancelled this task."""
    try:
        return await coming
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise AbandonedError from error
