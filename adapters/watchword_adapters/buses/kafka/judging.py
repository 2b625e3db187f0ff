"""Judges what was taken from a partition, in order; what the guard must know first is only remembered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from watchword import Reason, Rejected, Unavailable
from watchword.outage import Outage
from watchword_adapters.buses.kafka.records import CREATE_TIME, Record, record_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka.structs import ConsumerRecord, TopicPartition

    from watchword import Message, Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.buses.kafka.progress import Partition
    from watchword_adapters.buses.kafka.rebuild import Rebuild
    from watchword_adapters.buses.kafka.topics import TopicWarnings

_BREATH: Final = 32
"""Records judged before other tasks get a turn: a flood must not stop heartbeats."""


class Judge:
    """Judges the records of one consumer; ``message`` makes of one what the verifier reads."""

    def __init__(
        self,
        watchword: Watchword,
        quarantine: Quarantine | None,
        *,
        message: Callable[[ConsumerRecord[Any, Any]], Message],
        position: Callable[[TopicPartition], int | None],
        rebuild: Rebuild,
        stamps: TopicWarnings,
    ) -> None:
        self._watchword = watchword
        self._quarantine = quarantine
        self._message = message
        self._position = position
        self._rebuild = rebuild
        self._stamps = stamps
        self._outage = Outage(watchword.verifier.policy.max_hold)
        self._judgements = 0

    async def judge(self, tp: TopicPartition, partition: Partition) -> None:
        """Judge what is pending, in order; Unavailable leaves it there and puts the next try off."""
        async with partition.lock:
            while partition.pending and partition.anchored:  # a seek may have come while the lock was another's
                generation, raw = partition.generation, partition.pending[0]
                completed = await self._rebuild.completed(tp, partition, raw.offset)
                if partition.generation != generation:  # sought, or assigned anew, in the meantime
                    return
                record = await (self._admit if completed else self._recall)(partition, raw)
                partition.refused = None
                if partition.generation != generation:
                    return
                partition.release()
                partition.pending.popleft()
                if record is not None:
                    partition.ready.append(record)
                self._judgements += 1
                if not self._judgements % _BREATH:
                    await asyncio.sleep(0)
            position = self._position(tp)
            if position is not None:  # the log may end in what is no record
                await self._rebuild.completed(tp, partition, position)

    async def _admit(self, partition: Partition, raw: ConsumerRecord[Any, Any]) -> Record | None:
        if raw.timestamp_type == CREATE_TIME:
            self._stamps.warn(raw.topic)
        message = self._message(raw)
        if partition.refused is not None and partition.refused[0] is raw:
            await self.keep(message, partition.refused[1])
            return None
        try:
            delivered = await self._watchword.admit(message)
        except Rejected as verdict:
            if verdict.reason is not Reason.UNKNOWN_KEY:  # which a source that is down half of the time says too
                self._determined(partition)
            partition.refused = raw, verdict
            await self.keep(message, verdict)
            return None
        except Unavailable as verdict:
            now = asyncio.get_running_loop().time()
            if self._outage.holds(now) or not await self.keep(message, verdict):
                partition.hold(now)
                raise
            self._watchword.audit.passed_over()
            self._watchword.verifier.pass_over(message)
            return None
        self._determined(partition)
        return record_of(raw, delivered)

    async def _recall(self, partition: Partition, raw: ConsumerRecord[Any, Any]) -> None:
        """Remember a record that passed before; one on whose key there is no verdict for too long, by its claims."""
        message = self._message(raw)
        try:
            await self._watchword.verifier.recall(message)
        except Unavailable:
            now = asyncio.get_running_loop().time()
            if self._outage.holds(now) and not self._watchword.observing:
                partition.hold(now)
                raise
            self._watchword.verifier.pass_over(message)
        partition.recalled += 1

    def _determined(self, partition: Partition) -> None:
        if partition.failures:
            self._outage.over()

    async def keep(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Put what is not delivered into quarantine, where there is one; tell whether it is there."""
        if self._quarantine is None:
            return False
        try:
            return await self._quarantine.put(message, verdict)
        except Unavailable:  # counted there; a rejected record stays in the log
            return False
