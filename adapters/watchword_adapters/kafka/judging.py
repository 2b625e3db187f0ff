"""Judges what was taken from a partition, in order and many at once; what the guard must know first is remembered."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from watchword import ObservedMessage, Reason, Rejected, Unavailable, VerifiedMessage
from watchword.outage import Outage
from watchword_adapters.kafka.progress import Judged
from watchword_adapters.kafka.records import CREATE_TIME, record_of
from watchword_adapters.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiokafka.structs import ConsumerRecord, TopicPartition

    from watchword import Delivered, Message, Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.kafka.progress import Partition
    from watchword_adapters.kafka.rebuild import Rebuild
    from watchword_adapters.kafka.topics import TopicWarnings

_TOGETHER: Final = 256
"""Records judged at once: some full trees, of which each leaf is hashed but once."""

_BREATH: Final = 64
"""Records judged before other tasks get a turn: a flood must not stop heartbeats."""


class Judge:
    """Judges the records of one consumer; ``messages`` makes of them what the verifier reads."""

    def __init__(
        self,
        watchword: Watchword,
        quarantine: Quarantine | None,
        *,
        messages: Callable[[Iterable[ConsumerRecord[Any, Any]]], list[Message]],
        position: Callable[[TopicPartition], int | None],
        rebuild: Rebuild,
        stamps: TopicWarnings,
    ) -> None:
        self._watchword = watchword
        self._quarantine = quarantine
        self._messages = messages
        self._position = position
        self._rebuild = rebuild
        self._stamps = stamps
        self._outage = Outage(watchword.verifier.policy.max_hold)
        self._check = Threads()
        self._judged = 0

    async def judge(self, tp: TopicPartition, partition: Partition, most: int | None = None) -> None:
        """Judge what is pending, in order, until ``most`` records are ready.

        Unavailable leaves the first that could not be judged there, and all behind it, and puts the next try off.
        """
        async with partition.lock:
            # A seek may have come while the lock was another's.
            while partition.pending and partition.anchored and (most is None or len(partition.ready) < most):
                generation = partition.generation
                if not partition.verdicts:  # those that a cancelled caller left come first
                    await self._ask(tp, partition, most)
                await self._conclude(partition)
                if partition.generation != generation:  # sought, or assigned anew, in the meantime
                    return
                if self._judged >= _BREATH:
                    self._judged = 0
                    await asyncio.sleep(0)
            position = self._position(tp)
            if position is not None and not partition.pending:  # the log may end in what is no record
                await self._rebuild.completed(tp, partition, position)

    async def renew(self, partition: Partition) -> None:
        """Judge once more what was judged too long ago and nobody has taken; what does not hold any more goes."""
        async with partition.lock:
            generation, held = partition.generation, [*partition.ready]
            verdicts = await self._watchword.verifier.still_hold([one.message for one in held], check=self._check)
            now = asyncio.get_running_loop().time()  # from behind the look-ups: a slow source must not hold all up
            for one, verdict in zip(held, verdicts, strict=False):
                if partition.generation != generation:
                    return
                if isinstance(verdict, Unavailable):
                    await self._give_up(partition, one.message, verdict)
                elif verdict is not None:
                    await self.keep(one.message, verdict)
                    self._watchword.audit.refused(one.message, verdict)
                if verdict is not None and partition.generation == generation:
                    partition.ready = deque(other for other in partition.ready if other is not one)
            if partition.generation == generation and len(verdicts) == len(held):
                partition.ready_since = partition.ready_at = now

    async def _ask(self, tp: TopicPartition, partition: Partition, most: int | None) -> None:
        """Get verdicts on what comes next, or have it remembered only; in an outage one by one."""
        generation, pending = partition.generation, partition.pending
        completed = await self._rebuild.completed(tp, partition, pending[0].offset)
        if partition.generation != generation:
            return
        records = list(islice(pending, 1 if partition.doubtful else _TOGETHER))
        if not completed:
            resume = partition.resume
            await self._recall(partition, self._messages(r for r in records if resume is None or r.offset < resume))
            return
        if most is not None:
            del records[most - len(partition.ready) :]
        if records[0].timestamp_type == CREATE_TIME:
            self._stamps.warn(tp.topic)
        messages, begun = self._messages(records), asyncio.get_running_loop().time()
        verdicts = await self._watchword.admit_many(messages, check=self._check)
        if partition.generation == generation:
            if not partition.ready:
                partition.ready_since, partition.ready_at = begun, asyncio.get_running_loop().time()
            partition.verdicts.extend(zip(messages, verdicts, strict=False))

    async def _conclude(self, partition: Partition) -> None:
        """Do what the verdicts say.

        A verdict stays with its record until that is done, for a caller may be cancelled: asked again, the verifier
        would take the record for one that it has seen.
        """
        generation, pending, verdicts = partition.generation, partition.pending, partition.verdicts
        while verdicts:
            message, verdict = verdicts[0]
            if isinstance(verdict, VerifiedMessage | ObservedMessage):
                partition.ready.append(Judged(record_of(pending[0], verdict), message))
            elif isinstance(verdict, Rejected):
                await self.keep(message, verdict)
            else:
                await self._give_up(partition, message, verdict)
            if partition.generation != generation:
                return
            if partition.doubtful or partition.failures or self._watchword.observing:
                self._determined(partition, verdict)
            verdicts.popleft()
            pending.popleft()
            self._judged += 1

    async def _give_up(self, partition: Partition, message: Message, verdict: Unavailable) -> None:
        """Hold a record that could not be judged; in too long an outage put it into quarantine instead."""
        partition.doubtful = True
        now = asyncio.get_running_loop().time()
        if self._outage.holds(now) or not await self.keep(message, verdict):
            partition.verdicts.clear()  # it was the last
            partition.hold(now)
            raise verdict
        self._watchword.audit.passed_over()
        self._watchword.verifier.pass_over(message)

    async def _recall(self, partition: Partition, messages: list[Message]) -> None:
        """Remember records that passed before; one on whose key there is no verdict for too long, by its claims."""
        generation = partition.generation
        done = await self._watchword.verifier.recall_many(messages, check=self._check)
        if partition.generation != generation:
            return
        self._recalled(partition, done)
        partition.doubtful = done < len(messages)
        if partition.doubtful:
            now = asyncio.get_running_loop().time()
            if self._outage.holds(now) and not self._watchword.observing:
                partition.hold(now)
                raise Unavailable("keys", "what passed before cannot be judged")
            self._watchword.verifier.pass_over(messages[done])
            self._recalled(partition, 1)

    def _recalled(self, partition: Partition, count: int) -> None:
        for _ in range(count):
            partition.pending.popleft()
            partition.release()
        partition.recalled += count
        self._judged += count

    def _determined(self, partition: Partition, verdict: Delivered | Rejected | Unavailable) -> None:
        """Go on without delay; an outage is over with what a source that is down half of the time does not say too."""
        found = verdict.verdict if isinstance(verdict, ObservedMessage) else verdict
        unsure = isinstance(found, Rejected) and found.reason is Reason.UNKNOWN_KEY
        if isinstance(found, Unavailable):
            partition.doubtful = True
        elif not unsure:
            partition.doubtful = False
            if partition.failures:
                self._outage.over()
        partition.release()

    async def keep(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Put what is not delivered into quarantine, where there is one; tell whether it is there."""
        if self._quarantine is None:
            return False
        try:
            return await self._quarantine.put(message, verdict)
        except Unavailable:  # counted there; a rejected record stays in the log
            return False
