"""A Redis that sentinels watch: its master is killed, and a replica takes over."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.brokers import redis
from tests.brokers.broker import Broker
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Policy
from watchword.replay import ReaderBirth, ReaderForgottenError
from watchword.spi import Admission
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.redis import RedisReplayStore

FIRST, TOO_OLD = Admission.FIRST, Admission.TOO_OLD
POLICY = Policy(max_age=60, max_skew=1, max_lag=600)


@dataclass
class Watched:
    """A master, its replica, and the sentinels that watch them."""

    master: Broker
    replica: Broker
    sentinels: list[str]


@pytest_asyncio.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    """Give a master with a replica, watched by three sentinels that know both."""
    async with AsyncExitStack() as stack:
        folders = [tmp_path / name for name in ("master", "replica", "one", "two", "three")]
        for folder in folders:
            folder.mkdir()
        master = redis.wheel(folders[0])
        stack.callback(master.stop)
        port = int(master.address.rpartition(":")[2])
        replica = redis.wheel(folders[1], "--replicaof", f"127.0.0.1 {port}")
        stack.callback(replica.stop)
        sentinels = [redis.sentinel(folder, "ids", port, quorum=2) for folder in folders[2:]]
        for one in sentinels:
            stack.callback(one.stop)
        async with asyncio.timeout(PATIENCE):
            for one in sentinels:
                async with Redis.from_url(f"redis://{one.address}") as client:
                    while True:
                        masters: Any = await client.sentinel_masters()
                        told = masters["ids"]
                        if (told["num-slaves"], told["num-other-sentinels"]) == (1, 2):
                            break
                        await asyncio.sleep(0.1)
        yield Watched(master, replica, [one.address for one in sentinels])


async def test_a35_a_failover_is_a_loss_and_no_replay(watched: Watched) -> None:
    """While nobody is master there is no answer; the next one knows no reader, for it may lack the last ids."""
    store = RedisReplayStore("redis://ids/0", sentinels=watched.sentinels, policy=POLICY, clock=time.time, timeout=2.0)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=int(time.time()) - 5)
    assert await store.claim(claim) is FIRST
    async with asyncio.timeout(PATIENCE), Redis.from_url(watched.replica.address) as client:
        while not await client.keys("watchword:ids:*"):  # noqa: ASYNC110 - replication tells nobody
            await asyncio.sleep(0.05)
        # As if the master had died before it could send its last id.
        await client.config_set("replica-read-only", "no")
        await client.delete(*await client.keys("watchword:ids:*"))
    watched.master.stop()
    failures = 0
    async with asyncio.timeout(150):
        while True:
            try:
                answer = await store.claim(make_claim(2, offset=2, at=int(time.time()) + 60))
                break
            except Exception:  # noqa: BLE001 - whatever a server that is gone, or is no master yet, says
                failures += 1
                await asyncio.sleep(0.1)
    assert answer is FIRST
    assert failures
    assert await store.birth("group") is None
    for offset in (1, 9):
        with pytest.raises(ReaderForgottenError):
            await store.claim(make_claim(1, offset=offset, at=claim.issued_at))
    assert await store.claim(make_claim(1, at=claim.issued_at)) is TOO_OLD
    await store.close()


async def test_one_that_becomes_a_replica_is_refused(tmp_path: Path) -> None:
    """A store that names the server itself stays with it; once that is a replica, an error says to use its master."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = redis.wheel(tmp_path / "one"), redis.wheel(tmp_path / "other")
    store = RedisReplayStore(one.address, policy=POLICY, clock=time.time, timeout=2.0)
    try:
        await store.admit_reader("group", ReaderBirth(floor=-inf))
        assert await store.claim(make_claim(1, offset=1, at=int(time.time()) - 5)) is FIRST
        async with Redis.from_url(one.address) as client:
            await client.execute_command("REPLICAOF", "127.0.0.1", other.address.rpartition(":")[2])
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConfigurationError, match="a replica cannot store ids; use its master"):
                await refused(store)
    finally:
        await store.close()
        one.stop()
        other.stop()


async def refused(store: RedisReplayStore) -> None:
    """Claim until the store says that it cannot be used."""
    number = 2
    while True:
        try:
            await store.claim(make_claim(number, offset=number, at=int(time.time()) + 60))
        except RedisError:
            await asyncio.sleep(0.05)
        number += 1


def test_addresses_of_sentinels_are_checked() -> None:
    """A wrong address raises an error when the store is created, with what to write."""
    for wrong in ("host", ":26379", "host:port"):
        with pytest.raises(ConfigurationError, match="write host:26379"):
            RedisReplayStore("redis://ids", sentinels=[wrong], policy=POLICY, clock=time.time)
    with pytest.raises(ConfigurationError, match="url: "):
        RedisReplayStore("redis:///0", sentinels=["host:26379"], policy=POLICY, clock=time.time)
