"""The consumer around the fetcher: what it is asked for, what it commits and when, how it ends."""

import asyncio
import gc
import logging
import math
import time
import weakref
from typing import Any

import pytest
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalOperation,
    IllegalStateError,
    KafkaError,
    OffsetMetadataTooLargeError,
    RecordTooLargeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.support.patience import PATIENCE
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import P0, P1, REALM, FakeKafka, Keys, alone, numbers, raw, watchword
from tests.unit.kafka.test_fetcher import Slow
from watchword import ConfigurationError, Mode, Unavailable, Watchword, partition
from watchword.checkpoint import read_line
from watchword.testing import SharedMemoryStore
from watchword_adapters.kafka import KafkaQuarantine, VerifyingConsumer
from watchword_adapters.kafka._seam import boot_time
from watchword_adapters.kafka.fetcher import LEASE

TOLD = "w1 0123abcd 0 100 2 1 2:50"
"""What a predecessor may have said at offset 2."""


def metadata(kafka: FakeKafka, tp: TopicPartition = P0) -> str:
    """Return the metadata of what is committed."""
    return str(kafka.coordinator.committed[tp].metadata)


# Calls


async def test_a_consumer_that_was_stopped_says_so() -> None:
    """After stop() every way in raises aiokafka's own error, be it that it never was started."""
    consumer = VerifyingConsumer(watchword=watchword(Keys()))
    await consumer.stop()
    for call in (consumer.getone(), consumer.getmany()):
        with pytest.raises(ConsumerStoppedError):
            await call
    with pytest.raises(ConsumerStoppedError):
        aiter(consumer)


async def test_a_consumer_that_was_not_started_says_so() -> None:
    """Before start() every call that needs a broker is refused with what to write."""
    consumer = VerifyingConsumer(watchword=watchword(Keys()), group_id="group")
    consumer.assign([P0])
    calls = (consumer.getone, consumer.getmany, consumer.commit, consumer.seek_to_beginning, consumer.seek_to_end)
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"await consumer\.start"):
            await call()
    with pytest.raises(ConfigurationError, match=r"await consumer\.start"):
        consumer.seek(P0, 1)
    await consumer.stop()


async def test_arguments_are_checked_before_anything_is_taken(read: Read) -> None:
    """A wrong argument is one clear error."""
    kafka = read(alone(), P0)
    with pytest.raises(ValueError, match="positive"):
        await kafka.consumer.getmany(max_records=0)
    with pytest.raises(TypeError, match="TopicPartition"):
        await kafka.consumer.getone("topic")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ConsumerRebalanceListener"):
        kafka.consumer.subscribe(["topic"], listener=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match='write "raise" or "wait"'):
        VerifyingConsumer(watchword=alone(), on_unavailable="ignore")  # type: ignore[arg-type]

    async def tell(_: object) -> None:
        """Never get to run."""

    with pytest.raises(ConfigurationError, match="on_deserialization_error: write a plain function"):
        VerifyingConsumer(watchword=alone(), on_deserialization_error=tell)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["getone", "getmany", "async for"])
async def test_an_outage_is_waited_out_if_asked_for(read: Read, call: str) -> None:
    """With on_unavailable="wait", and always in an iteration, callers get no error during an outage."""
    keys = Keys()
    kafka = read(alone(keys), P0, on_unavailable="raise" if call == "async for" else "wait")
    await kafka.fill(b"0")
    keys.failures = 2
    async with asyncio.timeout(PATIENCE):
        if call == "getone":
            assert (await kafka.one()).value == b"0"
        elif call == "getmany":
            assert await kafka.many() == {P0: [b"0"]}
        else:
            assert (await anext(aiter(kafka.consumer))).value == b"0"
    assert keys.failures == 0


