"""A readers-writer lock on a replay memory: many judge by it at a time, none while it is being built."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Gate:
    """Admits any number of readers unless held; a builder holds it and waits until the readers have left."""

    def __init__(self) -> None:
        self.holds = 0
        """How many times it is held; for callers to inspect."""

        self._inside = 0
        # Created on demand: each subscription has a gate, and garbage collection has its price.
        self._is_open: asyncio.Event | None = None
        self._is_empty: asyncio.Event | None = None
        self._building: asyncio.Lock | None = None

    @property
    def is_open(self) -> bool:
        """True if it is not held."""
        return not self.holds

    def hold(self) -> None:
        """Admit no one until it has been released as often as it was held."""
        self.holds += 1

    def release(self) -> None:
        """Undo one ``hold``."""
        self.holds -= 1
        if not self.holds and self._is_open is not None:
            self._is_open.set()
            self._is_open = None

    async def opened(self) -> None:
        """Wait until it is open."""
        while self.holds:
            self._is_open = self._is_open or asyncio.Event()
            await self._is_open.wait()

    def __enter__(self) -> None:
        """Enter; the caller has checked that it is open."""
        self._inside += 1

    def __exit__(self, *_: object) -> None:
        self._inside -= 1
        if not self._inside and self._is_empty is not None:
            self._is_empty.set()
            self._is_empty = None

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold it exclusively, one builder at a time, once the readers inside have left."""
        self.hold()
        self._building = self._building or asyncio.Lock()
        try:
            async with self._building:
                while self._inside:
                    self._is_empty = self._is_empty or asyncio.Event()
                    await self._is_empty.wait()
                yield
        finally:
            self.release()
