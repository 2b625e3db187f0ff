"""A consumer without a broker: its logs are lists, and it fails on demand.

The consumer, its subscription and its positions are real. Fakes stand where aiokafka has its fetcher and coordinator.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

from tests.support.patience import PATIENCE
from watchword import Mode, Policy, SigningKey, Watchword
from watchword.spi import Channel, Message, Signer
from watchword.testing import KeyDirectory, SharedMemoryStore
from watchword_adapters.kafka import VerifyingConsumer

REALM = "test"
SENDER = "agent://test/sender"
P0, P1 = TopicPartition("topic", 0), TopicPartition("topic", 1)
OTHER = "agent://test/other"
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()


class Keys(KeyDirectory):
    """A key source that knows both senders."""

    def __init__(self) -> None:
        super().__init__([KEY.verification_key(SENDER), OTHER_KEY.verification_key(OTHER)])


def watchword(
    keys: Keys,
    mode: Mode = Mode.ENFORCE,
    *,
    shared: bool = True,
    clock: Callable[[], float] = time.time,
    **policy: Any,
) -> Watchword:
    """Return an agent that verifies with these keys, and signs; where its store is ``shared``, no log is read again."""
    rules = Policy(mode=mode, **policy)
    store = SharedMemoryStore(policy=rules, clock=clock, open_to_all=True) if shared else None
    return Watchword(realm=REALM, principal=SENDER, key=KEY, keys=keys, policy=rules, replay=store, clock=clock)


def alone(keys: Keys | None = None, mode: Mode = Mode.ENFORCE, **policy: Any) -> Watchword:
    """Return an agent whose logs are its memory."""
    return watchword(keys or Keys(), mode, shared=False, **policy)


def signer(principal: str = SENDER, *, clock: Callable[[], float] = time.time) -> Signer:
    """Return who signs for a principal."""
    return Signer(realm=REALM, principal=principal, key=KEY if principal == SENDER else OTHER_KEY, clock=clock)


async def record(
    tp: TopicPartition, offset: int, value: bytes, *, signed: bool = True, age: float = 0.0, principal: str = SENDER
) -> ConsumerRecord[Any, Any]:
    """Return a record as aiokafka gives it, which the broker stamped ``age`` seconds ago."""
    headers: list[Any] = []
    if signed:
        message = Message(channel=Channel("kafka", REALM, tp.topic), value=value, partition=tp.partition)
        headers = [(await signer(principal).sign(message)).header]
    return raw(tp, offset, value, headers, age=age)


def raw(
    tp: TopicPartition, offset: int, value: bytes, headers: Iterable[Any] = (), *, age: float = 0.0
) -> ConsumerRecord[Any, Any]:
    """Return a record with these headers."""
    stamp = int((time.time() - age) * 1000)
    return ConsumerRecord(tp.topic, tp.partition, offset, stamp, 1, None, value, None, -1, len(value), tuple(headers))


async def tree(tp: TopicPartition, values: Sequence[bytes], first: int = 0) -> list[ConsumerRecord[Any, Any]]:
    """Return records that share a signature, at the offsets from ``first`` on."""
    channel = Channel("kafka", REALM, tp.topic)
    signed = await signer().sign_many([Message(channel=channel, value=v, partition=tp.partition) for v in values])
    return [raw(tp, first + n, v, [signed[n].header]) for n, v in enumerate(values)]


def numbers(count: int) -> list[bytes]:
    """Return so many values."""
    return [b"%d" % n for n in range(count)]


@dataclass
class Log:
    """One partition at the broker: its first offset, its records, and where they end.

    ``end`` is given where offsets without a record stand behind the last one; what stands at ``stable`` or behind it is
    in an open transaction.
    """

    records: list[ConsumerRecord[Any, Any]] = field(default_factory=list)
    first: int = 0
    end: int | None = None
    stable: int | None = None

    def high_watermark(self) -> int:
        """Return the offset behind all that is stored."""
        return max(self.end or 0, self.first, self.records[-1].offset + 1 if self.records else 0)

    def readable(self) -> int:
        """Return the offset behind all that can be read."""
        return self.high_watermark() if self.stable is None else min(self.stable, self.high_watermark())


class FakeFetcher:
    """Fetches from lists, once a millisecond: a look at the log's end, then what stands there.

    ``waits`` are the milliseconds for which a broker might have kept each fetch, ``longest`` what the caller has said.
    """

    longest = 500

    def __init__(self, kafka: "FakeKafka") -> None:
        self._kafka = kafka
        self._pending_tasks: set[asyncio.Task[Any]] = set()
        self._fetch_waiters: set[asyncio.Future[None]] = set()
        self._fetched: dict[TopicPartition, int] = {}
        self._fetch_max_wait_ms = self.longest
        self._isolation_level = 0
        self.waits: list[int] = []
        self._fetching = asyncio.create_task(self._fetch_for_ever())
        kafka.consumer._subscription.register_fetch_waiters(self._fetch_waiters)
        self.taken = 0

    async def fetched_records(
        self,
        partitions: Iterable[TopicPartition],
        timeout: float = 0,  # noqa: ASYNC109 - aiokafka's signature
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        """Do as aiokafka's for one partition, without waiting."""
        (tp,) = partitions
        assert not timeout
        if self._kafka.errors.get(tp):
            raise self._kafka.errors[tp].pop(0)
        state = self._kafka.state(tp)
        fetched = self._fetched.get(tp, 0)
        if state.paused or not state.has_valid_position or state.position >= fetched:
            return {}
        waiting = [r for r in self._kafka.logs[tp].records if state.position <= r.offset < fetched]
        records = waiting[:max_records]
        state.consumed_to(fetched if records == waiting else records[-1].offset + 1)
        self.taken += len(records)
        return {tp: records} if records else {}

    async def next_record(self, partitions: Any) -> Any:
        """Give what nobody has judged."""
        raise AssertionError(partitions)

    def seek_to(self, tp: TopicPartition, offset: int) -> None:
        """See aiokafka."""
        self._kafka.consumer._subscription.seek(tp, offset)
        self._fetched.pop(tp, None)

    def request_offset_reset(self, tps: Iterable[TopicPartition], strategy: int) -> asyncio.Future[Any]:
        """See aiokafka."""
        states = [self._kafka.state(tp) for tp in tps]
        for state in states:
            state.await_reset(strategy)
        return asyncio.gather(*(state.wait_for_position() for state in states))

    async def get_offsets_by_times(self, timestamps: dict[TopicPartition, int], timeout_ms: int) -> Any:
        """See aiokafka."""
        assert timeout_ms
        found: dict[TopicPartition, Any] = {}
        for tp, time_ms in timestamps.items():
            self._kafka.looked_up.append(time_ms / 1000)
            log = self._kafka.logs[tp]
            later = [r for r in log.records if r.timestamp >= time_ms and r.offset >= log.first]
            found[tp] = OffsetAndTimestamp(later[0].offset, later[0].timestamp) if later else None
        return found

    async def beginning_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, int]:
        """See aiokafka."""
        assert timeout_ms
        if self._kafka.lookup_errors:
            raise self._kafka.lookup_errors.pop(0)
        return {tp: self._kafka.logs[tp].first for tp in partitions}

    async def end_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        """See aiokafka."""
        assert timeout_ms
        return {tp: self._kafka.logs[tp].readable() for tp in partitions}

    async def close(self) -> None:
        """See aiokafka."""
        self._fetching.cancel()
        await asyncio.gather(self._fetching, return_exceptions=True)

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fetch_waiters.add(waiter)
        waiter.add_done_callback(self._fetch_waiters.discard)
        return waiter

    async def _fetch_for_ever(self) -> None:
        while True:
            for tp in self._kafka.consumer.assignment():
                await self._fetch(tp)
            await asyncio.sleep(0.001)

    async def _fetch(self, tp: TopicPartition) -> None:
        state, log = self._kafka.state(tp), self._kafka.logs[tp]
        if not state.has_valid_position:
            self._fetched.pop(tp, None)
            self._find_position(tp, state)
            return
        if not log.first <= state.position <= log.high_watermark():
            state.await_reset(OffsetResetStrategy.from_str(self._kafka.reset))
            return
        part: tuple[Any, ...] = (tp.partition, 0, log.high_watermark(), log.readable(), log.first, [], -1, b"")
        self._kafka.answer = SimpleNamespace(topics=[(tp.topic, [part])])
        self.waits.append(self._fetch_max_wait_ms)
        await self._kafka.consumer._client.send(0, FetchRequest(500, 1, 1, 0, []))
        if log.readable() > self._fetched.get(tp, 0):
            self._fetched[tp] = log.readable()
            for waiter in [*self._fetch_waiters]:
                if not waiter.done():
                    waiter.set_result(None)

    def _find_position(self, tp: TopicPartition, state: TopicPartitionState) -> None:
        log, committed = self._kafka.logs[tp], self._kafka.coordinator.committed.get(tp)
        if state.reset_strategy == OffsetResetStrategy.LATEST:
            state.reset_to(log.readable())
        elif state.awaiting_reset or (committed is None and self._kafka.reset == "earliest"):
            state.reset_to(log.first)
        elif committed is not None and self._kafka.coordinator.gate.is_set():
            state.reset_to(committed.offset)


