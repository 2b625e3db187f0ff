"""What a publisher may write into a batch and Apache Kafka keeps: the facts that the reader's checks rest on.

Each attack on offsets, timestamps or producers is built with the tools that are tried here, so a broker that begins to
refuse one of these batches fails here first.
"""

import time
from dataclasses import replace
from typing import Any, Literal

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder

from tests.brokers.plugin import MakeTopic, TimestampType
from tests.support.broker_tools import alter_topic, commit_for, committed_by, delete_before, ends_of
from tests.support.raw_kafka import (
    CONTROL_BIT,
    GZIP,
    LOG_APPEND_TIME_BIT,
    LZ4,
    SNAPPY,
    TRANSACTIONAL_BIT,
    ZSTD,
    Batch,
    Raw,
    RawClient,
    Refused,
    Stored,
)

INVALID_RECORD, INVALID_TIMESTAMP, OUT_OF_ORDER, OLD_EPOCH, NO_RIGHT, UNEXPECTED = 87, 32, 45, 47, 53, -1
DAY = 86_400_000
KINDS: tuple[TimestampType, ...] = ("CreateTime", "LogAppendTime")

kinds = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.needs_kafka("raw_batches")


def three(**fields: Any) -> Batch:
    """Return an ordinary batch of three, with some fields set."""
    records = [Raw(value=b"a"), Raw(value=b"b"), Raw(value=b"c")]
    return replace(Batch(records=records, first_timestamp=now()), **fields)


def now() -> int:
    """Return the time in milliseconds."""
    return int(time.time() * 1000)


async def stored(bootstrap: str, topic: str, batch: Batch) -> Stored:
    """Send a batch; return what the broker made of it."""
    async with RawClient(bootstrap) as raw:
        return (await raw.fetch(topic, await raw.send(topic, batch)))[0]


@kinds
async def test_honest_batches_are_stored(kafka_bootstrap: str, make_topic: MakeTopic, kind: TimestampType) -> None:
    """What the tool builds without special wishes is a batch like any."""
    topic = await make_topic(timestamp_type=kind)
    for round_, codec in enumerate((0, GZIP, SNAPPY, LZ4, ZSTD)):
        kept = await stored(kafka_bootstrap, topic, three(codec=codec))
        assert (kept.base_offset, kept.last_delta, kept.count, kept.attributes & 0x07) == (3 * round_, 2, 3, codec)
        assert kept.deltas == (() if codec else (0, 1, 2))
    assert await ends_of(kafka_bootstrap, TopicPartition(topic, 0)) == (0, 15)


@kinds
async def test_offset_deltas_are_the_publishers_word(
    kafka_bootstrap: str, make_topic: MakeTopic, kind: TimestampType
) -> None:
    """In an uncompressed batch each record says any offset; the broker counts the batch's range only."""
    topic = await make_topic(timestamp_type=kind)
    for deltas in [(0, 1_000_000, 2), (-3, 1, 2), (1, 0, 2), (0, 0, 2), (2**31 - 1, -(2**31), 7), (3, 4, 5)]:
        kept = await stored(kafka_bootstrap, topic, three(records=[Raw(delta=delta) for delta in deltas]))
        assert (kept.deltas, kept.last_delta) == (deltas, 2)
    assert await ends_of(kafka_bootstrap, TopicPartition(topic, 0)) == (0, 18)


