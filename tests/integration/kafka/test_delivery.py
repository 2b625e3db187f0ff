"""At least once, never a false replay: what a consumer gets when things stop, start and move."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import OffsetOutOfRangeError

from tests.integration.kafka.world import (
    PLANNER,
    Captured,
    World,
    committed,
    eventually,
    observe,
    read,
    values,
)
from tests.support.broker_tools import commit_for
from tests.support.patience import PATIENCE
from watchword import ConfigurationError, Mode, Reason, Rejected, Unavailable, VerifiedMessage
from watchword.jwk import to_jwk
from watchword_adapters.kafka import DeserializationError, VerifiedRecord, VerifyingConsumer


@pytest.mark.parametrize(("before", "behind"), [(1, 0), (40, 60)])
async def test_killed_between_handler_and_commit_gets_the_message_again(world: World, before: int, behind: int) -> None:
    """A process killed with SIGKILL while it handles a message gets that message again, and no replay is seen.

    So it is with what was judged ahead of it and not handed over yet.
    """
    topic, group = await world.make_topic(), world.unique("group")
    async with world.producer() as producer:
        for value in [b"done"] * before + [b"hang"] + [b"behind"] * behind:
            await producer.send(topic, value, partition=0)
    jwks = json.dumps({"keys": [to_jwk(world.signing[PLANNER].verification_key(PLANNER))]})
    command = [str(Path(__file__).with_name("victim.py")), world.bootstrap, topic, group, jwks]

    async def run(lines: int) -> list[dict[str, object]]:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        told: list[dict[str, object]] = []
        try:
            async with asyncio.timeout(PATIENCE):
                while len(told) < lines:
                    line = await process.stdout.readline()
                    told += [json.loads(line)] if line.startswith(b"{") else []  # the rest is the audit log
                async with world.consumer(world.reader(), group_id=group, enable_auto_commit=False) as bystander:
                    bystander.assign([TopicPartition(topic, 0)])
                    # The first message is handled, for the second was asked for.
                    await committed(bystander, TopicPartition(topic, 0), before)
            return told
        finally:
            process.kill()
            await process.wait()

    first = await run(before + 1)
    second = await run(1)
    assert [line["value"] for line in first] == ["done"] * before + ["hang"]
    assert (second[0]["value"], second[0]["id"]) == ("hang", first[-1]["id"])
    assert second[0]["counts"] == {"delivered": 1}
    async with world.consumer(world.reader(), topic, group_id=group, group_instance_id="victim") as consumer:
        assert values(await read(consumer, 1 + behind)) == [b"hang"] + [b"behind"] * behind


async def test_a_consumer_that_comes_back_without_commit_gets_the_same_again(world: World) -> None:
    """The same reader that left without a commit gets the same messages, none as replays."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    reader = world.reader()
    for _ in range(2):
        async with world.consumer(reader, topic, group_id=group, enable_auto_commit=False) as consumer:
            assert values(await read(consumer, 2)) == [b"1", b"2"]
    assert reader.audit.counts == {"delivered": 4}


async def test_stop_in_an_error_commits_only_what_was_handled(world: World) -> None:
    """A handler that raises gets the failed message again; one that ends well does not."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2", b"3")

    async def fail() -> None:
        async with world.consumer(world.reader(), topic, group_id=group) as consumer:
            assert values(await read(consumer, 2)) == [b"1", b"2"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"2"]
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 1)) == [b"3"]


async def test_getmany_results_that_were_not_handled_come_again(world: World) -> None:
    """What the last getmany returned is not committed by a plain stop()."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, *(b"%d" % n for n in range(6)))
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        first = await consumer.getmany(timeout_ms=20_000, max_records=4)
        second = await consumer.getmany(timeout_ms=20_000, max_records=1)
        assert values(first[tp] + second[tp]) == [b"0", b"1", b"2", b"3", b"4"]
        await consumer.stop()
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert values(await read(consumer, 2)) == [b"4", b"5"]


