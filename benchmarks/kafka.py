"""aiokafka on one partition, plain and with Watchword in turns: producing, ``getmany`` and iterating."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword_adapters.kafka import SigningProducer, VerifyingConsumer

from . import cast
from .core import BATCH, SIZE
from .figures import AsyncRun, Figure, take_turns_async
from .topics import Topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

REPEATS: Final = 5
MESSAGES: Final = 20_000
PRODUCER: Final[Mapping[str, Mapping[str, Any]]] = {
    "tuned": {"max_batch_size": 131_072, "enable_idempotence": True},
    "defaults": {},
}
CONSUMER: Final[Mapping[str, Any]] = {"auto_offset_reset": "earliest"}
MAX_RECORDS: Final = 500
_PATIENCE: Final = 120.0
_HEADERS: Final = list(cast.HEADERS)


def measure(bootstrap: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    bench = _Bench(bootstrap, 200 if small else MESSAGES)
    repeats = 1 if small else REPEATS
    figures = asyncio.run(bench.measure(repeats))
    rows = [
        {"what": what, "options": options, "kind": kind} | figure.to_json()
        for (what, options, kind), figure in figures.items()
    ]
    report = {
        "messages": bench.messages,
        "repeats": repeats,
        "value_bytes": SIZE,
        "producer": PRODUCER,
        "consumer": CONSUMER,
        "max_records": MAX_RECORDS,
        "figures": rows,
    }
    names = {"produce": "kafka_produce_signed_over_plain"} | {
        what: f"kafka_{what}_verified_over_plain" for what in ("consume", "iterate")
    }
    ratios = {
        name: figures[what, "tuned", "watchword"].over(figures[what, "tuned", "plain"]) for what, name in names.items()
    }
    ratios["kafka_produce_signed_over_plain_with_defaults"] = figures["produce", "defaults", "watchword"].over(
        figures["produce", "defaults", "plain"]
    )
    return {"kafka": report, "ratios": ratios}


class _Bench:
    def __init__(self, bootstrap: str, messages: int) -> None:
        self.messages = messages
        self._bootstrap = bootstrap
        run = secrets.token_hex(4)
        self._topics = {kind: f"watchword-bench-{kind}-{run}" for kind in ("plain", "watchword")}
        self._values = cast.values(SIZE, messages)

    async def measure(self, repeats: int) -> dict[tuple[str, str, str], Figure]:
        """Produce by turns, and then consume by turns what was produced."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(Topics(self._bootstrap, *self._topics.values()))
            producing = {
                ("produce", options, kind): await self._producing(stack, kind, PRODUCER[options])
                for options in PRODUCER
                for kind in self._topics
            }
            consuming = {
                (what, "tuned", kind): self._consuming(kind, take)
                for what, take in (("consume", self._get_many), ("iterate", self._iterate))
                for kind in self._topics
            }
            async with asyncio.timeout(_PATIENCE):
                produced = await take_turns_async(producing, repeats)
            async with asyncio.timeout(_PATIENCE):
                return produced | await take_turns_async(consuming, repeats)

    async def _producing(self, stack: AsyncExitStack, kind: str, options: Mapping[str, Any]) -> AsyncRun:
        own: dict[str, Any] = {"bootstrap_servers": self._bootstrap, **options}
        producer = (
            AIOKafkaProducer(**own) if kind == "plain" else SigningProducer(watchword=cast.agent(batch=BATCH), **own)
        )
        await stack.enter_async_context(producer)
        topic = self._topics[kind]

        async def run() -> float:
            begun = time.perf_counter()
            sent = [
                await producer.send(topic, data, key=b"job-%05d" % number, partition=0, headers=_HEADERS)
                for number, data in enumerate(self._values)
            ]
            await producer.flush()
            took = time.perf_counter() - begun
            for future in sent:
                future.result()
            return self.messages / took

        return run

    def _consuming(self, kind: str, take: Callable[[AIOKafkaConsumer], Awaitable[float]]) -> AsyncRun:
        async def run() -> float:
            own: dict[str, Any] = {"bootstrap_servers": self._bootstrap, "group_id": secrets.token_hex(4), **CONSUMER}
            topic = self._topics[kind]
            consumer = (
                AIOKafkaConsumer(topic, **own)
                if kind == "plain"
                else VerifyingConsumer(topic, watchword=cast.agent(batch=BATCH), **own)
            )
            async with consumer:
                return await take(consumer)

        return run

    async def _get_many(self, consumer: AIOKafkaConsumer) -> float:
        """Time from the first records on: joining a group is not what is measured."""
        begun, got = 0.0, 0
        while got < self.messages:
            records = await consumer.getmany(timeout_ms=1000, max_records=MAX_RECORDS)
            found = sum(map(len, records.values()))
            if not begun and found:
                begun = time.perf_counter()
            elif begun:
                got += found
        return got / (time.perf_counter() - begun)

    async def _iterate(self, consumer: AIOKafkaConsumer) -> float:
        await consumer.getone()
        begun = time.perf_counter()
        got = 0
        async for _ in consumer:
            got += 1
            if got == self.messages:
                break
        return got / (time.perf_counter() - begun)
