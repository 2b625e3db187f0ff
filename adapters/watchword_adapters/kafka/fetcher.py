"""Replaces aiokafka's fetcher and returns verified records only: it drives ``watchword.partition`` with aiokafka.

Every read from a consumer goes through its fetcher: ``getone``, ``getmany``, iteration, wrappers around these, and
frameworks that call the fetcher directly. That makes it the one place to intercept reads. Each partition has a state
machine that decides the next action; slow actions run in a task per partition, which outlives a cancelled call.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    KafkaError,
    KafkaTimeoutError,
    OffsetMetadataTooLargeError,
)
from aiokafka.structs import TopicPartition

from watchword import ConfigurationError, Unavailable
from watchword.endings import Endings, Outage
from watchword.message import channel_of, log_name
from watchword.partition import (
    Commit,
    Judge,
    Judged,
    Keep,
    Locate,
    Located,
    LookUp,
    PartitionReader,
    Peek,
    Recall,
    Recollected,
    Renew,
    Seek,
    Take,
    Taken,
    Wait,
)
from watchword.replay import SharedReplayStore
from watchword.spi import Message, Position
from watchword_adapters.copies import Copies
from watchword_adapters.kafka._seam import boot_time
from watchword_adapters.kafka.admission import GroupAdmission, committed_by, reader_of
from watchword_adapters.kafka.groups import join, leave
from watchword_adapters.kafka.pace import Pace
from watchword_adapters.kafka.poison import without_poison_in_answer
from watchword_adapters.kafka.records import (
    DeserializationError,
    Records,
    as_kafka_error,
    deserialized,
    log_of,
    record_of,
    stamp_of,
)
from watchword_adapters.kafka.rewind import Rewind
from watchword_adapters.kafka.topics import TopicWarnings
from watchword_adapters.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from aiokafka.structs import ConsumerRecord

    from watchword import Watchword
    from watchword.partition import Action, Ready
    from watchword.quarantine import Quarantine
    from watchword_adapters.kafka._seam import Inside
    from watchword_adapters.kafka.records import Deserializer, Record

Reader: TypeAlias = "PartitionReader[ConsumerRecord[Any, Any]]"

_NONE: Final = (None, None)
"""No deserializers: the caller takes bytes."""

_ROUND: Final = 1.0
"""Longest wait, in seconds, before assignment, pauses and held records are checked again."""

_PATIENCE: Final = 0.1
"""Seconds past its deadline for which a call waits for verdicts that are already being computed."""

COPIES_PATIENCE: Final = 1.0
"""Seconds for which a transaction waits for the quarantine copies that belong to it."""

LEASE: Final = 60.0
"""Seconds after a successful commit during which records may be handed over, if this module commits automatically.

