"""How long a Kafka consumer takes to deliver again: after a restart, a move to another member, a seek back by one.

One partition holds the signed messages of one window, at 1,000 a second. A member of a group has read all of them, and
one more message has come. The time runs from the moment at which the client reports the assignment (or from the seek)
to the delivery of that message (or of the last one again), beside that of a bare consumer. The topic is on CreateTime
and the consumers' clocks stand at the end of the log, so that nobody has to wait for minutes. Each engine has a process
and logs of its own, one after the other.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from watchword import Policy, SigningKey, Watchword
from watchword.spi import Audit
from watchword_adapters.kafka import SigningProducer, VerifyingConsumer

from .processes import apart
from .stages import PYTHON, engine_in_use, engines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WINDOWS: Final = (60, 300)
"""Seconds."""

RATE: Final = 1000
_SEEKS: Final = 9
"""Seeks back by one, of which the median counts."""

_SKEW: Final = 5.0
_SPEAKERS: Final = 10
_VALUE: Final = b"x" * 200
_REALM: Final = "bench"
_READY_SECONDS: Final = 600.0
_RESTART: Final = "restart"


@dataclass(frozen=True, slots=True)
class Figure:
    """What it costs to be ready after ``what``: seconds to the first delivery; a bare consumer's in ``bare_seconds``.

    ``read_again`` counts the records that were read for the memory alone; ``processor_seconds`` is what the reader's
    process worked, which is less than ``seconds`` where others keep the machine busy; ``load`` is the machine's over
    the last minute.
    """

    window: int
    what: str
    read_again: int
    seconds: float
    processor_seconds: float
    bare_seconds: float
    load: float

    @property
    def per_second(self) -> float:
        """Messages read again in a second."""
        return self.read_again / max(self.seconds - self.bare_seconds, 1e-9)

    @property
    def per_processor_second(self) -> float:
        """Messages read again in a second of the reader's own work."""
        return self.read_again / max(self.processor_seconds, 1e-9)


class _Taken(NamedTuple):
    """What it took until a message was there."""

    seconds: float
    processor_seconds: float
    read_again: int


def measure(bootstrap: str, broker: str, *, small: bool) -> dict[str, Any]:
    """Fill a log for each window, let consumers get ready, and return what goes into the report."""
    windows, rate = ((20,), 20) if small else (WINDOWS, RATE)
    rows = [
        {"engine": engine}
        | asdict(one)
        | {"per_second": one.per_second, "per_processor_second": one.per_processor_second}
        for engine in engines()
        for window in windows
        for one in apart(_measure, bootstrap, window, rate, engine=engine)
    ]
    restarts = {row["engine"]: row["per_second"] for row in rows if row["what"] == _RESTART}  # of the longest window
    ratios = {
        f"kafka_rebuild_records_per_s{suffix}": restarts[engine]
        for suffix, engine in (("", engine_in_use()), ("_python", PYTHON))
    }
    return {"ready": {"rate": rate, "broker": broker, "ready": rows}, "ratios": ratios}


def _measure(bootstrap: str, window: int, rate: int) -> list[Figure]:
    return asyncio.run(_on(_Log(bootstrap, window, rate)))


async def _on(log: _Log) -> list[Figure]:
    """Fill a log, and measure on it."""
    await log.fill()
    figures = []
    for what, ready in ((_RESTART, _restart), ("move", _move), ("seek back by one", _seek)):
        ours = await ready(log, _Group(log, verifying=True))
        bare = await ready(log, _Group(log, verifying=False))
        figures.append(
            Figure(
                log.window,
                what,
                ours.read_again,
                ours.seconds,
                ours.processor_seconds,
                bare.seconds,
                os.getloadavg()[0],
            )
        )
    return figures


async def _restart(log: _Log, group: _Group) -> _Taken:
    """Let a member read all and end, and another begin."""
    async with group.member() as first:
        await first.read_all()
    sent = await log.send()
    async with group.member() as second:
        return await second.ready(sent)


async def _move(log: _Log, group: _Group) -> _Taken:
    """Let a member read all; another joins the group, and gets the partition now or when the first one leaves."""
    async with group.member() as first:
        await first.read_all()
        sent = await log.send()
        async with group.member() as second:
            async with asyncio.timeout(_READY_SECONDS):
                await second.joined.wait()
            if not second.has_partition:
                await first.consumer.stop()
            return await second.ready(sent)


async def _seek(_: _Log, group: _Group) -> _Taken:
    """Let a member read all, and take its last message again."""
    async with group.member() as member:
        await member.read_all()
        taken = [await member.again() for _ in range(_SEEKS)]
        return _Taken(*(statistics.median(column) for column in zip(*taken, strict=True)))


