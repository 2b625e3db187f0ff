"""From the client's records to the caller: take, judge, hand over, for every partition on its own."""

import asyncio
import gc
import time
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    GroupAuthorizationFailedError,
    KafkaError,
    NoOffsetForPartitionError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import TopicPartition

from tests.support.kept import Kept
from tests.support.patience import PATIENCE
from tests.unit.kafka.batches import batch
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import OTHER, P0, P1, REALM, Keys, alone, numbers, raw, record, tree, watchword
from watchword import Alias, ConfigurationError, Mode, Rejected, Unavailable, Watchword
from watchword.partition import Wait
from watchword.spi import Admission, Claim, Message
from watchword.testing import SharedMemoryStore
from watchword_adapters.kafka import DeserializationError, ObservedRecord, VerifiedRecord, poison


class Slow(Kept):
    """A quarantine that takes a copy when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        self.begun.set()
        await self.gate.wait()
        return await super().put(message, verdict)


# Answers to fetches


@pytest.mark.usefixtures("python_engine")
async def test_a53_an_answer_is_looked_at_in_steps(read: Read) -> None:
    """While an answer with many batches is looked at, other tasks get their turns."""
    kafka = read(watchword(Keys()), P0)
    response = SimpleNamespace(topics=[(P0.topic, [(0, 0, 1 << 40, b"".join([batch(["a"])] * 3000))])])
    looking = asyncio.create_task(kafka.verified._fetched(response, time.time()))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 3000 * 512 // poison.PIECE


async def test_a_lack_of_memory_ends_one_fetch(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets an error after which it tries again, and operators are warned once."""
    agent = watchword(Keys())
    kafka = read(agent, P0)
    warned: list[str] = []
    monkeypatch.setattr(agent.audit, "warn", lambda event, **_: warned.append(event))

    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(poison, "_from_gzip", fail)
    for _ in range(2):
        response = SimpleNamespace(topics=[(P0.topic, [(0, 0, 1 << 40, batch(["a"], codec=1))])])
        with pytest.raises(KafkaError, match="memory"):
            await kafka.verified._fetched(response, time.time())
    assert warned == ["kafka.out_of_memory"]