async def test_auto_commit_in_the_background_follows_the_caller(world: World) -> None:
    """Offsets are committed at the interval, and only those before the latest call."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic, group_id=group, auto_commit_interval_ms=10) as consumer:
        await read(consumer, 2)
        await committed(consumer, tp, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(consumer.getone(), 0.05)  # asking for more says that both are handled
        await committed(consumer, tp, 2)


@pytest.mark.needs_kafka("rebalance_with_auto_commit")
async def test_two_members_lose_nothing_when_one_joins_and_leaves(world: World) -> None:
    """Over two rebalances every message is delivered at least once to the group, and none counts as a replay."""
    topic, group = await world.make_topic(4), world.unique("group")
    sent, got = set[bytes](), set[bytes]()
    readers = [world.reader(), world.reader()]
    fast = {"group_id": group, "auto_commit_interval_ms": 50, "heartbeat_interval_ms": 100, "session_timeout_ms": 6000}

    async def consume(consumer: VerifyingConsumer) -> None:
        async for record in consumer:
            got.add(record.value or b"")

    async def send(count: int) -> None:
        async with world.producer() as producer:
            for _ in range(count):
                value = b"%d" % len(sent)
                sent.add(value)
                await producer.send(topic, value)
            await producer.flush()

    async def all_got() -> bool:
        return got == sent

    async with world.consumer(readers[0], topic, **fast) as first:
        one = asyncio.create_task(consume(first))
        await send(200)
        async with world.consumer(readers[1], topic, **fast) as second:
            two = asyncio.create_task(consume(second))
            await send(200)
            await eventually(all_got)

            async def both_read() -> bool:
                return bool(first.assignment() and second.assignment())

            await eventually(both_read)
            await send(200)
            await eventually(all_got)
        await two
        await send(200)
        await eventually(all_got)
    await one
    for reader in readers:
        assert set(reader.audit.counts) == {"delivered"}


@pytest.mark.needs_kafka("rebalance_with_auto_commit")
async def test_own_listener_is_called_and_may_commit(world: World) -> None:
    """A caller's rebalance listener, with plain or async methods, is called, and can commit what it got."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    calls: list[str] = []

    class Listener(ConsumerRebalanceListener):
        def __init__(self, consumer: VerifyingConsumer) -> None:
            self.consumer = consumer

        async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
            calls.append(f"revoked {len(revoked)}")
            if revoked:
                await self.consumer.commit()

        def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
            calls.append(f"assigned {len(assigned)}")

    reader = world.reader()
    async with world.consumer(reader, group_id=group, heartbeat_interval_ms=100) as consumer:
        consumer.subscribe([topic], listener=Listener(consumer))
        await read(consumer, 1)
        waiting = asyncio.create_task(read(consumer, 1))
        async with world.consumer(world.reader(), topic, group_id=group) as other:

            async def reassigned() -> bool:
                return calls.count("assigned 0") + calls.count("assigned 1") == 2

            await eventually(reassigned)
            assert await other.committed(TopicPartition(topic, 0)) in {1, 2}
            await other.stop()
        await waiting
    assert calls[:3] == ["revoked 0", "assigned 1", "revoked 1"]
    with pytest.raises(TypeError):
        consumer.subscribe([topic], listener=object())  # type: ignore[arg-type]


async def test_a_pattern_finds_topics_and_commits(world: World) -> None:
    """A subscription by pattern is read and committed like one by name."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1")
    async with world.consumer(world.reader(), group_id=group) as consumer:
        consumer.subscribe(pattern=f"^{topic}$")
        assert values(await read(consumer, 1)) == [b"1"]
    async with world.consumer(world.reader(), topic, group_id=group) as consumer:
        assert await consumer.committed(TopicPartition(topic, 0)) == 1


async def test_unavailable_seeks_back_and_loses_nothing(world: World) -> None:
    """While the key source is down getone and getmany raise Unavailable, the position stays, nothing is committed."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"1", b"2")
    tp = TopicPartition(topic, 0)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group) as consumer:
        world.keys.failures = 2
        with pytest.raises(Unavailable):
            await asyncio.wait_for(consumer.getone(), PATIENCE)
        with pytest.raises(Unavailable):
            await consumer.getmany(timeout_ms=20_000)
        assert await consumer.position(tp) == 0
        await consumer.commit()
        assert await consumer.committed(tp) == 0
        assert values(await read(consumer, 2)) == [b"1", b"2"]
    assert reader.audit.counts == {"delivered": 2, "unavailable": 2}


async def test_async_for_waits_out_an_outage(world: World) -> None:
    """An iteration does not end because the key source is down for a while."""
    topic = await world.make_topic()
    await world.say(topic, b"1")
    reader = world.reader()
    world.keys.failures = 2
    async with world.consumer(reader, topic) as consumer, asyncio.timeout(PATIENCE):
        async for record in consumer:
            assert record.value == b"1"
            break
    assert reader.audit.counts == {"delivered": 1, "unavailable": 2}


async def test_cancelled_in_mid_verify_loses_nothing(world: World) -> None:
    """A getmany that is cancelled while it judges gives nothing away: all comes with the next call, once."""
    topic = await world.make_topic()
    await world.say(topic, b"1", b"2", b"3")
    tp = TopicPartition(topic, 0)
    reader = world.reader()
    async with world.consumer(reader, topic) as consumer:
        world.keys.gate.clear()
        call = asyncio.create_task(consumer.getmany(timeout_ms=20_000))
        await asyncio.wait_for(world.keys.question.wait(), PATIENCE)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await consumer.position(tp) == 0
        world.keys.gate.set()
        assert values(await read(consumer, 3)) == [b"1", b"2", b"3"]
    assert reader.audit.counts == {"delivered": 3}


