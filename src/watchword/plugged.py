"""Awaits a plug-in's answer, and distinguishes its failures from the cancellation of the task that waits for it.

A plug-in may await a task that other code cancels, such as a fetch that several callers share. It then raises
CancelledError, as if this task had been cancelled; passed on, that would silently end the reader. asyncio is imported
only to ask whether this task was cancelled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class AbandonedError(Exception):
    """A plug-in gave no answer, because a task of its own was cancelled."""


async def answer(coming: Awaitable[T]) -> T:
    """Return a plug-in's answer; AbandonedError if it raises CancelledError though this task was not cancelled."""
    try:
        return await coming
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise AbandonedError from error
