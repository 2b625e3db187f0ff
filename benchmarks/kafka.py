"""aiokafka on one partition: producing, ``getmany`` and iterating, by clients of every kind in turns."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from watchword_adapters.kafka import SigningProducer, VerifyingConsumer

from . import cast
from .buses import headers_on_kafka
from .core import BATCH, SIZE
from .figures import take_turns
from .stages import Stage, is_ours, kinds, ratios, ready
from .topics import Topics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from watchword.message import Header

    from .figures import AsyncRun

_Sent: TypeAlias = "tuple[bytes, list[Header]]"
"""Value and headers."""


REPEATS: Final = 5
MESSAGES: Final = 20_000
PRODUCER: Final[Mapping[str, Mapping[str, Any]]] = {
    "tuned": {"max_batch_size": 131_072, "enable_idempotence": True},
    "defaults": {},
}
CONSUMER: Final[Mapping[str, Any]] = {"auto_offset_reset": "earliest"}
MAX_RECORDS: Final = 500
_PATIENCE: Final = 120.0
_RATIOS: Final = {
    "kafka_produce_signed_over_plain": ("produce", "tuned"),
    "kafka_produce_signed_over_plain_with_defaults": ("produce", "defaults"),
    "kafka_consume_verified_over_plain": ("consume", "tuned"),
    "kafka_iterate_verified_over_plain": ("iterate", "tuned"),
}


def measure(bootstrap: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    messages, repeats = (200, 1) if small else (MESSAGES, REPEATS)
    with ExitStack() as stack:
        stages = {
            kind: stack.enter_context(Stage(_runs, bootstrap, kind, messages, engine=engine))
            for kind, engine in kinds().items()
        }
        runs = ready(stages)
        producing = {key: run for key, run in runs.items() if key[1][0] == "produce"}
        figures = take_turns(producing, repeats)
        figures |= take_turns({key: run for key, run in runs.items() if key not in producing}, repeats)
    rows = [
        {"what": what, "options": options, "kind": kind} | figure.to_json()
        for (kind, (what, options)), figure in figures.items()
    ]
    report = {
        "messages": messages,
        "repeats": repeats,
        "value_bytes": SIZE,
        "producer": PRODUCER,
        "consumer": CONSUMER,
        "max_records": MAX_RECORDS,
        "figures": rows,
    }
    found: dict[str, float] = {}
    for name, what in _RATIOS.items():
        found |= ratios(name, {kind: figures[kind, what] for kind in stages})
    return {"kafka": report, "ratios": found}


@asynccontextmanager
async def _runs(bootstrap: str, kind: str, messages: int) -> AsyncIterator[Mapping[tuple[str, str], AsyncRun]]:
    """Yield what a kind of client does: produce to a topic of its own, and consume what was produced."""
    topic = f"watchword-bench-{secrets.token_hex(4)}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(Topics(bootstrap, topic))
        headers = await headers_on_kafka(kind, topic, batch=BATCH)
        bench = _Bench(bootstrap, kind, topic, list(zip(cast.values(SIZE, messages), headers, strict=False)))
        producers = {
            options: await stack.enter_async_context(bench.producer(**own)) for options, own in PRODUCER.items()
        }
        yield {("produce", options): partial(bench.produce, one) for options, one in producers.items()} | {
            ("consume", "tuned"): partial(bench.consume, bench.get_many),
            ("iterate", "tuned"): partial(bench.consume, bench.iterate),
        }


class _Bench:
    def __init__(self, bootstrap: str, kind: str, topic: str, sent: list[_Sent]) -> None:
        self._own: dict[str, Any] = {"bootstrap_servers": bootstrap}
        self._signs = is_ours(kind)
        self._topic = topic
        self._sent = sent

    def producer(self, **options: Any) -> AIOKafkaProducer:
        """Return a producer that has not started."""
        own = self._own | options
        return SigningProducer(watchword=cast.agent(batch=BATCH), **own) if self._signs else AIOKafkaProducer(**own)

    async def produce(self, producer: AIOKafkaProducer) -> float:
        """Send them all without waiting for answers, and flush."""
        async with asyncio.timeout(_PATIENCE):
            begun = time.perf_counter()
            sent = [
                await producer.send(self._topic, data, key=b"job-%05d" % number, partition=0, headers=headers)
                for number, (data, headers) in enumerate(self._sent)
            ]
            await producer.flush()
            took = time.perf_counter() - begun
            for future in sent:
                future.result()
        return len(sent) / took

    async def consume(self, take: Callable[[AIOKafkaConsumer], Awaitable[float]]) -> float:
        """Let a new group take as many from the beginning of the topic."""
        own = {**self._own, **CONSUMER, "group_id": secrets.token_hex(4)}
        consumer = (
            VerifyingConsumer(self._topic, watchword=cast.agent(batch=BATCH), **own)
            if self._signs
            else AIOKafkaConsumer(self._topic, **own)
        )
        async with asyncio.timeout(_PATIENCE), consumer:
            return await take(consumer)

    async def get_many(self, consumer: AIOKafkaConsumer) -> float:
        """Time ``getmany`` from the first records on: joining a group is not what is measured."""
        begun, got = 0.0, 0
        while got < len(self._sent):
            records = await consumer.getmany(timeout_ms=1000, max_records=MAX_RECORDS)
            found = sum(map(len, records.values()))
            if not begun and found:
                begun = time.perf_counter()
            elif begun:
                got += found
        return got / (time.perf_counter() - begun)

    async def iterate(self, consumer: AIOKafkaConsumer) -> float:
        """Time ``async for`` from the first record on."""
        await consumer.getone()
        begun = time.perf_counter()
        got = 0
        async for _ in consumer:
            got += 1
            if got == len(self._sent):
                break
        return got / (time.perf_counter() - begun)
