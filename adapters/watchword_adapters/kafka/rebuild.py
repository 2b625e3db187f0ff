"""Finds from where a partition is read again, so that its guard knows what passed before anything is delivered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aiokafka.errors import KafkaError, KafkaTimeoutError

from watchword import Unavailable
from watchword.rebuild import anchor_without_record, floor_at, window_start
from watchword_adapters.kafka.records import log_of, stamp_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiokafka.structs import TopicPartition

    from watchword import Watchword
    from watchword_adapters.kafka.progress import Partition

_LOOK_AGAIN: Final = 0.2
"""Seconds to wait for a record before asking once more whether there is one."""


class Rebuild:
    """Anchors the guards of one consumer's partitions (docs/replay.md).

    ``position`` tells the client's own position, ``take`` moves records into ``pending``, ``seek`` is the client's;
    ``has_read`` tells whether this process has handed over records of a partition.
    """

    def __init__(
        self,
        consumer: Any,
        watchword: Watchword,
        *,
        position: Callable[[TopicPartition], int | None],
        take: Callable[[tuple[TopicPartition, ...], float, int | None], Awaitable[None]],
        seek: Callable[[TopicPartition, int], None],
        has_read: Callable[[TopicPartition], bool],
    ) -> None:
        self._has_read = has_read
        self._consumer = consumer
        self._watchword = watchword
        self._position = position
        self._take = take
        self._seek = seek

    def done(self, tp: TopicPartition, partition: Partition, log: str) -> bool:
        """Tell whether records may be taken, since it is known which are to be remembered first.

        Raises what the client raised, as Unavailable where it may pass. The questions to the broker are asked in a
        task, so that who waits for records can stop waiting.
        """
        if partition.anchored:
            return True
        judged = partition.judged(self._position(tp))
        if partition.kept is not None and judged in {None, partition.kept}:  # None: it is not known yet
            if judged is not None:
                partition.anchored = True
                if partition.kept_ready:
                    self._seek(tp, partition.kept_ready[-1].record.offset + 1)
                    partition.ready.extend(partition.kept_ready)
                    partition.kept_ready = ()
            return partition.anchored
        if partition.anchoring is not None and partition.anchoring.done():
            task, partition.anchoring = partition.anchoring, None
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._failed(tp, partition, error)
        if partition.anchoring is None:
            partition.kept, partition.kept_ready = None, ()
            partition.anchoring = asyncio.get_running_loop().create_task(self._anchor(tp, partition, log))
            partition.anchoring.add_done_callback(_heard)
        return False

    async def completed(self, tp: TopicPartition, partition: Partition, offset: int) -> bool:
        """Tell whether everything before ``offset`` is remembered, so that records from there on may be judged.

        Where retention has cut meanwhile what was to be read again, the guard is anchored anew.
        """
        if partition.resume is None or offset < partition.resume:
            return partition.resume is None
        generation, resume = partition.generation, partition.resume
        first: int = (await self._consumer.beginning_offsets([tp]))[tp]
        if partition.generation != generation:
            return False
        if first > partition.since:
            partition.discard()
            self._seek(tp, resume)
            return False
        self._note("replay.rebuilt", tp, resume, recalled=partition.recalled)
        partition.resume = None
        return True

    def _failed(self, tp: TopicPartition, partition: Partition, error: BaseException) -> NoReturn:
        partition.hold(asyncio.get_running_loop().time())
        self._watchword.audit.warn("replay.rebuild_failed", log=log_of(tp), error=type(error).__name__)
        if isinstance(error, KafkaError) and (error.retriable or isinstance(error, KafkaTimeoutError)):
            raise Unavailable("replay", f"the log cannot be read again: {type(error).__name__}") from error
        raise error

    async def _anchor(self, tp: TopicPartition, partition: Partition, log: str) -> None:
        """Set the floor, and go back to the first record that must be remembered."""
        policy = self._watchword.verifier.policy
        now, end = self._watchword.clock(), await self._end(tp)
        while not partition.pending and not self._is_at(tp, end):
            await self._take((tp,), _LOOK_AGAIN * 1000, 1)
            now, end = self._watchword.clock(), await self._end(tp)
        resume = partition.judged(self._position(tp))
        following = partition.pending[0] if partition.pending else None
        stamp = None if following is None else stamp_of(following)
        anchor = stamp if stamp is not None else now if following is not None else anchor_without_record(policy, now)
        since = max(0, int(window_start(policy, anchor) * 1000) - 1)
        found = (await self._consumer.offsets_for_times({tp: since}))[tp]
        first: int = (await self._consumer.beginning_offsets([tp]))[tp]
        # Records go from the front only: while one is left that is older than the window, nothing within it is gone.
        # The end is from before the search, since a copy may be appended to an empty log right after that.
        is_cut = first > 0 and first >= (end if found is None else found.offset)
        cut = None
        if is_cut and (resume != first or await self._has_delivered(tp)):
            is_told = found is not None and found.offset == first and stamp is not None
            cut = found.timestamp / 1000 if is_told else self._watchword.clock()
        async with partition.lock:  # what is being judged ends first, so that it leaves no trace in the new memory
            if resume is None or partition.judged(self._position(tp)) != resume:
                return  # it moved on meanwhile: the next look anchors it
            self._watchword.verifier.begin(log, floor=floor_at(policy, anchor, cut=cut))
            partition.anchored, partition.anchoring = True, None
            if found is not None and found.offset < resume:
                self._note("replay.rebuilding", tp, resume, since=found.offset)
                partition.resume, partition.since = resume, found.offset
                partition.pending.clear()
                self._seek(tp, found.offset)

    async def _end(self, tp: TopicPartition) -> int:
        """Return the offset before which everything can be read."""
        end: int = (await self._consumer.end_offsets([tp]))[tp]
        return end

    def _is_at(self, tp: TopicPartition, end: int) -> bool:
        """Return True if there is nothing to read yet behind the position, and the log has reached the position.

        A position beyond the log's end is the client's to reset, or to refuse: as long as that takes, no answer to a
        fetch from there has told how high the log reaches.
        """
        if tp not in self._consumer.assignment():
            return False
        position, reached = self._position(tp), self._consumer.highwater(tp)
        return position is not None and reached is not None and end <= position <= reached

    async def _has_delivered(self, tp: TopicPartition) -> bool:
        """Tell whether who begins at the first record may have read here before: a group without a commit has not."""
        named = self._consumer._group_id is not None  # noqa: SLF001 - aiokafka has no public way to ask
        return self._has_read(tp) or (named and await self._consumer.committed(tp) is not None)

    def _note(self, event: str, tp: TopicPartition, position: int, **fields: float | None) -> None:
        self._watchword.audit.note(event, log=log_of(tp), position=position, **fields)


def _heard(task: asyncio.Task[None]) -> None:
    """Take note of an error that nobody may come to ask for."""
    if not task.cancelled():
        task.exception()
