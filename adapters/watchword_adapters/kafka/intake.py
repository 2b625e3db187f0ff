"""From the client's records to judged ones: take, judge, hand over, for every partition on its own."""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from aiokafka.errors import ConsumerStoppedError, KafkaError

from watchword import Message, Position, Unavailable
from watchword.message import channel_of, log_name
from watchword_adapters.kafka.handover import Handover
from watchword_adapters.kafka.judging import Judge
from watchword_adapters.kafka.progress import Partition
from watchword_adapters.kafka.rebuild import Rebuild
from watchword_adapters.kafka.records import (
    Deserializer,
    Record,
    log_of,
    messages_of,
)
from watchword_adapters.kafka.sieve import Sieve
from watchword_adapters.kafka.topics import TopicWarnings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from aiokafka.structs import ConsumerRecord, TopicPartition

    from watchword import Watchword
    from watchword.quarantine import Quarantine

_ROUND: Final = 1.0
"""Longest wait in seconds before looking again at what is assigned, paused and held."""

_GLANCE: Final = 0.1
"""Longest wait for a guard's anchor before looking after the other partitions."""

_RECALLED: Final = 500
"""Records that are read at once for the guard alone."""


class Intake:
    """The records of one consumer on their way to its caller.

    ``consumer`` is the aiokafka consumer, of which the inner state is read; ``take`` is its own ``getmany``.
    """

    def __init__(
        self,
        consumer: Any,
        watchword: Watchword,
        *,
        take: Callable[..., Awaitable[dict[TopicPartition, list[ConsumerRecord[Any, Any]]]]],
        seek: Callable[[TopicPartition, int], None],
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
        quarantine: Quarantine | None = None,
    ) -> None:
        group = consumer._group_id  # noqa: SLF001 - aiokafka has no public way to ask
        # A group that shares a store reads together; whoever else reads a partition reads it alone.
        self._alone: Final = group is None or not watchword.verifier.shared_replay
        self.stamps: Final = TopicWarnings(watchword)
        self.sieve: Final = Sieve(watchword, self.position)
        self._consumer = consumer
        self._watchword = watchword
        self._take_from_client = take
        self._seek = seek
        self._handover: Final = Handover(key_deserializer, value_deserializer)
        # What a shared store has seen and another member is given would pass for delivered before; and in observe mode
        # everything is handed on, with the verdict of that moment.
        self._may_look_ahead: Final = self._alone and not watchword.observing
        # One consumer's memory is no other's, though the group be the same.
        self._reader: str = f"{group or ''}@{secrets.token_hex(8)}" if self._alone else str(group)
        self._rebuild = Rebuild(
            consumer,
            watchword,
            position=self.position,
            take=self._take,
            seek=seek,
            has_read=self._handover.read.__contains__,
        )
        self._judge = Judge(
            watchword,
            quarantine,
            messages=lambda records: messages_of(records, watchword.realm, self._reader, alone=self._alone),
            position=self.position,
            rebuild=self._rebuild,
            stamps=self.stamps,
        )
        self._assignment: Any = None
        self._partitions: dict[TopicPartition, Partition] = {}
        # Of a partition and not of its assignment: what an earlier one is still judging must end before another begins.
        self._locks: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turn = 0

    # What the consumer asks

    def partitions(self) -> dict[TopicPartition, Partition]:
        """Return the progress of the partitions assigned now; a new assignment starts anew where its offsets say.

        A guard is kept for a partition that comes back at once, and good where its position is what was judged last.
        """
        subscription = self._consumer._subscription.subscription  # noqa: SLF001
        assignment = None if subscription is None else subscription.assignment
        if assignment is not self._assignment:
            guarded = {tp: part for tp, part in self._partitions.items() if part.is_guarded()}
            kept = {
                tp: (part.judged(self.position(tp)), tuple(part.ready), part.ready_since)
                for tp, part in guarded.items()
            }
            self._discard(self._partitions)
            self._assignment = assignment
            tps = frozenset() if assignment is None else assignment.tps
            self._forget(self._partitions.keys() - tps)
            self._partitions = {}
            for tp in tps:
                position, ready, since = kept.get(tp, (None, (), -inf))
                self._partitions[tp] = Partition(
                    lock=self._locks[tp],
                    kept=position,
                    kept_ready=ready,
                    ready_since=since,
                    ready_at=since,
                    anchored=not self._alone,
                )
            self.stamps.ask(self._consumer._client, {tp.topic for tp in self._partitions})  # noqa: SLF001
        return self._partitions

    def position(self, tp: TopicPartition) -> int | None:
        """Return the client's own position; None where it has none yet."""
        state = None if self._assignment is None else self._assignment.state_value(tp)
        return state.position if state is not None and state.has_valid_position else None

    def judged(self) -> dict[TopicPartition, int]:
        """Return for each partition the offset before which everything was handed over or rejected."""
        found = {tp: part.judged(self.position(tp)) for tp, part in self.partitions().items()}
        return {tp: offset for tp, offset in found.items() if offset is not None}

    def to_commit(self) -> dict[TopicPartition, int]:
        """Return what the caller is done with, where that was not committed yet."""
        found = {tp: (part.handled(self.position(tp)), part.committed) for tp, part in self.partitions().items()}
        return {tp: offset for tp, (offset, committed) in found.items() if offset is not None and offset != committed}

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        """Note what was committed."""
        for tp, offset in offsets.items():
            if tp in self._partitions:
                self._partitions[tp].committed = offset

    def handled(self) -> None:
        """Note that the caller is done with all that it was given."""
        for partition in self._partitions.values():
            partition.unhandled = None

    def put_back(self, tps: Iterable[TopicPartition]) -> None:
        """Give the client back what was taken and not handed over: before a seek, its position is the true one."""
        for tp in tps:
            partition = self.partitions().get(tp)
            position = self.position(tp)
            if partition is None or position is None:
                continue
            judged = partition.judged(position)
            if judged is not None and judged != position:
                self._seek(tp, judged)
            self._discard((tp,))

    async def close(self) -> None:
        """Forget the logs: whoever reads them next rebuilds what must be known."""
        await self.stamps.close()
        self._discard(self._partitions)
        self._forget(self._partitions)

    def _discard(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self._partitions[tp].discard(anchored=not self._alone)

    def _forget(self, tps: Iterable[TopicPartition]) -> None:
        for tp in tps:
            self._watchword.verifier.forget(self._log_name(tp))

    # Take, judge, hand over

    async def next(
        self, wanted: tuple[TopicPartition, ...], *, deadline: float | None, most: int | None, one: bool
    ) -> dict[TopicPartition, list[Record]]:
        """Return judged records of ``wanted`` partitions (none named: of all), at most ``most``; {} at the deadline.

        ``deadline`` is in the event loop's time. With ``one``, a single record is enough. What was handed over before
        counts as handled. Unavailable, the client's errors and DeserializationError come when there is nothing else to
        return.
        """
        with self._polling():
            return await self._next(wanted, deadline, most, one=one)

    def at_hand(self, wanted: tuple[TopicPartition, ...]) -> Record | None:
        """Return a record that was judged with the one handed over last, as ``next`` would; None to ask ``next``."""
        tp, subscription = self._handover.latest, self._consumer._subscription  # noqa: SLF001 - aiokafka has no public way to ask
        if tp is None or (wanted and tp not in wanted) or self.sieve.lost or subscription.reassignment_in_progress:
            return None
        partition = self.partitions().get(tp)
        if partition is None or not partition.ready or self._assignment.state_value(tp).paused:
            return None
        if not partition.is_fresh(asyncio.get_running_loop().time()):
            return None
        self.handled()
        subscription._last_fetch_ended = monotonic()  # noqa: SLF001 - as for one who waits
        return self._handover.first(tp, partition)

    @contextmanager
    def _polling(self) -> Iterator[None]:
        """Let the client know that its caller waits, so that it stays in its group, however long nothing is taken."""
        subscription = self._consumer._subscription  # noqa: SLF001 - its own context manager forgets to count errors down
        subscription._fetch_count += 1  # noqa: SLF001 - as above
        try:
            yield
        finally:
            subscription._fetch_count -= 1  # noqa: SLF001 - as above
            subscription._last_fetch_ended = monotonic()  # noqa: SLF001 - as above

    async def _next(
        self, wanted: tuple[TopicPartition, ...], deadline: float | None, most: int | None, *, one: bool
    ) -> dict[TopicPartition, list[Record]]:
        now = asyncio.get_running_loop().time
        self.handled()
        while True:
            if self._consumer._closed:  # noqa: SLF001 - by another task; what has begun since then would never end
                raise ConsumerStoppedError
            while self.sieve.lost:
                await self._judge.keep(*self.sieve.lost.popleft())
            failure: Exception | None = None
            tps, ready = self._open(wanted), 0
            for tp in tps:
                try:
                    await self._advance(tp, None if most is None else most - ready, one=one)
                except (Unavailable, KafkaError) as error:
                    failure = failure or error
                ready += self._ready(tp)
                if most is not None and ready >= most:
                    break
            # Nothing while a rebalance goes on, for it is another's then.
            rebalancing = self._consumer._subscription.reassignment_in_progress  # noqa: SLF001 - as above
            records = {} if rebalancing else self._handover.many(self.partitions(), tps, most, now())
            if records:
                return records
            if failure is not None:
                raise failure
            if deadline is not None and now() >= deadline:
                return {}
            await self._wait(wanted, deadline)

    def _open(self, wanted: tuple[TopicPartition, ...]) -> list[TopicPartition]:
        """Return the partitions to look at, beginning with another one each time."""
        paused = self._consumer.paused()
        tps = [tp for tp in self.partitions() if (not wanted or tp in wanted) and tp not in paused]
        self._turn += 1
        turn = self._turn % len(tps) if tps else 0
        return tps[turn:] + tps[:turn]

    async def _advance(self, tp: TopicPartition, most: int | None, *, one: bool) -> None:
        """Take what the client has of one partition, and judge it, unless some is judged already or must wait."""
        partition, now = self.partitions().get(tp), asyncio.get_running_loop().time
        if partition is None or partition.retry_at > now():
            return
        failure: Unavailable | None = None
        if not partition.ready:
            try:
                await self._judge_next(tp, partition, most, one=one)
            except Unavailable as error:  # those before it may be ready
                failure = error
        if partition.ready and not partition.is_fresh(now()):
            await self._judge.renew(partition)
        if failure is not None:
            raise failure

    async def _judge_next(self, tp: TopicPartition, partition: Partition, most: int | None, *, one: bool) -> None:
        if not self._rebuild.done(tp, partition, self._log_name(tp)):
            return
        if one:
            most = partition.look_ahead(asyncio.get_running_loop().time()) if self._may_look_ahead else 1
        wanted = most if partition.resume is None else _RECALLED
        left = None if wanted is None else wanted - len(partition.pending)
        if not partition.failures and (left is None or left > 0):  # in an outage nothing piles up
            await self._take((tp,), 0, left)
        await self._judge.judge(tp, partition, most)

    async def _take(self, tps: tuple[TopicPartition, ...], timeout_ms: float, most: int | None) -> None:
        """Move records from the client into ``pending``.

        Either one partition or one record is asked for, so that an error of the client's never takes good records of
        other partitions with it.
        """
        taken = await self._take_from_client(*tps, timeout_ms=timeout_ms, max_records=most)
        for tp, records in taken.items():
            if tp in self.partitions():
                self._partitions[tp].pending.extend(records)

    def _ready(self, tp: TopicPartition) -> int:
        partition = self.partitions().get(tp)
        return 0 if partition is None else len(partition.ready)

    async def _wait(self, wanted: tuple[TopicPartition, ...], deadline: float | None) -> None:
        """Wait until the client has a record, or it is time to try again what could not be judged."""
        now = asyncio.get_running_loop().time()
        partitions = self.partitions()
        asked = [part.anchoring for tp, part in partitions.items() if not wanted or tp in wanted]
        anchoring = [task for task in asked if task is not None and not task.done()]
        if anchoring:
            seconds = _GLANCE if deadline is None else max(0.0, min(_GLANCE, deadline - now))
            await asyncio.wait(anchoring, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return
        held = {tp for tp, part in partitions.items() if part.pending or part.ready}
        ends = [now + _ROUND, *(partitions[tp].retry_at for tp in held if partitions[tp].retry_at > now)]
        if deadline is not None:
            ends.append(deadline)
        seconds = max(0.001, min(ends) - now)
        tps = tuple(tp for tp in wanted or tuple(partitions) if tp not in held) if held else wanted
        if held and not tps:
            await asyncio.sleep(seconds)
        else:
            await self._take(tps, seconds * 1000, 1)

    def _log_name(self, tp: TopicPartition) -> str:
        return log_name(
            Message(
                channel=channel_of("kafka", self._watchword.realm, tp.topic),
                value=None,
                position=Position(log_of(tp), 0),
                reader=self._reader,
            )
        )
