"""A consumer without a broker: its logs are lists, and it fails when told to."""

import asyncio
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from aiokafka.structs import ConsumerRecord, TopicPartition

from watchword import (
    Channel,
    MemoryKeys,
    MemoryReplayStore,
    Message,
    Mode,
    Policy,
    Signer,
    SigningKey,
    VerificationKey,
    Verifier,
    Watchword,
)
from watchword_adapters.kafka.intake import Intake

REALM = "test"
SENDER = "agent://test/sender"
P0, P1 = TopicPartition("topic", 0), TopicPartition("topic", 1)
OTHER = "agent://test/other"
KEY, OTHER_KEY = SigningKey.generate(), SigningKey.generate()


class Keys:
    """A key source that fails for some partitions' senders, or waits to be let go."""

    def __init__(self) -> None:
        self._keys = MemoryKeys([KEY.verification_key(SENDER), OTHER_KEY.verification_key(OTHER)])
        self.failures = 0
        self.asked = 0
        self.question = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        self.asked += 1
        self.question.set()
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        return await self._keys.find(principal, key_id)


def watchword(keys: Keys, mode: Mode = Mode.ENFORCE, *, shared: bool = True, max_hold: float = 30.0) -> Watchword:
    """Return an agent that verifies with these keys, and signs; where its store is ``shared``, no log is read again."""
    policy = Policy(mode=mode, max_hold=max_hold)
    return Watchword(
        verifier=Verifier(
            realm=REALM,
            principal=SENDER,
            keys=keys,
            replay=MemoryReplayStore(horizon=policy.horizon),
            policy=policy,
            clock=time.time,
            shared_replay=shared,
        ),
        signer=signer(),
    )


def signer(principal: str = SENDER) -> Signer:
    """Return who signs for a principal."""
    return Signer(realm=REALM, principal=principal, key=KEY if principal == SENDER else OTHER_KEY, clock=time.time)


async def record(
    tp: TopicPartition, offset: int, value: bytes, *, signed: bool = True, age: float = 0.0, principal: str = SENDER
) -> ConsumerRecord[Any, Any]:
    """Return a record as aiokafka gives it, which the broker stamped ``age`` seconds ago."""
    headers: list[Any] = []
    if signed:
        message = Message(channel=Channel("kafka", REALM, tp.topic), value=value, partition=tp.partition)
        headers = [(await signer(principal).sign(message)).header]
    stamp = int((time.time() - age) * 1000)
    return ConsumerRecord(tp.topic, tp.partition, offset, stamp, 1, None, value, None, -1, len(value), tuple(headers))


class State:
    """What aiokafka knows of one assigned partition."""

    def __init__(self) -> None:
        self.position = 0
        self.has_valid_position = True
        self.paused = False


class Assignment:
    """One assignment of partitions."""

    def __init__(self, tps: Iterable[TopicPartition]) -> None:
        self.tps = frozenset(tps)
        self._states = {tp: State() for tp in self.tps}

    def state_value(self, tp: TopicPartition) -> State | None:
        """See aiokafka."""
        return self._states.get(tp)


class FakeConsumer:
    """Stands in for aiokafka's consumer, as far as an intake looks."""

    def __init__(self, *tps: TopicPartition, group: str | None = "group") -> None:
        self.logs: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = {tp: [] for tp in tps}
        self.errors: dict[TopicPartition, list[Exception]] = {}
        self.stopped: set[TopicPartition] = set()
        self.taken = 0
        self.first = 0
        self.unreadable = 0
        self.lookup_errors: list[Exception] = []
        self.offset_committed: int | None = None
        self._group_id = group
        self._closed = False
        self._client = SimpleNamespace(get_random_node=lambda: None)
        self._subscription = SimpleNamespace(
            subscription=SimpleNamespace(assignment=Assignment(tps)),
            reassignment_in_progress=False,
            _fetch_count=0,
        )

    def assign(self, *tps: TopicPartition) -> None:
        """Rebalance."""
        self._subscription.subscription = SimpleNamespace(assignment=Assignment(tps))

    def state(self, tp: TopicPartition) -> State:
        """Return what is known of a partition."""
        state: State = self._subscription.subscription.assignment.state_value(tp)
        return state

    def paused(self) -> set[TopicPartition]:
        """See aiokafka."""
        return self.stopped

    async def take(
        self, *tps: TopicPartition, timeout_ms: float, max_records: int | None
    ) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        """Do as aiokafka's getmany."""
        found: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = {}
        for tp in tps or tuple(self.logs):
            if tp in self.stopped or self._subscription.subscription.assignment.state_value(tp) is None:
                continue
            if self.errors.get(tp):
                raise self.errors[tp].pop(0)
            state = self.state(tp)
            records = [r for r in self.logs[tp] if r.offset >= state.position][:max_records]
            if records:
                self.taken += len(records)
                found[tp] = records
                state.position = records[-1].offset + 1
                if max_records is not None:
                    return found
        if not found and timeout_ms:
            await asyncio.sleep(min(timeout_ms / 1000, 0.005))
        return found

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """See aiokafka; the last ``unreadable`` offsets hold no record (yet)."""
        if self.lookup_errors:
            raise self.lookup_errors.pop(0)
        ends = {tp: self.logs[tp][-1].offset + 1 if self.logs[tp] else self.first for tp in tps}
        return {tp: end + self.unreadable for tp, end in ends.items()}

    def assignment(self) -> frozenset[TopicPartition]:
        """See aiokafka."""
        tps: frozenset[TopicPartition] = self._subscription.subscription.assignment.tps
        return tps

    def highwater(self, tp: TopicPartition) -> int:
        """See aiokafka."""
        return self.first + len(self.logs[tp]) + self.unreadable if not self.logs[tp] else self._end(tp)

    def _end(self, tp: TopicPartition) -> int:
        return self.logs[tp][-1].offset + 1 + self.unreadable

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        """See aiokafka."""
        return dict.fromkeys(tps, self.first)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        """See aiokafka."""
        found: dict[TopicPartition, Any] = {}
        for tp, time_ms in times.items():
            later = [r for r in self.logs[tp] if r.timestamp >= time_ms and r.offset >= self.first]
            found[tp] = SimpleNamespace(offset=later[0].offset, timestamp=later[0].timestamp) if later else None
        return found

    async def committed(self, _: TopicPartition) -> int | None:
        """See aiokafka."""
        return self.offset_committed

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """See aiokafka."""
        self.state(tp).position = offset


def intake(consumer: FakeConsumer, agent: Watchword, **options: Any) -> Intake:
    """Return the intake of a fake consumer."""
    options = {"key_deserializer": None, "value_deserializer": None} | options
    return Intake(consumer, agent, take=consumer.take, seek=consumer.seek, **options)