async def test_concurrent_callers_share_the_records(world: World) -> None:
    """Several tasks that call getone at once get every record once between them."""
    topic = await world.make_topic(3)
    async with world.producer() as producer:
        for n in range(60):
            await producer.send(topic, b"%d" % n, partition=n % 3)
    async with world.consumer(world.reader(), topic) as consumer:
        shares = await asyncio.gather(*(read(consumer, 12) for _ in range(5)))
    assert sorted(int(record.value or b"") for share in shares for record in share) == list(range(60))
    for tp in range(3):
        offsets = [r.offset for share in shares[:1] for r in share if r.partition == tp]
        assert offsets == sorted(offsets)


async def test_a_deserializer_that_raises_costs_one_error(world: World) -> None:
    """A failing deserializer gives one clear error, with its cause, and the records around it arrive."""
    topic = await world.make_topic()
    await world.say(topic, b"1", b"x", b"3")
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic, value_deserializer=int) as consumer:
        assert values((await consumer.getmany(timeout_ms=20_000))[tp]) == [1]
        with pytest.raises(DeserializationError, match=r"offset 1: the message is as its sender signed it") as failed:
            await consumer.getmany(timeout_ms=20_000)
        assert isinstance(failed.value.__cause__, ValueError)
        assert failed.value.record.value == b"x"
        assert await consumer.position(tp) == 2
        assert values(await read(consumer, 1)) == [3]


async def test_seeks_discard_what_was_taken_and_are_no_replay(world: World) -> None:
    """After any seek the consumer reads from there, also over records that it had taken, and calls none a replay."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1", b"2", b"3")
    tp = TopicPartition(topic, 0)
    reader = world.reader()
    async with world.consumer(reader, topic, group_id=group, enable_auto_commit=False) as consumer:
        assert values((await consumer.getmany(timeout_ms=20_000))[tp]) == [b"0", b"1", b"2", b"3"]
        consumer.seek(tp, 1)
        assert values(await read(consumer, 1)) == [b"1"]
        assert await consumer.seek_to_committed() == {tp: 0}  # committed before anything was handed over
        assert values(await read(consumer, 1)) == [b"2"]
        await consumer.commit({tp: 2})
        assert await consumer.seek_to_committed(tp) == {tp: 2}
        assert values(await read(consumer, 1)) == [b"2"]
        await consumer.seek_to_beginning()
        assert await consumer.position(tp) == 0
        assert values(await read(consumer, 1)) == [b"0"]
        await consumer.seek_to_end(tp)
        assert await consumer.position(tp) == 4
        assert await consumer.getmany(timeout_ms=10) == {}
    assert set(reader.audit.counts) == {"delivered"}


async def test_a_seek_drops_what_waits_to_be_judged(world: World) -> None:
    """Records that were taken before a seek are not delivered behind it."""
    topic = await world.make_topic()
    await world.say(topic, b"1", b"2", b"3")
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic) as consumer:

        async def take_and_give_up() -> None:
            world.keys.failures = 1
            with pytest.raises(Unavailable):
                await consumer.getmany(timeout_ms=20_000)

        await take_and_give_up()
        consumer.seek(tp, 2)
        assert values(await read(consumer, 1)) == [b"3"]
        consumer.seek(tp, 0)
        await take_and_give_up()
        await consumer.seek_to_end()
        assert await consumer.getmany(timeout_ms=200) == {}


async def test_commit_refuses_to_go_beyond_what_was_handed_over(world: World) -> None:
    """An explicit commit ahead of judgement is refused with an error that says what may be committed."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"0", b"1", b"2")
    tp = TopicPartition(topic, 0)
    async with world.consumer(world.reader(), topic, group_id=group, enable_auto_commit=False) as consumer:
        await read(consumer, 2)
        with pytest.raises(ConfigurationError, match="records are verified only up to 2"):
            await consumer.commit({tp: 3})
        await consumer.commit({tp: (2, "note")})
        assert await consumer.committed(tp) == 2


