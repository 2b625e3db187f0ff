import asyncio
from typing import Any

import pytest
from aiokafka.errors import ConsumerStoppedError, TopicAuthorizationFailedError
from aiokafka.structs import TopicPartition

from tests.unit.kafka.fakes import OTHER, P0, P1, FakeConsumer, Keys, intake, record, watchword
from watchword import Mode, Unavailable
from watchword_adapters.kafka import DeserializationError, ObservedRecord, VerifiedRecord
from watchword_adapters.kafka.intake import Intake
from watchword_adapters.kafka.progress import FIRST_DELAY, LONGEST_DELAY, Partition


async def fill(consumer: FakeConsumer, tp: TopicPartition, *values: bytes) -> None:
    """Append signed records to a log."""
    for value in values:
        consumer.logs[tp].append(await record(tp, len(consumer.logs[tp]), value))


async def one(what: Intake, *wanted: TopicPartition) -> Any:
    """Return the next record, as getone does."""
    async with asyncio.timeout(20):
        ((found,),) = (await what.next(wanted, deadline=None, most=1, one=True)).values()
    return found


async def many(what: Intake, *wanted: TopicPartition, most: int | None = None, seconds: float = 0) -> Any:
    """Return records, as getmany does."""
    deadline = asyncio.get_running_loop().time() + seconds
    found = await what.next(wanted, deadline=deadline, most=most, one=False)
    return {tp: [r.value for r in records] for tp, records in found.items()}


async def test_an_outage_on_one_partition_lets_the_others_flow() -> None:
    """While one partition waits for its key, records of the others are delivered, and nothing more piles up on it."""
    consumer, keys = FakeConsumer(P0, P1), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a", b"b")
    keys.failures = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await one(what, P0)
    await fill(consumer, P1, *(b"%d" % n for n in range(20)))
    assert [(await one(what)).value for _ in range(20)] == [b"%d" % n for n in range(20)]
    assert what.judged() == {P0: 0, P1: 20}
    assert consumer.state(P0).position == 1
    assert [(await one(what)).value for _ in range(2)] == [b"a", b"b"]


async def test_nothing_piles_up_in_an_outage() -> None:
    """However often judging fails, no more is taken from the client than at the first try."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, *[b"v"] * 5)
    keys.failures = 3
    for _ in range(3):
        with pytest.raises(Unavailable):
            await many(what, most=2, seconds=5)
        assert consumer.taken == 2
        what.partitions()[P0].retry_at = 0.0
    assert await many(what, seconds=5) == {P0: [b"v"] * 2}


async def test_the_delay_between_tries_grows_to_a_bound_and_ends_with_the_outage() -> None:
    """Tries come at growing distances, at most LONGEST_DELAY apart; success resets it."""
    partition = Partition()
    delays = []
    for _ in range(20):
        partition.hold(100.0)
        delays.append(partition.retry_at - 100.0)
    assert delays[0] == pytest.approx(FIRST_DELAY)
    assert delays == sorted(delays)
    assert delays[-1] == pytest.approx(LONGEST_DELAY)
    partition.release()
    assert (partition.failures, partition.retry_at) == (0, 0.0)


async def test_a_bulk_fetch_that_fails_part_way_returns_what_is_verified() -> None:
    """What was verified before the outage is returned; the partition stands at the first that was not."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a", b"b", b"c")
    consumer.logs[P0][1] = await record(P0, 1, b"b", principal=OTHER)
    find, keys_asked = keys.find, 0

    async def second_fails(principal: str, key_id: bytes) -> Any:
        nonlocal keys_asked
        keys_asked += 1
        if keys_asked == 2:
            raise ConnectionError
        return await find(principal, key_id)

    keys.find = second_fails  # type: ignore[method-assign]
    assert await many(what) == {P0: [b"a"]}
    assert what.judged() == {P0: 1}
    assert what.to_commit() == {P0: 0}
    assert await many(what, seconds=5) == {P0: [b"b", b"c"]}


