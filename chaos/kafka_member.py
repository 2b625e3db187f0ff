"""One member of the consumer group: reads and commits in a manner of its own, and seeks as the driver wishes."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from chaos.bus import Handed
from chaos.kafka_transactions import Transactor
from chaos.plan import READER
from watchword import SigningError, Unavailable
from watchword_adapters.kafka import VerifiedRecord, VerifyingConsumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from aiokafka.structs import TopicPartition

    from chaos.bus import Handler
    from chaos.cast import Worker

GROUP: Final = "workers"

_SESSION_MS: Final = 6000
"""The least that a broker allows by default: so long a killed member's partitions lie idle."""

_MOST: Final = 200
_PATIENCE: Final = 0.2
"""Seconds for which a member waits for records, before it looks what else is to be done."""

_AHEAD: Final = 3
"""Reads that a member makes in front, before it goes back to where it was."""

_ABORTS: Final = 0.1
"""Share of a member's transactions that it aborts: it reads what it was given in them again."""


class Member:
    """A member of the group.

    The first is a static member and reads in bulk, the second reads one record after another and leaves commits to the
    consumer, the third reads a few at a time. In a scenario with transactions each commits within one, together with
    an answer of its own.
    """

    def __init__(self, worker: Worker, consumer: VerifyingConsumer, transactor: Transactor | None) -> None:
        self._worker = worker
        self._plan = worker.plan
        self._consumer: Any = consumer  # aiokafka annotates some of its methods only
        self._transactor = transactor
        self._chance = worker.plan.random(f"worker {worker.name}")
        self._lags_until = 0.0
        self._in_front: dict[TopicPartition, int] = {}
        self._reads_left = 0

    async def work(self, handle: Handler, stop: asyncio.Event) -> None:
        """Read until ``stop``."""
        self._consumer.subscribe([self._plan.channel], listener=_Begins(self))
        while not stop.is_set():
            try:
                await self._fulfil()
                records = await self._read()
                await handle(
                    [Handed(one.verified, one.timestamp / 1000) for one in records if isinstance(one, VerifiedRecord)]
                )
                await self._commit()
            except Unavailable:
                continue
            # Not committed, for the broker is away or the partitions are another's: they come again.
            except (KafkaError, SigningError):
                await asyncio.sleep(0.1)

    async def _read(self) -> Iterable[Any]:
        if not _reads_singly(self._worker):
            most = _MOST if self._worker.number == 0 else 20
            found = await self._consumer.getmany(timeout_ms=int(1000 * _PATIENCE), max_records=most)
            return [record for records in found.values() for record in records]
        try:
            async with asyncio.timeout(_PATIENCE):
                return [await self._consumer.getone()]
        except TimeoutError:
            return []

    async def _commit(self) -> None:
        if self._in_front:  # what lies between was skipped
            return
        if self._transactor is not None:
            await self._commit_with_answer(self._transactor)
        elif not _reads_singly(self._worker):
            await self._consumer.commit()

    async def _commit_with_answer(self, transactor: Transactor) -> None:
        offsets = await self._consumer.offsets_for_transaction()
        if not offsets:
            return
        aborted = self._chance.random() < _ABORTS
        async with transactor.transaction(aborted=aborted) as producer:
            await producer.send(answers_to(self._plan.channel), b"answer", partition=0)
            await producer.send_offsets_to_transaction(offsets, GROUP)
        if aborted:
            back = await self._consumer.seek_to_committed()
            self._worker.begins_again(*(str(tp.partition) for tp in back))

    async def _fulfil(self) -> None:
        """Do what the driver wishes, and end what it wished before."""
        if self._in_front:
            self._reads_left -= 1
            if self._reads_left < 0:
                back, self._in_front = self._in_front, {}
                self._seek(back)
        while self._worker.wishes:
            match self._worker.wishes.popleft():
                case "lag", seconds:
                    self._lags_until = time.monotonic() + seconds
                # Going forward says of what lies between that it is handled, and automatic commits tell the broker.
                case "seek", number if number > 0 or _reads_singly(self._worker):
                    self._seek({tp: max(0, at - abs(int(number))) for tp, at in (await self._positions()).items()})
                case "seek", number:
                    self._in_front, self._reads_left = await self._positions(), _AHEAD
                    ends = await self._consumer.end_offsets([*self._in_front])
                    self._seek({tp: max(at, min(at - int(number), ends[tp])) for tp, at in self._in_front.items()})
        self._keep_pace()

    def begins_again(self, partitions: Iterable[TopicPartition]) -> None:
        """Note that these begin where the group's commit says: what was left behind in front of them is read anyway."""
        self._in_front = {}
        self._worker.begins_again(*(str(tp.partition) for tp in partitions))

    async def _positions(self) -> dict[TopicPartition, int]:
        return {tp: await self._consumer.position(tp) for tp in self._consumer.assignment()}

    def _seek(self, wanted: dict[TopicPartition, int]) -> None:
        mine = self._consumer.assignment()
        for tp, offset in wanted.items():
            if tp in mine:
                self._worker.begins_again(str(tp.partition))
                self._consumer.seek(tp, offset)

    def _keep_pace(self) -> None:
        """Read nothing while it lags: each assignment is a fresh one that is not paused."""
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        if time.monotonic() < self._lags_until:
            self._consumer.pause(*(assigned - paused))
        elif paused:
            self._consumer.resume(*(paused & assigned))


@asynccontextmanager
async def member(worker: Worker) -> AsyncIterator[Member]:
    """Connect a member, as soon as the broker lets us: it may just be restarting."""
    plan = worker.plan
    consumer = VerifyingConsumer(
        watchword=await worker.watchword(),
        bootstrap_servers=plan.address,
        group_id=GROUP,
        group_instance_id="static" if worker.number == 0 else None,
        auto_offset_reset="earliest",
        enable_auto_commit=_reads_singly(worker),
        auto_commit_interval_ms=500,
        isolation_level="read_committed" if plan.scene.transactions else "read_uncommitted",
        session_timeout_ms=_SESSION_MS,
        heartbeat_interval_ms=500,
    )
    while True:
        try:
            await consumer.start()
        except KafkaError:
            await asyncio.sleep(0.2)
        else:
            break
    try:
        if plan.scene.transactions:
            async with Transactor(plan, READER, f"worker-{worker.number}") as transactor:
                yield Member(worker, consumer, transactor)
        else:
            yield Member(worker, consumer, None)
    finally:
        await consumer.stop()


def answers_to(channel: str) -> str:
    """Return the topic of the answers."""
    return f"{channel}-answers"


def _reads_singly(worker: Worker) -> bool:
    return worker.number == 1 and not worker.plan.scene.transactions


class _Begins(ConsumerRebalanceListener):
    """Tells a member which partitions it was given."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """See aiokafka."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """See aiokafka."""
        self._member.begins_again(assigned)