async def test_an_outage_is_an_error_of_the_client_that_may_be_tried_again(read: Read) -> None:
    """Frameworks that catch KafkaError, and try again what is ``retriable``, do so with Unavailable."""
    keys = Keys()
    kafka = read(alone(keys), P0)
    await kafka.fill(b"0")
    keys.failures = 1
    with pytest.raises(KafkaError) as told:
        await kafka.one()
    assert isinstance(told.value, Unavailable)
    assert told.value.retriable
    assert "keys unavailable: ConnectionError" in str(told.value)


async def test_the_iterator_passes_what_is_too_large(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Like aiokafka's, the iterator skips a record that is larger than a fetch, and says so; it ends on stop."""
    kafka = read(alone(), P0)
    kafka.errors[P0] = [RecordTooLargeError("too large")]
    await kafka.fill(b"v")
    got: list[Any] = []
    with caplog.at_level(logging.ERROR, logger="aiokafka"):
        async for found in kafka.consumer:
            got.append(found.value)
            await kafka.consumer.stop()
    assert got == [b"v"]
    assert "too large" in caplog.text


async def test_a_caller_counts_as_polling_as_long_as_it_waits(read: Read) -> None:
    """A member whose records are held stays in its group while it waits, and does not once it has given up.

    aiokafka itself forgets to count a call that ends with an error.
    """
    keys, begun = Keys(), time.monotonic()
    kafka = read(alone(keys), P0)
    subscription: Any = kafka.consumer._subscription
    await kafka.fill(b"a")
    keys.gate.clear()
    call = asyncio.create_task(kafka.one())
    await keys.question.wait()
    assert subscription._fetch_count == 1
    assert subscription.fetcher_idle_time == 0
    call.cancel()
    await asyncio.wait([call])
    assert subscription._fetch_count == 0
    keys.failures = 1
    keys.gate.set()
    with pytest.raises(Unavailable):
        await kafka.one()
    assert subscription._fetch_count == 0
    assert (await kafka.one()).value == b"a"
    assert subscription._fetch_count == 0
    assert subscription.fetcher_idle_time <= time.monotonic() - begun


async def test_what_lies_below_is_refused_with_the_covered_way_named(read: Read) -> None:
    """A48: a tool that uses anything but a fetcher's public methods gets an error that says how to read."""
    kafka = read(alone(), P0)
    below: Any = kafka.consumer._fetcher
    with pytest.raises(
        ConfigurationError, match=r"has no _records: .* read with getone\(\), getmany\(\) or 'async for'"
    ):
        _ = below._records
    assert not hasattr(below, "__wrapped__")


async def test_a_store_that_cannot_be_opened_stops_the_start() -> None:
    """Where the replay store is down nothing is read, and the consumer is closed."""

    class Store(SharedMemoryStore):
        async def start(self) -> None:
            raise ConnectionError

    consumer = VerifyingConsumer(watchword=Watchword(realm=REALM, keys=Keys(), replay=Store()))
    with pytest.raises(Unavailable, match="replay"):
        await consumer.start()
    with pytest.raises(ConsumerStoppedError):
        await consumer.getone()


# Commits


async def test_what_the_caller_still_has_is_not_committed(read: Read) -> None:
    """Auto-commit follows one call behind: rejected records are passed, the latest ones are not."""
    agent = watchword(Keys())
    kafka = read(agent, P0, enable_auto_commit=True)
    kafka.logs[P0].records = [raw(P0, 0, b"unsigned")]
    await kafka.fill(b"a", b"b")
    assert await kafka.many() == {P0: [b"a", b"b"]}
    await kafka.verified.commit_handled()
    assert (kafka.verified.judged(), kafka.commits()) == ({P0: 3}, [1])
    await kafka.verified.commit_handled()
    assert kafka.commits() == [1]
    assert await kafka.many(seconds=0.01) == {}
    await kafka.verified.commit_handled()
    assert kafka.commits() == [1, 3]
    assert agent.audit.counts == {"delivered": 2, "unsigned": 1}


async def test_the_end_of_a_consumer_commits_what_is_handled(read: Read) -> None:
    """stop() leaves out the records of the latest call; ``async with`` that ends well takes them as handled."""
    for error, offset in ((None, 2), (ZeroDivisionError, 0)):
        kafka = read(watchword(Keys()), P0, enable_auto_commit=True)
        await kafka.fill(b"a", b"b")
        assert await kafka.many() == {P0: [b"a", b"b"]}
        await kafka.consumer.__aexit__(error, None, None)
        assert kafka.commits() == [offset]


async def test_a_commit_that_fails_is_said_and_tried_again(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """An automatic commit that fails, or hangs, warns and leaves the offsets to the next round."""
    kafka = read(watchword(Keys()), P0, enable_auto_commit=True, auto_commit_interval_ms=20, request_timeout_ms=10)
    await kafka.fill(*numbers(7))
    assert await kafka.values(7) == numbers(7)
    kafka.coordinator.outcomes = [CommitFailedError(), "hang", ZeroDivisionError(), None]
    kafka.verified.all_handled()
    async with asyncio.timeout(PATIENCE):
        while kafka.commits()[-1:] != [7]:  # noqa: ASYNC110 - commits come at an interval
            await asyncio.sleep(0.005)
    assert [tried[P0].offset for tried in kafka.coordinator.tries][-4:] == [7] * 4
    assert caplog.text.count("kafka.commit_failed") == 3


@pytest.mark.parametrize(
    ("group", "mode", "committed", "commits"),
    [
        ("group", Mode.ENFORCE, None, [0]),
        ("group", Mode.ENFORCE, 2, []),
        (None, Mode.ENFORCE, None, []),
        ("group", Mode.OBSERVE, None, []),
    ],
)
async def test_only_a_group_that_begins_is_committed_unasked(
    read: Read, group: str | None, mode: Mode, committed: int | None, commits: list[int]
) -> None:
    """With enable_auto_commit=False nothing is committed but the place where a group begins, before its first record.

    So no group that has read counts as new. Without a group, and in observe mode, there is nothing to commit.
    """
    kafka = read(alone(mode=mode), P0, group=group)
    await kafka.fill(*numbers(4))
    if committed is not None:
        kafka.coordinator.committed[P0] = OffsetAndMetadata(committed, TOLD)
    assert await kafka.values(4 - (committed or 0)) == numbers(4)[committed or 0 :]
    listener: Any = kafka.consumer._subscription.listener
    await listener.on_partitions_revoked({P0})
    await listener.on_partitions_assigned({P0})
    await kafka.consumer.stop()
    assert kafka.commits() == commits


async def test_nothing_is_handed_over_before_the_first_commit(read: Read) -> None:
    """R3: while a group's first commit fails, its first record waits, and callers get Unavailable."""
    kafka = read(alone(), P0, enable_auto_commit=True, request_timeout_ms=10)
    await kafka.fill(b"0")
    kafka.coordinator.outcomes = [CommitFailedError(), "hang"]
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"cannot be committed: (CommitFailedError|TimeoutError)"):
            await kafka.one()
        assert kafka.verified.judged() == {P0: 0}
    begun = time.time()
    assert (await kafka.one()).value == b"0"
    assert kafka.commits() == [0]
    told = read_line(metadata(kafka))
    assert told is not None
    assert begun <= told[1].until - LEASE < time.time() + 1


async def test_nothing_is_handed_over_after_the_lease(read: Read) -> None:
    """R3: who commits by itself hands nothing over for more than a minute after a commit that reached the broker."""
    kafka = read(alone(), P0, enable_auto_commit=True, auto_commit_interval_ms=3_600_000)
    await kafka.fill(b"0", b"1")
    assert await kafka.many(most=1) == {P0: [b"0"]}
    kafka.late += LEASE - 1
    assert await kafka.many(most=1) == {P0: [b"1"]}
    await kafka.fill(b"2", b"3")
    kafka.late += 1
    kafka.coordinator.outcomes = [CommitFailedError()]
    await kafka.verified.commit_handled()
    assert await kafka.many(seconds=0.05) == {}
    await kafka.verified.commit_handled()
    assert kafka.commits()[-1] == 2
    assert await kafka.values(2) == [b"2", b"3"]


async def test_a_lease_is_renewed_where_nothing_comes(read: Read) -> None:
    """R3: the same offset is committed again in time, so that a record that comes late is handed over at once."""
    kafka = read(alone(), P0, enable_auto_commit=True)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    kafka.verified.all_handled()
    await kafka.verified.commit_handled()
    await kafka.verified.commit_handled()
    assert kafka.commits() == [0, 1]
    kafka.late += LEASE / 3
    await kafka.verified.commit_handled()
    assert kafka.commits() == [0, 1, 1]


async def test_a_commit_says_what_a_successor_must_know(read: Read) -> None:
    """R3: commits carry a checkpoint at or before their offset; metadata of the caller's own stays as it is."""
    kafka = read(alone(), P0)
    await kafka.fill(*numbers(5))
    assert len(await kafka.values(5)) == 5
    await kafka.consumer.commit()
    told = read_line(metadata(kafka))
    assert told is not None
    assert told[1].at <= 5
    assert told[1].until == 0  # its caller commits, and nobody knows when
    await kafka.consumer.commit({P0: 3})
    assert kafka.commits()[-1] == 3
    assert (read_line(metadata(kafka)) or ("",))[0] == told[0]
    for offset in (OffsetAndMetadata(4, "mine"), (4, "mine")):
        await kafka.consumer.commit({P0: offset})
        assert kafka.coordinator.committed[P0] == (4, "mine")


async def test_a_commit_without_metadata_where_the_broker_takes_none(
    read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """R3: a broker that allows less metadata gets the offset alone, and one warning says what to set."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    for _ in range(3):
        kafka.coordinator.outcomes = [OffsetMetadataTooLargeError()]
        await kafka.consumer.commit()
        assert kafka.coordinator.committed[P0] == (1, "")
    warned = caplog.text
    assert warned.count("kafka.commit_without_metadata") == 1
    assert "offset.metadata.max.bytes" in warned


async def test_no_commit_goes_beyond_what_was_judged(read: Read) -> None:
    """A41: an offset behind which a record is that nobody has judged is refused, with what may be committed."""
    kafka = read(alone(), P0)
    await kafka.fill(b"0", b"1")
    assert await kafka.many(most=1) == {P0: [b"0"]}
    with pytest.raises(ConfigurationError, match="commit of topic/0 at 2: records are verified only up to 1"):
        await kafka.consumer.commit({P0: 2})
    with pytest.raises(IllegalStateError, match="not assigned"):
        await kafka.consumer.commit({P1: 0})
    with pytest.raises(IllegalOperation):
        await read(alone(), P0, group=None).consumer.commit()
    unsubscribed = read(alone(), P0)
    unsubscribed.consumer._subscription.unsubscribe()
    with pytest.raises(IllegalStateError, match="Not subscribed"):
        await unsubscribed.consumer.commit()
    unsubscribed.consumer._subscription.subscribe({"topic"})
    with pytest.raises(IllegalStateError, match="No partitions assigned"):
        await unsubscribed.consumer.commit()


@pytest.mark.parametrize("way", ["commit", "automatic", "transaction"])
async def test_what_a_predecessor_said_stands_until_something_is_read(read: Read, way: str) -> None:
    """R3: a commit before the memory is there would say less than the one that is there, so there is none."""
    keys = Keys()
    kafka = read(alone(keys), P0, enable_auto_commit=way == "automatic")
    await kafka.fill(*numbers(3))
    kafka.coordinator.committed[P0] = OffsetAndMetadata(2, TOLD)
    asked, gate = asyncio.Event(), asyncio.Event()
    first, kafka.fetcher.beginning_offsets = kafka.fetcher.beginning_offsets, None  # type: ignore[method-assign,assignment]

    async def slow(*arguments: Any) -> Any:
        asked.set()
        await gate.wait()
        return await first(*arguments)

    kafka.fetcher.beginning_offsets = slow  # type: ignore[method-assign,assignment]
    call = asyncio.create_task(kafka.one())
    await asked.wait()
    assert await kafka.consumer.position(P0) == 2
    if way == "transaction":
        assert await kafka.consumer.offsets_for_transaction() == {}
    else:
        await (kafka.consumer.commit() if way == "commit" else kafka.verified.commit_handled())
        assert kafka.coordinator.committed[P0] == (2, TOLD)
    gate.set()
    assert (await call).value == b"2"
    await kafka.consumer.commit()
    told = read_line(metadata(kafka))
    assert told is not None
    assert (kafka.coordinator.committed[P0].offset, told[0]) == (3, "0123abcd")


async def test_a_commit_of_another_member_is_not_set_back(read: Read) -> None:
    """A17: a partition that comes back has moved on, perhaps: nothing is committed before that is known."""
    kafka = read(alone(), P0, enable_auto_commit=True)
    await kafka.fill(*numbers(6))
    assert await kafka.many(most=2) == {P0: numbers(2)}
    kafka.coordinator.committed[P0] = OffsetAndMetadata(5, "")
    kafka.coordinator.gate.clear()
    kafka.assign(P0)
    kafka.verified.all_handled()
    await kafka.verified.commit_handled()
    assert kafka.coordinator.committed[P0].offset == 5
    kafka.coordinator.gate.set()
    assert await kafka.values(1) == [b"5"]


async def test_a_place_that_was_sought_is_committed(read: Read) -> None:
    """As with aiokafka a seek, then a commit, sets a group elsewhere though nothing was read there."""
    for explicit in (True, False):
        kafka = read(alone(), P0, enable_auto_commit=True)
        await kafka.fill(*numbers(4))
        assert await kafka.values(4) == numbers(4)
        kafka.consumer.seek(P0, 1)
        if explicit:
            await kafka.consumer.commit()
        await kafka.consumer.stop()
        assert kafka.commits()[-1] == 1


class SlowInTransactions(Slow, KafkaQuarantine):
    """A quarantine whose copies go with the caller's transactions, when they are let."""

    def __init__(self) -> None:
        KafkaQuarantine.__init__(self, "quarantine", watchword=alone())
        Slow.__init__(self)

    in_transactions = property(lambda _: True)


@pytest.mark.parametrize("patience", [20.0, 0.01])
async def test_offsets_for_a_transaction_say_the_same(
    read: Read, monkeypatch: pytest.MonkeyPatch, patience: float
) -> None:
    """K15: offsets carry the metadata too; copies that go with the transaction are there by then, unless they hang."""
    monkeypatch.setattr("watchword_adapters.kafka.fetcher.COPIES_PATIENCE", patience)
    kept = SlowInTransactions()
    kafka = read(alone(), P0, quarantine=kept)
    kafka.logs[P0].records = [raw(P0, 0, b"forged")]
    await kafka.fill(b"1")
    assert await kafka.values(1) == [b"1"]
    asking = asyncio.create_task(kafka.consumer.offsets_for_transaction())
    if patience > 1:
        await asyncio.wait([asking], timeout=0.01)
        assert not asking.done()
        kept.gate.set()
    offsets = await asking
    assert kept.copies == ([(b"forged", "unsigned")] if patience > 1 else [])
    assert offsets[P0].offset == 2
    assert read_line(offsets[P0].metadata) is not None
    kept.gate.set()


async def test_a44_no_transaction_waits_for_copies_outside_it(read: Read) -> None:
    """Copies that a producer of their own writes are no part of the caller's transaction, which does not wait."""
    kept = Slow()
    kafka = read(alone(), P0, quarantine=kept)
    kafka.logs[P0].records = [raw(P0, 0, b"forged")]
    await kafka.fill(b"1")
    assert await kafka.values(1) == [b"1"]
    assert (await kafka.consumer.offsets_for_transaction())[P0].offset == 2
    assert kept.copies == []
    kept.gate.set()


async def test_a_listener_that_fails_does_not_keep_us_from_committing(read: Read) -> None:
    """The caller's listener may raise: our commit at the revocation is made all the same, after it."""
    called: list[str] = []

    class Listener(ConsumerRebalanceListener):
        async def on_partitions_revoked(self, revoked: Any) -> None:
            called.append(f"revoked {len(revoked)} after {len(kafka.commits())} commits")
            raise ZeroDivisionError

        def on_partitions_assigned(self, assigned: Any) -> None:
            called.append(f"assigned {len(assigned)}")

    kafka = read(watchword(Keys()), P0, enable_auto_commit=True)
    await kafka.fill(b"0")
    assert await kafka.values(1) == [b"0"]
    kafka.verified.all_handled()
    kafka.consumer.subscribe(["topic"], listener=Listener())
    kafka.assign(P0)
    kafka.place(P0, 1)
    assert await kafka.many(seconds=0.01) == {}
    listener: Any = kafka.consumer._subscription.listener
    with pytest.raises(ZeroDivisionError):
        await listener.on_partitions_revoked({P0})
    await listener.on_partitions_assigned({P0})
    assert called == ["revoked 1 after 0 commits", "assigned 1"]
    assert kafka.commits() == [1]


# Life


@pytest.mark.parametrize("reads", [True, False])
async def test_a_consumer_that_is_dropped_says_so(read: Read, *, reads: bool) -> None:
    """A consumer that nobody stopped warns as aiokafka's does, as soon as nobody holds it: nothing of ours holds it."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    kafka = read(alone(), P0, enable_auto_commit=True, quarantine=KafkaQuarantine("quarantine", watchword=alone()))
    if reads:
        await kafka.fill(b"0", b"1")
        assert await kafka.many(most=1) == {P0: [b"0"]}
        assert await kafka.many(most=2) == {P0: [b"1"]}
    consumer, verified = weakref.ref(kafka.consumer), kafka.verified
    stand_in: Any = VerifyingConsumer(watchword=alone())
    await kafka.fetcher.close()
    kafka.fetcher = None  # type: ignore[assignment] # the fakes hold it

    def drop() -> None:
        kafka.consumer = stand_in
        gc.collect()

    with pytest.warns(ResourceWarning, match="Unclosed AIOKafkaConsumer"):
        drop()
    assert consumer() is None
    await verified.finish()


async def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A51: verdicts and leases age by the time since boot, which counts a suspend; elsewhere by a steady clock."""
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", {7: 1_000.0}.__getitem__, raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert boot_time() == 1_000.0
    consumer = VerifyingConsumer(watchword=alone())
    assert consumer._verified._now() == 1_000.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert consumer._verified._now() == 5.0
    monkeypatch.undo()
    await consumer.stop()


async def test_after_a_suspend_what_was_judged_ahead_is_judged_again(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A51: no record is handed over on a verdict from before, and the honest ones come as what they are."""
    monkeypatch.setattr(partition, "BRISK", math.inf)
    keys = Keys()
    kafka = read(alone(keys), P0)
    await kafka.fill(*numbers(40))
    while not kafka.verified._readers or len(kafka.verified._readers[P0].ready) < 8:
        await kafka.one()
    asked, behind = keys.asked, kafka.verified.judged()[P0]
    kafka.late += 8 * 3600
    found = await kafka.one()
    assert keys.asked == asked + 1
    assert (found.offset, found.verified.redelivered) == (behind, False)