async def test_deltas_in_a_compressed_batch_are_checked(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """A compressed batch is unpacked by the broker, and refused unless its records count up by one."""
    topic = await make_topic()
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        for deltas in [(0, 1_000_000, 2), (1, 0, 2), (0, 0, 2)]:
            with pytest.raises(Refused) as refused:
                await stored(kafka_bootstrap, topic, three(codec=codec, records=[Raw(delta=d) for d in deltas]))
            assert refused.value.code in {INVALID_RECORD, UNEXPECTED}


@kinds
async def test_what_is_refused(kafka_bootstrap: str, make_topic: MakeTopic, kind: TimestampType) -> None:
    """Control and transaction bits without the right to them, and a range that does not fit the count, are refused."""
    topic = await make_topic(timestamp_type=kind)
    wishes: list[tuple[dict[str, Any], int]] = [
        ({"attributes": CONTROL_BIT}, INVALID_RECORD),
        ({"attributes": TRANSACTIONAL_BIT, "producer_id": 5, "epoch": 0, "sequence": 0}, NO_RIGHT),
        ({"base_offset": 5}, INVALID_RECORD),
        ({"count": 4}, INVALID_RECORD),
        ({"count": 2}, INVALID_RECORD),
        ({"last_delta": 5}, INVALID_RECORD),
        ({"last_delta": 5, "count": 6}, INVALID_RECORD),
        ({"records": [], "count": 0, "last_delta": 0}, INVALID_RECORD),
        ({"records": [Raw(delta=2**40)]}, INVALID_RECORD),
    ]
    for fields, code in wishes:
        with pytest.raises(Refused) as refused:
            await stored(kafka_bootstrap, topic, three(**fields))
        assert refused.value.code == code, fields
    assert await ends_of(kafka_bootstrap, TopicPartition(topic, 0)) == (0, 0)


@pytest.mark.parametrize("magic", [0, 1])
async def test_older_formats_are_refused(kafka_bootstrap: str, make_topic: MakeTopic, magic: Literal[0, 1]) -> None:
    """Nobody gets a message of the formats before v2 into a log, in which offsets meant something else."""
    topic = await make_topic()
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 16)
    builder.append(0, now(), None, b"old")
    async with RawClient(kafka_bootstrap) as raw:
        with pytest.raises(Refused):
            await raw.send(topic, bytes(builder.build()))
    assert await ends_of(kafka_bootstrap, TopicPartition(topic, 0)) == (0, 0)


