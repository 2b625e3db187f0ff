import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from tests.brokers import redis
from tests.brokers.broker import Broker
from tests.brokers.process import free_port
from tests.integration.stores.issue_times import LATER, POLICY, first_after_birth, later, reached
from tests.support.patience import PATIENCE
from tests.support.stores import answer
from watchword import ConfigurationError
from watchword.replay import ReaderBirth, ReaderForgottenError, StoreError
from watchword.spi import Admission, Claim
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.redis import RIGHTS, RedisReplayStore

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
LATE = 180.0
"""Seconds beyond what a claim asks for: two time-outs of a minute, and a clock that is another one ahead."""

Opened = Callable[..., RedisReplayStore]
Served = Callable[..., Broker]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Give what starts a server with settings of its own."""
    with ExitStack() as stack:

        def start(*settings: str) -> Broker:
            directory = tmp_path / f"server-{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            broker = redis.wheel(directory, *settings)
            stack.callback(broker.stop)
            return broker

        yield start


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[Opened]:
    """Give what makes a store on a server."""
    made: list[RedisReplayStore] = []

    def make(broker: Broker, **options: Any) -> RedisReplayStore:
        given: dict[str, Any] = {"policy": POLICY, "clock": time.time} | options
        made.append(RedisReplayStore(broker.address, **given))
        return made[-1]

    yield make
    for store in made:
        await store.close()


async def config(broker: Broker, **settings: str | int) -> None:
    """Change settings of a running server."""
    async with Redis.from_url(broker.address) as client:
        for name, value in settings.items():
            await client.config_set(name.replace("_", "-"), value)


async def test_a_restart_of_a_durable_server_forgets_nothing(served: Served, opened: Opened) -> None:
    """Promise (A14, A35): where each write is synced before it is answered, a restart costs no honest message."""
    broker = served()
    store = opened(broker)
    issued = later()
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    broker.restart()
    assert await answer(store, 1, offset=1, at=issued) is REDELIVERED
    assert await store.claim(make_claim(1, offset=2, at=issued)) is REPLAYED
    assert await store.claim(make_claim(2, offset=3, at=issued)) is FIRST


@pytest.mark.parametrize("settings", [{"appendfsync": "everysec"}, {"appendonly": "no"}])
async def test_a_restart_of_another_server_is_a_birth(served: Served, opened: Opened, settings: dict[str, str]) -> None:
    """Promise: a server that may have lost its last writes vouches for nothing older than its restart.

    What it brings back may be an older snapshot, in which the birth mark is and the id is not.
    """
    broker = served()
    await config(broker, **settings)
    store = opened(broker)
    issued = await first_after_birth(store)
    assert await store.claim(make_claim(1, at=issued)) is FIRST
    async with Redis.from_url(broker.address) as client:
        (mark,) = await client.keys("watchword:mark")
        before: Any = await client.hgetall(mark)
    broker.restart()
    async with Redis.from_url(broker.address) as client:
        await client.flushall()
        await client.hset(mark, mapping=before)
    await reached(issued)
    assert await answer(store, 1, at=issued) is TOO_OLD
    assert await store.claim(make_claim(2, at=issued + LATER)) is FIRST


async def test_a_replica_that_takes_over_is_a_birth(served: Served, opened: Opened) -> None:
    """Promise: replication is not waited for, so a new master may lack what the old one answered."""
    master = served()
    store = opened(master)
    await store.start()
    assert store._durable
    port = master.address.rpartition(":")[2]
    replica = served("--replicaof", f"127.0.0.1 {port}")
    async with asyncio.timeout(PATIENCE), Redis.from_url(replica.address) as client:
        while (await client.info("replication"))["master_link_status"] != "up":  # noqa: ASYNC110 - it cannot be awaited
            await asyncio.sleep(0.05)
        issued = math.floor(time.time() + POLICY.max_skew) + 1
        assert await store.claim(make_claim(1, at=issued)) is FIRST
        with pytest.raises(ConfigurationError, match="use its master"):
            await opened(replica).start()
        while await client.hget("watchword:mark", "durable") != b"0":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)
        master.stop()
        # As if the replica had been cut off before it heard that.
        await client.execute_command("REPLICAOF", "NO", "ONE")
        await client.hset("watchword:mark", "durable", "1")
    await reached(issued)
    store = opened(replica)
    assert await store.claim(make_claim(2, at=issued)) is TOO_OLD
    assert await store.claim(make_claim(1, at=issued)) in {REPLAYED, TOO_OLD}
    assert await store.claim(make_claim(3, at=issued + LATER)) is FIRST


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
async def test_a_server_that_may_evict_is_refused(served: Served, opened: Opened, policy: str) -> None:
    """Promise (A20): the error at the start says what to set."""
    broker = served("--maxmemory", "100mb", "--maxmemory-policy", policy)
    with pytest.raises(ConfigurationError, match="set maxmemory-policy noeviction"):
        await opened(broker).start()
    await config(broker, maxmemory_policy="noeviction")
    await opened(broker).start()


async def test_eviction_that_begins_later_is_a_birth(served: Served, opened: Opened) -> None:
    """Promise (A20): ids that were evicted although all was well at the start do not come back as new."""
    broker = served("--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
    store = opened(broker)
    issued = await first_after_birth(store)
    assert await store.claim(make_claim(1, at=issued)) is FIRST
    async with asyncio.timeout(PATIENCE), Redis.from_url(broker.address) as client:
        await client.config_set("maxmemory-policy", "allkeys-random")
        while (await client.info("memory"))["maxmemory"] != 0 and not (await client.info("stats"))["evicted_keys"]:
            await client.set("filler", b"x" * 100_000)
            used = (await client.info("memory"))["used_memory"]
            await client.config_set("maxmemory", used - 50_000)
        await client.config_set("maxmemory", 0)
        await reached(issued)
    assert await answer(store, 1, at=issued) in {TOO_OLD, REPLAYED}
    assert await store.claim(make_claim(2, at=issued)) is TOO_OLD
    assert await store.claim(make_claim(3, at=issued + LATER)) is FIRST


@pytest.mark.parametrize(
    "deleted",
    [
        ("ids:*",),
        ("buckets",),
        ("ids:*", "buckets"),
        ("ids:*", "buckets", "held*"),
        ("ids:*", "buckets", "held*", "reader:*"),
        ("mark",),
        ("*",),
    ],
    ids="+".join,
)
async def test_keys_that_are_deleted_are_a_birth(
    redis_broker: Broker, opened: Opened, unique: Callable[[str], str], deleted: tuple[str, ...]
) -> None:
    """Promise (A39): whichever keys someone deletes with the ids, no id comes back as new, in any process."""
    prefix = unique("part")
    store = opened(redis_broker, prefix=prefix)
    issued = await first_after_birth(store)
    claims = [make_claim(number, at=issued) for number in range(3)]
    assert [await store.claim(claim) for claim in claims] == [FIRST] * 3
    await reached(issued)
    async with Redis.from_url(redis_broker.address) as client:
        await client.delete(*[key for name in deleted for key in await client.keys(f"{prefix}{name}")])
    for each in (opened(redis_broker, prefix=prefix), store):
        assert {await each.claim(claim) for claim in claims} <= {TOO_OLD, REPLAYED}
    late = make_claim(9, at=issued + LATER)
    assert [await store.claim(late), await store.claim(late)] == [FIRST, REPLAYED]


async def test_single_ids_that_are_deleted_are_a_birth(
    redis_broker: Broker, opened: Opened, unique: Callable[[str], str]
) -> None:
    """Promise (A39): a bucket that holds fewer ids than were put there is noticed when one of its time is claimed."""
    prefix = unique("one")
    store = opened(redis_broker, prefix=prefix)
    issued = await first_after_birth(store)
    claims = [make_claim(number, offset=number, at=issued) for number in range(4)]
    assert [await store.claim(claim) for claim in claims] == [FIRST] * 4
    await reached(issued)
    async with Redis.from_url(redis_broker.address) as client:
        (bucket,) = await client.keys(f"{prefix}ids:*")
        await client.hdel(bucket, store._use(claims[0]).key)
        for _ in range(2):
            with pytest.raises(ReaderForgottenError):
                await store.claim(claims[0])
            assert [await store.claim(claim) for claim in claims[1:]] == [REDELIVERED] * 3
        birth = await client.hget(f"{prefix}mark", "birth")
        assert await store.claim(make_claim(9, at=issued + LATER)) is FIRST
        assert await client.hget(f"{prefix}mark", "birth") == birth, "one loss is one birth"


async def test_a_full_server_takes_nothing_and_forgets_nothing(served: Served, opened: Opened) -> None:
    """Promise (A20): without room there is no answer, so nothing is delivered; what was known stays known."""
    broker = served("--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
    store = opened(broker)
    assert await store.claim(make_claim(1, at=later())) is FIRST
    issued = later()
    assert await store.claim(make_claim(2, offset=2, at=issued)) is FIRST
    await config(broker, maxmemory=1)
    with pytest.raises(Exception, match=r"OOM|maxmemory"):
        await store.claim(make_claim(3, at=issued))
    await config(broker, maxmemory=0)
    assert await store.claim(make_claim(2, offset=2, at=issued)) is REDELIVERED


async def test_a_cluster_is_refused(served: Served, opened: Opened) -> None:
    """Promise: the error at the start says that a cluster will not do."""
    with pytest.raises(ConfigurationError, match="use a server outside a cluster"):
        await opened(served("--cluster-enabled", "yes", "--cluster-port", str(free_port()))).start()


@pytest.mark.parametrize("right", ["info", "evalsha", "hsetnx"])
async def test_missing_rights_are_told(served: Served, opened: Opened, right: str) -> None:
    """Promise: if the store's user lacks a right, claims raise an error about it, and nothing is admitted."""
    broker = served()
    async with Redis.from_url(broker.address) as client:
        await client.execute_command("ACL", "SETUSER", "default", f"-{right}")
    store = opened(broker)
    with pytest.raises(Exception, match=rf"needs .*{right}|permission"):
        await store.claim(make_claim(1, at=later()))