A commit therefore tells the next reader until when records unknown to it may have been handed over.
"""

_RENEWED: Final = 20.0
"""Longest time between two automatic commits, in seconds."""


class VerifiedFetcher:
    """Verifies the records of one consumer and hands them to its caller.

    ``key_deserializer`` and ``value_deserializer`` are the caller's. With ``auto_commit``, offsets are committed every
    ``interval`` seconds; ``timeout`` (seconds) bounds each attempt. With ``waits``, calls wait for an outage to end
    instead of raising Unavailable. ``on_deserialization_error`` receives errors that would otherwise be raised.
    """

    def __init__(
        self,
        inside: Inside,
        watchword: Watchword,
        *,
        quarantine: Quarantine | None = None,
        key_deserializer: Deserializer | None = None,
        value_deserializer: Deserializer | None = None,
        auto_commit: bool = False,
        interval: float = 5.0,
        timeout: float = 40.0,
        waits: bool = False,
        on_deserialization_error: Callable[[DeserializationError], None] | None = None,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        # Members of a group with a shared store read together; any other reader remembers what it alone has read.
        self._exclusive: Final = inside.group is None or not watchword.verifier.shared_replay
        self._inside: Final = inside
        self._watchword: Final = watchword
        self._copies: Final = None if quarantine is None else Copies(quarantine, watchword.audit)
        self._deserializers: Final = (key_deserializer, value_deserializer)
        self._on_deserialization_error: Final = on_deserialization_error
        self._auto_commit: Final = auto_commit
        self._interval: Final = min(interval, _RENEWED) if self._exclusive else interval
        self._timeout: Final = timeout
        self._waits: Final = waits
        self._now: Final = clock
        # Consumers do not share memory, not even within one group.
        group = inside.group or ""
        self._name: Final = f"{group}@{secrets.token_hex(8)}" if self._exclusive else reader_of(group)
        self._outage: Final = Outage(watchword.verifier.policy.max_hold)
        self._check: Final = Threads()
        store = watchword.verifier.replay
        self._admission: Final = (
            GroupAdmission(
                store,
                group,
                observing=lambda: watchword.observing,
                floor=watchword.lives.floor_now,
                committed=lambda: committed_by(inside.client, group),
                ends=inside.ends,
                timeout=timeout,
            )
            if isinstance(store, SharedReplayStore) and not self._exclusive
            else None
        )
        self._policy = watchword.verifier.policy
        self._stamps: Final = TopicWarnings(watchword)
        self._pace: Final = Pace(inside)
        self._readers: dict[TopicPartition, Reader] = {}
        self._clients: dict[TopicPartition, Rewind] = {}
        self._mine: frozenset[TopicPartition] = frozenset()
        self._assignment: Any = None
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._judging: dict[TopicPartition, tuple[int, float]] = {}
        self._errors: dict[TopicPartition, Exception] = {}
        self._leases: dict[TopicPartition, float] = {}
        self._changes = watchword.verifier.changes
        self._sought: set[TopicPartition] = set()
        self._warned: set[str] = set()
        self._latest: TopicPartition | None = None
        self._unhandled: set[Reader] = set()  # whose records the caller is handling
        self._skipped = 0
        self._begun = 0  # verification tasks so far
        self._turn = 0
        self._wake_at = self._now()
        self._waiters: set[asyncio.Future[None]] = set()
        self._news: asyncio.Future[None] | None = None
        self._assigned: asyncio.Future[None] | None = None
        self._committer: asyncio.Task[None] | None = None
        self._is_leaving = self._stopped = False
        inside.tap(self._fetched, watchword.clock)

    # Called by aiokafka

    async def next_record(self, partitions: tuple[TopicPartition, ...]) -> Record:
        """Return the next verified record of these partitions (of all partitions if empty)."""
        record = self._at_hand(partitions)
        if record is None:
            ((record,),) = (await self._next(partitions, None, 1, one=True)).values()
        return record

    async def fetched_records(
        self,
        partitions: Collection[TopicPartition],
        timeout: float = 0,  # noqa: ASYNC109 - aiokafka's signature
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[Record]]:
        """Return at most ``max_records`` verified records of these partitions; {} after ``timeout`` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        return await self._next(tuple(partitions), deadline, max_records, one=False)

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        """Continue at ``offset``; records from there on that were fetched but not handed over are fetched again."""
        self._sync()
        if tp not in self._mine:
            self._inside.seek(tp, offset)  # raises the client's error
        self._clients[tp].seek(offset)
        self._follow(tp, offset)

    def request_offset_reset(self, tps: Iterable[TopicPartition], strategy: int) -> asyncio.Future[Any]:
        """Move to the start or the end of each log."""
        self._sync()
        tps = list(tps)
        found: asyncio.Future[Any] = self._inside.fetcher.request_offset_reset(tps, strategy)
        for tp in tps:
            self._follow(tp, None)
        return found

    def _follow(self, tp: TopicPartition, offset: int | None) -> None:
        self._readers[tp].sought(offset)
        self._sought.add(tp)
        self._errors.pop(tp, None)
        if not self._readers[tp].is_reading:
            self._pace.hurry()
        self._nudge()

    async def get_offsets_by_times(self, timestamps: dict[TopicPartition, int], timeout_ms: int) -> Any:
        """See aiokafka."""
        return await self._inside.fetcher.get_offsets_by_times(timestamps, timeout_ms)

    async def beginning_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> Any:
        """See aiokafka."""
        return await self._inside.fetcher.beginning_offsets(partitions, timeout_ms)

    async def end_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> Any:
        """See aiokafka."""
        return await self._inside.fetcher.end_offsets(partitions, timeout_ms)

    async def close(self) -> None:
        """Close: waiting calls raise, and the memory of the logs is dropped; their next reader rebuilds it."""
        await self.finish()
        await self._inside.fetcher.close()

    @property
    def _closed(self) -> bool:
        """True once closed; read by faust-streaming, which fetches through this object."""
        return self._stopped

    @property
    def _subscriptions(self) -> Any:
        """The client's subscription state; read by faust-streaming, which counts its reads there."""
        return self._inside.subscriptions

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ConfigurationError(
            f"the fetcher of a VerifyingConsumer has no {name}: anything below it returns unverified records;"
            " read with getone(), getmany() or 'async for'"
        )

    # Called by the consumer

    def use(self, fetcher: Any) -> None:
        """Read from the client's own fetcher."""
        self._inside.use(fetcher, self)
        self._pace.hurry()

    def started(self) -> None:
        """Start committing, if automatic commits are on."""
        self._inside.started()
        join(self)
        if self._auto_commit and self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_regularly())

    def judged(self) -> dict[TopicPartition, int]:
        """Return, for each partition, the offset below which every record was handed over or rejected."""
        self._sync()
        for tp in self._mine:
            self._readers[tp].follow(self._clients[tp].position)
        found = {tp: self._readers[tp].judged() for tp in self._mine}
        return {tp: offset for tp, offset in found.items() if offset is not None}

    @property
    def group(self) -> str | None:
        """The consumer group; None without one."""
        return self._inside.group

    @property
    def client(self) -> Any:
        """The aiokafka client that holds the connections."""
        return self._inside.client

    def require_judged(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Raise ConfigurationError if a commit would skip records that were neither handed over nor rejected."""
        judged = self.judged()
        for tp, offset in offsets.items():
            if offset > judged.get(tp, offset):
                raise ConfigurationError(
                    f"commit of {tp.topic}/{tp.partition} at {offset}: records are verified only up to {judged[tp]};"
                    " those after it would be skipped. Commit at most the offset of the last record received, plus one"
                )

    def committable(self) -> dict[TopicPartition, int]:
        """Return the ``judged`` offsets of partitions that are read or were sought: others would change nothing."""
        return {tp: offset for tp, offset in self.judged().items() if self._may_commit(tp)}

    def _may_commit(self, tp: TopicPartition) -> bool:
        return self._readers[tp].is_reading or tp in self._sought

    def metadata(self, tp: TopicPartition, offset: int) -> str:
        """Return the metadata with which a commit at ``offset`` informs the next reader."""
        lease = 0.0 if self._is_leaving else LEASE
        until = self._watchword.clock() + lease if self._auto_commit else 0
        return self._readers[tp].metadata(offset, until=until) if tp in self._mine and self._exclusive else ""

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with the caller's metadata, else with ours; without ours if it is too large for the broker."""
        sent = self._now()
        told = {tp: (offset, metadata or self.metadata(tp, offset)) for tp, (offset, metadata) in offsets.items()}
        try:
            await self._inside.commit(told)
        except OffsetMetadataTooLargeError:
            await self._inside.commit(offsets)
            self._warn_once(
                "kafka.commit_without_metadata",
                cost="after a restart, honest messages may be dropped as stale if retention has cut the log",
                remedy="set offset.metadata.max.bytes of the brokers to 4096, its default",
            )
            sent = self._now()
        for tp, (offset, _) in offsets.items():
            self._leases[tp] = sent
            if tp in self._mine:
                self._readers[tp].committed = offset
        self._nudge()

    def _warn_once(self, event: str, **fields: str) -> None:
        if event not in self._warned:
            self._warned.add(event)
            self._watchword.audit.warn(event, **fields)

    async def commit_handled(self) -> None:
        """Commit the offsets that the caller has handled; repeat unchanged ones before their lease ends."""
        try:
            self._sync()
        except ConfigurationError:  # nothing is read then, and calls raise it
            return
        offsets: dict[TopicPartition, tuple[int, str]] = {}
        for tp in filter(self._may_commit, self._mine):
            reader = self._readers[tp]
            handled = reader.handled()
            old = not self._has_lease(tp, self._now() + LEASE - _RENEWED)
            due = reader.is_reading and (old or self._is_leaving)
            if handled is not None and (handled != reader.committed or due):
                offsets[tp] = handled, ""
        if not offsets:
            return
        try:
            async with asyncio.timeout(self._timeout):  # aiokafka retries without limit
                await self.commit(offsets)
        except Exception as error:  # noqa: BLE001 - the next round commits them, or they are delivered again
            self._watchword.audit.warn("kafka.commit_failed", error=type(error).__name__)

    async def revoked(self) -> None:
        """Commit before partitions go to other members, if automatic commits are on."""
        self._pace.hurry()
        if self._auto_commit:
            await self.commit_handled()

    def require_open(self) -> None:
        """Raise the client's error once closed; ConfigurationError before the start."""
        if self._stopped:
            raise ConsumerStoppedError
        self._inside.require_start()

    def all_handled(self) -> None:
        """Record that the caller has handled every record it was given."""
        for reader in self._unhandled:
            reader.all_handled()
        self._unhandled.clear()

    async def finish(self) -> None:
        """Make the last automatic commit, if these are on, and stop."""
        if self._stopped:
            return
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.gather(self._committer, return_exceptions=True)
            self._is_leaving = True  # the last commit carries no lease: no more records are handed over
            await self.commit_handled()
        self._stopped = True
        leave(self)
        self._nudge()
        await self._stamps.close()
        if self._admission is not None:
            await self._admission.close()
        if self._copies is not None:
            await self._copies.close()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for tp in self._readers:
            self._watchword.verifier.forget(self._log_name(tp))
        if self._news is not None:
            self._news.cancel()

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.commit_handled()

    # Fetch responses

    async def _fetched(self, response: Any, before: float) -> float:
        """Inspect a fetch response before the client does; return how many seconds to withhold it from the client.

        Raises KafkaError if memory runs out.
        """
        after = self._watchword.clock()
        try:
            for _ in without_poison_in_answer(response):
                await asyncio.sleep(0)
        except MemoryError as shortage:
            self._warn_once(
                "kafka.out_of_memory",
                cost="a batch could not be decompressed; its partition is stuck there",
                remedy="give the process more memory, or lower max_partition_fetch_bytes",
            )
            raise KafkaError("not enough memory to decompress a batch") from shortage
        for topic, answers in response.topics:
            for number, error, end, stable, *_ in answers:
                reader = self._readers.get(TopicPartition(topic, number))
                if reader is not None and not error and end >= 0:
                    # The last stable offset, for read_committed from version 4 on; otherwise -1 or the records.
                    is_told = isinstance(stable, int) and stable >= 0
                    reader.looked(before, end, after, stable=stable if is_told else None)
                    if not reader.is_reading:  # it may be waiting for this log end
                        self._nudge()
        known = self._inside.assignment() is self._assignment and not self._inside.rebalancing
        self._pace.fetched(settled=known and all(self._readers[tp].is_reading for tp in self._mine))
        return self._pace.rest(response)

    # Fetch, verify, hand over

    async def _next(
        self, wanted: tuple[TopicPartition, ...], deadline: float | None, most: int | None, *, one: bool
    ) -> dict[TopicPartition, list[Record]]:
        """Return records, and mark those returned before as handled. An error is raised only if there is no record."""
        now = asyncio.get_running_loop().time
        self.all_handled()
        while True:
            if self._stopped:
                if one:
                    raise ConsumerStoppedError
                return {}
            self._wake_at = self._now() + _ROUND
            rebalancing, begun = self._inside.rebalancing, self._begun
            failure = None if rebalancing else await self._pump(wanted, most, one=one)
            skipped = self._skipped
            records = {} if rebalancing else self._handed_over(wanted, most)
            if records:
                return records
            if self._skipped != skipped:
                continue
            if failure is not None and not (self._waits and isinstance(failure, Unavailable)):
                raise failure
            if deadline is not None and now() >= deadline + (_PATIENCE if self._is_judging(wanted) else 0):
                return {}
            if self._begun == begun:
                await self._wait(deadline)
            else:  # let verdicts that need no I/O finish before the client fetches more
                await asyncio.sleep(0)

    def _at_hand(self, wanted: tuple[TopicPartition, ...]) -> Record | None:
        """Return a record verified together with the last one, as ``_next`` would; None if only ``_next`` can tell."""
        tp, inside = self._latest, self._inside
        if tp is None or (wanted and tp not in wanted) or self._stopped or inside.rebalancing:
            return None
        if inside.assignment() is not self._assignment or self._watchword.verifier.changes != self._changes:
            return None
        if not self._may_give(tp, self._now()):
            return None
        self.all_handled()
        found = self._given(tp, 1)
        return found[0] if found else None

    async def _pump(self, wanted: tuple[TopicPartition, ...], most: int | None, *, one: bool) -> Exception | None:
        """Advance each partition as far as it gets without waiting, and start slow actions; return the first error."""
        await self._watchword.keep_up()
        self._sync()
        self._follow_modes()
        if self._admission is not None and not self._admission.is_settled:
            return self._admission.ask(self._nudge)
        failure: Exception | None = None
        now = self._now()
        tps = self._open(wanted)
        coming = {tp: self._coming(tp, now) for tp in tps}
        for tp in tps:
            left = None if most is None else most - sum(coming.values()) + coming[tp]
            if left is not None and left <= 0 and not coming[tp]:
                continue
            try:
                await self._advance(tp, self._readers[tp], left, one=one)
            except KafkaError as error:
                failure = failure or error
            error_of_task = self._errors.pop(tp, None)
            failure = failure or error_of_task
            coming[tp] = self._coming(tp, now)
        return failure

    def _coming(self, tp: TopicPartition, now: float) -> int:
        """Return how many records of a partition are ready or will be shortly.

        Other partitions' records are verified at the same time only if these take long, or if a surplus is harmless.
        """
        count, begun = self._judging.get(tp, (0, now))
        is_counted = not self._may_look_ahead(tp) and now - begun < _PATIENCE
        if is_counted:
            self._wake_at = min(self._wake_at, begun + _PATIENCE)
        reader = self._readers[tp]
        may_give = reader.is_reading and self._has_lease(tp, now)
        return (len(reader.ready) if may_give else 0) + (count if is_counted else 0)

    def _open(self, wanted: tuple[TopicPartition, ...]) -> list[TopicPartition]:
        """Return the partitions to read, rotated by one each time a partition has handed over records."""
        tps = [tp for tp in self._readers if tp in self._mine and (not wanted or tp in wanted)]
        tps = [tp for tp in tps if not self._inside.is_paused(tp)]
        turn = self._turn % len(tps) if tps else 0
        return tps[turn:] + tps[:turn]

    async def _advance(self, tp: TopicPartition, reader: Reader, most: int | None, *, one: bool) -> None:
        """Carry out the machine's actions, up to and including the start of a slow one."""
        want, client = self._wanted(tp, reader, most, one=one), self._clients[tp]
        while True:
            position = client.position
            if position is None:
                await client.take(1)  # raises the client's error if it cannot determine one
            action = reader.next(self._now(), position, want)
            if not (reader.is_reading or isinstance(action, Take | Wait)):
                self._pace.hurry()
            match action:
                case Wait(until):
                    if until > self._now():
                        self._wake_at = min(self._wake_at, until)
                        return
                case Seek(offset):
                    client.seek(offset)
                case Take(number):
                    records: Sequence[ConsumerRecord[Any, Any]] = ()
                    try:
                        records = await client.take(number)
                    finally:
                        behind = client.position
                        reader.answered(action, Taken(records, behind), self._now())
                    if not records and behind == position:
                        return
                case _:
                    if isinstance(action, Judge):
                        self._judging[tp] = len(action.records), self._now()
                        self._begun += 1
                    task = asyncio.get_running_loop().create_task(self._perform(tp, reader, action))
                    task.add_done_callback(self._nudge)
                    self._tasks[tp] = task
                    return

    def _wanted(self, tp: TopicPartition, reader: Reader, most: int | None, *, one: bool) -> int | None:
        """Return how many records to verify ahead of handing them over."""
        if one:
            looks_ahead = self._may_look_ahead(tp) and not reader.ready and tp not in self._tasks
            return reader.look_ahead(self._now()) if looks_ahead else 1
        return most

    def _may_look_ahead(self, tp: TopicPartition) -> bool:
        """Return True if records may be verified before they are requested.

        With a shared store, a record claimed by this member but delivered to another one would be rejected there as
        a replay; and in observe mode each record is handed over with the verdict of that moment.
        """
        return self._exclusive and not self._readers[tp].observing

    async def _perform(self, tp: TopicPartition, reader: Reader, action: Action[ConsumerRecord[Any, Any]]) -> None:
        """Carry out a slow action and report its result to the machine."""
        try:
            answer = await self._answer(tp, action)
        except Exception as error:  # noqa: BLE001 - raised in the caller's next call
            if reader.failed(action, self._now()):
                self._errors[tp] = self._told(tp, action, error)
        else:
            reader.answered(action, answer, self._now())
        finally:
            self._tasks.pop(tp, None)
            self._judging.pop(tp, None)
        for event, fields, remedy in reader.notes:
            if remedy is None:
                self._watchword.audit.note(event, log=log_of(tp), **fields)
            else:
                self._watchword.audit.warn(event, log=log_of(tp), **fields, remedy=remedy)
        if self._copies is not None:
            for message, verdict in reader.dropped:
                self._copies.offer(message, verdict)
        reader.notes.clear()
        reader.dropped.clear()
        failure, reader.failure = reader.failure, None
        if failure is not None and not (isinstance(action, Judge) and reader.ready):  # the ready records come first
            self._errors[tp] = as_kafka_error(failure)
        if tp not in self._mine:
            self._watchword.verifier.forget(self._log_name(tp))

    async def _answer(self, tp: TopicPartition, action: Action[ConsumerRecord[Any, Any]]) -> object:
        """Ask the broker or the verifier for the result of an action."""
        match action:
            case Locate():
                return Located(await self._inside.committed(tp), await self._inside.first_offset(tp))
            case LookUp(time):
                return await self._inside.look_up(tp, time)
            case Commit(offset):
                async with asyncio.timeout(self._timeout):
                    await self.commit({tp: (offset, "")})
                return None
            case Keep(message, verdict):
                kept = self._copies is not None and await self._copies.ask(message, verdict)
                if kept:
                    self._watchword.audit.undetermined()
                    if not self._exclusive:
                        self._watchword.verifier.remember_unjudged(message, comes_again=False)
                return kept
            case _:
                return await self._verdicts(tp, action)

    async def _verdicts(self, tp: TopicPartition, action: Action[ConsumerRecord[Any, Any]]) -> object:
        verifier, begun = self._watchword.verifier, self._now()
        match action:
            case Judge(records):
                messages = self._messages(tp, records)
                return Judged(messages, await self._watchword.admit_many(messages, check=self._check), begun)
            case Recall(records):
                messages = self._messages(tp, records)
                done = await verifier.recall_many(messages, check=self._check)
                return Recollected(done, messages[done] if done < len(messages) else None)
            case Peek(records):
                return await verifier.times_of_issue(self._messages(tp, records), check=self._check)
            case Renew(entries):
                verdicts = await verifier.reverify([entry.message for entry in entries], check=self._check)
                for entry, verdict in zip(entries, verdicts, strict=False):
                    if verdict is not None:
                        self._watchword.audit.refused(entry.message, verdict, observed=self._readers[tp].observing)
                return verdicts
            case _:
                raise TypeError(f"{type(action).__name__} takes no time")

    def _told(self, tp: TopicPartition, action: Action[ConsumerRecord[Any, Any]], error: Exception) -> Exception:
        """Return the error to raise for a failed action."""
        event, failure = "replay.rebuild_failed", "the log cannot be reread"
        if isinstance(action, Commit):
            event, failure = "kafka.commit_failed", "the start offset cannot be committed"
        self._watchword.audit.warn(event, log=log_of(tp), error=type(error).__name__)
        passing = isinstance(error, TimeoutError | KafkaTimeoutError | CommitFailedError)
        if passing or (isinstance(error, KafkaError) and error.retriable):
            told = as_kafka_error(Unavailable("replay", f"{failure}: {type(error).__name__}"))
            told.__cause__ = error
            return told
        return error

    def _messages(self, tp: TopicPartition, records: Sequence[ConsumerRecord[Any, Any]]) -> Records:
        agent, looks = self._watchword, self._readers[tp].looks
        return Records(records, agent.realm, self._name, looks, agent.clock(), exclusive=self._exclusive)

    # Handing over

    def _handed_over(self, wanted: tuple[TopicPartition, ...], most: int | None) -> dict[TopicPartition, list[Record]]:
        """Return at most ``most`` ready records; raise a deserializer's error if no record precedes it."""
        changes = self._watchword.verifier.changes
        if changes != self._changes:
            self._changes = changes
            for reader in self._readers.values():
                reader.doubt()
        found: dict[TopicPartition, list[Record]] = {}
        left, now = most, self._now()
        for tp in self._open(wanted):
            if left == 0 or not self._may_give(tp, now):
                continue
            records = self._given(tp, left, first=not found)
            if records:
                found[tp] = records
                self._turn += 1
                left = None if left is None else left - len(records)
        return found

    def _may_give(self, tp: TopicPartition, now: float) -> bool:
        reader = self._readers.get(tp)
        # A partition that was reassigned to us is not read until we know how far another member has read meanwhile.
        if reader is None or not reader.ready or not reader.is_fresh(now) or not self._has_lease(tp, now):
            return False
        return not self._is_leaving and not self._inside.is_paused(tp)

    def _has_lease(self, tp: TopicPartition, now: float) -> bool:
        if not (self._auto_commit and self._exclusive):
            return True
        return now - self._leases.get(tp, -LEASE) < LEASE or self._readers[tp].observing

    def _given(self, tp: TopicPartition, most: int | None, *, first: bool = True) -> list[Record]:
        """Hand over at most ``most`` records, up to one whose deserializer fails; raise if that is the ``first``.

        The error of a later one is raised by the next call.
        """
        reader = self._readers[tp]
        records: list[Record] = []
        self._latest = tp
        self._unhandled.add(reader)
        while reader.ready and (most is None or len(records) < most):
            entries = reader.hand_over(None if most is None else most - len(records))
            if self._deserializers == _NONE:
                records += [record_of(entry.record, entry.verdict) for entry in entries]
                continue
            for at, entry in enumerate(entries):
                try:
                    records += self._deserialized(entry)
                except Exception:
                    is_first = first and not records
                    reader.give_back(entries[at + is_first :])
                    if is_first:
                        raise
                    return records
        return records

    def _deserialized(self, entry: Ready[ConsumerRecord[Any, Any]]) -> Iterable[Record]:
        """Return the record for the caller, or nothing if the error went to ``on_deserialization_error``."""
        try:
            return (deserialized(record_of(entry.record, entry.verdict), *self._deserializers),)
        except DeserializationError as error:
            if self._on_deserialization_error is None:
                raise
            self._skipped += 1
            self._on_deserialization_error(error)
            return ()

    async def copied(self) -> None:
        """Wait until pending quarantine copies are written, but only briefly, in case the quarantine hangs."""
        if self._copies is not None:
            await self._copies.written(COPIES_PATIENCE)

    # Waiting, and assignments

    def _is_judging(self, wanted: tuple[TopicPartition, ...]) -> bool:
        """Return True if records of these partitions are being verified."""
        return any(
            self._readers[tp].is_reading and not self._readers[tp].ready
            for tp in self._tasks
            if tp in self._mine and (not wanted or tp in wanted)
        )

    async def _wait(self, deadline: float | None) -> None:
        """Wait for an event or until the next check is due."""
        loop = asyncio.get_running_loop()
        news = self._news
        if news is None or news.done():
            news = self._news = self._inside.news()
            news.add_done_callback(self._nudge)
        assigned = self._inside.new_assignment()
        if assigned is not self._assigned:
            self._assigned = assigned
            assigned.add_done_callback(self._nudge)
        seconds = max(0.0, self._wake_at - self._now())
        if deadline is not None:
            left = deadline - loop.time()
            seconds = min(seconds, left if left > 0 else _PATIENCE)
        waiter = loop.create_future()  # asyncio.wait() is much slower
        self._waiters.add(waiter)
        timer = loop.call_later(seconds, self._nudge)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)
        for future in (news, assigned):
            if future.done() and not future.cancelled():
                future.result()  # raises the client's own errors, such as the group's

    def _nudge(self, _: object = None) -> None:
        """Wake up waiting calls."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _sync(self) -> None:
        """Follow the client's assignment: a new one starts at its committed offsets."""
        assignment = self._inside.assignment()
        if assignment is self._assignment:
            return
        tps = frozenset() if assignment is None else assignment.tps
        self._refuse_aliases({tp.topic for tp in tps})
        self._assignment = assignment
        self._pace.hurry()
        self._sought.clear()
        self._errors.clear()
        for tp in self._mine - tps:
            self._readers[tp].lost()
            self._leases.pop(tp, None)
            self._watchword.verifier.forget(self._log_name(tp))
        for tp in tps:
            if tp not in self._readers:
                self._readers[tp] = self._new_reader(tp)
            self._clients[tp] = Rewind(self._inside, tp)
            self._readers[tp].assigned()
        self._mine = tps
        self._stamps.ask(self._inside.client, {tp.topic for tp in tps})

    def _new_reader(self, tp: TopicPartition) -> Reader:
        watchword, log = self._watchword, self._log_name(tp)
        return PartitionReader(
            policy=watchword.verifier.policy,
            stamp=stamp_of,
            clock=watchword.clock,
            endings=Endings(self._outage),
            memory=watchword.verifier.memory(log) if self._exclusive else None,
            tag=secrets.token_hex(4),
            grouped=self._inside.group is not None,
            leased=self._auto_commit,
            observing=self._observes(tp),
        )

    def _observes(self, tp: TopicPartition) -> bool:
        return self._watchword.observes(channel_of("kafka", self._watchword.realm, tp.topic))

    def _follow_modes(self) -> None:
        """Restart partitions whose mode has changed from their current offset, so that their memory is rebuilt."""
        if self._policy is self._watchword.verifier.policy:
            return
        self._policy = self._watchword.verifier.policy
        for tp in self._mine:
            reader, observing = self._readers[tp], self._observes(tp)
            if reader.observing != observing:
                reader.observing = observing
                offset = reader.judged()
                if offset is not None:
                    self.seek_to(tp, offset)

    def _refuse_aliases(self, topics: set[str]) -> None:
        """Refuse to read both channels of an alias without a shared store: each would deliver the same message."""
        if not self._exclusive:
            return
        ends = {channel_of("kafka", self._watchword.realm, topic).uri for topic in topics}
        for alias in self._watchword.verifier.policy.aliases:
            if {alias.channel, alias.signed_for} <= ends:
                raise ConfigurationError(
                    f"this consumer reads {alias.channel} and {alias.signed_for}, which an alias pairs: a message on"
                    " both would be delivered twice; read them in separate groups, or configure a [replay] store"
                )

    def _log_name(self, tp: TopicPartition) -> str:
        return log_name(
            Message(
                channel=channel_of("kafka", self._watchword.realm, tp.topic),
                value=None,
                position=Position(log_of(tp), 0),
                reader=self._name,
            )
        )