class _Log:
    """One partition that holds the messages of a window; ``end`` is when the last one was issued."""

    def __init__(self, bootstrap: str, window: int, rate: int) -> None:
        self.bootstrap: Final = bootstrap
        self.window: Final = window
        self.end: Final = time.time()
        self.tp: Final = TopicPartition(f"ready-{secrets.token_hex(4)}", 0)
        self._rate = rate
        self._keys = {f"agent://bench/speaker-{number}": SigningKey.generate() for number in range(_SPEAKERS)}

    async def fill(self) -> None:
        """Let the speakers take turns; the messages of a batch, some 30, have the time of its last one."""
        await self._make_topic()
        now = self.end - self.window
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(self._producer(principal, lambda: now)) for principal in self._keys
            ]
            for producer in cycle(producers):
                if now >= self.end:
                    return
                batch = producer.create_batch(topic=self.tp.topic)
                while now < self.end and batch.append(timestamp=None, key=None, value=_VALUE) is not None:
                    now += 1 / self._rate
                await (await producer.send_batch(batch, self.tp.topic, partition=0))

    async def send(self) -> bytes:
        """Add one more message; return its value."""
        sent = secrets.token_bytes(8)
        async with self._producer(next(iter(self._keys)), lambda: self.end) as producer:
            await producer.send_and_wait(self.tp.topic, sent, partition=0)
        return sent

    def agent(self, policy: Policy, clock: Callable[[], float], **options: Any) -> Watchword:
        """Return an agent that knows all the speakers."""
        keys = [key.verification_key(name) for name, key in self._keys.items()]
        return Watchword(realm=_REALM, keys=keys, policy=policy, clock=clock, **options)

    async def _make_topic(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            settings = {"message.timestamp.type": "CreateTime"}
            await admin.create_topics([NewTopic(self.tp.topic, 1, 1, topic_configs=settings)])
        finally:
            await admin.close()

    def _producer(self, principal: str, clock: Callable[[], float]) -> SigningProducer:
        watchword = self.agent(Policy(), clock, principal=principal, key=self._keys[principal])
        return SigningProducer(bootstrap_servers=self.bootstrap, watchword=watchword)


class _Group:
    """One consumer group, of verifying or of bare members; nobody's clock is behind another's."""

    def __init__(self, log: _Log, *, verifying: bool) -> None:
        self._log = log
        self._verifying = verifying
        self._name = secrets.token_hex(4)
        self._began = time.monotonic()

    @asynccontextmanager
    async def member(self) -> AsyncIterator[_Member]:
        """Start a member."""
        options: dict[str, Any] = {
            "bootstrap_servers": self._log.bootstrap,
            "group_id": self._name,
            "auto_offset_reset": "earliest",
            "enable_auto_commit": False,
        }
        audit = _Notes(clock=self._clock)
        if self._verifying:
            policy = Policy(max_age=self._log.window - 2 * _SKEW, max_skew=_SKEW)
            watchword = self._log.agent(policy, self._clock, audit=audit)
            consumer: AIOKafkaConsumer = VerifyingConsumer(watchword=watchword, **options)
        else:
            consumer = AIOKafkaConsumer(**options)
        member = _Member(self._log.tp, consumer, audit)
        async with consumer:
            consumer.subscribe([self._log.tp.topic], listener=member)
            yield member

    def _clock(self) -> float:
        return self._log.end + time.monotonic() - self._began


class _Notes(Audit):
    """Adds up what was read again."""

    read_again = 0

    def note(self, event: str, **fields: Any) -> None:
        """See ``Audit``."""
        if event == "replay.rebuilt":
            self.read_again += int(fields["recalled"])


class _Member(ConsumerRebalanceListener):
    """One member, and the moment at which it was given the partition."""

    def __init__(self, tp: TopicPartition, consumer: AIOKafkaConsumer, audit: _Notes) -> None:
        self.consumer: Final[Any] = consumer  # aiokafka annotates some of its methods only
        self.joined: Final = asyncio.Event()
        self._tp = tp
        self._audit = audit
        self._began: _Taken | None = None

    @property
    def has_partition(self) -> bool:
        """Whether it was given the partition."""
        return self._began is not None

    def on_partitions_revoked(self, revoked: Any) -> None:
        """See aiokafka."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        """See aiokafka."""
        self._began = self._now() if assigned else None
        self.joined.set()

    async def read_all(self) -> None:
        """Read up to the end of the log, and commit."""
        end = (await self.consumer.end_offsets([self._tp]))[self._tp]
        async with asyncio.timeout(_READY_SECONDS):
            offset = 0
            while offset < end - 1:
                for records in (await self.consumer.getmany(timeout_ms=200)).values():
                    offset = records[-1].offset
        await self.consumer.commit()

    async def ready(self, sent: bytes) -> _Taken:
        """Wait for a message; return what it took since the assignment."""
        async with asyncio.timeout(_READY_SECONDS):
            while (await self.consumer.getone()).value != sent:
                pass
        assert self._began is not None  # noqa: S101 - a member without it gets nothing
        return self._since(self._began)

    async def again(self) -> _Taken:
        """Go back by one; return what it takes until that message is there again."""
        position = await self.consumer.position(self._tp)
        begun = self._now()
        self.consumer.seek(self._tp, position - 1)
        async with asyncio.timeout(_READY_SECONDS):
            await self.consumer.getone()
        return self._since(begun)

    def _now(self) -> _Taken:
        return _Taken(time.perf_counter(), time.process_time(), self._audit.read_again)

    def _since(self, begun: _Taken) -> _Taken:
        now = self._now()
        return _Taken(
            now.seconds - begun.seconds,
            now.processor_seconds - begun.processor_seconds,
            now.read_again - begun.read_again,
        )