async def test_a_rebalance_in_mid_verify_drops_the_record() -> None:
    """A record whose partition was assigned anew while it was judged is not delivered twice: it is read again."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a")
    keys.gate.clear()
    call = asyncio.create_task(one(what))
    await keys.question.wait()
    consumer.assign(P0)
    assert what.judged() == {P0: 0}
    keys.gate.set()
    assert (await call).value == b"a"
    assert what.judged() == {P0: 1}
    assert keys.asked == 2


async def test_a_seek_in_mid_verify_wins() -> None:
    """After a seek while a record is judged, the next record is the one that was sought."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a", b"b", b"c")
    keys.gate.clear()
    call = asyncio.create_task(one(what))
    await keys.question.wait()
    what.put_back([P0])
    assert consumer.state(P0).position == 0
    consumer.seek(P0, 2)
    keys.gate.set()
    assert (await call).value == b"c"


async def test_nothing_is_handed_over_while_a_rebalance_goes_on() -> None:
    """What was judged before a rebalance is not given out during it: the partition may be another's already."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a")
    consumer._subscription.reassignment_in_progress = True
    assert await many(what, seconds=0.01) == {}
    consumer._subscription.reassignment_in_progress = False
    assert await many(what) == {P0: [b"a"]}


async def test_a_lost_partition_is_neither_judged_nor_committed() -> None:
    """After a rebalance takes a partition away, its progress is gone; commits name assigned partitions only."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, watchword(Keys()))
    await fill(consumer, P0, b"a", b"b")
    await fill(consumer, P1, b"c")
    assert await many(what, most=1) in ({P0: [b"a"]}, {P1: [b"c"]})
    consumer.assign(P1)
    assert await many(what) == {P1: [b"c"]}
    what.committed({P0: 1, P1: 1})
    what.handled()
    assert what.to_commit() == {}
    what.put_back([P0])
    consumer._subscription.subscription = None
    assert what.judged() == {}


async def test_what_the_caller_still_has_is_not_committed() -> None:
    """Auto-commit follows one call behind: rejected records are passed, the latest ones are not."""
    consumer = FakeConsumer(P0)
    agent = watchword(Keys())
    what = intake(consumer, agent)
    consumer.logs[P0].append(await record(P0, 0, b"unsigned", signed=False))
    consumer.logs[P0].append(await record(P0, 1, b"a"))
    consumer.logs[P0].append(await record(P0, 2, b"b"))
    assert await many(what) == {P0: [b"a", b"b"]}
    assert (what.judged(), what.to_commit()) == ({P0: 3}, {P0: 1})
    what.committed({P0: 1})
    assert what.to_commit() == {}
    assert await many(what) == {}
    assert what.to_commit() == {P0: 3}
    assert agent.audit.counts == {"delivered": 2, "unsigned": 1}


async def test_max_records_is_kept_and_the_rest_stays_ready() -> None:
    """No call returns more than it was asked for, over all partitions; the rest comes with the next."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, watchword(Keys()))
    await fill(consumer, P0, b"a", b"b", b"c")
    await fill(consumer, P1, b"d", b"e", b"f")
    got: list[bytes] = []
    for _ in range(3):
        found = [value for values in (await many(what, most=2)).values() for value in values]
        assert len(found) == 2
        got += found
    assert sorted(got) == [b"a", b"b", b"c", b"d", b"e", b"f"]


async def test_paused_partitions_give_nothing_and_lose_nothing() -> None:
    """Records that were judged or taken before pause() come after resume()."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(Keys()))
    await fill(consumer, P0, b"a", b"b")
    await many(what, most=1)
    consumer.stopped = {P0}
    assert await many(what, seconds=0.01) == {}
    consumer.stopped = set()
    assert await many(what) == {P0: [b"b"]}


async def test_no_partition_starves_under_getone() -> None:
    """Partitions take turns."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, watchword(Keys()))
    await fill(consumer, P0, *[b"0"] * 10)
    await fill(consumer, P1, *[b"1"] * 10)
    assert {(await one(what)).partition for _ in range(4)} == {0, 1}


async def test_errors_of_the_client_wait_for_their_turn() -> None:
    """A client's error on one partition does not swallow the records of another, and is raised when it is alone."""
    consumer = FakeConsumer(P0, P1)
    what = intake(consumer, watchword(Keys()))
    await fill(consumer, P1, b"a")
    denied = TopicAuthorizationFailedError("topic")
    consumer.errors[P0] = [denied, denied]
    assert await many(what) == {P1: [b"a"]}
    with pytest.raises(TopicAuthorizationFailedError):
        await many(what)
    assert await many(what) == {}