async def test_an_error_of_the_client_s_decoder_skips_nothing(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client fails in the middle of what it has fetched, that is dropped, and fetched again."""
    kafka = read(watchword(Keys()), P0)
    await kafka.fill(b"a")
    assert (await kafka.one()).value == b"a"
    await kafka.fill(b"b")
    sought: list[int] = []
    seek = kafka.fetcher.seek_to

    def noted(tp: TopicPartition, offset: int) -> None:
        sought.append(offset)
        seek(tp, offset)

    monkeypatch.setattr(kafka.fetcher, "seek_to", noted)
    kafka.errors[P0] = [CorruptRecordException()]
    with pytest.raises(CorruptRecordException):
        await kafka.one()
    assert sought == [1]
    assert (await kafka.one()).value == b"b"


async def test_a53_records_with_many_headers_are_taken_few_at_a_time(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After records that bore many headers fewer are taken at once, until these bear few again."""
    kafka = read(watchword(Keys()), P0)
    kafka.logs[P0].records = [raw(P0, at, b"v", [("a", b"")] * 1000) for at in range(300)]
    await kafka.fill(b"end")
    counts: list[int] = []
    inside = kafka.consumer._inside
    take = inside._fetched_records

    async def counted(*args: Any) -> Any:
        found = await take(*args)
        counts.extend(len(records) for records in found.values())
        return found

    monkeypatch.setattr(inside, "_fetched_records", counted)
    assert await kafka.values(1) == [b"end"]
    assert max(counts[1:]) <= 8
    assert sum(counts) == 301


# Partitions


async def test_an_outage_on_one_partition_lets_the_others_flow(read: Read) -> None:
    """While one partition waits for its key, records of the others are delivered, and nothing more piles up on it."""
    keys = Keys()
    kafka = read(watchword(keys), P0, P1)
    await kafka.fill(b"a", b"b")
    keys.failures = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await kafka.one(P0)
    await kafka.fill(*numbers(20), tp=P1)
    assert [(await kafka.one(P1)).value for _ in range(20)] == numbers(20)
    assert kafka.verified.judged() == {P0: 0, P1: 20}
    assert kafka.state(P0).position == 1
    assert [(await kafka.one()).value for _ in range(2)] == [b"a", b"b"]


async def test_nothing_piles_up_in_an_outage(read: Read) -> None:
    """However often judging fails, no more is taken from the client than at the first try."""
    keys = Keys()
    kafka = read(watchword(keys), P0)
    await kafka.fill(*[b"v"] * 5)
    keys.failures = 3
    for _ in range(3):
        with pytest.raises(Unavailable):
            await kafka.many(most=2)
        assert kafka.fetcher.taken == 2
        kafka.late += 5
    assert await kafka.values(5) == [b"v"] * 5


async def test_no_partition_starves_under_getone(read: Read) -> None:
    """Partitions take turns."""
    for agent in (alone(), watchword(Keys())):
        kafka = read(agent, P0, P1)
        await kafka.fill(*[b"0"] * 10)
        await kafka.fill(*[b"1"] * 10, tp=P1)
        got = [(await kafka.one()).partition for _ in range(8)]
        assert min(got.count(0), got.count(1)) >= 2, got


async def test_max_records_is_kept_and_the_rest_comes_with_the_next_call(read: Read) -> None:
    """No call returns more than it was asked for, over all partitions; nor is more judged than that."""
    agent = watchword(Keys())
    kafka = read(agent, P0, P1)
    kafka.logs[P0].records, kafka.logs[P1].records = await tree(P0, numbers(6)), await tree(P1, numbers(6))
    got: list[bytes] = []
    for calls in range(1, 4):
        found = [value for values in (await kafka.many(most=4)).values() for value in values]
        assert len(found) <= 4
        got += found
        assert agent.audit.counts["delivered"] <= 4 * calls
    while len(got) < 12:
        got += [value for values in (await kafka.many(most=4)).values() for value in values]
    assert sorted(got) == sorted(numbers(6) * 2)


async def test_paused_partitions_give_nothing_and_lose_nothing(read: Read) -> None:
    """Records that were judged or taken before pause() come after resume()."""
    kafka = read(alone(), P0)
    await kafka.fill(b"a", b"b")
    await kafka.many(most=1)
    kafka.consumer.pause(P0)
    assert await kafka.many(seconds=0.01) == {}
    kafka.consumer.resume(P0)
    assert await kafka.many() == {P0: [b"b"]}


async def test_a_lost_partition_is_neither_judged_nor_committed(read: Read) -> None:
    """After a rebalance takes a partition away, its progress is gone; commits name assigned partitions only."""
    kafka = read(watchword(Keys()), P0, P1, enable_auto_commit=True)
    await kafka.fill(b"a", b"b")
    assert await kafka.many(most=1) == {P0: [b"a"]}
    kafka.assign(P1)
    await kafka.fill(b"c", tp=P1)
    assert await kafka.many() == {P1: [b"c"]}
    kafka.verified.all_handled()
    await kafka.verified.commit_handled()
    assert kafka.coordinator.commits == [{P1: (1, "")}]
    kafka.consumer.unsubscribe = lambda: None  # type: ignore[method-assign]
    kafka.consumer._subscription.unsubscribe()
    assert kafka.verified.judged() == {}
    kafka.consumer.subscribe([P0.topic])


async def test_nothing_is_handed_over_while_a_rebalance_goes_on(read: Read) -> None:
    """What can be read during a rebalance is not given out: the partition may be another's already."""
    kafka = read(alone(), P0)
    await kafka.fill(b"a", b"b")
    assert (await kafka.many(most=1)) == {P0: [b"a"]}
    kafka.consumer._subscription.begin_reassignment()
    assert await kafka.many(seconds=0.05) == {}
    kafka.assign(P0)
    kafka.place(P0, 1)
    assert await kafka.many() == {P0: [b"b"]}


@pytest.mark.parametrize("shared", [True, False])
async def test_a_rebalance_in_mid_verify_drops_the_verdict(read: Read, *, shared: bool) -> None:
    """A record whose partition was assigned again while it was judged is not delivered twice: it is read again."""
    keys = Keys()
    kafka = read(watchword(keys, shared=shared), P0)
    await kafka.fill(b"a")
    keys.gate.clear()
    call = asyncio.create_task(kafka.one())
    await keys.question.wait()
    kafka.assign(P0)
    assert kafka.verified.judged() == {}
    keys.gate.set()
    assert (await call).value == b"a"
    assert kafka.verified.judged() == {P0: 1}
    assert keys.asked == 2


@pytest.mark.parametrize("shared", [True, False])
async def test_a_seek_in_mid_verify_wins(read: Read, *, shared: bool) -> None:
    """After a seek while a record is judged, the next record is the one that was sought."""
    keys = Keys()
    kafka = read(watchword(keys, shared=shared), P0)
    await kafka.fill(b"a", b"b", b"c")
    keys.gate.clear()
    call = asyncio.create_task(kafka.one())
    await keys.question.wait()
    kafka.consumer.seek(P0, 2)
    keys.gate.set()
    assert (await call).value == b"c"


async def test_a_seek_to_an_end_of_the_log_goes_there(read: Read) -> None:
    """What was taken or judged before seek_to_beginning() and seek_to_end() is not handed over behind them."""
    kafka = read(alone(), P0)
    await kafka.fill(b"a", b"b", b"c")
    assert await kafka.many(most=1) == {P0: [b"a"]}
    assert await kafka.consumer.seek_to_beginning(P0)
    assert await kafka.many(most=2) == {P0: [b"a", b"b"]}
    assert await kafka.consumer.seek_to_end(P0)
    await kafka.fill(b"d")
    assert await kafka.many() == {P0: [b"d"]}


async def test_offsets_are_asked_of_the_client(read: Read) -> None:
    """What only tells where a log begins and ends is aiokafka's own, and moves nothing."""
    kafka = read(alone(), P0)
    await kafka.fill(b"a", b"b")
    stamp = kafka.logs[P0].records[1].timestamp
    assert await kafka.consumer.beginning_offsets([P0]) == {P0: 0}
    assert await kafka.consumer.end_offsets([P0]) == {P0: 2}
    found = (await kafka.consumer.offsets_for_times({P0: stamp}))[P0]
    assert found is not None
    assert found.timestamp == stamp
    assert await kafka.values(2) == [b"a", b"b"]


async def test_an_error_for_a_place_that_was_left_is_not_told(read: Read) -> None:
    """A caller who has sought elsewhere hears nothing of what went wrong before."""
    kafka = read(alone(), P0)
    await kafka.fill(b"a", b"b")
    asked, gate = asyncio.Event(), asyncio.Event()
    look_up = kafka.fetcher.beginning_offsets

    async def failing_once(*arguments: Any) -> Any:
        if not gate.is_set():
            asked.set()
            await gate.wait()
            raise TopicAuthorizationFailedError
        return await look_up(*arguments)

    kafka.fetcher.beginning_offsets = failing_once  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(kafka.one())
    await asked.wait()
    kafka.consumer.seek(P0, 1)
    gate.set()
    assert (await call).value == b"b"


async def test_errors_of_the_client_wait_for_their_turn(read: Read) -> None:
    """A client's error on one partition does not swallow the records of another, and is raised when it is alone."""
    kafka = read(watchword(Keys()), P0, P1)
    await kafka.fill(b"a", tp=P1)
    await kafka.fill(b"b")
    assert await kafka.many(P1) == {P1: [b"a"]}
    kafka.errors[P0] = [TopicAuthorizationFailedError("topic")]
    with pytest.raises(TopicAuthorizationFailedError):
        await kafka.many()
    assert await kafka.many() == {P0: [b"b"]}


async def test_errors_of_the_group_reach_callers_who_wait(read: Read) -> None:
    """What ends a membership is raised where someone waits; where nobody does, it is no error of anyone's."""
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    kafka = read(alone(), P0)
    subscription: Any = kafka.consumer._subscription
    call = asyncio.create_task(kafka.one())
    await asyncio.sleep(0.02)
    subscription.abort_waiters(GroupAuthorizationFailedError("group"))
    with pytest.raises(GroupAuthorizationFailedError):
        await call
    assert await kafka.many(seconds=0.02) == {}
    subscription.abort_waiters(GroupAuthorizationFailedError("group"))
    await asyncio.sleep(0)
    await kafka.fill(b"a")
    assert await kafka.many() == {P0: [b"a"]}
    subscription._assignment_waiters.clear()
    gc.collect()
    assert said == []


async def test_a_partition_without_a_position_says_why(read: Read) -> None:
    """Where a group has committed nothing and no policy says where to begin, callers get the client's own error."""
    kafka = read(alone(), P0)
    kafka.reset = "none"
    kafka.errors[P0] = [NoOffsetForPartitionError(P0)]
    with pytest.raises(NoOffsetForPartitionError):
        await kafka.one()


async def test_two_ends_of_an_alias_are_refused_each_time(read: Read) -> None:
    """A33, K14: one group without a shared store does not read both topics of an alias, however often it asks."""
    alias = Alias(channel=f"kafka://{REALM}/topic", signed_for=f"kafka://{REALM}/mirrored")
    kafka = read(alone(aliases=(alias,)), P0, P0._replace(topic="mirrored"))
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"in separate groups, or configure a \[replay\] store"):
            await kafka.one()
    await kafka.verified.commit_handled()
    shared = read(watchword(Keys(), aliases=(alias,)), P0, P0._replace(topic="mirrored"))
    one_end = read(alone(aliases=(alias,)), P0)
    for reads in (shared, one_end):
        await reads.fill(b"a")
        assert (await reads.one()).value == b"a"


