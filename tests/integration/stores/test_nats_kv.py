import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
from nats.aio.client import Client

from tests.brokers import nats as ways
from tests.brokers.broker import Broker
from tests.integration.stores.issue_times import LATER, POLICY, first_after_birth, later, reached
from tests.support.patience import PATIENCE
from tests.support.stores import answer
from watchword import ConfigurationError
from watchword.replay import ReaderBirth, ReaderForgottenError, StoreError
from watchword.spi import Admission, Claim, Position
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores.nats_bucket import Bucket, Put, check
from watchword_adapters.stores.nats_kv import NatsKvReplayStore
from watchword_adapters.stores.nats_mark import Mark, read_mark, reader_key
from watchword_adapters.stores.nats_rooms import Rooms

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
LATE = 180.0
"""Seconds beyond what a claim asks for: two time-outs of a minute, and a clock that is another one ahead."""

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


@asynccontextmanager
async def looked_into(url: str, bucket: str) -> AsyncIterator[Bucket]:
    """Give the bucket as an operator's tool sees it."""
    async with admin(url) as client:
        found = Bucket(client, bucket)
        await found.start()
        yield found


async def mark_of(url: str, bucket: str) -> Mark:
    """Return the mark that is in the bucket."""
    async with looked_into(url, bucket) as found:
        mark = read_mark(await found.get("mark"))
        assert mark is not None
        return mark