async def test_the_rights_that_are_named_are_enough(served: Served, opened: Opened) -> None:
    """Promise: a user of the store's own needs no more than the documents say, and sees no other keys."""
    broker = served()
    async with Redis.from_url(broker.address) as client:
        rights = [*RIGHTS.split(), "+config|get"]
        await client.execute_command("ACL", "SETUSER", "ids", "on", ">secret", "~watchword:*", *rights)
    own = Broker(bus="redis", kind="process", address=broker.address.replace("//", "//ids:secret@"))
    store = opened(own)
    born = ReaderBirth(floor=time.time() + 1, accepted={"tasks/0": (5, inf)})
    for replaced in (False, True):
        assert await store.admit_reader("group", born, replace=replaced) == born
    assert await store.birth("group") == born
    backlog = make_claim(1, offset=1, at=int(time.time()) - 5)
    assert await store.claim(backlog) is FIRST
    assert await store.claim(backlog) is REDELIVERED
    assert store._durable
    async with Redis.from_url(broker.address) as client:
        await client.delete(*await client.keys("watchword:ids:*"))
        await client.hset("watchword:mark", "since", 0)
    assert await store.claim(make_claim(1, at=backlog.issued_at)) is TOO_OLD
    async with Redis.from_url(broker.address) as client:
        refused: Any = await client.acl_log()
    assert not [one for one in refused if one["context"] == "lua"]


