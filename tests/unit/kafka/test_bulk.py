"""Judging many records at once, and ahead of a caller who takes one at a time: nothing is lost, or told twice."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from tests.integration.kafka.world import Kept
from tests.unit.core.world import CountingStore
from tests.unit.kafka.fakes import OTHER, P0, P1, REALM, FakeConsumer, Keys, intake, record, signer, watchword
from watchword import (
    Admission,
    Channel,
    Claim,
    MemoryKeys,
    MemoryReplayStore,
    Message,
    Mode,
    ReplayStore,
    Unavailable,
    VerificationKey,
    Verifier,
    Watchword,
)
from watchword_adapters.kafka import DeserializationError, progress
from watchword_adapters.kafka.intake import Intake
from watchword_adapters.kafka.progress import BRISK, FARTHEST, Partition


async def tree(tp: TopicPartition, values: Sequence[bytes], first: int = 0) -> list[ConsumerRecord[Any, Any]]:
    """Return records that share a signature, at the offsets from ``first`` on."""
    channel = Channel("kafka", REALM, tp.topic)
    signed = await signer().sign_many([Message(channel=channel, value=v, partition=tp.partition) for v in values])
    stamp, headers = int(time.time() * 1000), [((one.header[0], one.header[1] or b""),) for one in signed]
    return [
        ConsumerRecord(tp.topic, tp.partition, first + n, stamp, 1, None, v, None, -1, len(v), headers[n])
        for n, v in enumerate(values)
    ]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every caller count as one that takes records quickly, however slow this machine is."""
    monkeypatch.setattr(progress, "BRISK", math.inf)


def numbers(count: int) -> list[bytes]:
    """Return so many values."""
    return [b"%d" % n for n in range(count)]


async def one(what: Intake) -> Any:
    """Return the next record, as getone does."""
    found = what.at_hand(())
    if found is not None:
        return found
    async with asyncio.timeout(20):
        ((found,),) = (await what.next((), deadline=None, most=1, one=True)).values()
    return found


async def many(what: Intake, most: int | None = None) -> list[Any]:
    """Return what can be had of P0, as getmany does."""
    deadline = asyncio.get_running_loop().time() + 5
    return (await what.next((), deadline=deadline, most=most, one=False)).get(P0, [])


def alone(keys: Keys | None = None) -> Watchword:
    """Return an agent whose logs are its memory."""
    return watchword(keys or Keys(), shared=False)


async def test_a_tree_is_judged_at_once_and_handed_out_in_order() -> None:
    """Records that share a signature are judged together; all the same each comes with its own verdict, in order."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, alone(keys))
    consumer.logs[P0] = await tree(P0, numbers(100))
    found = await many(what)
    assert [r.value for r in found] == numbers(100)
    assert keys.asked == 1
    assert len({r.verified.id for r in found}) == 100


async def test_no_more_is_judged_than_was_asked_for() -> None:
    """getmany(max_records) has no more judged than it gives back, over all partitions: what lies behind can wait."""
    consumer, agent = FakeConsumer(P0, P1), watchword(Keys())
    what = intake(consumer, agent)
    consumer.logs = {P0: await tree(P0, numbers(20)), P1: await tree(P1, numbers(20))}
    for calls in range(1, 4):
        await what.next((), deadline=asyncio.get_running_loop().time(), most=5, one=False)
        assert agent.audit.counts == {"delivered": 5 * calls}


async def test_behind_the_first_that_cannot_be_judged_nothing_is() -> None:
    """What is before it is handed over; it and what is behind are left, and tried one at a time until one succeeds."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(6))
    consumer.logs[P0][2] = await record(P0, 2, b"other", principal=OTHER)
    find, down = keys.find, True

    async def other_is_down(principal: str, key_id: bytes) -> Any:
        if principal == OTHER and down:
            raise ConnectionError
        return await find(principal, key_id)

    keys.find = other_is_down  # type: ignore[method-assign]
    assert [r.value for r in await many(what)] == [b"0", b"1"]
    assert (what.judged(), len(what.partitions()[P0].pending)) == ({P0: 2}, 4)
    with pytest.raises(Unavailable):
        await what.next((), deadline=asyncio.get_running_loop().time() + 5, most=None, one=False)
    assert agent.audit.counts == {"delivered": 2, "unavailable": 2}
    assert what.partitions()[P0].doubtful
    down = False
    what.partitions()[P0].retry_at = 0.0
    assert [r.value for r in await many(what)] == [b"other", *numbers(6)[3:]]
    assert agent.audit.counts == {"delivered": 6, "unavailable": 2}
    assert not what.partitions()[P0].doubtful