async def test_timestamps_on_create_time(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """Ten years back and fifty minutes ahead are stored as written, more than an hour ahead is not."""
    topic = await make_topic(timestamp_type="CreateTime")
    for ahead in (-3_650 * DAY, 3_000_000):
        written = now() + ahead
        kept = await stored(kafka_bootstrap, topic, three(first_timestamp=written))
        assert (kept.first_timestamp, kept.max_timestamp) == (written, written)
    with pytest.raises(Refused) as refused:
        await stored(kafka_bootstrap, topic, three(first_timestamp=now() + 3_700_000))
    assert refused.value.code == INVALID_TIMESTAMP


async def test_timestamps_on_log_append_time(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """The broker's stamp is the batch's greatest timestamp, whatever was written; the first stays the publisher's."""
    topic = await make_topic()
    written = now() - 3_650 * DAY
    kept = await stored(kafka_bootstrap, topic, three(first_timestamp=written, max_timestamp=written))
    assert (kept.first_timestamp, kept.attributes) == (written, LOG_APPEND_TIME_BIT)
    assert abs(kept.max_timestamp - now()) < 60_000


async def test_the_stamp_bit_cannot_be_forged(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """No writer can pass off its own timestamp as the broker's: the bit is taken away, or the batch refused."""
    topic = await make_topic(timestamp_type="CreateTime")
    kept = await stored(kafka_bootstrap, topic, three(attributes=LOG_APPEND_TIME_BIT))
    assert kept.attributes == 0
    topic = await make_topic()
    with pytest.raises(Refused) as refused:
        await stored(kafka_bootstrap, topic, three(attributes=LOG_APPEND_TIME_BIT))
    assert refused.value.code == INVALID_TIMESTAMP


@pytest.mark.parametrize(("kind", "left"), [("CreateTime", -64), ("LogAppendTime", 0x40 | LOG_APPEND_TIME_BIT)])
async def test_unused_attribute_bits(
    kafka_bootstrap: str, make_topic: MakeTopic, kind: TimestampType, left: int
) -> None:
    """Bits 6 to 15 are stored as written, except where the broker stamps: there only bit 6 stays."""
    topic = await make_topic(timestamp_type=kind)
    kept = await stored(kafka_bootstrap, topic, three(attributes=-64))
    assert kept.attributes == left


async def test_any_producer_may_be_claimed(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """An unknown producer begins with any sequence; a known one continues, and is fenced, by anyone with its number."""
    topic = await make_topic()
    first = three(producer_id=1 << 40, epoch=7, sequence=1_000)
    async with RawClient(kafka_bootstrap) as raw:
        assert await raw.send(topic, first) == 0
        assert await raw.send(topic, replace(first, sequence=1_003)) == 3
        assert await raw.send(topic, replace(first, sequence=1_003)) == 3  # a duplicate: stored once
        with pytest.raises(Refused) as gap:
            await raw.send(topic, replace(first, sequence=9_000))
        assert await raw.send(topic, replace(first, epoch=8, sequence=0)) == 6
        with pytest.raises(Refused) as fenced:
            await raw.send(topic, replace(first, sequence=1_006))
    assert (gap.value.code, fenced.value.code) == (OUT_OF_ORDER, OLD_EPOCH)


async def test_an_idempotent_producers_next_message_can_be_made_to_vanish(
    kafka_bootstrap: str, make_topic: MakeTopic
) -> None:
    """A stranger's batch with a producer's number, epoch and next sequence makes the honest one a duplicate."""
    topic = await make_topic()
    async with (
        RawClient(kafka_bootstrap) as raw,
        AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, enable_idempotence=True) as honest,
    ):
        await honest.send_and_wait(topic, b"first", partition=0)
        (seen,) = await raw.fetch(topic)
        hijack = Batch(
            records=[Raw(value=b"hijack")],
            first_timestamp=now(),
            producer_id=seen.producer_id,
            epoch=seen.epoch,
            sequence=seen.sequence + 1,
        )
        assert await raw.send(topic, hijack) == 1
        told = await honest.send_and_wait(topic, b"second", partition=0)
        assert told.offset == 1
        assert b"second" not in b"".join(kept.raw for kept in await raw.fetch(topic))


@pytest.mark.parametrize("ending", ["commit", "abort"])
async def test_a_strangers_transaction(kafka_bootstrap: str, make_topic: MakeTopic, unique: Any, ending: str) -> None:
    """Crafted batches stand in a transaction too, which ends in a marker of the broker's: a control record."""
    topic = await make_topic()
    async with RawClient(kafka_bootstrap) as raw:
        async with raw.transaction(unique("stranger"), topic) as held:
            assert await held.send(topic, Batch(records=[Raw(delta=70)])) == 0
            assert await held.send(topic, Batch(records=[Raw(), Raw()])) == 1
            await (held.commit() if ending == "commit" else held.abort())
        *inside, marker = await raw.fetch(topic)
    assert [kept.attributes & TRANSACTIONAL_BIT for kept in inside] == [TRANSACTIONAL_BIT] * 2
    assert marker.attributes & (TRANSACTIONAL_BIT | CONTROL_BIT) == TRANSACTIONAL_BIT | CONTROL_BIT
    assert (inside[0].deltas, marker.base_offset, marker.count) == ((70,), 3, 1)
    assert await ends_of(kafka_bootstrap, TopicPartition(topic, 0)) == (0, 4)


async def test_a_transaction_left_open_is_aborted_by_the_tool(
    kafka_bootstrap: str, make_topic: MakeTopic, unique: Any
) -> None:
    """A test that fails inside a transaction leaves none behind."""
    topic = await make_topic()
    async with RawClient(kafka_bootstrap) as raw:
        async with raw.transaction(unique("stranger"), topic) as held:
            await held.send(topic, Batch(records=[Raw()]))
        assert not held.is_open


async def test_many_headers_in_few_bytes(kafka_bootstrap: str, make_topic: MakeTopic) -> None:
    """Hundreds of thousands of empty headers fit into a batch of a kilobyte, and the broker asks no questions."""
    topic = await make_topic()
    bomb = Batch(records=[Raw(headers=[(b"", b"")] * 340_000)], codec=GZIP)
    assert len(bytes(bomb)) < 1_500
    kept = await stored(kafka_bootstrap, topic, bomb)
    assert len(kept.raw) == len(bytes(bomb))


async def test_settings_retention_and_commits_of_others(
    kafka_bootstrap: str, make_topic: MakeTopic, unique: Any
) -> None:
    """The small tools do what they say: alter a topic, cut and empty it, commit anything for a group."""
    topic, group = await make_topic(timestamp_type="CreateTime", retention_ms="86400000"), unique("group")
    tp = TopicPartition(topic, 0)
    assert await committed_by(kafka_bootstrap, group, tp) is None
    await alter_topic(kafka_bootstrap, topic, message_timestamp_type="LogAppendTime")
    assert (await stored(kafka_bootstrap, topic, three())).attributes == LOG_APPEND_TIME_BIT
    await alter_topic(kafka_bootstrap, topic, message_timestamp_type="CreateTime")
    assert (await stored(kafka_bootstrap, topic, three())).attributes == 0
    await delete_before(kafka_bootstrap, topic, 2)
    assert await ends_of(kafka_bootstrap, tp) == (2, 6)
    await delete_before(kafka_bootstrap, topic, -1)
    assert await ends_of(kafka_bootstrap, tp) == (6, 6)
    await commit_for(kafka_bootstrap, group, tp, 1_000_002, "a note")
    found = await committed_by(kafka_bootstrap, group, tp)
    assert found is not None
    assert (found.offset, found.metadata) == (1_000_002, "a note")
