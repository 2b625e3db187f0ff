"""Long work in pieces: between two of them the event loop goes round, whichever one it is."""

from __future__ import annotations

from types import coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator


@coroutine
def others_turn() -> Generator[None]:
    """Let all else that is ready run first: what asyncio.sleep(0) does, for a core that knows no event loop."""
    yield
