import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.brokers import nats as ways
from tests.brokers.broker import Broker
from watchword import Admission, ConfigurationError, Policy
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.batched import GRACE, StoreError
from watchword_adapters.stores.nats_bucket import check
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.nats_rooms import Rooms

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
POLICY = Policy(max_age=60, max_skew=1, max_lag=600)

Opened = Callable[..., NatsKvReplayStore]


@pytest.fixture
def bucket(unique: Callable[[str], str]) -> str:
    """Give the name of a bucket that no other test uses."""
    return unique("ids")


@pytest_asyncio.fixture
async def opened(nats_broker: Broker, bucket: str) -> AsyncIterator[Opened]:
    """Give what makes a store in the bucket."""
    async with AsyncExitStack() as stack:

        def make(url: str = nats_broker.address, **options: Any) -> NatsKvReplayStore:
            given: dict[str, Any] = {"policy": POLICY, "clock": time.time, "bucket": bucket} | options
            store = NatsKvReplayStore(url, **given)
            stack.push_async_callback(store.close)
            return store

        yield make


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Broker]:
    """Give a server that only this test uses."""
    broker = ways.wheel(tmp_path)
    yield broker
    broker.stop()


@asynccontextmanager
async def admin(url: str) -> AsyncIterator[Client]:
    """Give an operator's connection."""
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


