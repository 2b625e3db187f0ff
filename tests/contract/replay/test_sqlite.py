import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from watchword_adapters.contract.shared_replay_store import PER_PRINCIPAL, POLICY, SharedReplayStoreContract
from watchword_adapters.stores.sqlite import SqliteReplayStore


class TestSqliteReplayStore(SharedReplayStoreContract):
    """The SQLite store keeps the contract."""

    @pytest_asyncio.fixture(autouse=True)
    async def _file(self, tmp_path: Path) -> AsyncIterator[None]:
        self.path = tmp_path / "ids.db"
        self.made: list[SqliteReplayStore] = []
        yield
        for store in self.made:
            await store.close()

    async def make_store(self, timeout: float = 30.0) -> SqliteReplayStore:  # noqa: ASYNC109 - of each answer
        """Return a store in a file of this test."""
        store = SqliteReplayStore(
            self.path, policy=POLICY, clock=time.time, timeout=timeout, per_principal=PER_PRINCIPAL
        )
        self.made.append(store)
        await store.start()
        return store

    make_another = make_store

    async def make_hasty(self) -> SqliteReplayStore:
        """Return a store that gives up soon."""
        return await self.make_store(timeout=2.0)

    async def make_forgetful(self) -> None:
        """Remove the file and what belongs to it."""
        for path in self.path.parent.glob("ids.db*"):
            path.unlink()

    @asynccontextmanager
    async def make_stall(self) -> AsyncIterator[None]:
        """Hold the file's only turn to write."""
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
            other.close()