async def test_a_deserializer_error_waits_for_its_turn() -> None:
    """Good records before a bad one are returned first; then the error; then what is behind it."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(Keys()), key_deserializer=lambda key: key, value_deserializer=int)
    await fill(consumer, P0, b"1", b"x", b"3")
    assert await many(what) == {P0: [1]}
    with pytest.raises(DeserializationError):
        await many(what)
    assert what.to_commit() == {P0: 1}
    assert await many(what) == {P0: [3]}


async def test_closing_ends_every_wait() -> None:
    """A call that waits while the consumer is closed ends with aiokafka's own error, also in an outage."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    call = asyncio.create_task(one(what))
    await asyncio.sleep(0)
    consumer._closed = True
    with pytest.raises(ConsumerStoppedError):
        await call
    consumer._closed = False
    await fill(consumer, P0, b"a")
    keys.failures = 1
    with pytest.raises(Unavailable):
        await one(what)
    consumer._closed = True
    with pytest.raises(ConsumerStoppedError):
        await one(what)
    consumer.errors[P0] = [ConsumerStoppedError()]
    with pytest.raises(ConsumerStoppedError):
        await what._take((P0,), 0, 1)


async def test_a_flood_lets_other_tasks_run() -> None:
    """While a thousand forged records are dropped, other tasks (heartbeats) get their turns."""
    consumer = FakeConsumer(P0)
    agent = watchword(Keys())
    what = intake(consumer, agent)
    forged = await record(P0, 0, b"forged", signed=False)
    consumer.logs[P0] = [type(forged)(**vars(forged) | {"offset": n}) for n in range(1_000)]
    await asyncio.sleep(0)
    turns = 0

    async def heartbeat() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(heartbeat())
    await fill(consumer, P0, b"honest")
    turns = 0
    assert (await one(what)).value == b"honest"
    task.cancel()
    assert turns >= 1_000 // 128
    assert agent.audit.counts == {"unsigned": 1_000, "delivered": 1}


async def test_who_waits_for_records_that_are_held_stays_in_the_group() -> None:
    """While nothing is taken from the client its caller still counts as polling; when the call ends, it does not."""
    consumer, keys = FakeConsumer(P0), Keys()
    what = intake(consumer, watchword(keys))
    await fill(consumer, P0, b"a")
    keys.gate.clear()
    call = asyncio.create_task(one(what))
    await keys.question.wait()
    assert consumer._subscription._fetch_count == 1
    keys.failures = 1
    keys.gate.set()
    with pytest.raises(Unavailable):
        await call
    assert consumer._subscription._fetch_count == 0


async def test_records_of_both_modes_hide_the_payload_in_their_repr() -> None:
    """What is printed of a record names place and principal, never the payload (A31)."""
    for mode, kind in ((Mode.ENFORCE, VerifiedRecord), (Mode.OBSERVE, ObservedRecord)):
        consumer = FakeConsumer(P0)
        what = intake(consumer, watchword(Keys(), mode))
        await fill(consumer, P0, b"secret")
        found = await one(what)
        assert isinstance(found, kind)
        assert "secret" not in repr(found)
        assert "topic='topic', partition=0, offset=0" in repr(found)


async def test_the_deserializer_error_names_the_place_and_hides_the_payload() -> None:
    """The error's text has topic, partition and offset; the payload is in its record only."""
    consumer = FakeConsumer(P0)
    what = intake(consumer, watchword(Keys()), value_deserializer=int)
    await fill(consumer, P0, b"secret")
    with pytest.raises(DeserializationError, match="topic/0 at offset 0") as failed:
        await one(what)
    assert "secret" not in str(failed.value)
    assert failed.value.record.value == b"secret"


async def test_an_old_record_without_timestamp_is_unsigned_and_no_error() -> None:
    """The oldest record format has no timestamp: such a record is judged like any other."""
    consumer, agent = FakeConsumer(P0), watchword(Keys(), Mode.OBSERVE)
    what = intake(consumer, agent)
    old = await record(P0, 0, b"old", signed=False)
    old.timestamp, old.timestamp_type = None, None  # type: ignore[assignment]
    consumer.logs[P0].append(old)
    assert (await one(what)).value == b"old"
    assert agent.audit.counts == {"unsigned": 1}