# Verdicts


async def test_a_tree_is_judged_at_once_and_handed_out_in_order(read: Read) -> None:
    """Records that share a signature are judged together; all the same each comes with its own verdict, in order."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    kafka.logs[P0].records = await tree(P0, numbers(100))
    (found,) = (await kafka.consumer.getmany(timeout_ms=5_000)).values()
    assert [r.value for r in found] == numbers(100)
    assert keys.asked == 1
    assert len({r.verified.id for r in found}) == 100


async def test_a_bulk_fetch_that_fails_part_way_returns_what_is_verified(read: Read) -> None:
    """What was verified before an outage is returned; what lies behind is left, and tried one at a time."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    kafka.logs[P0].records = await tree(P0, numbers(6))
    kafka.logs[P0].records[2] = await record(P0, 2, b"other", principal=OTHER)
    keys.down_for = {OTHER}
    assert await kafka.many() == {P0: [b"0", b"1"]}
    assert kafka.verified.judged() == {P0: 2}
    with pytest.raises(Unavailable):
        await kafka.many()
    kafka.late += 5
    with pytest.raises(Unavailable):
        await kafka.many()
    assert agent.audit.counts == {"delivered": 2, "unavailable": 3}
    keys.down_for.clear()
    kafka.late += 5
    assert await kafka.values(4) == [b"other", *numbers(6)[3:]]
    assert agent.audit.counts == {"delivered": 6, "unavailable": 3}


