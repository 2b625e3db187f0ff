"""How long a Kafka consumer takes until it delivers again, after it was given a partition whose window it must know.

One partition holds 15 minutes of signed messages at 1,000 a second. A group that had read all of them gets it assigned;
the time runs from there to the first delivery of a message that was sent afterwards, beside that of a bare consumer.
The topic is on CreateTime and the consumer's clock stands at the end of the log, so that nobody has to wait 15 minutes.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import TopicPartition

from watchword import MemoryKeys, MemoryReplayStore, Policy, Signer, SigningKey, Verifier, Watchword
from watchword_adapters.kafka import SigningProducer, VerifyingConsumer

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOWS: Final = (60, 300, 900)
"""Seconds."""

RATE: Final = 1000
_SKEW: Final = 5.0
_SPEAKERS: Final = 10
_VALUE: Final = b"x" * 200
_REALM: Final = "bench"
_READY_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Figure:
    """What one window costs: ``seconds`` to the first delivery, of which a bare consumer takes ``bare_seconds``."""

    window: int
    messages: int
    seconds: float
    bare_seconds: float

    @property
    def per_second(self) -> float:
        """Messages read again in a second."""
        return self.messages / max(self.seconds - self.bare_seconds, 1e-9)


def measure(bootstrap: str, broker: str, *, small: bool) -> dict[str, Any]:
    """Fill a log, let a consumer get ready for each window, and return what goes into the report."""
    windows, rate = ((20,), 20) if small else (WINDOWS, RATE)
    figures = asyncio.run(_Bench(bootstrap, max(windows), rate).measure(windows))
    rows = [asdict(one) | {"per_second": one.per_second} for one in figures]
    return {"ready": {"rate": rate, "broker": broker, "ready": rows}}


class _Bench:
    def __init__(self, bootstrap: str, seconds: int, rate: int) -> None:
        self._bootstrap = bootstrap
        self._rate = rate
        self._tp = TopicPartition(f"ready-{secrets.token_hex(4)}", 0)
        self._keys = {f"agent://bench/speaker-{number}": SigningKey.generate() for number in range(_SPEAKERS)}
        self._end = time.time()
        self._begin = self._end - seconds

    async def measure(self, windows: tuple[int, ...]) -> list[Figure]:
        """Fill the log, and measure each window."""
        await self._make_topic()
        await self._fill()
        return [
            Figure(
                window=window,
                messages=window * self._rate,
                seconds=await self._until_ready(window),
                bare_seconds=await self._until_ready(None),
            )
            for window in windows
        ]

    async def _make_topic(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            settings = {"message.timestamp.type": "CreateTime"}
            await admin.create_topics([NewTopic(self._tp.topic, 1, 1, topic_configs=settings)])
        finally:
            await admin.close()

    async def _fill(self) -> None:
        """Let the speakers take turns; the messages of a batch, some 30, have the time of its last one."""
        now = self._begin
        async with AsyncExitStack() as stack:
            producers = [
                await stack.enter_async_context(self._producer(principal, lambda: now)) for principal in self._keys
            ]
            for producer in cycle(producers):
                if now >= self._end:
                    return
                batch = producer.create_batch(topic=self._tp.topic)
                while now < self._end and batch.append(timestamp=None, key=None, value=_VALUE) is not None:
                    now += 1 / self._rate
                await (await producer.send_batch(batch, self._tp.topic, partition=0))

    async def _until_ready(self, window: int | None) -> float:
        """Give the partition to a group that had read all of it, send one message, and wait for that."""
        group = secrets.token_hex(4)
        await self._commit_end(group)
        sent = secrets.token_bytes(8)
        async with self._producer(next(iter(self._keys)), lambda: self._end) as producer:
            consumer = self._bare(group) if window is None else self._verifying(group, window)
            began = time.perf_counter()
            await producer.send_and_wait(self._tp.topic, sent, partition=0)
            async with consumer, asyncio.timeout(_READY_SECONDS):
                while (await consumer.getone()).value != sent:
                    pass
                return time.perf_counter() - began

    async def _commit_end(self, group: str) -> None:
        async with AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, group_id=group, enable_auto_commit=False
        ) as consumer:
            consumer.assign([self._tp])
            await consumer.commit(await consumer.end_offsets([self._tp]))

    def _producer(self, principal: str, clock: Callable[[], float]) -> SigningProducer:
        watchword = Watchword(
            verifier=self._verifier(Policy(), clock, principal),
            signer=Signer(realm=_REALM, principal=principal, key=self._keys[principal], clock=clock),
        )
        return SigningProducer(bootstrap_servers=self._bootstrap, watchword=watchword, enable_idempotence=True)

    def _verifying(self, group: str, window: int) -> VerifyingConsumer:
        began = time.monotonic()
        policy = Policy(max_age=window - 2 * _SKEW, max_skew=_SKEW)
        verifier = self._verifier(policy, lambda: self._end + time.monotonic() - began, None)
        return VerifyingConsumer(self._tp.topic, watchword=Watchword(verifier=verifier), **self._options(group))

    def _bare(self, group: str) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(self._tp.topic, **self._options(group))

    def _options(self, group: str) -> dict[str, Any]:
        return {"bootstrap_servers": self._bootstrap, "group_id": group, "auto_offset_reset": "earliest"}

    def _verifier(self, policy: Policy, clock: Callable[[], float], principal: str | None) -> Verifier:
        return Verifier(
            realm=_REALM,
            principal=principal,
            keys=MemoryKeys(key.verification_key(name) for name, key in self._keys.items()),
            replay=MemoryReplayStore(horizon=policy.horizon),
            policy=policy,
            clock=clock,
        )
