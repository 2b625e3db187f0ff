import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats
import pytest_asyncio

from tests.brokers.broker import Broker
from watchword_adapters.contract.shared_replay_store import PER_PRINCIPAL, POLICY, SharedReplayStoreContract
from watchword_adapters.stores.nats_kv import NatsKvReplayStore


class TestNatsKvReplayStore(SharedReplayStoreContract):
    """The NATS KV store keeps the contract."""

    more_than_a_batch = 900

    @pytest_asyncio.fixture(autouse=True)
    async def _server(self, nats_broker: Broker, unique: Callable[[str], str]) -> AsyncIterator[None]:
        self.broker = nats_broker
        self.bucket = unique("contract")
        self.made: list[NatsKvReplayStore] = []
        yield
        for store in self.made:
            await store.close()

    async def make_store(self, timeout: float = 30.0) -> NatsKvReplayStore:  # noqa: ASYNC109 - of each answer
        """Return a store in a bucket of this test."""
        store = NatsKvReplayStore(
            self.broker.address,
            bucket=self.bucket,
            policy=POLICY,
            clock=time.time,
            timeout=timeout,
            per_principal=PER_PRINCIPAL,
        )
        self.made.append(store)
        await store.start()
        return store

    make_another = make_store

    async def make_hasty(self) -> NatsKvReplayStore:
        """Return a store that gives up soon."""
        return await self.make_store(timeout=2.0)

    async def make_forgetful(self) -> None:
        """Delete the bucket."""
        connection = await nats.connect(self.broker.address)
        await connection.jetstream().delete_stream(f"KV_{self.bucket}")
        await connection.close()

    @asynccontextmanager
    async def make_stall(self) -> AsyncIterator[None]:
        """Freeze the server."""
        with self.broker.paused():
            yield
