"""Readers that share a store of each kind, and what may befall the store."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.brokers.broker import Broker
from tests.unit.core.world import ALICE, ALICE_KEY, BOB, BOB_KEY, REALM
from watchword import MemoryKeys, Policy
from watchword.spi import Verifier
from watchword_adapters.stores.batched import BatchedReplayStore
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.redis import RedisReplayStore
from watchword_adapters.stores.sqlite import SqliteReplayStore

POLICY = Policy(max_skew=0.0, max_lag=3600.0)
PER_PRINCIPAL = 400


@dataclass
class Shared:
    """Members of a queue group that share one store."""

    make_store: Callable[[], BatchedReplayStore]
    forget: Callable[[], Any]
    stalled: Callable[[], AbstractAsyncContextManager[None]]
    stores: list[BatchedReplayStore] = field(default_factory=list)

    async def member(self) -> Verifier:
        """Return a member that has a process of its own, as it were."""
        store = self.make_store()
        self.stores.append(store)
        await store.start()
        keys = MemoryKeys([ALICE_KEY.verification_key(ALICE), BOB_KEY.verification_key(BOB)])
        return Verifier(realm=REALM, keys=keys, replay=store, policy=POLICY, clock=time.time)

    async def settled(self) -> None:
        """Wait until what is signed now lies above the floor."""
        await asyncio.sleep(1 - time.time() % 1 + 0.01)


_ON_SERVERS = [pytest.param(name, marks=pytest.mark.broker) for name in ("redis", "nats_kv")]


@pytest_asyncio.fixture(params=["sqlite", *_ON_SERVERS])
async def shared(request: pytest.FixtureRequest, tmp_path: Path, unique: Callable[[str], str]) -> AsyncIterator[Shared]:
    """Give members on each kind of store."""
    if request.param == "sqlite":
        made = _sqlite(tmp_path / "ids.db")
    elif request.param == "redis":
        made = _redis(request.getfixturevalue("redis_broker"), unique("attack"))
    else:
        made = _nats_kv(request.getfixturevalue("nats_broker"), unique("attack"))
    yield made
    for store in made.stores:
        await store.close()


_OPTIONS: dict[str, Any] = {"policy": POLICY, "clock": time.time, "timeout": 3.0, "per_principal": PER_PRINCIPAL}


def _sqlite(path: Path) -> Shared:
    async def forget() -> None:
        for each in path.parent.glob("ids.db*"):
            each.unlink()

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    return Shared(lambda: SqliteReplayStore(path, **_OPTIONS), forget, stalled)


def _redis(broker: Broker, prefix: str) -> Shared:
    async def forget() -> None:
        async with Redis.from_url(broker.address) as client:
            await client.flushall()

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        with broker.paused():
            yield

    return Shared(lambda: RedisReplayStore(broker.address, prefix=prefix, **_OPTIONS), forget, stalled)


def _nats_kv(broker: Broker, bucket: str) -> Shared:
    async def forget() -> None:
        async with AsyncExitStack() as stack:
            client = await nats.connect(broker.address)
            stack.push_async_callback(client.close)
            await client.jetstream().delete_stream(f"KV_{bucket}")

    @asynccontextmanager
    async def stalled() -> AsyncIterator[None]:
        with broker.paused():
            yield

    return Shared(lambda: NatsKvReplayStore(broker.address, bucket=bucket, **_OPTIONS), forget, stalled)