async def test_an_unknown_key_is_no_end_of_an_outage(read: Read) -> None:
    """While a source is down half of the time it may say that it knows no key: records still come one by one."""
    keys = Keys()
    agent = watchword(keys)
    kafka = read(agent, P0)
    kafka.logs[P0].records = [await record(P0, n, b"%d" % n, principal=OTHER) for n in range(4)]
    keys.replace()
    keys.failures = 1
    with pytest.raises(Unavailable):
        await kafka.many()
    kafka.late += 5
    assert await kafka.many(seconds=0.5) == {}
    assert kafka.verified.judged() == {P0: 4}
    assert keys.asked == 5  # known together, one question would do
    assert agent.audit.counts == {"unavailable": 1, "unknown_key": 4}


async def test_many_signatures_are_checked_off_the_loop(read: Read) -> None:
    """A chunk of messages that were each signed alone leaves the event loop to others while they are checked."""
    kafka = read(alone(), P0)
    await kafka.fill(*numbers(10))
    calls: list[int] = []
    threads = kafka.verified._check

    async def counted(jobs: Any) -> Any:
        calls.append(len(jobs))
        return await threads(jobs)

    kafka.verified._check = counted
    assert await kafka.many() == {P0: numbers(10)}
    assert calls == [10]


async def test_a_shared_store_is_asked_for_many_at_once(read: Read) -> None:
    """A store that can answers for a whole chunk in one round trip."""
    asked: list[int] = []

    class Store(SharedMemoryStore):
        async def claim(self, claim: Claim) -> Admission:
            raise AssertionError(claim)

        async def claim_many(self, claims: Sequence[Claim]) -> list[Admission]:
            asked.append(len(claims))
            return [Admission.FIRST] * len(claims)

    store = Store(open_to_all=True)
    kafka = read(Watchword(realm=REALM, keys=Keys(), replay=store), P0)
    kafka.logs[P0].records = await tree(P0, numbers(50))
    assert await kafka.many() == {P0: numbers(50)}
    assert asked == [50]


