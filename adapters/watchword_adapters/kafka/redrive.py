"""Reads the copies in a quarantine topic, and verifies the messages that they point at again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from watchword import ConfigurationError, Unavailable
from watchword.message import is_topic
from watchword.quarantine_copy import message_digest, read_copy
from watchword_adapters.kafka._seam import partitions_at_the_broker
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.records import ObservedRecord
from watchword_adapters.redriving import ANY, Choice, Redriven, Stored, judge, judged_copy, onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from watchword import Watchword
    from watchword.quarantine_copy import Kept

LIMIT: Final = 1000
"""Default number of latest copies that are read from each partition."""

COMMITTED: Final[dict[str, Any]] = {"isolation_level": "read_committed", "enable_auto_commit": False}
_ROUND_MS: Final = 500
_SILENT_ROUNDS: Final = 10
"""Rounds without a record after which the rest is taken for transaction markers."""


_Consumer = TypeVar("_Consumer", bound=AIOKafkaConsumer)


async def copies(topic: str, *, watchword: Watchword, limit: int = LIMIT, **options: Any) -> list[Stored]:
    """Return the latest ``limit`` copies of each partition of a quarantine topic, oldest first.

    ``options`` are aiokafka's connection options. ConfigurationError if the topic is missing; the client's errors.
    """
    async with opened(VerifyingConsumer(watchword=onlooker(watchword), **(COMMITTED | options))) as consumer:
        tps = [TopicPartition(topic, number) for number in await partitions_at_the_broker(consumer, topic)]
        if not tps:
            raise ConfigurationError(f"quarantine topic {topic!r} does not exist: check the name")
        consumer.assign(tps)
        first, end = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        for tp in tps:
            consumer.seek(tp, max(first[tp], end[tp] - limit))
        found: list[Stored] = []
        silence = 0
        while silence < _SILENT_ROUNDS and (left := [tp for tp in tps if await consumer.position(tp) < end[tp]]):
            batches = await consumer.getmany(*left, timeout_ms=_ROUND_MS)
            silence = 0 if batches else silence + 1
            found += [
                _stored(record)
                for tp, records in batches.items()
                for record in records
                if isinstance(record, ObservedRecord) and record.offset < end[tp]
            ]
    return found


async def redrive(
    topic: str,
    *,
    watchword: Watchword,
    only: Choice = ANY,
    limit: int = LIMIT,
    patience: float = 60.0,
    **options: Any,
) -> AsyncIterator[Redriven]:
    """Verify the messages that the copies point at again, one after the other, as ``watchword`` would now.

    The consumer is in no group and commits nothing: the next redrive may yield the same results again. ``patience`` is
    the time limit for one message in seconds, during which the window before it is reread. If a log or key source does
    not answer, the result's verdict is Unavailable.
    """
    judging = judge(watchword)
    found = await copies(topic, watchword=watchword, limit=limit, **options)
    chosen = [(stored, stored.kept) for stored in found if stored.kept is not None and only.takes(stored)]
    async with (
        opened(VerifyingConsumer(watchword=judging, **(COMMITTED | options))) as log,
        opened(AIOKafkaConsumer(**({"enable_auto_commit": False} | options))) as plain,
    ):
        for stored, kept in chosen:
            try:
                ours = kept.channel.realm == watchword.realm
                record = await _original(log, plain, kept, patience) if ours else None
            except Unavailable as verdict:
                yield Redriven(id=stored.id, read="original", kept=kept, verdict=verdict)
                continue
            if record is None or _digest(record) != kept.digest:
                yield await judged_copy(judging, stored, kept)
            else:
                yield Redriven(id=stored.id, read="original", kept=kept, verdict=record.verdict)


@asynccontextmanager
async def opened(consumer: _Consumer) -> AsyncIterator[_Consumer]:
    """Start a consumer and stop it at the end, even if it fails to start."""
    try:
        await consumer.start()
        await asyncio.sleep(0)  # aiokafka's stop() raises CancelledError if the consumer's tasks never ran
        yield consumer
    finally:
        await consumer.stop()


async def _original(
    log: VerifyingConsumer, plain: AIOKafkaConsumer, kept: Kept, patience: float
) -> ObservedRecord | None:
    """Read the record now at the copy's position; None if there is none, Unavailable in an open transaction."""
    number, position, topic = kept.message.partition, kept.position, kept.channel.name
    if (
        number is None
        or position is None
        or not is_topic(topic)
        or number not in await partitions_at_the_broker(plain, topic)
    ):
        return None
    tp = TopicPartition(topic, number)
    plain.assign([tp])
    first, end = (await plain.beginning_offsets([tp]))[tp], (await plain.end_offsets([tp]))[tp]
    if not first <= position.offset < end:
        return None
    log.assign([tp])
    if position.offset >= (await log.end_offsets([tp]))[tp]:
        raise Unavailable("log", "in a transaction that is still open")
    log.seek(tp, position.offset)
    try:
        async with asyncio.timeout(patience):
            record = await log.getone(tp)
    except TimeoutError:  # aborted or compacted away, with nothing after it
        return None
    return record if isinstance(record, ObservedRecord) and record.offset == position.offset else None


def _digest(record: ObservedRecord) -> str:
    return message_digest(record.message)


def _stored(record: ObservedRecord) -> Stored:
    identity, size = f"{record.partition}/{record.offset}", len(record.value or b"")
    try:
        kept = read_copy(record.value, record.key, record.headers)
    except ValueError as error:
        return Stored(id=identity, kept=None, fault=str(error), size=size)
    return Stored(id=identity, kept=kept, size=size)