class FakeCoordinator:
    """Keeps a group's commits; ``outcomes`` are what the next ones come to: an error, ``"hang"``, or None.

    While the ``gate`` is closed no position is found by a commit.
    """

    def __init__(self) -> None:
        self.committed: dict[TopicPartition, OffsetAndMetadata] = {}
        self.commits: list[dict[TopicPartition, OffsetAndMetadata]] = []
        self.tries: list[dict[TopicPartition, OffsetAndMetadata]] = []
        self.outcomes: list[Any] = []
        self.errors: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch_committed_offsets(self, partitions: Any) -> dict[TopicPartition, OffsetAndMetadata]:
        """See aiokafka."""
        return {tp: self.committed[tp] for tp in partitions if tp in self.committed}

    async def commit_offsets(self, assignment: Any, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        """See aiokafka."""
        assert offsets.keys() <= assignment.tps
        self.tries.append(offsets)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome == "hang":
            await asyncio.Event().wait()
        elif outcome is not None:
            raise outcome
        self.commits.append(offsets)
        self.committed |= offsets

    def check_errors(self) -> None:
        """See aiokafka."""

    async def close(self) -> None:
        """See aiokafka."""


class FakeKafka:
    """A consumer of some partitions, and all that it would meet.

    Its clock is ``late`` seconds ahead of the machine's.
    """

    def __init__(self, agent: Watchword, *tps: TopicPartition, group: str | None = "group", **options: Any) -> None:
        self.consumer = VerifyingConsumer(
            *{tp.topic for tp in tps}, group_id=group, watchword=agent, **{"enable_auto_commit": False} | options
        )
        self.logs: dict[TopicPartition, Log] = {tp: Log() for tp in tps}
        self.errors: dict[TopicPartition, list[Exception]] = {}
        self.lookup_errors: list[Exception] = []
        self.looked_up: list[float] = []
        self.late = 0.0
        self.reset = "earliest"
        self.answer: Any = None
        self.coordinator = FakeCoordinator()
        clock = self.verified._now
        self.verified._now = lambda: clock() + self.late
        self.assign(*tps)
        self.fetcher = FakeFetcher(self)
        self.consumer._coordinator = self.coordinator
        self.consumer._fetcher = self.fetcher
        self.verified.started()

    @property
    def verified(self) -> Any:
        """The fetcher under test."""
        return self.consumer._verified

    async def send(self, _: int, request: Any) -> Any:
        """Answer as a broker."""
        match request:
            case FetchRequest():
                return self.answer
            case FindCoordinatorRequest():
                return SimpleNamespace(error_code=0, coordinator_id=0)
            case OffsetFetchRequest():
                offsets = {tp: (tp.partition, one.offset, "", 0) for tp, one in self.coordinator.committed.items()}
                error = self.coordinator.errors.pop(0) if self.coordinator.errors else 0
                told = [] if error else [(tp.topic, [one]) for tp, one in offsets.items()]
                return SimpleNamespace(error_code=error, topics=told)
            case _:
                return SimpleNamespace(resources=[])

    def assign(self, *tps: TopicPartition) -> None:
        """Rebalance."""
        self.consumer._subscription.assign_from_subscribed(set(tps))

    def state(self, tp: TopicPartition) -> TopicPartitionState:
        """Return what aiokafka knows of a partition."""
        state: TopicPartitionState = self.consumer._subscription.subscription.assignment.state_value(tp)
        return state

    def place(self, tp: TopicPartition, offset: int) -> None:
        """Set the client's position, as its fetcher does by a commit or a policy of resets."""
        self.consumer._subscription.seek(tp, offset)

    def commits(self, tp: TopicPartition = P0) -> list[int]:
        """Return the offsets that were committed."""
        return [offsets[tp].offset for offsets in self.coordinator.commits if tp in offsets]

    async def fill(self, *values: bytes, tp: TopicPartition = P0, **options: Any) -> None:
        """Append signed records to a log."""
        log = self.logs[tp]
        for value in values:
            log.records.append(await record(tp, log.high_watermark(), value, **options))

    async def one(self, *tps: TopicPartition) -> Any:
        """Return the next record."""
        async with asyncio.timeout(PATIENCE):
            return await self.consumer.getone(*tps)

    async def many(
        self, *tps: TopicPartition, most: int | None = None, seconds: float = 5.0
    ) -> dict[TopicPartition, list[Any]]:
        """Return the values of what is ready."""
        found = await self.consumer.getmany(*tps, timeout_ms=seconds * 1000, max_records=most)
        return {tp: [r.value for r in records] for tp, records in found.items()}

    async def values(self, count: int) -> list[Any]:
        """Return the values of the next records, fetched many at a time."""
        found: list[Any] = []
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                for records in (await self.many()).values():
                    found += records
        return found