async def test_in_observe_mode_everything_comes_with_its_verdict(read: Read) -> None:
    """Nothing is dropped or held: what cannot be judged is delivered as that, and the rest as what it is."""
    keys = Keys()
    kafka = read(watchword(keys, Mode.OBSERVE), P0)
    kafka.logs[P0].records = await tree(P0, numbers(6))
    kafka.logs[P0].records[1] = raw(P0, 1, b"unsigned")
    keys.failures = 2
    found: list[Any] = []
    while len(found) < 6:
        found += (await kafka.consumer.getmany(timeout_ms=5_000))[P0]
    kinds = [type(r.verdict).__name__ for r in found]
    assert kinds == ["Unavailable", "Rejected", "Unavailable"] + ["VerifiedMessage"] * 3
    assert keys.asked == 4  # one by one, until one succeeded


async def test_an_old_record_without_timestamp_is_unsigned_and_no_error(read: Read) -> None:
    """The oldest record format has no timestamp: such a record is judged like any other."""
    agent = watchword(Keys(), Mode.OBSERVE)
    kafka = read(agent, P0)
    old: Any = raw(P0, 0, b"old")
    old.timestamp = old.timestamp_type = None
    kafka.logs[P0].records = [old]
    assert (await kafka.one()).value == b"old"
    assert agent.audit.counts == {"unsigned": 1}


async def test_what_takes_no_time_is_done_at_once(read: Read) -> None:
    """To await an action that takes no time is a mistake in the driver, and raises TypeError."""
    kafka = read(alone(), P0)
    with pytest.raises(TypeError, match="Wait takes no time"):
        await kafka.verified._answer(P0, Wait())


async def test_a_flood_lets_other_tasks_run(read: Read) -> None:
    """While a thousand forged records are dropped, other tasks (heartbeats) get their turns."""
    agent = watchword(Keys())
    kafka = read(agent, P0)
    kafka.logs[P0].records = [raw(P0, n, b"forged") for n in range(1_000)]
    turns = 0

    async def heartbeat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(heartbeat())
    await kafka.fill(b"honest")
    turns = 0
    assert (await kafka.one()).value == b"honest"
    task.cancel()
    assert turns >= 1_000 // 128
    assert agent.audit.counts == {"unsigned": 1_000, "delivered": 1}


async def test_records_of_both_modes_hide_the_payload_in_their_repr(read: Read) -> None:
    """What is printed of a record names place and principal, never the payload (A31)."""
    for mode, kind in ((Mode.ENFORCE, VerifiedRecord), (Mode.OBSERVE, ObservedRecord)):
        kafka = read(watchword(Keys(), mode), P0)
        await kafka.fill(b"secret")
        found = await kafka.one()
        assert isinstance(found, kind)
        assert "secret" not in repr(found)
        assert "topic='topic', partition=0, offset=0" in repr(found)


# Callers


async def test_a_cancelled_caller_loses_no_verdict(read: Read) -> None:
    """Verdicts outlive a caller who gives up: the next caller gets them, and nothing is judged twice."""
    keys = Keys()
    agent = alone(keys)
    kafka = read(agent, P0)
    records = await tree(P0, numbers(4))
    kafka.logs[P0].records = [*records[:2], replace(records[0], offset=2), replace(records[2], offset=3)]
    keys.gate.clear()
    call = asyncio.create_task(kafka.many())
    await keys.question.wait()
    call.cancel()
    await asyncio.wait([call])
    assert kafka.verified.judged() == {P0: 0}
    keys.gate.set()
    (found,) = (await kafka.consumer.getmany(timeout_ms=5_000)).values()
    assert [(r.value, r.verified.redelivered) for r in found] == [
        (b"0", False), (b"1", False), (b"2", False)
    ]  # fmt: skip
    assert agent.audit.counts == {"delivered": 3, "replayed": 1}


