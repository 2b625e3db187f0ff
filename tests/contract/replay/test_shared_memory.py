import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from watchword.testing import SharedMemoryStore
from watchword_adapters.contract.shared_replay_store import PER_PRINCIPAL, POLICY, SharedReplayStoreContract


class TestSharedMemoryStore(SharedReplayStoreContract):
    """The shared store that tests play with keeps the contract of those that processes share."""

    async def make_store(self) -> SharedMemoryStore:
        """Return a store of this test."""
        self.store = SharedMemoryStore(policy=POLICY, clock=time.time, per_principal=PER_PRINCIPAL)
        return self.store

    async def make_another(self) -> SharedMemoryStore:
        """Return the same one: that is how it is shared."""
        return self.store

    async def make_forgetful(self) -> None:
        """Let it forget."""
        self.store.forget()

    @asynccontextmanager
    async def make_stall(self) -> AsyncIterator[None]:
        """Take it down."""
        self.store.is_down = True
        yield
        self.store.is_down = False
