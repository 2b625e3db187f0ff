"""Lets long work give the event loop turns, whichever event loop it is."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


@coroutine
def others_turn() -> Generator[None]:
    """Let all other ready tasks run first: asyncio.sleep(0) for a core that does not know the event loop."""
    yield