async def test_settings_that_may_not_be_asked_for_are_asked_of_info(served: Served, opened: Opened) -> None:
    """Promise: where CONFIG is forbidden, eviction is still detected; durability is not taken for granted."""
    broker = served("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    async with Redis.from_url(broker.address) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-config")
    store = opened(broker)
    with pytest.raises(ConfigurationError, match="noeviction"):
        await store.start()
    quiet = served()
    async with Redis.from_url(quiet.address) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-config")
    store = opened(quiet)
    await store.start()
    assert not store._durable


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        ({"maxmemory_policy": None}, "assume_no_eviction = true"),
        ({"redis_version": "6.0.16"}, "6.2 or later"),
        ({"run_id": None}, "does not report run_id"),
        ({"redis_mode": "sentinel"}, "use a server outside a cluster"),
    ],
)
async def test_what_a_server_does_not_tell_is_no_comfort(
    redis_broker: Broker, opened: Opened, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], complaint: str
) -> None:
    """Promise: servers that only look like Redis, or are too old, are refused at the start."""
    real = Redis.info

    async def info(client: Redis) -> dict[str, Any]:
        changed = {**await real(client), **told}
        return {name: value for name, value in changed.items() if value is not None}

    async def asked(_client: Redis, _name: str) -> dict[str, str]:
        return {}

    monkeypatch.setattr(Redis, "info", info)
    monkeypatch.setattr(Redis, "config_get", asked)
    with pytest.raises(ConfigurationError, match=complaint):
        await opened(redis_broker).start()
    if "maxmemory_policy" in told:
        await opened(redis_broker, assume_no_eviction=True).start()