async def test_observe_mode_reads_unsigned_traffic_and_counts(world: World) -> None:
    """A roll-out drops nothing: unsigned records arrive as they are, and the counts say what would be dropped."""
    topic = await world.make_topic()
    await world.say(topic, b"signed")
    (captured,) = await world.capture(topic)
    await world.inject(topic, [type(captured)(value=b"unsigned", headers=(("h", b"v"),)), captured])
    reader = world.reader(mode=Mode.OBSERVE)
    async with world.consumer(reader, topic) as consumer:
        signed, unsigned, again = await observe(consumer, 3)
    assert isinstance(signed.verdict, VerifiedMessage)
    assert isinstance(unsigned.verdict, Rejected)
    assert unsigned.verdict.reason is Reason.UNSIGNED
    assert unsigned.headers == (("h", b"v"),)
    assert isinstance(again.verdict, Rejected)
    assert again.verdict.reason is Reason.REPLAYED
    assert reader.audit.counts == {"delivered": 1, "unsigned": 1, "replayed": 1}


async def test_records_are_drop_ins_for_aiokafka(world: World) -> None:
    """A verified record has the attributes of aiokafka's, deserialized, plus who wrote it; its repr has no payload."""
    topic = await world.make_topic()
    await world.say(topic, b"secret", key=b"k", headers=[("h", b"v")])
    async with world.consumer(world.reader(), topic, key_deserializer=bytes.decode) as consumer:
        (record,) = await read(consumer, 1)
    assert (record.topic, record.partition, record.offset, record.timestamp_type) == (topic, 0, 0, 1)
    assert (record.key, record.value, record.headers) == ("k", b"secret", (("h", b"v"),))
    assert (record.serialized_key_size, record.serialized_value_size) == (1, 6)
    assert record.verified.principal == PLANNER
    assert "secret" not in repr(record)
    assert isinstance(record, VerifiedRecord)


@pytest.mark.parametrize("way", ["getone", "getmany", "async for"])
@pytest.mark.parametrize("group", ["group", None])
async def test_stop_ends_who_waits(world: World, way: str, group: str | None) -> None:
    """If a task stops the consumer while another waits for records, that one ends as with aiokafka, and never hangs."""
    topic = await world.make_topic()

    async def wait_for(consumer: AIOKafkaConsumer) -> object:
        if way == "getone":
            return await consumer.getone()
        return await consumer.getmany(timeout_ms=60_000) if way == "getmany" else [r async for r in consumer]

    async def reading(consumer: AIOKafkaConsumer) -> bool:
        return bool(consumer._subscription._fetch_count)

    async def end(consumer: AIOKafkaConsumer) -> str:
        await consumer.start()
        waiting = asyncio.create_task(wait_for(consumer))
        await eventually(lambda: reading(consumer))
        await consumer.stop()
        async with asyncio.timeout(PATIENCE):
            (answer,) = await asyncio.gather(waiting, return_exceptions=True)
        return repr(answer)

    options: dict[str, Any] = {
        "bootstrap_servers": world.bootstrap,
        "group_id": world.unique(group) if group else None,
    }
    ours = await end(VerifyingConsumer(topic, watchword=world.reader(), **options))
    assert ours == await end(AIOKafkaConsumer(topic, **options))


@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
async def test_a_position_beyond_the_log_is_reset_as_by_aiokafka(world: World, reset: str) -> None:
    """A committed position that the log has not reached swallows nothing: it is reset, or refused at each call."""
    topic, group = await world.make_topic(), world.unique("group")
    await world.say(topic, b"old")
    await commit_for(world.bootstrap, group, TopicPartition(topic, 0), 1_000)
    async with world.consumer(world.reader(), topic, group_id=group, auto_offset_reset=reset) as consumer:
        if reset == "none":
            for _ in range(2):
                with pytest.raises(OffsetOutOfRangeError):
                    await asyncio.wait_for(consumer.getone(), PATIENCE)
            return
        assert await consumer.getmany(timeout_ms=1_000) == {} or reset == "earliest"
        await world.say(topic, b"new")
        assert values(await read(consumer, 1)) == [b"new"]


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
async def test_one_handler_runs_in_both_modes(world: World, mode: Mode) -> None:
    """``verified`` is on whatever is handed over, None only for what enforcing drops; all of it can be sent on."""
    topic, onward = await world.make_topic(), await world.make_topic()
    await world.say(topic, b"honest", headers=[("h", b"v")])
    await world.inject(topic, [Captured(value=b"forged", headers=(("h", b"v"),))])
    await world.say(topic, b"end")
    seen: list[tuple[bytes | None, str | None]] = []
    async with world.consumer(world.reader(mode=mode), topic) as consumer, world.producer() as producer:
        async for record in consumer:
            seen.append((record.value, None if record.verified is None else record.verified.principal))
            await producer.send_and_wait(onward, record.value, record.key, partition=0, headers=[*record.headers])
            if record.value == b"end":
                break
    dropped = [(b"forged", None)] if mode is Mode.OBSERVE else []
    assert seen == [(b"honest", PLANNER), *dropped, (b"end", PLANNER)]
    async with world.consumer(world.reader(), onward) as consumer:
        assert len(await read(consumer, len(seen))) == len(seen)