async def test_a_cancelled_caller_loses_no_verdict() -> None:
    """Who goes on after one that was cancelled while a copy was kept gets the same verdicts; none is asked twice."""
    consumer, agent = FakeConsumer(P0), alone()
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Kept):
        async def put(self, message: Message, verdict: Any) -> bool:
            begun.set()
            await go_on.wait()
            return await super().put(message, verdict)

    kept = Slow()
    what = intake(consumer, agent, quarantine=kept)
    records = await tree(P0, numbers(4))
    consumer.logs[P0] = [*records[:2], replace(records[0], offset=2), replace(records[2], offset=3)]
    call = asyncio.create_task(many(what))
    await begun.wait()
    call.cancel()
    await asyncio.wait((call,))
    assert what.judged() == {P0: 0}
    go_on.set()
    found = [*await many(what), *await many(what)]
    assert [(r.value, r.verified.redelivered) for r in found] == [(b"0", False), (b"1", False), (b"2", False)]
    assert kept.copies == [(b"0", "replayed")]
    assert agent.audit.counts == {"delivered": 3, "replayed": 1}


async def test_only_who_takes_records_quickly_gets_them_judged_ahead() -> None:
    """A caller who takes its time gets each verdict fresh; one that hurries gets up to FARTHEST at once."""
    partition, now, got = Partition(), 0.0, []
    for _ in range(10):
        now += BRISK / 2
        got.append(partition.look_ahead(now))
        partition.ready_at = now
    assert got == [1, 2, 4, 8, 16, 32, 64, 128, 128, 128]
    assert max(got) == FARTHEST
    assert [partition.look_ahead(now + later) for later in range(1, 6)] == [32, 8, 2, 1, 1]


async def test_a_slow_key_source_does_not_make_its_caller_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: who takes records quickly has many judged at once, though each look-up takes longer than that."""
    keys, late = Keys(), [0.0]
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(keys, shared=False))
    consumer.logs[P0] = await tree(P0, numbers(200))
    loop, begun, find = asyncio.get_running_loop(), asyncio.get_running_loop().time(), keys.find

    async def slowly(principal: str, key_id: bytes) -> VerificationKey | None:
        late[0] += 2 * BRISK
        return await find(principal, key_id)

    monkeypatch.setattr(keys, "find", slowly)
    monkeypatch.setattr(loop, "time", lambda: begun + late[0])
    for offset in range(200):
        assert (await one(what)).offset == offset
    assert keys.asked <= 10


@pytest.mark.usefixtures("quick")
async def test_what_is_judged_ahead_is_not_handled() -> None:
    """Position, commits and auto-commit follow what was handed over, however far ahead records were judged."""
    consumer, agent = FakeConsumer(P0), alone()
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(40))
    for offset in range(20):
        assert (await one(what)).offset == offset
        assert what.judged() == {P0: offset + 1}
        assert what.to_commit() == {P0: offset}
    assert agent.audit.counts["delivered"] > 20


@pytest.mark.usefixtures("quick")
async def test_a_seek_over_what_was_judged_ahead_makes_no_replays() -> None:
    """Records judged and not handed over before a seek come later as what they are: new, and no replays."""
    consumer, agent = FakeConsumer(P0), alone()
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(40))
    for _ in range(20):
        await one(what)
    assert what.partitions()[P0].ready
    what.put_back([P0])
    consumer.seek(P0, 20)
    for offset in range(20, 40):
        found = await one(what)
        assert (found.offset, found.verified.redelivered) == (offset, False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("position", [20, 18])
async def test_a_rebalance_over_what_was_judged_ahead(position: int) -> None:
    """A partition that comes back to its position goes on with what was judged; at another one all is read again."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(60))
    for _ in range(20):
        await one(what)
    ready = len(what.partitions()[P0].ready)
    assert ready > 1
    consumer.assign(P0)
    consumer.seek(P0, position)
    assert what.at_hand(()) is None
    asked = keys.asked
    for offset in range(position, 40):
        found = await one(what)
        assert (found.offset, found.verified.redelivered) == (offset, False)
    if position == 20:
        assert keys.asked - asked <= 3
    assert "replayed" not in agent.audit.counts


