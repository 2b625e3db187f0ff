import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest_asyncio
from redis.asyncio import Redis

from tests.brokers.broker import Broker
from watchword_adapters.contract.shared_replay_store import PER_PRINCIPAL, POLICY, SharedReplayStoreContract
from watchword_adapters.stores.redis import RedisReplayStore


class TestRedisReplayStore(SharedReplayStoreContract):
    """The Redis store keeps the contract."""

    @pytest_asyncio.fixture(autouse=True)
    async def _server(self, redis_broker: Broker, unique: Callable[[str], str]) -> AsyncIterator[None]:
        self.broker = redis_broker
        self.prefix = unique("contract")
        self.made: list[RedisReplayStore] = []
        yield
        for store in self.made:
            await store.close()

    async def make_store(self, timeout: float = 30.0) -> RedisReplayStore:  # noqa: ASYNC109 - of each answer
        """Return a store under a prefix of this test."""
        store = RedisReplayStore(
            self.broker.address,
            prefix=self.prefix,
            policy=POLICY,
            clock=time.time,
            timeout=timeout,
            per_principal=PER_PRINCIPAL,
        )
        self.made.append(store)
        await store.start()
        return store

    make_another = make_store

    async def make_hasty(self) -> RedisReplayStore:
        """Return a store that gives up soon."""
        return await self.make_store(timeout=2.0)

    async def make_forgetful(self) -> None:
        """Flush the database."""
        async with Redis.from_url(self.broker.address) as client:
            await client.flushdb()

    @asynccontextmanager
    async def make_stall(self) -> AsyncIterator[None]:
        """Keep every command waiting."""
        async with Redis.from_url(self.broker.address) as client:
            await client.execute_command("CLIENT", "PAUSE", 4500, "ALL")
            yield
