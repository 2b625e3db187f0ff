"""A Redis that sentinels watch: its master is killed, and a replica takes over."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
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
from watchword import Admission, ConfigurationError, Policy
from watchword.replay import ReaderBirth, ReaderForgottenError
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.redis import RedisReplayStore

FIRST, REDELIVERED, REPLAYED, TOO_OLD, _ = Admission
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
        async with asyncio.timeout(60):
            for one in sentinels:
                async with Redis.from_url(f"redis://{one.address}") as client:
                    while True:
                        masters: Any = await client.sentinel_masters()
                        told = masters["ids"]
                        if (told["num-slaves"], told["num-other-sentinels"]) == (1, 2):
                            break
                        await asyncio.sleep(0.1)
        yield Watched(master, replica, [one.address for one in sentinels])


async def role(broker: Broker) -> str | None:
    """Return what a server is; None where it does not say so just now."""
    with suppress(RedisError):
        async with Redis.from_url(broker.address) as client:
            return str((await client.info("replication"))["role"])
    return None


async def test_a35_a_failover_is_a_loss_and_no_replay(watched: Watched) -> None:
    """While nobody is master there is no answer; the next one knows no reader, for it may lack the last ids."""
    store = RedisReplayStore("redis://ids/0", sentinels=watched.sentinels, policy=POLICY, clock=time.time, timeout=2.0)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=int(time.time()) - 5)
    assert await store.claim(claim) is FIRST
    async with asyncio.timeout(20), Redis.from_url(watched.replica.address) as client:
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


async def test_one_that_was_master_is_refused_once_it_is_none(watched: Watched) -> None:
    """A store that names the server itself stays with it: no answer while it is down, refused when it follows."""
    port = watched.master.address.rpartition(":")[2]
    store = RedisReplayStore(f"redis://127.0.0.1:{port}", policy=POLICY, clock=time.time, timeout=1.0)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=int(time.time()) - 5)
    assert await store.claim(claim) is FIRST
    async with asyncio.timeout(150):
        watched.master.stop()
        while await role(watched.replica) != "master":
            with pytest.raises(Exception, match=r"onnect"):
                await store.claim(claim)
            await asyncio.sleep(0.1)
        watched.master.restart()
        while True:
            try:
                answer = await store.claim(make_claim(1, offset=9, at=claim.issued_at))
                await store.claim(make_claim(2, at=int(time.time()) + 60))
            except ConfigurationError as error:
                assert "a replica cannot take ids; name its master" in str(error)  # noqa: PT017 - one of many tries
                break
            except Exception:  # noqa: BLE001 - as it starts
                await asyncio.sleep(0.05)
            else:  # before the sentinels have seen it
                assert answer in {REPLAYED, TOO_OLD}
    await store.close()


def test_addresses_of_sentinels_are_checked() -> None:
    """A mistake is told when the settings are read, and says what to write."""
    for wrong in ("host", ":26379", "host:port"):
        with pytest.raises(ConfigurationError, match="write host:26379"):
            RedisReplayStore("redis://ids", sentinels=[wrong], policy=POLICY, clock=time.time)
    with pytest.raises(ConfigurationError, match="url: "):
        RedisReplayStore("redis:///0", sentinels=["host:26379"], policy=POLICY, clock=time.time)
