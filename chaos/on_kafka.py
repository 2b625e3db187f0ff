"""Kafka: one topic, six partitions, one consumer group, no store."""

from __future__ import annotations

import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.structs import TopicPartition

from chaos import kafka_attack, kafka_speakers
from chaos.evidence import EVENTS, Writer
from chaos.kafka_log import TopicLog
from chaos.kafka_member import GROUP, answers_to, member

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from chaos.bus import Attacking, Handler, Speaking
    from chaos.cast import Worker
    from chaos.kafka_log import Record
    from chaos.plan import Plan

PARTITIONS: Final = 6
_COMPACTION: Final = {
    "cleanup.policy": "compact,delete",
    "segment.ms": "2000",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}
_LONGEST_LAG: Final = 45.0
"""Seconds by which members may be behind: what compaction takes from under them, or from their windows, is lost."""


class KafkaGroup:
    """See ``Bus``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._bootstrap = plan.address
        self._topic = plan.channel
        self._partitions = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        self._behind_last: dict[int, int] = {}
        self._read: dict[int, int] = {}
        self._read_by_time: deque[tuple[float, dict[int, int]]] = deque()

    async def prepare(self) -> None:
        """See ``Bus``."""
        settings = {"message.timestamp.type": "LogAppendTime" if self._plan.scene.stamped else "CreateTime"}
        if self._plan.scene.compacted:
            settings |= _COMPACTION | {"min.compaction.lag.ms": str(int(1000 * self._kept))}
        topics = [NewTopic(self._topic, PARTITIONS, 1, topic_configs=settings)]
        if self._plan.scene.transactions:
            topics.append(NewTopic(answers_to(self._topic), 1, 1))
        async with self._admin() as admin:
            answer: Any = await admin.create_topics(topics)
        if any(error[1] for error in answer.topic_errors):
            raise RuntimeError(f"the topic could not be made: {answer.topic_errors}")

    def speaking(self) -> AbstractAsyncContextManager[Speaking]:
        """See ``Bus``."""
        return kafka_speakers.speaking(self._plan, PARTITIONS)

    def attacking(self) -> AbstractAsyncContextManager[Attacking]:
        """See ``Bus``."""
        return kafka_attack.attacking(self._plan, PARTITIONS)

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """See ``Bus``."""
        async with member(worker) as one:
            ready()
            await one.work(handle, stop)

    async def lag(self) -> int:
        """See ``Bus``: how many offsets lie between the group's commits and what stands behind the last records."""
        committed = await self._committed()  # first: it continues
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap) as consumer:
            ends = {tp.partition: end for tp, end in (await consumer.end_offsets(self._partitions)).items()}
        beyond = {partition: at for partition, at in committed.items() if at > ends[partition]}
        if beyond:
            raise RuntimeError(f"the group has committed beyond the ends of the log: {beyond} of {ends}")
        return sum(max(0, behind - committed.get(number, 0)) for number, behind in self._behind_last.items())

    async def log(self, end: asyncio.Event) -> AsyncIterator[tuple[str, str]]:
        """See ``Bus``; a copy in another partition may be read before its original, and then waits for that."""
        originals: set[str] = set()
        waiting: list[Record] = []
        told: set[tuple[int, int]] = set()
        async with TopicLog(self._bootstrap, self._topic, PARTITIONS) as log:
            ending = False
            while not (ending and log.is_at_end):
                ending = end.is_set()
                found = waiting + await log.read()
                waiting = []
                for record in sorted(found, key=_is_away):
                    name = _name_of(record)
                    if _is_away(record) and name not in originals and not ending:
                        waiting.append(record)
                        continue
                    originals.add(name)
                    if record.offset is not None:
                        self._behind_last[record.partition] = record.offset + 1
                        told.add((record.partition, record.offset))
                    yield name, record.position
                self._read = log.positions
                self._read_by_time.append((time.monotonic(), self._read))
        if self._plan.scene.compacted:
            gone = await self._compacted(told)
            Writer(self._plan.directory, EVENTS).tell(*([("compacted", f"{gone}")] if gone else []))

    async def cut(self, *, everything: bool) -> int:
        """See ``Retaining``: up to the group's commits, or only what stood there longer ago than a window."""
        committed = await self._committed()
        long_ago: dict[int, int] = {}
        while self._read_by_time and self._read_by_time[0][0] < time.monotonic() - self._kept:
            _, long_ago = self._read_by_time.popleft()
        bounds = self._read if everything else long_ago
        wanted = {
            TopicPartition(self._topic, number): RecordsToDelete(before_offset=min(at, bounds.get(number, 0)))
            for number, at in committed.items()
        }
        async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap) as consumer, self._admin() as admin:
            before = await consumer.beginning_offsets(self._partitions)
            after = await admin.delete_records(
                {tp: one for tp, one in wanted.items() if one.before_offset > before[tp]}
            )
        return sum(first - before[tp] for tp, first in after.items())

    async def _compacted(self, told: set[tuple[int, int]]) -> int:
        """Return how many records are gone although retention has left what stood before them."""
        left: set[tuple[int, int]] = set()
        async with TopicLog(self._bootstrap, self._topic, PARTITIONS) as log:
            while not log.is_at_end:
                left |= {(record.partition, record.offset) for record in await log.read() if record.offset is not None}
            firsts = await log.firsts()
        return sum(offset >= firsts[partition] for partition, offset in told - left)

    @property
    def _kept(self) -> float:
        """How long a record stays at least, in seconds: what retention takes earlier may cost honest messages."""
        return self._plan.policy.window + _LONGEST_LAG

    async def _committed(self) -> dict[int, int]:
        async with self._admin() as admin:
            found = await admin.list_consumer_group_offsets(GROUP)
        return {tp.partition: max(0, one.offset) for tp, one in found.items() if tp.topic == self._topic}

    @asynccontextmanager
    async def _admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()


def _name_of(record: Record) -> str:
    return (record.value or b"").decode(errors="replace")


def _is_away(record: Record) -> bool:
    name = _name_of(record)
    return name.isdigit() and kafka_speakers.home_of(name, PARTITIONS) != record.partition
