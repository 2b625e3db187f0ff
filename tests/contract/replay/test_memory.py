from watchword.spi import MemoryReplayStore
from watchword_adapters.cli.lines import OneWindow
from watchword_adapters.contract.replay_store import HORIZON, ReplayStoreContract


class TestMemoryReplayStore(ReplayStoreContract):
    """The store in memory keeps the contract."""

    async def make_store(self) -> MemoryReplayStore:
        """Return a store of the contract's horizon."""
        return MemoryReplayStore(horizon=HORIZON)


class TestUnforgettingReplayStore(ReplayStoreContract):
    """The store in memory keeps the contract where it forgets nothing."""

    async def make_store(self) -> MemoryReplayStore:
        """Return a store without a horizon."""
        return MemoryReplayStore(horizon=None)


class TestRunWindow(ReplayStoreContract):
    """The store of a run of ``watchword verify`` keeps the contract."""

    async def make_store(self) -> OneWindow:
        """Return the store of a new run."""
        return OneWindow()