@pytest.mark.usefixtures("quick")
async def test_what_is_at_hand_obeys_the_caller() -> None:
    """What was judged ahead is not given out for another partition, nor while paused or in a rebalance."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, alone())
    assert what.at_hand(()) is None
    consumer.logs[P0] = await tree(P0, numbers(4))
    await one(what)
    await one(what)
    assert what.partitions()[P0].ready
    assert what.at_hand((P1,)) is None
    consumer.state(P0).paused = True
    assert what.at_hand(()) is None
    consumer.state(P0).paused = False
    consumer._subscription.reassignment_in_progress = True
    assert what.at_hand(()) is None
    consumer._subscription.reassignment_in_progress = False
    found = what.at_hand((P0,))
    assert found is not None
    assert found.value == b"2"


@pytest.mark.usefixtures("quick")
async def test_a_deserializer_that_fails_on_what_is_at_hand() -> None:
    """The error comes at the record's turn, once, and the next record after it."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, alone(), value_deserializer=int)
    consumer.logs[P0] = await tree(P0, [b"0", b"1", b"x", b"3"])
    assert [(await one(what)).value for _ in range(2)] == [0, 1]
    assert what.partitions()[P0].ready
    with pytest.raises(DeserializationError):
        await one(what)
    assert (await one(what)).value == 3


async def test_in_observe_mode_everything_comes_with_its_verdict() -> None:
    """Nothing is dropped or held: what cannot be judged is delivered as that, and the rest as what it is."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = watchword(keys, Mode.OBSERVE)
    what = intake(consumer, agent)
    consumer.logs[P0] = await tree(P0, numbers(6))
    consumer.logs[P0][1] = await record(P0, 1, b"unsigned", signed=False)
    keys.failures = 2
    found = await many(what)
    assert [type(r.verdict).__name__ for r in found] == ["Unavailable", "Rejected", "Unavailable"] + [
        "VerifiedMessage"
    ] * 3
    assert keys.asked == 4  # one by one, until one succeeded


async def test_the_window_is_recalled_in_bulk() -> None:
    """What passed before a restart is remembered many at once; what could not be is held up, and nothing forgotten."""
    consumer, keys = FakeConsumer(P0), Keys()
    agent = alone(keys)
    what = intake(consumer, agent)
    records = await tree(P0, numbers(10))
    records[4] = await record(P0, 4, b"other", principal=OTHER)
    consumer.logs[P0] = [*records, replace(records[4], offset=10), *(await tree(P0, [b"new"], 11))]
    consumer.seek(P0, 10)
    find, failures = keys.find, 1

    async def other_fails_once(principal: str, key_id: bytes) -> Any:
        nonlocal failures
        if principal == OTHER and failures:
            failures -= 1
            raise ConnectionError
        return await find(principal, key_id)

    keys.find = other_fails_once  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="what passed before"):
        await many(what)
    assert what.partitions()[P0].recalled == 4
    assert [r.value for r in await many(what)] == [b"new"]
    assert agent.audit.counts == {"replayed": 1, "delivered": 1}


async def test_many_signatures_are_checked_off_the_loop() -> None:
    """A chunk of messages that were each signed alone leaves the event loop to others while they are checked."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, alone())
    consumer.logs[P0] = [await record(P0, n, b"%d" % n) for n in range(10)]
    calls: list[int] = []
    threads = what._judge._check

    async def counted(jobs: Any) -> Any:
        calls.append(len(jobs))
        return await threads(jobs)

    what._judge._check = counted  # type: ignore[assignment]  # a tap
    assert [r.value for r in await many(what)] == numbers(10)
    assert calls == [10]