async def test_a_record_is_given_in_the_round_in_which_it_is_judged(read: Read) -> None:
    """Where nothing has to be waited for, a caller has a record before the client does anything else."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    judge, judged, rounds = kafka.verified._verdicts, list[int](), 0

    async def noted(*arguments: Any) -> Any:
        judged.append(rounds)
        return await judge(*arguments)

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    kafka.verified._verdicts = noted
    counting = asyncio.create_task(count())
    assert (await kafka.one()).value == b"0"
    assert judged == [rounds]
    counting.cancel()


async def test_callers_who_give_up_leave_nothing(read: Read) -> None:
    """However often someone gives up waiting for a record, nothing is left of it."""
    kafka = read(alone(), P0)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(kafka.one(), 0.01)
    assert not kafka.verified._waiters


async def test_callers_in_many_tasks_get_every_record_once(read: Read) -> None:
    """Tasks that read at once share what comes, and all wait side by side."""
    kafka = read(alone(), P0)
    calls = [asyncio.create_task(kafka.one()) for _ in range(5)]
    await asyncio.sleep(0.01)
    await kafka.fill(*numbers(5))
    assert sorted([(await call).value for call in calls]) == numbers(5)


async def test_closing_ends_every_wait(read: Read) -> None:
    """A call that waits while the consumer is closed ends with aiokafka's own error, also in an outage."""
    keys = Keys()
    kafka = read(watchword(keys), P0)
    calls = [asyncio.create_task(kafka.one()), asyncio.create_task(kafka.many(seconds=60.0))]
    await asyncio.sleep(0.01)
    await kafka.fill(b"a")
    keys.gate.clear()
    await keys.question.wait()
    await kafka.consumer.stop()
    with pytest.raises(ConsumerStoppedError):
        await calls[0]
    assert await calls[1] == {}
    with pytest.raises(ConsumerStoppedError):
        await kafka.one()


@pytest.mark.parametrize("rebalancing", [False, True])
async def test_an_idle_consumer_waits(read: Read, *, rebalancing: bool) -> None:
    """Who waits for records, or for the end of a rebalance, waits for the client, and does not spin."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    wait, turns = kafka.verified._wait, 0

    async def counted(*arguments: Any) -> Any:
        nonlocal turns
        turns += 1
        return await wait(*arguments)

    kafka.verified._wait = counted
    kafka.late += 5
    if rebalancing:
        kafka.consumer._subscription.begin_reassignment()
    assert await kafka.many(seconds=0.2) == {}
    assert 1 <= turns <= 5


# Deserializers


async def test_a_deserializer_error_waits_for_its_turn(read: Read) -> None:
    """Good records before a bad one are returned first; then the error; then what is behind it."""
    kafka = read(
        watchword(Keys()), P0, key_deserializer=lambda key: key, value_deserializer=int, enable_auto_commit=True
    )
    await kafka.fill(b"1", b"x", b"3")
    assert await kafka.many() == {P0: [1]}
    with pytest.raises(DeserializationError):
        await kafka.many()
    await kafka.verified.commit_handled()
    assert kafka.commits() == [1]
    assert await kafka.many() == {P0: [3]}


async def test_the_deserializer_error_names_the_place_and_hides_the_payload(read: Read) -> None:
    """The error's text has topic, partition and offset; the payload is in its record only."""
    kafka = read(watchword(Keys()), P0, value_deserializer=int)
    await kafka.fill(b"secret")
    with pytest.raises(DeserializationError, match="topic/0 at offset 0") as failed:
        await kafka.one()
    assert "secret" not in str(failed.value)
    assert failed.value.record.value == b"secret"


async def test_a_deserializer_error_on_one_partition_waits_for_the_records_of_another(read: Read) -> None:
    """An error is not lost for the records of another partition: it comes when there is nothing else to return."""
    kafka = read(alone(), P0, P1, value_deserializer=int)
    for tp in (P0, P1):
        await kafka.fill(b"1", tp=tp)
    assert len(await kafka.values(2)) == 2
    await kafka.fill(b"2", b"x")
    await kafka.fill(b"y", b"2", tp=P1)
    await asyncio.sleep(0.01)
    got: list[int] = []
    errors: list[int] = []
    for _ in range(5):
        try:
            got += [value for values in (await kafka.many(seconds=0.2)).values() for value in values]
        except DeserializationError as error:
            errors.append(error.record.partition)
    assert (got, sorted(errors)) == ([2, 2], [0, 1])


