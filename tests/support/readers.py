"""What tests of the Kafka reader do again and again: read up to a message, note places, turn captures into batches."""

import asyncio
from collections import Counter
from typing import Any

from tests.integration.kafka.world import Captured, World
from tests.support.kafka_api import VerifyingConsumer
from tests.support.patience import PATIENCE
from tests.support.raw_kafka import Batch, Raw
from watchword import Rejected, Unavailable, Watchword
from watchword.spi import Message

END = b"end"


async def until(consumer: VerifyingConsumer, last: bytes = END, *, way: str = "getone") -> list[Any]:
    """Return the values that are handed over up to `last`, which must come; `way` is getone, getmany or async for."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while last not in found:
            try:
                match way:
                    case "getone":
                        found.append((await consumer.getone()).value)
                    case "getmany":
                        for records in (await consumer.getmany(timeout_ms=1_000)).values():
                            found += [record.value for record in records]
                    case "one of many":
                        for records in (await consumer.getmany(timeout_ms=1_000, max_records=1)).values():
                            found += [record.value for record in records]
                    case _:
                        found.append((await anext(aiter(consumer))).value)
            except Unavailable:
                continue
    return found


async def nothing_more(consumer: VerifyingConsumer, seconds: float = 0.5) -> None:
    """Let the reader pass what stands at the log's end, and see that none of it is handed over."""
    try:
        record = await asyncio.wait_for(consumer.getone(), seconds)
    except TimeoutError:
        return
    raise AssertionError(f"{record.value!r} was handed over")


def judged(watchword: Watchword) -> Counter[str]:
    """Return what a reader has counted, and count what it has not as 0."""
    return Counter(watchword.audit.counts)


def raw_of(captured: Captured, **fields: Any) -> Raw:
    """Return a captured record as part of a batch."""
    headers = [(name.encode(), value) for name, value in captured.headers]
    return Raw(value=captured.value, key=captured.key, headers=headers, **fields)


async def signed_batch(world: World, topic: str, *values: bytes) -> Batch:
    """Return a batch of messages that the planner signed and nobody has sent yet."""
    return Batch(records=[raw_of(await world.sign(topic, value)) for value in values])


class Places:
    """A quarantine that notes where each copy's message stood."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        assert message.position is not None
        reason = str(verdict.reason) if isinstance(verdict, Rejected) else "undetermined"
        self.found.append((message.position.offset, reason))
        return True
