"""A35 on a real server: a store that stalls remembers what was claimed, and its answers come too late."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import nats as nats_ways
from tests.brokers import redis as redis_ways
from tests.brokers.broker import Broker
from tests.integration.nats.world import CLOUD, PLANNER, World, resend, second_begins, until
from watchword import Policy
from watchword_adapters.stores.batched import BatchedReplayStore
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.redis import RedisReplayStore
from watchword_adapters.stores.sqlite import SqliteReplayStore

TIMEOUT = 1.0
OPTIONS: dict[str, Any] = {"policy": Policy(max_skew=0.0, max_lag=60.0), "clock": time.time, "timeout": TIMEOUT}


@dataclass
class Stalling:
    """A store, and what keeps it from answering meanwhile."""

    store: BatchedReplayStore
    stalled: Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture(params=["sqlite", "redis", "nats_kv"])
def stalling(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stalling]:
    """Give a store of each kind on a server of its own."""
    if request.param == "sqlite":
        yield Stalling(SqliteReplayStore(tmp_path / "ids.db", **OPTIONS), lambda: _locked(tmp_path / "ids.db"))
        return
    broker = redis_ways.wheel(tmp_path) if request.param == "redis" else nats_ways.wheel(tmp_path)
    kind = RedisReplayStore if request.param == "redis" else NatsKvReplayStore
    yield Stalling(kind(broker.address, **OPTIONS), lambda: _paused(broker))
    broker.stop()


@asynccontextmanager
async def _paused(broker: Broker) -> AsyncIterator[None]:
    with broker.paused():
        yield


@asynccontextmanager
async def _locked(path: Path) -> AsyncIterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.mark.parametrize("queue", ["", "workers"])
async def test_a35_what_was_claimed_in_vain_is_no_replay(
    world: World, unique: Callable[[str], str], stalling: Stalling, queue: str
) -> None:
    """Honest messages that wait while a store stalls are delivered once it answers, and copies of them are not.

    Lost is at most what had its turn meanwhile, one for each time-out: core NATS offers nothing again.
    """
    subject = unique("a35")
    guard = world.agent(CLOUD, store=stalling.store, max_skew=0.0)
    planner, attacker = await world.client(world.agent(PLANNER)), await world.plain()
    victim = await world.client(guard, reader="victim")
    got: list[bytes] = []
    seen = []

    async def take(msg: Any) -> None:
        got.append(msg.data)

    async def see(msg: Any) -> None:
        seen.append(msg)

    await attacker.subscribe(subject, cb=see)
    await attacker.flush()
    await victim.subscribe(subject, queue=queue, cb=take)
    await victim.ready()
    await second_begins()
    sent = list[bytes]()
    while not got:  # the store may answer too late when it is asked for the first time
        sent.append(b"first %d" % len(sent))
        await planner.publish(subject, sent[-1])
        await until(lambda: guard.audit.counts.total() == len(sent))
    await until(lambda: len(got) == guard.audit.counts["delivered"])
    before = guard.audit.counts.copy()
    begun = time.monotonic()
    async with stalling.stalled():
        for number in range(100):
            await planner.publish(subject, b"%d" % number)
        await planner.flush()
        await asyncio.sleep(2.5 * TIMEOUT)
    turns = (time.monotonic() - begun) // TIMEOUT + 1
    total = len(sent) + 100
    await until(lambda: guard.audit.counts.total() == total)
    counts = guard.audit.counts
    assert set(counts) == {"delivered", "unavailable"}
    assert 0 < counts["unavailable"] - before["unavailable"] <= turns
    assert len(set(got)) == len(got) == counts["delivered"]
    for msg in seen[:total]:
        await resend(attacker, msg)
    await until(lambda: guard.audit.counts.total() == 2 * total)
    # A copy of what was lost may come in its place, for nobody was given it.
    assert len(set(got)) == len(got)
    await stalling.store.close()