async def asked(client: Client, what: str, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask JetStream as an operator's tool does."""
    answer = await client.request(f"$JS.API.{what}", json.dumps(wanted or {}).encode(), timeout=5)
    told: dict[str, Any] = json.loads(answer.data)
    return told


@pytest.mark.parametrize("durable", [True, False])
async def test_a_restart_is_a_birth_unless_the_server_is_durable(
    own_server: Broker, opened: Opened, *, durable: bool
) -> None:
    """Promise (A14, A35): a server that syncs late vouches for nothing older than its restart; another for all."""
    store = opened(own_server.address, durable=durable)
    issued = await first_after_birth(store)
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    own_server.restart()
    await reached(issued)
    if durable:
        assert await answer(store, 2, offset=2, at=issued) is FIRST
    else:
        assert await answer(store, 2, at=issued) is TOO_OLD
        with pytest.raises(ReaderForgottenError):
            await store.claim(make_claim(2, offset=2, at=issued))
    assert await _told(store, make_claim(1, offset=1, at=issued)) is (REDELIVERED if durable else None)
    assert await store.claim(make_claim(1, offset=3, at=issued)) is REPLAYED
    assert await store.claim(make_claim(3, offset=4, at=issued + LATER)) is FIRST


@pytest.mark.parametrize("accident", ["STREAM.PURGE", "STREAM.DELETE"])
async def test_what_was_put_before_the_loss_was_noticed_is_no_redelivery(
    nats_broker: Broker, bucket: str, opened: Opened, accident: str
) -> None:
    """Promise: a replay that was put, at its own place, by one who did not know of the loss is not believed later."""
    store, late = opened(), opened()
    await late.start()
    issued = await first_after_birth(store)
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    await reached(issued)
    before = await mark_of(nats_broker.address, bucket)
    async with admin(nats_broker.address) as client:
        await asked(client, f"{accident}.KV_{bucket}")
    if accident == "STREAM.DELETE":
        await opened().start()
        # Else what is put after the mark that was read in one could replace that of the other.
        assert (await mark_of(nats_broker.address, bucket)).sequence > before.sequence
    with pytest.raises((StoreError, TimeoutError)):
        await late.claim(make_claim(1, offset=9, at=issued))
    for each in (late, store, opened()):
        await answer(each, 90, at=issued)
        assert await _told(each, make_claim(1, offset=9, at=issued)) in {None, TOO_OLD, REPLAYED}
        await each.admit_reader("group", ReaderBirth(floor=time.time() + 60))
        assert await _told(each, make_claim(1, offset=9, at=issued)) in {TOO_OLD, REPLAYED}


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("part", ["the ids", "the oldest", "all but the mark", "the canary", "the canary by mistake"])
async def test_ids_that_are_purged_without_the_mark_are_a_birth(
    nats_broker: Broker, bucket: str, opened: Opened, part: str, *, running: bool
) -> None:
    """Promise (A39): ids purged by their subject, or with the oldest entries, do not come back as new."""
    store = opened()
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    # A mark that was put again is newer than the ids.
    issued = await first_after_birth(store)
    claims = [make_claim(number, at=issued) for number in range(3)]
    assert [await store.claim(claim) for claim in claims] == [FIRST] * 3
    await store.admit_reader("group", ReaderBirth(floor=-inf), replace=True)
    assert await _told(store, claims[0]) in {REPLAYED, None}
    if not running:
        await store.close()
    await reached(issued)
    ids = f"$KV.{bucket}.id"
    async with admin(nats_broker.address) as client:
        told = await asked(client, f"STREAM.INFO.KV_{bucket}")
        if part == "the oldest":
            await asked(client, f"STREAM.PURGE.KV_{bucket}", {"seq": told["state"]["last_seq"] - 1})
        elif part == "all but the mark":
            for subject in (f"{ids}.>", f"$KV.{bucket}.reader.>"):
                await asked(client, f"STREAM.PURGE.KV_{bucket}", {"filter": subject})
        elif part == "the canary by mistake":
            await (await client.jetstream().key_value(bucket)).delete("id.canary")
        else:
            await asked(
                client, f"STREAM.PURGE.KV_{bucket}", {"filter": f"{ids}.{'>' if part == 'the ids' else 'canary'}"}
            )
    for each in (store, opened()):
        with suppress(StoreError):  # it says once that something happened
            assert await each.claim(claims[0]) in {TOO_OLD, REPLAYED}
        assert {await each.claim(claim) for claim in claims} <= {TOO_OLD, REPLAYED}
        assert await each.birth("group") is None
    late = make_claim(9, at=claims[0].issued_at + 60)
    assert [await store.claim(late), await store.claim(late)] == [FIRST, REPLAYED]


async def test_processes_that_start_together_share_one_birth(opened: Opened) -> None:
    """Promise: a reader that the first of them admits is not forgotten because of the others."""
    stores = [opened() for _ in range(8)]

    async def admitted(number: int) -> None:
        await stores[number].admit_reader(f"group {number}", ReaderBirth(floor=-inf))

    await asyncio.gather(*map(admitted, range(8)))
    for number in range(8):
        assert await stores[0].birth(f"group {number}") is not None


async def test_a_far_server_costs_two_round_trips_a_claim(
    nats_broker: Broker, bucket: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a claim takes two, its sender's first three; also one whose answer was lost, and one that is refused."""
    under_way, taken, tidied = 0, 0, asyncio.Event()

    def far(real: Callable[..., Any]) -> Callable[..., Any]:
        async def going(*args: Any) -> Any:
            nonlocal under_way, taken
            taken += not under_way  # what goes out together is one trip
            under_way += 1
            await asyncio.sleep(0.01)
            try:
                return await real(*args)
            finally:
                under_way -= 1

        return going

    oldest = Bucket.oldest

    async def last_trip(bucket: Bucket, pattern: str) -> tuple[str, int] | None:
        found = await oldest(bucket, pattern)
        tidied.set()
        return found

    store = opened()
    await store.admit_reader("group", ReaderBirth(floor=float(born := later())))
    monkeypatch.setattr(Bucket, "oldest", last_trip)
    assert await store.claim(replace(make_claim(0, at=born + 9), principal="agent://test/other")) is FIRST
    await asyncio.wait_for(tidied.wait(), 20)  # and not again for a minute
    for name in ("settings", "get", "count", "put"):
        monkeypatch.setattr(Bucket, name, far(getattr(Bucket, name)))
    lost, copy = (replace(make_claim(1, at=born + 9), arrival=arrival) for arrival in (b"one", b"two"))
    trips = []
    for claim, expected in (
        (lost, FIRST),
        (make_claim(2, offset=2, at=born + 9), FIRST),
        (lost, REDELIVERED),
        (copy, REPLAYED),
        (make_claim(3, at=born - 9), TOO_OLD),
    ):
        taken = 0
        assert await store.claim(claim) is expected
        trips.append(taken)
        # Ids that left change the mark, and no word of the operator's: nothing is read again for it.
        mark = await mark_of(nats_broker.address, bucket)
        async with looked_into(nats_broker.address, bucket) as found:
            assert await found.put([Put("mark", mark.encoded(), after=mark.sequence)]) == [True]
    assert trips == [3, 2, 2, 2, 2]


async def test_a_server_that_is_not_there_is_told(opened: Opened) -> None:
    """Promise: the error names the URL, without what is secret in it, and claims fail together."""
    store = opened("nats://user:hunter2@127.0.0.1:1")
    told = r"^url nats://127\.0\.0\.1:1: no connection \(NoServersError\); start the server, or correct url$"
    for _ in range(2):
        with pytest.raises(StoreError, match=told):
            await store.claim(make_claim(1, at=later()))


async def test_a_login_that_is_refused_is_a_mistake(tmp_path: Path, opened: Opened) -> None:
    """Promise: a wrong password does not pass like an outage; the error says what to correct, and shows no password."""
    broker = ways.wheel(tmp_path, "--user", "ids", "--pass", "secret")
    try:
        for login in ("", "ids:hunter2@"):
            store = opened(broker.address.replace("//", f"//{login}"))
            with pytest.raises(ConfigurationError, match=r"the server refuses the login; correct user") as caught:
                await store.start()
            assert str(caught.value).startswith(f"url {broker.address}: ")
    finally:
        broker.stop()


async def test_credentials_that_cannot_be_used_are_a_mistake(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: the error names the credentials file that is missing, or the missing package that reads it."""
    path = tmp_path / "ids.creds"
    with pytest.raises(
        ConfigurationError, match=rf"^credentials {path}: no such file; write the path of a \.creds file$"
    ):
        await opened(connect={"user_credentials": str(path)}).start()
    path.write_text("")
    monkeypatch.setitem(sys.modules, "nkeys", None)
    with pytest.raises(ConfigurationError, match=r"nkeys.*; pip install 'watchword\[nkeys\]'$"):
        await opened(connect={"user_credentials": str(path)}).start()


async def test_an_operator_can_ask_for_a_birth(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: after a backup was put back, taking the mark away makes all of it too old."""
    store = opened()
    issued = await first_after_birth(store)
    assert await store.claim(make_claim(1, offset=1, at=issued)) is FIRST
    await reached(issued)
    async with admin(nats_broker.address) as client:
        await (await client.jetstream().key_value(bucket)).delete("mark")
    assert await answer(store, 2, at=issued) in {TOO_OLD, REPLAYED}
    assert await _told(store, make_claim(2, offset=9, at=issued)) in {REPLAYED, None}  # put before the loss was noticed
    assert await store.claim(make_claim(4, at=issued)) is TOO_OLD
    assert await store.claim(make_claim(3, at=issued + LATER)) is FIRST


async def _told(store: NatsKvReplayStore, claim: Claim) -> Admission | None:
    """Return the answer; None where the store forgot the reader."""
    try:
        return await store.claim(claim)
    except ReaderForgottenError:
        return None


async def test_a47_a_clock_that_jumps_ahead_and_comes_back_takes_nothing(
    nats_broker: Broker, bucket: str, opened: Opened
) -> None:
    """A server's clock that jumps ahead makes what has a time to live expire, and nothing else; so nothing has one."""
    store = opened()
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=later())
    assert await store.claim(claim) is FIRST
    async with admin(nats_broker.address) as client:
        stream = client.jetstream()
        told = await stream.stream_info(f"KV_{bucket}")
        assert not told.config.max_age
        sequence = told.state.first_seq
        while sequence <= told.state.last_seq:
            message = await stream.get_msg(f"KV_{bucket}", seq=sequence, subject=f"$KV.{bucket}.>", next=True)
            sequence = (message.seq or 0) + 1
            if "Nats-TTL" in (message.headers or {}):
                await asked(client, f"STREAM.PURGE.KV_{bucket}", {"filter": message.subject})  # what the jump does
    assert await store.claim(claim) is REDELIVERED
    assert await store.claim(replace(claim, place=None)) is REPLAYED


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let parts hold a second each, and look often; give the seconds for which an id is kept."""
    monkeypatch.setattr("watchword_adapters.stores.nats_kv.PARTS", 10_000)
    monkeypatch.setattr("watchword_adapters.stores.nats_kv.TIDY", 0.05)
    monkeypatch.setattr("watchword_adapters.stores.nats_kv.LEAVING_AT_ONCE", 2)
    return POLICY.longest + LATE


def aged(number: int, at: int) -> Claim:
    """Return a claim that asks for the time that the policy gives, and for no more."""
    return replace(make_claim(number, offset=number, at=at, appended=time.time()), keep_until=at + POLICY.longest)


async def held(client: Client, bucket: str) -> int:
    """Return how many ids are there."""
    told = await asked(client, f"STREAM.INFO.KV_{bucket}", {"subjects_filter": f"$KV.{bucket}.id.*.*.*"})
    return len(told["state"].get("subjects") or {})


@pytest.mark.parametrize("full", [False, True])
async def test_ids_leave_with_a_trace_when_their_time_is_over(
    nats_broker: Broker, bucket: str, opened: Opened, narrow: float, monkeypatch: pytest.MonkeyPatch, *, full: bool
) -> None:
    """Promise: nothing grows forever, a few ids at a time, and what has left is too old; a full bucket gets room."""
    behind = [3600.0]  # so that nothing leaves by both clocks before all is put
    store = opened(clock=lambda: time.time() - behind[0])
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = math.floor(time.time() - narrow) - 1
    async with admin(nats_broker.address) as client:
        if full:
            told = await asked(client, f"STREAM.INFO.KV_{bucket}")
            limits = {"max_bytes": told["state"]["bytes"] + 600}
            assert "error" not in await asked(client, f"STREAM.UPDATE.KV_{bucket}", told["config"] | limits)
        put = 0
        while put < 7:
            try:
                assert await store.claim(aged(put, issued)) is FIRST
            except StoreError as error:
                assert "maximum bytes" in str(error)  # noqa: PT017 - it may be full after any of them
                break
            put += 1
        assert (put < 7) == full
        assert put
        first = await client.jetstream().get_msg(f"KV_{bucket}", subject=f"$KV.{bucket}.id.*.*.*", seq=1, next=True)
        behind[0] = 0.0
        async with asyncio.timeout(PATIENCE):
            while await held(client, bucket):
                with suppress(StoreError):
                    await store.claim(aged(0, issued))
    assert time.time() > issued + narrow
    for claim in (aged(1, issued), replace(aged(1, issued), place=None), aged(3, issued - 100)):
        assert await store.claim(claim) is TOO_OLD
    assert await opened().claim(aged(1, issued)) is TOO_OLD

    async def nothing(*_: object) -> None:
        """Leave it there."""

    monkeypatch.setattr(Bucket, "purge", nothing)
    async with admin(nats_broker.address) as client:  # as one puts it that died before it saw that the floor had risen
        await client.jetstream().publish(first.subject or "", first.data or b"")
        assert await store.claim(aged(0, issued)) is TOO_OLD
        assert await held(client, bucket) == 1
    assert await store.claim(aged(8, issued + 60)) is FIRST


@pytest.mark.parametrize("ahead", [3600, -3600])
async def test_ids_stay_until_both_clocks_say_so(
    opened: Opened, narrow: float, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: one clock that is ahead forgets nothing; and an id outlives what its claim asks for (late judges)."""
    store = opened(clock=lambda: time.time() + ahead)
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = replace(aged(1, int(time.time() - narrow) + 10), reference=time.time() + ahead)
    assert claim.keep_until < time.time() - LATE / 2
    looks, oldest = 0, Bucket.oldest

    async def counted(bucket: Bucket, pattern: str) -> tuple[str, int] | None:
        nonlocal looks
        found = await oldest(bucket, pattern)
        looks += 1
        return found

    monkeypatch.setattr(Bucket, "oldest", counted)
    assert await store.claim(claim) is FIRST
    async with asyncio.timeout(PATIENCE):
        while looks < 4:
            assert await store.claim(claim) is REDELIVERED


async def test_an_id_that_leaves_meanwhile_is_not_new(
    nats_broker: Broker, bucket: str, opened: Opened, narrow: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: between a claim's two looks at the mark another process may purge its id; then it is too old."""
    store, other = opened(timeout=20.0, clock=lambda: time.time() - 3600), opened()
    await asyncio.gather(store.admit_reader("group", ReaderBirth(floor=-inf)), other.start())
    claim = aged(1, math.floor(time.time() - narrow) - 1)
    assert await store.claim(claim) is FIRST
    real, left = Bucket.put, False

    async def put(found: Bucket, puts: Sequence[Put]) -> list[bool]:
        nonlocal left
        if not left and all(one.key.startswith("id.") for one in puts):
            left = True
            async with asyncio.timeout(PATIENCE), admin(nats_broker.address) as client:
                while await held(client, bucket):
                    with suppress(StoreError):
                        await other.claim(claim)
        return await real(found, puts)

    monkeypatch.setattr(Bucket, "put", put)
    assert await store.claim(replace(claim, place=(Position("tasks/0", 9), 1.0))) is TOO_OLD
    monkeypatch.undo()
    assert await store.claim(replace(claim, place=(Position("tasks/0", 9), 1.0))) is TOO_OLD


async def test_who_asks_for_a_longer_time_is_given_it(
    nats_broker: Broker, bucket: str, opened: Opened, narrow: float
) -> None:
    """Promise: readers of other settings share the bucket, and the longest time counts for all."""
    long, short = opened(policy=replace(POLICY, max_lag=1200)), opened()
    for store in (long, short):
        await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = int(time.time() - narrow - 300)
    claim = aged(1, issued)
    assert await short.claim(claim) is FIRST
    assert await long.claim(claim) is REDELIVERED
    assert await short.claim(replace(aged(2, issued), keep_until=issued + 5000)) is FIRST
    assert (await mark_of(nats_broker.address, bucket)).lifetime == 5000 + LATE


async def test_a_user_that_may_not_purge_is_told_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: ids that cannot leave cost nothing but room, and the operator learns which right is missing."""
    told: list[tuple[str, dict[str, Any]]] = []
    store = opened(warn=lambda event, **fields: told.append((event, fields)))
    await store.admit_reader("group", ReaderBirth(floor=-inf))

    refused, number = 0, 0

    async def refuse(*_args: object) -> None:
        nonlocal refused
        refused += 1
        raise TimeoutError

    monkeypatch.setattr("watchword_adapters.stores.nats_kv.TIDY", 0.0)
    monkeypatch.setattr(Bucket, "oldest", refuse)
    while refused < 3:
        number += 1
        assert await store.claim(make_claim(number, at=later())) is FIRST
    ((event, fields),) = told
    assert event == "replay.store_not_tidied"
    assert "$JS.API.STREAM.PURGE.KV_" in fields["remedy"]


async def test_the_birth_itself_is_too_old(opened: Opened) -> None:
    """Promise: what was issued up to the skew after the birth may have been claimed before it."""
    born = later()
    store = opened(clock=lambda: float(born))
    assert await store.claim(make_claim(1, at=born + POLICY.max_skew)) is TOO_OLD
    assert await store.claim(make_claim(1, at=born + POLICY.max_skew + 1)) is FIRST


async def test_what_is_known_under_another_birth_is_void(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: a reader, or an id, that one process puts while the bucket gets a new birth counts for nothing."""
    store = opened()
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=int(time.time()) - 5)
    assert await store.claim(claim) is FIRST
    async with admin(nats_broker.address) as client:
        await client.publish(f"$KV.{bucket}.mark", b"gone")
        await client.flush()
    for each in (opened(), opened()):
        assert await each.birth("group") is None
        assert await _told(each, claim) is None  # its id is there, at this very place
        assert await each.claim(replace(claim, place=(Position("tasks/0", 9), 1.0))) is REPLAYED
    with pytest.raises(StoreError, match="emptied or recreated"):
        await store.claim(claim)  # to this one, which knows of no loss yet, it looks like a redelivery
    assert await _told(store, claim) is None


async def test_a_reader_that_changes_under_a_claim_is_judged_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: what a claim was judged by still holds when it is answered."""
    store, other = opened(), opened()
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    issued = int(time.time()) - 5
    assert await store.claim(make_claim(0, offset=1, at=issued)) is FIRST
    real = Bucket.put
    for word, first, expected in ((issued + 1.0, 1, TOO_OLD), (-inf, 3, None)):

        async def put(bucket: Bucket, puts: Sequence[Put], word: float = word) -> list[bool]:
            if all(one.key.startswith("id.") for one in puts):
                await other.admit_reader("group", ReaderBirth(floor=word), replace=True)
            return await real(bucket, puts)

        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "put", put)
            claims = [make_claim(number, offset=number + 1, at=issued) for number in (0, first, first + 1)]
            known, *others = await asyncio.gather(*map(store.claim, claims), return_exceptions=True)
        assert known is REDELIVERED
        for told in others:
            assert told is expected or (expected is None and isinstance(told, StoreError))
        if expected is TOO_OLD:  # and so it is nowhere taken for known
            assert [await store.claim(claim) for claim in claims[1:]] == [REPLAYED] * 2
        else:
            assert [await store.claim(claim) for claim in claims[1:]] == [FIRST] * 2


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"nonce": 1}', None])
async def test_a_reader_that_cannot_be_read_is_not_known(
    nats_broker: Broker, bucket: str, opened: Opened, value: bytes | None
) -> None:
    """Promise: whatever someone wrote in its place, nothing is taken from it, and it can be admitted again."""
    store = opened()
    await store.start()
    nonce = (await mark_of(nats_broker.address, bucket)).nonce.hex()
    broken = json.dumps({"nonce": nonce, "floor": "soon", "accepted": []}).encode() if value is None else value
    async with admin(nats_broker.address) as client:
        await client.publish(f"$KV.{bucket}.{reader_key('/group')}", broken)
        await client.flush()
    assert await store.birth("group") is None
    assert await store.admit_reader("group", ReaderBirth(floor=3.0)) == ReaderBirth(floor=3.0)
    assert await opened().birth("group") == ReaderBirth(floor=3.0)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"storage": "memory"}, "kept in memory"),
        ({"persist_mode": "async"}, "acknowledges what it has not written"),
        ({"retention": "workqueue"}, "deletes entries that were read"),
        ({"max_bytes": 1_000_000, "discard": "old"}, "drops the oldest ids"),
        ({"max_msgs": 1000, "discard": "old"}, "drops the oldest ids"),
        ({"max_age": int(3600e9)}, "drops ids after 3600 s, by a clock that may jump: a TTL of none"),
        ({"deny_purge": True}, "never purge old ids"),
        ({"allow_direct": False}, "cannot count"),
        ({"subjects": ["$KV.ids.>", "other"]}, "does not hold its own keys alone"),
        ({"mirror": {"name": "KV_other"}}, "copy of another"),
        ({"sealed": True}, "takes nothing"),
    ],
)
def test_a_bucket_that_forgets_is_refused(setting: dict[str, Any], complaint: str) -> None:
    """Promise: each setting of a bucket that does not suit a replay store raises an error that says why."""
    good = {
        "storage": "file", "retention": "limits", "max_msgs": -1, "max_bytes": -1,
        "discard": "new", "max_age": 0, "allow_direct": True, "subjects": ["$KV.ids.>"],
    }  # fmt: skip
    check({"config": good}, "ids")
    with pytest.raises(ConfigurationError, match=complaint):
        check({"config": good | setting}, "ids")


async def test_a_bucket_of_another_make_is_refused(nats_broker: Broker, bucket: str, opened: Opened) -> None:
    """Promise: a bucket that is there is taken only if it is fit, and the error says what to set."""
    async with admin(nats_broker.address) as client:
        await client.jetstream().create_key_value(bucket=bucket)
    with pytest.raises(
        ConfigurationError, match="cannot count its keys: allow_direct; set that, or write the name of a new bucket"
    ):
        await opened().start()


async def test_a_bucket_that_cannot_be_made_is_told(opened: Opened) -> None:
    """Promise: to ask a lone server for three replicas raises an error that says that the bucket cannot be created."""
    with pytest.raises(ConfigurationError, match="cannot be created"):
        await opened(replicas=3).start()


def test_a_name_that_is_none_is_told() -> None:
    """Promise: a bucket's name cannot reach other subjects."""
    with pytest.raises(ConfigurationError, match="use letters"):
        NatsKvReplayStore("nats://host", policy=POLICY, clock=time.time, bucket="a.>")


@pytest.mark.parametrize("replicas", [1, 3])
async def test_one_replica_in_a_cluster_needs_a_word(
    nats_broker: Broker, bucket: str, opened: Opened, monkeypatch: pytest.MonkeyPatch, replicas: int
) -> None:
    """Promise: where it cannot be seen which server's restart would matter, the operator must say that none does."""
    async with looked_into(nats_broker.address, bucket) as found:
        told = await found.create(1)

    async def clustered(_: Bucket) -> dict[str, Any]:
        return told | {"config": told["config"] | {"num_replicas": replicas}, "cluster": {"name": "c", "leader": "n1"}}

    monkeypatch.setattr(Bucket, "settings", clustered)
    if replicas == 1:
        with pytest.raises(ConfigurationError, match="replicas = 3, or durable = true"):
            await opened().start()
    else:
        await opened().start()
        assert not (await mark_of(nats_broker.address, bucket)).server, "no restart of one server is a birth"


@pytest.mark.parametrize("about", ["$KV.", "$JS."])
@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b"{}", b'{"seq": "1"}', b'{"error": 1}', b'{"error": {"err_code": 10077}}']
)
async def test_garbage_is_no_admission(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, about: str, garbage: bytes
) -> None:
    """Promise: an acknowledgement or answer that is not understood is an error."""
    store = opened(timeout=1.0)
    await store.start()
    real = Client.publish

    async def lie(client: Client, subject: str, payload: bytes, reply: str = "", headers: Any = None) -> None:
        if subject.startswith(about):
            await real(client, reply, garbage)
        else:
            await real(client, subject, payload, reply, headers)

    monkeypatch.setattr(Client, "publish", lie)
    with pytest.raises(StoreError):
        await store.claim(make_claim(1, at=later()))


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"birth": 1, "server": "", "nonce": "00"}', b"\xff"])
async def test_a_mark_that_cannot_be_read_is_none(
    nats_broker: Broker, bucket: str, opened: Opened, value: bytes
) -> None:
    """Promise: whatever someone wrote in its place, the store gets a new birth."""
    await opened().start()
    async with admin(nats_broker.address) as client:
        await client.publish(f"$KV.{bucket}.mark", value)
        await client.flush()
    store = opened()
    assert await store.claim(make_claim(1, at=int(time.time()) - 5)) is TOO_OLD
    assert await store.claim(make_claim(1, at=later())) is FIRST


async def test_what_is_under_way_counts_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (A20): a count that misses what was just put lets nobody pass the bound; it is counted soon again."""
    monkeypatch.setattr("watchword_adapters.stores.nats_rooms.QUIET", -1.0)
    held = 90

    async def count(_owner: bytes) -> int:
        return held

    rooms = Rooms(100, count)
    await rooms.prepare([b"a"])
    assert [rooms.take(b"a") for _ in range(11)] == [True] * 10 + [False]

    await rooms.prepare([b"a"])
    assert not rooms.take(b"a")
    for _ in range(10):
        rooms.arrived(b"a")
    held = 95
    await rooms.prepare([b"a"])
    assert [rooms.take(b"a") for _ in range(6)] == [True] * 5 + [False]
