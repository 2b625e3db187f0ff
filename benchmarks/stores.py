"""The shared replay stores: claims per second with many in flight, beside the store's own raw rate in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import nats
from nats.js.api import StorageType
from redis.asyncio import Redis

from tests.brokers.start import start
from watchword import Admission, MemoryReplayStore, Policy
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.replay.nats_kv import NatsKvReplayStore
from watchword_adapters.replay.redis import RedisReplayStore
from watchword_adapters.replay.sqlite import SqliteReplayStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.brokers.broker import Broker, Bus
    from watchword import Claim, ReplayStore

CLAIMS = 10_000
IN_FLIGHT = 1000
REPEATS = 3
LONE = 200
_POLICY = Policy()
_TTL = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class StoreFigure:
    """One store: medians of claims and of raw puts a second, what a lone claim takes, and what it ran on."""

    name: str
    claims_per_second: float
    raw_per_second: float | None
    raw: str
    lone_claim_us: float
    server: str


@dataclass(frozen=True, slots=True)
class _Bench:
    name: str
    store: ReplayStore
    raw: Callable[[int], Awaitable[None]] | None
    raw_is: str
    server: str


def measure() -> list[StoreFigure]:
    """Run every store; repetitions of claims and raw puts are interleaved, so that a slow moment hits both alike."""
    return asyncio.run(_measure())


async def _measure() -> list[StoreFigure]:
    with tempfile.TemporaryDirectory() as directory:
        figures = []
        for make in (_memory, _sqlite, _redis, _nats_kv):
            async with make(Path(directory)) as bench:
                figures.append(await _run(bench))
        return figures


async def _run(bench: _Bench) -> StoreFigure:
    issued = int(time.time()) + 3600
    claims = [make_claim(number, offset=number, at=issued) for number in range(CLAIMS * REPEATS + LONE)]
    ours: list[float] = []
    raw: list[float] = []
    for repeat in range(REPEATS):
        part = claims[repeat * CLAIMS : (repeat + 1) * CLAIMS]
        ours.append(CLAIMS / await _seconds(_claim_all(bench.store, part)))
        if bench.raw is not None:
            raw.append(CLAIMS / await _seconds(bench.raw(repeat * CLAIMS)))
    lone = await _seconds(_one_by_one(bench.store, claims[-LONE:])) / LONE * 1e6
    return StoreFigure(bench.name, median(ours), median(raw) if raw else None, bench.raw_is, lone, bench.server)


async def _claim_all(store: ReplayStore, claims: list[Claim]) -> None:
    """Keep ``IN_FLIGHT`` claims under way, as a consumer does that fetches so many messages at once."""
    waiting = iter(claims)

    async def worker() -> None:
        for claim in waiting:
            if await store.claim(claim) is not Admission.FIRST:
                raise RuntimeError("a claim was refused")

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


async def _one_by_one(store: ReplayStore, claims: list[Claim]) -> None:
    for claim in claims:
        await store.claim(claim)


async def _seconds(work: Awaitable[None]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


@contextlib.asynccontextmanager
async def _memory(_: Path) -> AsyncIterator[_Bench]:
    yield _Bench("memory", MemoryReplayStore(horizon=_POLICY.horizon), None, "", "this process")


@contextlib.asynccontextmanager
async def _sqlite(directory: Path) -> AsyncIterator[_Bench]:
    database = sqlite3.connect(directory / "raw.db", isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE ids"
        " (issued_at INTEGER, key BLOB, mark BLOB, PRIMARY KEY (issued_at, key)) WITHOUT ROWID"
    )

    async def raw(_at: int) -> None:
        for _ in range(CLAIMS // IN_FLIGHT):
            database.execute("BEGIN IMMEDIATE")
            for _ in range(IN_FLIGHT):
                database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (1, os.urandom(16), bytes(16)))
            database.execute("COMMIT")

    async with SqliteReplayStore(directory / "ids.db", policy=_POLICY, clock=time.time, timeout=60.0) as store:
        yield _Bench("sqlite", store, raw, f"inserts, {IN_FLIGHT} a transaction", f"SQLite {sqlite3.sqlite_version}")
    database.close()


@contextlib.asynccontextmanager
async def _redis(directory: Path) -> AsyncIterator[_Bench]:
    with _server("redis", directory) as broker:
        client = Redis.from_url(broker.address)

        async def raw(_at: int) -> None:
            for _ in range(CLAIMS // IN_FLIGHT):
                pipeline = client.pipeline(transaction=False)
                for _ in range(IN_FLIGHT):
                    pipeline.set(os.urandom(16), bytes(16), nx=True, ex=_TTL)
                await pipeline.execute()

        async with RedisReplayStore(broker.address, policy=_POLICY, clock=time.time, timeout=60.0) as store:
            yield _Bench("redis", store, raw, f"SET NX EX, {IN_FLIGHT} a pipeline", str(broker))
        await client.aclose()


@contextlib.asynccontextmanager
async def _nats_kv(directory: Path) -> AsyncIterator[_Bench]:
    with _server("nats", directory) as broker:
        client = await nats.connect(broker.address)
        bucket = await client.jetstream(timeout=60).create_key_value(
            bucket="raw", storage=StorageType.FILE, direct=True, limit_marker_ttl=1
        )

        async def raw(at: int) -> None:
            for begin in range(at, at + CLAIMS, IN_FLIGHT):
                creates = (bucket.create(f"k{n}", bytes(32), msg_ttl=_TTL) for n in range(begin, begin + IN_FLIGHT))
                await asyncio.gather(*creates)

        async with NatsKvReplayStore(broker.address, policy=_POLICY, clock=time.time, timeout=60.0) as store:
            yield _Bench("nats_kv", store, raw, f"kv.create, {IN_FLIGHT} at once", str(broker))
        await client.close()


@contextlib.contextmanager
def _server(bus: Bus, directory: Path) -> Iterator[Broker]:
    own = directory / bus
    own.mkdir()
    broker, _ = start(bus, own, required=False)
    try:
        yield broker
    finally:
        broker.stop()