async def test_a_shared_store_is_asked_for_many_at_once() -> None:
    """A store that can answers for a whole chunk in one round trip; where it fails part-way that is held from there."""
    asked: list[int] = []

    class Store:
        async def claim(self, claim: Claim) -> Admission:
            raise AssertionError(claim)

        async def claim_many(self, claims: Sequence[Claim]) -> list[Admission]:
            asked.append(len(claims))
            return [Admission.FIRST] * len(claims)

    store: ReplayStore = Store()
    base = watchword(Keys())
    verifier = Verifier(
        realm=REALM, keys=Keys(), replay=store, policy=base.verifier.policy, clock=time.time, shared_replay=True
    )
    consumer = FakeConsumer(P0)
    what = intake(consumer, Watchword(verifier=verifier))
    consumer.logs[P0] = await tree(P0, numbers(50))
    assert [r.value for r in await many(what)] == numbers(50)
    assert asked == [50]


@pytest.mark.usefixtures("quick")
async def test_nothing_is_judged_ahead_where_a_store_is_shared() -> None:
    """Another member that is given a message the store has seen would be told that it was delivered before."""
    base = watchword(Keys())
    store = CountingStore(MemoryReplayStore(horizon=None))
    verifier = Verifier(
        realm=REALM, keys=Keys(), replay=store, policy=base.verifier.policy, clock=time.time, shared_replay=True
    )
    consumer = FakeConsumer(P0)
    what = intake(consumer, Watchword(verifier=verifier))
    consumer.logs[P0] = await tree(P0, numbers(20))
    for offset in range(10):
        assert (await one(what)).offset == offset
        assert len(store.claims) == offset + 1


async def test_a_seek_while_a_copy_is_kept_wins() -> None:
    """Verdicts on what the caller has sought away from are dropped with the records."""
    consumer = FakeConsumer(P0)
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Kept):
        async def put(self, message: Message, verdict: Any) -> bool:
            begun.set()
            await go_on.wait()
            return await super().put(message, verdict)

    what = intake(consumer, watchword(Keys()), quarantine=Slow())
    consumer.logs[P0] = [await record(P0, 0, b"unsigned", signed=False), *(await tree(P0, numbers(3), 1))]
    call = asyncio.create_task(many(what))
    await begun.wait()
    what.put_back([P0])
    consumer.seek(P0, 3)
    go_on.set()
    assert [r.value for r in await call] == [b"2"]


async def test_an_unknown_key_is_no_end_of_an_outage() -> None:
    """While a source is down half of the time it may say that it knows no key: records still come one by one."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    consumer.logs[P0] = [await record(P0, 0, b"0"), await record(P0, 1, b"stranger", principal=OTHER)]
    keys._keys = MemoryKeys()
    keys.failures = 1
    with pytest.raises(Unavailable):
        await many(what)
    partition = what.partitions()[P0]
    partition.retry_at = 0.0
    deadline = asyncio.get_running_loop().time()
    assert await what.next((), deadline=deadline, most=None, one=False) == {}
    assert partition.doubtful
    assert not partition.failures
    assert what.judged() == {P0: 2}