@pytest.mark.parametrize(
    "garbage",
    [
        b"F", [b"F"], ["F", b"1", []], [b"X", b"1", []], [b"FF", b"1", []], [b"F", b"soon", []], [b"", b"1", []], None,
        [b"F", None, []], [b"F", b"1"], [b"F", b"1", [1]],
    ],
)  # fmt: skip
async def test_garbage_is_no_admission(
    redis_broker: Broker, opened: Opened, monkeypatch: pytest.MonkeyPatch, garbage: object
) -> None:
    """Promise: an answer that is not understood letter by letter is an error."""
    store = opened(redis_broker)
    await store.start()

    async def lie(*_args: object) -> object:
        return garbage

    monkeypatch.setattr(Redis, "execute_command", lie)
    with pytest.raises(StoreError):
        await store.claim(make_claim(1, at=later()))


@pytest.mark.parametrize(
    "garbage",
    [
        None, b"known", [b"known", b"1"], [b"known", b"1", []], [b"known", b"1", [b"floor"]],
        [b"known", b"1", [b"floor", b"soon"]], [b"known", b"1", [b"floor", b"1", b"log:a", b"1"]],
        [b"known", b"1", [1, 2]],
    ],
)  # fmt: skip
async def test_garbage_is_no_birth(
    redis_broker: Broker, opened: Opened, monkeypatch: pytest.MonkeyPatch, garbage: object
) -> None:
    """Promise: what is not understood of a reader is an error; and one that was not put does not count."""
    store = opened(redis_broker)
    await store.start()

    async def lie(*_args: object) -> object:
        return garbage

    monkeypatch.setattr(Redis, "execute_command", lie)
    for work in (store.birth("group"), store.admit_reader("group", ReaderBirth(floor=1.0))):
        with pytest.raises(StoreError):
            await work
    garbage = [b"unknown", b"1", []]
    assert await store.birth("group") is None
    with pytest.raises(StoreError):
        await store.admit_reader("group", ReaderBirth(floor=1.0))


async def test_clocks_that_differ_too_much_are_an_error(redis_broker: Broker, opened: Opened) -> None:
    """Promise: entries that would leave too early, by a clock that runs ahead, vouch for nothing."""
    store = opened(redis_broker, clock=lambda: time.time() - 100)
    with pytest.raises(StoreError, match="clock"):
        await store.claim(make_claim(1, at=later()))


async def test_a47_a_clock_that_jumps_ahead_and_comes_back_takes_nothing(served: Served, opened: Opened) -> None:
    """A server's clock that jumps ahead makes what has a time to live expire, and nothing else; so nothing has one."""
    broker = served()
    store = opened(broker)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=later())
    assert await store.claim(claim) is FIRST
    async with Redis.from_url(broker.address) as client:
        for key in await client.keys("watchword:*"):
            if await client.pttl(key) >= 0:
                await client.pexpireat(key, 1)  # what the jump does
    assert await store.claim(claim) is REDELIVERED
    assert await store.claim(replace(claim, place=None)) is REPLAYED


