"""The attacker on Kafka: copies through a client and in batches that no client writes, floods, open transactions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from chaos.bus import Captured
from chaos.cast import impostor
from chaos.evidence import EVENTS, Writer
from chaos.forging import FORGED, forged
from chaos.kafka_log import Record, TopicLog
from tests.support.raw_kafka import GZIP, Batch, Raw, RawClient, RawHeader, Refused
from watchword.message import ENVELOPE_HEADER, channel_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.plan import Plan

_ELSEWHERE: Final = 0.05
"""Share of the copies that go to another partition than their original."""

_DATED_ANEW: Final = 0.1
"""Share of the copies that bear the present as their timestamp."""

_SHAPES: Final = ("home", "on the next", "far", "twice", "out of order", "many", "poison", "altered", "bomb")
_FAR: Final = 1_000_000
_EMPTY: Final[RawHeader] = (b"", b"")
_BOMB: Final[list[RawHeader]] = [_EMPTY] * 170_000
_BOMB_SECONDS: Final = 2.0
"""Seconds between two batches of very many headers, at least: the broker, too, has to unpack each."""

_BURSTS: Final = 4
"""Bursts of forged records in a second."""

_FAILURES: Final = (KafkaError, Refused, TimeoutError)


@asynccontextmanager
async def attacking(plan: Plan, partitions: int) -> AsyncIterator[Attack]:
    """Connect the attacker, and let floods and transactions go on meanwhile."""
    async with (
        TopicLog(plan.address, plan.channel, partitions) as log,
        AIOKafkaProducer(bootstrap_servers=plan.address) as producer,
        RawClient(plan.address) as raw,
    ):
        attack = Attack(plan, partitions, log, producer, raw)
        tasks = [asyncio.create_task(attack.flood())] if plan.flood else []
        tasks += [asyncio.create_task(attack.hold())] if plan.strangers else []
        try:
            yield attack
        finally:
            for task in tasks:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended


class Attack:
    """See ``Attacking``."""

    def __init__(self, plan: Plan, partitions: int, log: TopicLog, producer: AIOKafkaProducer, raw: RawClient) -> None:
        self._plan = plan
        self._topic = plan.channel
        self._partitions = partitions
        self._log = log
        self._producer = producer
        self._raw = raw
        self._chance = plan.random("copies")
        self._known: set[str] = set()
        self._latest: deque[Record] = deque(maxlen=100)
        self._events = Writer(plan.directory, EVENTS)
        self._bomb_at = 0.0

    async def captures(self) -> AsyncIterator[Captured]:
        """See ``Attacking``; what is forged is our own."""
        while True:
            for record in await self._log.read():
                name = (record.value or b"").decode(errors="replace")
                if record.offset is not None and name not in self._known and not name.startswith(FORGED):
                    self._known.add(name)
                    self._latest.append(record)
                    yield Captured(name, record)

    async def replay(self, captured: Captured) -> bool:
        """See ``Attacking``."""
        record: Record = captured.raw
        elsewhere = self._chance.random() < _ELSEWHERE
        partition = self._chance.randrange(self._partitions) if elsewhere else record.partition
        timestamp = _now() if self._chance.random() < _DATED_ANEW else record.timestamp
        try:
            if self._chance.random() < self._plan.crafted:
                batch = self._crafted(record, partition, self._chance.choice(_SHAPES))
                await self._raw.send(self._topic, batch, partition=partition)
            else:
                await self._producer.send_and_wait(
                    self._topic,
                    record.value,
                    record.key,
                    partition=partition,
                    timestamp_ms=timestamp,
                    headers=[(name.decode(), value) for name, value in record.headers],
                )
        except _FAILURES:
            return False
        return True

    def _crafted(self, record: Record, partition: int, shape: str) -> Batch:
        """Return a batch with a copy at an offset of our choice, or among what clients stumble over."""
        codec, copies = 0, [_copy(record)]
        match shape:
            case "home":  # would pass for a redelivery, if anyone believed it
                assert record.offset is not None  # noqa: S101 - only such are captured
                end = self._log.ends.get(partition, record.offset)
                copies = [_copy(record, delta=max(-(2**31), record.offset - end))]
            case "on the next":
                copies = [_copy(record, delta=1)]
            case "far":
                copies = [_copy(record), _copy(record, delta=_FAR)]
            case "twice":
                copies = [_copy(record), _copy(record, delta=0)]
            case "out of order":
                copies = [_copy(record, delta=1), _copy(record, delta=0)]
            case "many":
                codec, copies = GZIP, [_copy(one) for one in self._latest]
            case "poison":
                copies = [_copy(record, *record.headers, (b"\xff\xfe", b"")), _copy(record)]
            case "altered":
                copies = [
                    _copy(record),
                    Raw(value=f"{FORGED} altered".encode(), key=record.key, headers=record.headers),
                ]
            case "bomb" if time.monotonic() > self._bomb_at + _BOMB_SECONDS:
                self._bomb_at = time.monotonic()
                codec, copies = GZIP, [_copy(record, *_BOMB, *record.headers, *_BOMB), _copy(record)]
        return Batch(records=copies, codec=codec, first_timestamp=record.timestamp)

    async def flood(self) -> None:
        """Send bursts of forged records: unsigned, altered, garbled, signed with a key that nobody knows."""
        signer = impostor(self._plan)
        channel = channel_of("kafka", signer.realm, self._topic)
        while True:
            partition = self._chance.randrange(self._partitions)
            records = [
                Raw(value=value, key=value, headers=[] if header is None else [(ENVELOPE_HEADER.encode(), header)])
                async for value, header in forged(
                    signer, channel, self._plan.flood // _BURSTS, self._envelope, partition=partition
                )
            ]
            with contextlib.suppress(*_FAILURES):
                await self._raw.send(self._topic, Batch(records=records, first_timestamp=_now()), partition=partition)
            await asyncio.sleep(1 / _BURSTS)

    def _envelope(self) -> bytes | None:
        """Return an envelope that was captured."""
        return self._chance.choice(self._latest).headers[0][1] if self._latest else None

    async def hold(self) -> None:
        """Hold transactions open over some of the partitions, for longer and shorter than a message stays fresh."""
        horizon = self._plan.max_age + self._plan.max_skew
        while True:
            try:
                async with AIOKafkaProducer(
                    bootstrap_servers=self._plan.address,
                    transactional_id=f"{self._topic}-stranger",
                    transaction_timeout_ms=int(4000 * horizon),
                ) as producer:
                    await self._hold(producer, self._chance.uniform(0.2, 1.5) * horizon)
            except _FAILURES:
                await asyncio.sleep(1)
            await asyncio.sleep(self._chance.uniform(0.2, 0.5) * horizon)

    async def _hold(self, producer: AIOKafkaProducer, seconds: float) -> None:
        await producer.begin_transaction()
        try:
            for partition in self._chance.sample(range(self._partitions), self._partitions // 2):
                await producer.send_and_wait(self._topic, FORGED.encode(), b"open", partition=partition)
            for record in [*self._latest][-10:]:
                await producer.send_and_wait(
                    self._topic,
                    record.value,
                    record.key,
                    partition=record.partition,
                    timestamp_ms=record.timestamp,
                    headers=[(name.decode(), value) for name, value in record.headers],
                )
            self._events.tell(("open transaction", f"{seconds:.1f}"))
            await asyncio.sleep(seconds)
        except BaseException:
            await producer.abort_transaction()
            raise
        if self._chance.random() < 1 / 2:
            await producer.abort_transaction()
        else:
            await producer.commit_transaction()


def _copy(record: Record, *headers: RawHeader, delta: int | None = None) -> Raw:
    return Raw(value=record.value, key=record.key, headers=headers or record.headers, delta=delta)


def _now() -> int:
    return int(time.time() * 1000)