@pytest.mark.parametrize("most", [1, 2, None])
async def test_a_function_gets_the_errors_of_deserializers(read: Read, most: int | None) -> None:
    """With on_deserialization_error no caller gets an error, or has to wait: the next good record comes at once."""
    told: list[DeserializationError] = []
    kafka = read(alone(), P0, value_deserializer=int, on_deserialization_error=told.append)
    await kafka.fill(b"x", b"1", b"y", b"z", b"4", b"u")
    got: list[int] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < 2:
            got += (await kafka.many(most=most, seconds=3600)).get(P0, [])
    assert got == [1, 4]
    assert await kafka.many(seconds=0) == {}
    assert [error.record.offset for error in told] == [0, 2, 3, 5]
    assert kafka.verified.judged() == {P0: 6}


async def test_a_function_that_fails_loses_no_record(read: Read) -> None:
    """If on_deserialization_error raises, its caller gets that, and the good records around all the same."""

    def fail(error: DeserializationError) -> None:
        raise ZeroDivisionError(error.record.offset)

    kafka = read(alone(), P0, value_deserializer=int, on_deserialization_error=fail)
    await kafka.fill(b"0", b"x", b"2")
    assert await kafka.many() == {P0: [0]}
    with pytest.raises(ZeroDivisionError):
        await kafka.many()
    assert await kafka.many() == {P0: [2]}


# Quarantine


async def test_no_message_waits_for_a_copy(read: Read) -> None:
    """A44: what is rejected is on its way into quarantine while what is behind it is delivered."""
    kept = Slow()
    agent = alone()
    kafka = read(agent, P0, quarantine=kept)
    records = await tree(P0, numbers(3))
    kafka.logs[P0].records = [raw(P0, 0, b"forged"), *(replace(r, offset=r.offset + 1) for r in records)]
    assert await kafka.many() == {P0: numbers(3)}
    assert kept.copies == []
    kept.gate.set()
    await kafka.verified.copied()
    assert kept.copies == [(b"forged", "unsigned")]


async def test_copies_beyond_the_bound_are_left_out_and_counted(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A44: however slow the quarantine is, only so many copies are on their way, and the others are counted."""
    monkeypatch.setattr("watchword.quarantine.MOST_WAITING", 3)
    kept, agent = Slow(), alone()
    kafka = read(agent, P0, quarantine=kept)
    kafka.logs[P0].records = [raw(P0, n, b"forged") for n in range(5)]
    await kafka.fill(b"end")
    assert await kafka.values(1) == [b"end"]
    assert agent.audit.counts == {"unsigned": 5, "left_out": 2, "delivered": 1}
    kept.gate.set()


async def test_stopping_waits_for_copies_and_no_longer_than_that(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that is stopped lets copies arrive, unless the quarantine hangs."""
    for patience, copies in ((10.0, [(b"forged", "unsigned")]), (0.01, [])):
        monkeypatch.setattr("watchword_adapters.copies.FAREWELL", patience)
        kept = Slow()
        kafka = read(alone(), P0, quarantine=kept)
        kafka.logs[P0].records = [raw(P0, 0, b"forged")]
        assert await kafka.many(seconds=0.1) == {}
        await kept.begun.wait()
        stop = asyncio.create_task(kafka.consumer.stop())
        await asyncio.sleep(0.05)
        kept.gate.set()
        await stop
        assert kept.copies == copies


async def test_without_a_quarantine_what_cannot_be_judged_is_held(read: Read) -> None:
    """A38: where no copy can be kept nothing is given up, however long the outage."""
    keys = Keys()
    kafka = read(alone(keys, max_hold=0.0), P0)
    await kafka.fill(b"0")
    keys.failures = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await kafka.one()
        kafka.late += 60
    assert (await kafka.one()).value == b"0"


async def test_a_quarantine_that_is_down_holds_up_no_rejected_record(read: Read) -> None:
    """A rejected record stays in its log, so where no copy can be kept it is passed all the same."""

    class Down(Kept):
        async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
            raise Unavailable("quarantine", f"{message} {verdict}")

    kafka = read(alone(), P0, quarantine=Down())
    kafka.logs[P0].records = [raw(P0, 0, b"forged"), *await tree(P0, [b"1"], 1)]
    assert await kafka.values(1) == [b"1"]