async def test_a47_a_bucket_that_vanished_is_a_birth(served: Served, opened: Opened) -> None:
    """Ids that someone deleted, or that a clock took all the same, leave a trace: the readers are forgotten."""
    broker = served()
    store, other = opened(broker, per_principal=2), opened(broker, per_principal=2)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = int(time.time()) - 10
    assert [await store.claim(make_claim(n, at=issued)) for n in range(3)] == [FIRST, FIRST, OVER_QUOTA]
    async with Redis.from_url(broker.address) as client:
        for key in await client.keys("watchword:ids:*"):
            await client.pexpireat(key, 1)
    for each in (store, other):
        assert await each.claim(make_claim(1, at=issued)) is TOO_OLD
        with pytest.raises(ReaderForgottenError):
            await each.claim(make_claim(1, offset=1, at=issued))
        assert await each.birth("group") is None
    await other.admit_reader("group", ReaderBirth(floor=-inf))
    assert await store.birth("group") is not None  # one loss is one birth
    assert [await store.claim(make_claim(n, at=issued)) for n in range(3)] == [FIRST, FIRST, OVER_QUOTA]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let buckets hold a second each; give the seconds for which an id is kept."""
    monkeypatch.setattr("watchword_adapters.stores.redis.BUCKETS", 10_000)
    return POLICY.longest + LATE


def aged(number: int, at: int) -> Claim:
    """Return a claim that asks for the time that the policy gives, and for no more."""
    return replace(make_claim(number, offset=number, at=at, appended=time.time()), keep_until=at + POLICY.longest)


async def test_ids_leave_with_a_trace_when_their_time_is_over(served: Served, opened: Opened, narrow: float) -> None:
    """Promise: nothing grows forever, room is free again, and what has left is too old for anyone who presents it."""
    broker = served()
    behind = [50.0]  # so that nothing leaves by both clocks before all is claimed
    store = opened(broker, per_principal=1, clock=lambda: time.time() - behind[0])
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = math.floor(time.time() - narrow) - 1
    assert await store.claim(aged(1, issued)) is FIRST
    assert await store.claim(aged(2, issued + 60)) is OVER_QUOTA
    behind[0] = 0.0
    async with asyncio.timeout(PATIENCE):
        while await store.claim(aged(2, issued + 60)) is OVER_QUOTA:  # noqa: ASYNC110 - nobody signals the time
            await asyncio.sleep(0.1)
    assert time.time() > issued + narrow
    for claim in (aged(1, issued), replace(aged(1, issued), place=None), aged(3, issued - 100)):
        assert await store.claim(claim) is TOO_OLD
    assert await store.claim(aged(3, issued + 61)) is OVER_QUOTA
    async with Redis.from_url(broker.address) as client:
        assert await client.keys("watchword:ids:*") == [f"watchword:ids:{issued + 60}".encode()]
        assert len(await client.keys("*")) == 6  # beside it mark, buckets, held, the bucket's counts, the reader


@pytest.mark.parametrize("ahead", [50, -50])
async def test_ids_stay_until_both_clocks_say_so(served: Served, opened: Opened, narrow: float, ahead: float) -> None:
    """Promise: one clock that is ahead forgets nothing; and an id outlives what its claim asks for (late judges)."""
    store = opened(served(), clock=lambda: time.time() + ahead)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = aged(1, int(time.time() - narrow) + 10)
    assert claim.keep_until < time.time() - LATE / 2
    assert await store.claim(claim) is FIRST
    assert await store.claim(claim) is REDELIVERED
    assert await store.claim(aged(1, int(time.time() - narrow) - 60)) is TOO_OLD


async def test_who_asks_for_a_longer_time_is_given_it(served: Served, opened: Opened, narrow: float) -> None:
    """Promise: readers of other settings share the store, and the longest time counts for all."""
    broker = served()
    long, short = opened(broker, policy=replace(POLICY, max_lag=1200)), opened(broker)
    for store in (long, short):
        await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = int(time.time() - narrow - 300)
    claim = aged(1, issued)
    assert await short.claim(claim) is FIRST
    assert await long.claim(claim) is REDELIVERED
    assert await short.claim(replace(aged(2, issued), keep_until=issued + 5000)) is FIRST
    async with Redis.from_url(broker.address) as client:
        assert float(await client.hget("watchword:mark", "lifetime") or 0) == 5000 + LATE


async def test_the_birth_itself_is_too_old(served: Served, opened: Opened) -> None:
    """Promise: what was issued up to the skew after the birth may have been claimed before it."""
    broker = served()
    store = opened(broker)
    await store.start()
    born = int(time.time()) + 20
    async with Redis.from_url(broker.address) as client:
        await client.hset("watchword:mark", "birth", str(born))
    assert await store.claim(make_claim(1, at=born + POLICY.max_skew)) is TOO_OLD
    assert await store.claim(make_claim(1, at=born + POLICY.max_skew + 1)) is FIRST


@pytest.mark.parametrize("ahead", [40, -40])
async def test_a_birth_is_at_the_later_of_two_clocks(served: Served, opened: Opened, ahead: float) -> None:
    """Promise (A47): a server whose clock is behind, or a process, vouches for nothing that was issued before."""
    store = opened(served(), clock=lambda: time.time() + ahead)
    latest = int(time.time()) + max(0, ahead)
    assert await store.claim(make_claim(1, at=latest)) is TOO_OLD
    assert await store.claim(make_claim(1, at=latest + LATER)) is FIRST


async def test_a_reader_reads_many_logs(redis_broker: Broker, opened: Opened, unique: Callable[[str], str]) -> None:
    """Promise: a group of ten thousand partitions can be admitted."""
    store = opened(redis_broker, prefix=unique("wide"))
    born = ReaderBirth(floor=5.0, accepted={f"tasks/{n}": (n, 0.5) for n in range(10_000)})
    assert await store.admit_reader("group", born) == born


async def test_a_script_that_was_flushed_is_loaded_again(redis_broker: Broker, opened: Opened) -> None:
    """Promise: an operator's SCRIPT FLUSH costs nothing."""
    store = opened(redis_broker)
    await store.start()
    async with Redis.from_url(redis_broker.address) as client:
        await client.script_flush()
    assert await store.claim(make_claim(1, at=later())) in {FIRST, REPLAYED}