async def asked(client: Client, what: str, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream as an operator's tool does."""
    answer = await client.request(f"$JS.API.{what}", json.dumps(wanted or {}).encode(), timeout=5)
    told: dict[str, Any] = json.loads(answer.data)
    return told


def now() -> int:
    """Return an issue time above the floor of a store that is born now."""
    return int(time.time()) + 3


async def answer(store: NatsKvReplayStore, *args: Any, **fields: Any) -> Admission:
    """Claim until the server is there again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.claim(make_claim(*args, **fields))
            except Exception:  # noqa: BLE001 - whatever a server that starts may say
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("durable", [True, False])
async def test_a_restart_is_a_birth_unless_the_server_is_durable(
    own_server: Broker, opened: Opened, *, durable: bool
) -> None:
    """Promise (A14, A35): a server that syncs late vouches for nothing older than its restart; another for all."""
    store = opened(own_server.address, durable=durable)
    issued = int(time.time()) + 2
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    own_server.restart()
    await asyncio.sleep(issued - time.time())
    assert await answer(store, 2, offset=2, at=issued) is (FIRST if durable else TOO_OLD)
    assert await store.claim(make_claim(1, offset=1, at=issued)) is (REDELIVERED if durable else TOO_OLD)
    assert await store.claim(make_claim(1, offset=3, at=issued)) is REPLAYED
    assert await store.claim(make_claim(3, offset=4, at=issued + 5)) is FIRST


@pytest.mark.parametrize("accident", ["STREAM.PURGE", "STREAM.DELETE"])
async def test_what_was_put_before_the_loss_was_noticed_is_no_redelivery(
    nats_broker: Broker, bucket: str, opened: Opened, accident: str
) -> None:
    """Promise: a replay that was put, at its own place, by one who did not know of the loss is not believed later."""
    store, late = opened(), opened()
    await asyncio.gather(store.start(), late.start())
    issued = int(time.time()) + 2
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    await asyncio.sleep(issued - time.time())
    async with admin(nats_broker.address) as client:
        await asked(client, f"{accident}.KV_{bucket}")
        if accident == "STREAM.DELETE":
            await opened().start()
    with pytest.raises((StoreError, TimeoutError)):
        await late.claim(make_claim(1, offset=9, at=issued))
    for each in (late, store, opened()):
        assert await answer(each, 1, offset=9, at=issued) in {TOO_OLD, REPLAYED}


async def test_an_operator_can_ask_for_a_birth(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: after a backup was put back, taking the mark away makes all of it too old."""
    store = opened()
    issued = int(time.time()) + 2
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    await asyncio.sleep(issued - time.time())
    async with admin(nats_broker.address) as client:
        await (await client.jetstream().key_value(bucket)).delete("mark")
    assert await answer(store, 2, offset=2, at=issued) is TOO_OLD
    assert await store.claim(make_claim(3, at=issued + 5)) is FIRST


async def test_each_entry_has_its_time(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: ids live as long as their messages may come, and then leave by themselves; the mark stays."""
    store = opened()
    claim = make_claim(1, offset=1, at=now())
    assert await store.claim(claim) is FIRST
    async with admin(nats_broker.address) as client:
        stream = client.jetstream()
        ids = await stream.get_msg(f"KV_{bucket}", seq=2)
        mark = await stream.get_msg(f"KV_{bucket}", seq=1)
    assert abs(int((ids.headers or {})["Nats-TTL"]) - (claim.keep_until + GRACE - time.time())) < 5
    assert "Nats-TTL" not in (mark.headers or {})


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"allow_msg_ttl": False}, "no TTL per key"),
        ({"storage": "memory"}, "kept in memory"),
        ({"persist_mode": "async"}, "acknowledges what it has not written"),
        ({"retention": "workqueue"}, "gives entries away"),
        ({"max_bytes": 1_000_000, "discard": "old"}, "drops the oldest ids"),
        ({"max_msgs": 1000, "discard": "old"}, "drops the oldest ids"),
        ({"max_age": int(3600e9)}, "drops ids after 3600 s: a TTL of none, or 10000 s"),
        ({"allow_direct": False}, "cannot count"),
        ({"subjects": ["$KV.ids.>", "other"]}, "by its own keys alone"),
        ({"mirror": {"name": "KV_other"}}, "copy of another"),
        ({"sealed": True}, "takes nothing"),
    ],
)
def test_a_bucket_that_forgets_is_refused(setting: dict[str, Any], complaint: str) -> None:
    """Promise: what the bucket's settings would lose is told at the start, with what to set."""
    good = {
        "allow_msg_ttl": True, "storage": "file", "retention": "limits", "max_msgs": -1, "max_bytes": -1,
        "discard": "new", "max_age": 0, "allow_direct": True, "subjects": ["$KV.ids.>"],
    }  # fmt: skip
    check({"config": good}, "ids", lifetime=10_000)
    check({"config": good | {"max_age": int(10_000e9)}}, "ids", lifetime=10_000)
    with pytest.raises(ConfigurationError, match=complaint):
        check({"config": good | setting}, "ids", lifetime=10_000)


async def test_a_bucket_of_another_make_is_refused(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: a bucket that is there is taken only if it is fit, and the error says what to set."""
    async with admin(nats_broker.address) as client:
        await client.jetstream().create_key_value(bucket=bucket)
    with pytest.raises(ConfigurationError, match="cannot count: allow_direct; set that, or name a new one"):
        await opened().start()


async def test_a_bucket_that_cannot_be_made_is_told(opened: Opened) -> None:
    """Promise: three replicas on a lone server are a mistake that is told."""
    with pytest.raises(ConfigurationError, match="cannot be made"):
        await opened(replicas=3).start()


def test_a_name_that_is_none_is_told() -> None:
    """Promise: a bucket's name cannot reach other subjects."""
    with pytest.raises(ConfigurationError, match="use letters"):
        NatsKvReplayStore("nats://host", policy=POLICY, clock=time.time, bucket="a.>")


async def test_one_replica_in_a_cluster_needs_a_word(opened: Opened) -> None:
    """Promise: where it cannot be seen which server's restart would matter, the operator must say that none does."""
    store = opened()
    await store.start()
    assert store._session is not None
    connection = store._session.connection
    clustered = {"config": {"num_replicas": 1}, "cluster": {"name": "c", "leader": "n1"}}
    with pytest.raises(ConfigurationError, match="replicas = 3, or durable = true"):
        store._server(connection, clustered)
    assert not store._server(connection, clustered | {"config": {"num_replicas": 3}})


@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b"{}", b'{"seq": "1"}', b'{"error": 1}', b'{"error": {"err_code": 10077}}']
)
async def test_garbage_is_no_admission(opened: Opened, monkeypatch: pytest.MonkeyPatch, garbage: bytes) -> None:
    """Promise: an acknowledgement or answer that is not understood is an error."""
    store = opened(timeout=1.0)
    await store.start()
    assert store._session is not None
    connection = store._session.connection
    real = connection.publish

    async def lie(subject: str, payload: bytes, reply: str = "", headers: Any = None) -> None:
        del subject, payload, headers
        await real(reply, garbage)

    monkeypatch.setattr(connection, "publish", lie)
    with pytest.raises((StoreError, TimeoutError)):
        await store.claim(make_claim(1, at=now()))
    monkeypatch.undo()

    async def request(*_args: object, **_options: object) -> Msg:
        return Msg(_client=connection, data=garbage)

    monkeypatch.setattr(connection, "request", request)
    with pytest.raises(StoreError):
        await store.claim(make_claim(2, at=now()))


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"birth": 1, "server": "", "nonce": "00"}', b"\xff"])
async def test_a_mark_that_cannot_be_read_is_none(
    nats_broker: Broker, bucket: str, opened: Opened, value: bytes
) -> None:
    """Promise: whatever somebody wrote in its place, the store is born anew."""
    await opened().start()
    async with admin(nats_broker.address) as client:
        await client.publish(f"$KV.{bucket}.mark", value)
        await client.flush()
    store = opened()
    assert await store.claim(make_claim(1, at=int(time.time()) - 5)) is TOO_OLD
    assert await store.claim(make_claim(1, at=now())) is FIRST


async def test_a_server_without_jetstream_is_told(opened: Opened) -> None:
    """Promise: a server that cannot keep anything gives no admission."""
    store = opened("nats://127.0.0.1:1", timeout=1.0)
    with pytest.raises(Exception, match="no servers"):
        await store.claim(make_claim(1, at=now()))


async def test_what_is_under_way_counts_as_held() -> None:
    """Promise (A20): a count that misses what was just put lets nobody pass the bound; it is counted soon again."""
    held = 90

    async def count(_owner: bytes) -> int:
        return held

    rooms = Rooms(100, count)
    await rooms.prepare([b"a"])
    assert [rooms.take(b"a") for _ in range(11)] == [True] * 10 + [False]
    rooms._rooms[b"a"]._quiet_until = 0.0
    await rooms.prepare([b"a"])
    assert not rooms.take(b"a")
    for _ in range(10):
        rooms.arrived(b"a")
    held = 95
    await rooms.prepare([b"a"])
    assert [rooms.take(b"a") for _ in range(6)] == [True] * 5 + [False]
