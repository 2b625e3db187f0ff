"""The shared replay stores: claims per second with many in flight, beside the store's own raw rate in the same run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sqlite3
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import nats
from nats.js.api import StorageType
from redis.asyncio import Redis

from watchword import Policy
from watchword.spi import Admission, MemoryReplayStore
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.redis import RedisReplayStore
from watchword_adapters.stores.sqlite import SqliteReplayStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from watchword.spi import Claim, ReplayStore

_POLICY = Policy()
_TTL = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    claims: int = 10_000
    in_flight: int = 1000
    repeats: int = 3
    lone: int = 200


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


def measure(nats_server: tuple[str, str], redis_server: tuple[str, str], *, small: bool) -> dict[str, Any]:
    """Run every store, and return what goes into the report; the servers are given by address and name.

    Repetitions of claims and raw puts are interleaved, so that a slow moment hits both alike.
    """
    size = Size(claims=200, in_flight=100, repeats=1, lone=5) if small else Size()
    figures = asyncio.run(_measure(size, nats_server, redis_server))
    sized = {"claims": size.claims, "in_flight": size.in_flight, "repeats": size.repeats}
    return {"stores": sized | {"stores": [asdict(one) for one in figures]}}


async def _measure(size: Size, nats_server: tuple[str, str], redis_server: tuple[str, str]) -> list[StoreFigure]:
    with tempfile.TemporaryDirectory() as directory:
        benches = (_memory(), _sqlite(size, Path(directory)), _redis(size, *redis_server), _nats_kv(size, *nats_server))
        figures = []
        for opened in benches:
            async with opened as bench:
                figures.append(await _run(size, bench))
        return figures


async def _run(size: Size, bench: _Bench) -> StoreFigure:
    issued = int(time.time()) + 3600
    claims = [make_claim(number, offset=number, at=issued) for number in range(size.claims * size.repeats + size.lone)]
    ours: list[float] = []
    raw: list[float] = []
    for repeat in range(size.repeats):
        part = claims[repeat * size.claims : (repeat + 1) * size.claims]
        ours.append(size.claims / await _seconds(_claim_all(bench.store, part, size.in_flight)))
        if bench.raw is not None:
            raw.append(size.claims / await _seconds(bench.raw(repeat * size.claims)))
    lone = await _seconds(_one_by_one(bench.store, claims[-size.lone :])) / size.lone * 1e6
    return StoreFigure(bench.name, median(ours), median(raw) if raw else None, bench.raw_is, lone, bench.server)


async def _claim_all(store: ReplayStore, claims: list[Claim], in_flight: int) -> None:
    """Keep ``in_flight`` claims under way, as a consumer does that fetches so many messages at once."""
    waiting = iter(claims)

    async def worker() -> None:
        for claim in waiting:
            if await store.claim(claim) is not Admission.FIRST:
                raise RuntimeError("a claim was refused")

    await asyncio.gather(*(worker() for _ in range(in_flight)))


async def _one_by_one(store: ReplayStore, claims: list[Claim]) -> None:
    for claim in claims:
        await store.claim(claim)


async def _seconds(work: Awaitable[None]) -> float:
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


@contextlib.asynccontextmanager
async def _memory() -> AsyncIterator[_Bench]:
    yield _Bench("memory", MemoryReplayStore(horizon=_POLICY.horizon), None, "", "this process")


@contextlib.asynccontextmanager
async def _sqlite(size: Size, directory: Path) -> AsyncIterator[_Bench]:
    database = sqlite3.connect(directory / "raw.db", isolation_level=None)
    database.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE ids"
        " (issued_at INTEGER, key BLOB, mark BLOB, PRIMARY KEY (issued_at, key)) WITHOUT ROWID"
    )

    async def raw(_at: int) -> None:
        for _ in range(size.claims // size.in_flight):
            database.execute("BEGIN IMMEDIATE")
            for _ in range(size.in_flight):
                database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (1, os.urandom(16), bytes(16)))
            database.execute("COMMIT")

    async with SqliteReplayStore(directory / "ids.db", policy=_POLICY, clock=time.time, timeout=60.0) as store:
        yield _Bench(
            "sqlite", store, raw, f"inserts, {size.in_flight} a transaction", f"SQLite {sqlite3.sqlite_version}"
        )
    database.close()


@contextlib.asynccontextmanager
async def _redis(size: Size, address: str, told: str) -> AsyncIterator[_Bench]:
    client, prefix = Redis.from_url(address), f"watchword-bench:{secrets.token_hex(4)}:"

    async def raw(_at: int) -> None:
        for _ in range(size.claims // size.in_flight):
            pipeline = client.pipeline(transaction=False)
            for _ in range(size.in_flight):
                pipeline.set(f"{prefix}raw:{secrets.token_hex(8)}", bytes(16), nx=True, ex=_TTL)
            await pipeline.execute()

    async with RedisReplayStore(address, policy=_POLICY, clock=time.time, prefix=prefix, timeout=60.0) as store:
        yield _Bench("redis", store, raw, f"SET NX EX, {size.in_flight} a pipeline", told)
    async for key in client.scan_iter(match=f"{prefix}*", count=1000):
        await client.unlink(key)
    await client.aclose()


@contextlib.asynccontextmanager
async def _nats_kv(size: Size, address: str, told: str) -> AsyncIterator[_Bench]:
    client, run = await nats.connect(address), secrets.token_hex(4)
    context = client.jetstream(timeout=60)
    buckets = f"watchword-bench-raw-{run}", f"watchword-bench-{run}"
    bucket = await context.create_key_value(
        bucket=buckets[0], storage=StorageType.FILE, direct=True, limit_marker_ttl=1
    )

    async def raw(at: int) -> None:
        for begin in range(at, at + size.claims, size.in_flight):
            creates = (bucket.create(f"k{n}", bytes(32), msg_ttl=_TTL) for n in range(begin, begin + size.in_flight))
            await asyncio.gather(*creates)

    async with NatsKvReplayStore(address, policy=_POLICY, clock=time.time, bucket=buckets[1], timeout=60.0) as store:
        yield _Bench("nats_kv", store, raw, f"kv.create, {size.in_flight} at once", told)
    for name in buckets:
        await context.delete_key_value(name)
    await client.close()