@pytest.mark.needs_redis("pause")
async def test_a_frozen_server_gives_no_answer(redis_broker: Broker, opened: Opened) -> None:
    """Promise (A35): what does not answer is an error in bounded time, and served again later."""
    store = opened(redis_broker, timeout=0.3)
    with redis_broker.paused():
        async with asyncio.timeout(PATIENCE) as limit:
            with pytest.raises(Exception):  # noqa: B017, PT011 - any
                await store.start()
        assert not limit.expired()
    await store.start()


async def test_a_server_that_is_not_there_is_knocked_at_once(opened: Opened) -> None:
    """Promise: claims that come while it cannot be reached fail together, and not one after another."""
    gone = Broker(bus="redis", kind="process", address="redis://127.0.0.1:1")
    store = opened(gone)
    failures = await asyncio.gather(
        *(store.claim(make_claim(i, at=later())) for i in range(2000)), return_exceptions=True
    )
    told = "url redis://127.0.0.1:1: no connection (ConnectionError); start the server, or correct url"
    assert {str(failure) for failure in failures if isinstance(failure, StoreError)} == {told}
    assert len(failures) == sum(isinstance(failure, StoreError) for failure in failures)
    gone.address = "redis://user:hunter2@ids/0"
    with pytest.raises(StoreError, match=r"^url redis://ids, which 127\.0\.0\.1:1 or localhost:1 watch: no connection"):
        await opened(gone, sentinels=["127.0.0.1:1", "localhost:1"]).start()


def test_a_wrong_url_is_told() -> None:
    """Promise: a mistake in the URL raises an error when the store is created, with what to write."""
    with pytest.raises(ConfigurationError, match="write redis://host:6379/0"):
        RedisReplayStore("http://host", policy=POLICY, clock=time.time)


def test_the_password_is_not_shown() -> None:
    """Promise (A31): neither the store nor its errors show the URL."""
    store = RedisReplayStore("redis://:hunter2@host", policy=POLICY, clock=time.time)
    assert "hunter2" not in repr(store)
