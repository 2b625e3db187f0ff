"""JetStream: many publishes in flight, and fetching and acknowledging in bulk, by clients of every kind in turns."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import nats

from watchword_adapters.nats import connect

from . import cast
from .buses import headers_on_nats
from .core import BATCH, SIZE
from .figures import take_turns
from .stages import Stage, is_ours, kinds, ratios, ready

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from .figures import AsyncRun, Figure

REPEATS: Final = 7
MESSAGES: Final = 5000
IN_FLIGHT: Final = 500
FETCH: Final = 500
_PATIENCE: Final = 120.0
_RATIOS: Final = {"publish": "jetstream_publish_signed_over_plain", "pull": "jetstream_pull_verified_over_plain"}


def measure(address: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    count, repeats = (100, 1) if small else (MESSAGES, REPEATS)
    with ExitStack() as stack:
        stages = {
            kind: stack.enter_context(Stage(_runs, address, kind, count, engine=engine))
            for kind, engine in kinds().items()
        }
        runs = ready(stages)
        figures: dict[tuple[str, str], Figure] = {}
        for what in _RATIOS:  # all is published before it is pulled
            figures |= take_turns({key: run for key, run in runs.items() if key[1] == what}, repeats)
    report = {
        "messages": count,
        "repeats": repeats,
        "value_bytes": SIZE,
        "in_flight": IN_FLIGHT,
        "fetch": FETCH,
        "storage": "file",
        "figures": [{"what": what, "kind": kind} | figure.to_json() for (kind, what), figure in figures.items()],
    }
    found: dict[str, float] = {}
    for what, name in _RATIOS.items():
        found |= ratios(name, {kind: figures[kind, what] for kind in stages})
    return {"jetstream": report, "ratios": found}


@asynccontextmanager
async def _runs(address: str, kind: str, messages: int) -> AsyncIterator[Mapping[str, AsyncRun]]:
    """Yield what a kind of client does: publish to a stream of its own, and pull what was published."""
    run = secrets.token_hex(4)
    bench = _Bench(address, kind, f"watchword-bench.{run}", f"watchword-bench-{run}")
    headers = await headers_on_nats(kind, bench.subject, batch=BATCH)
    sent = list(zip(cast.values(SIZE, messages), headers, strict=False))
    client = await bench.connect()
    try:
        context = client.jetstream(timeout=60.0)
        await context.add_stream(name=bench.stream, subjects=[bench.subject])
        try:
            yield {"publish": partial(bench.publish, context, sent), "pull": partial(bench.pull, messages)}
        finally:
            await context.delete_stream(bench.stream)
    finally:
        await client.close()


class _Bench(NamedTuple):
    address: str
    kind: str
    subject: str
    stream: str

    async def connect(self) -> Client:
        """Open a connection."""
        if not is_ours(self.kind):
            return await nats.connect(self.address)
        return await connect(self.address, watchword=cast.agent(batch=BATCH))

    async def publish(self, context: JetStreamContext, sent: Sequence[tuple[bytes, dict[str, str]]]) -> float:
        """Publish them all, with many in flight."""
        async with asyncio.timeout(_PATIENCE):
            begun = time.perf_counter()
            for at in range(0, len(sent), IN_FLIGHT):
                part = sent[at : at + IN_FLIGHT]
                await asyncio.gather(*(context.publish(self.subject, data, headers=headers) for data, headers in part))
            return len(sent) / (time.perf_counter() - begun)

    async def pull(self, messages: int) -> float:
        """Fetch and acknowledge so many from the beginning of the stream."""
        async with asyncio.timeout(_PATIENCE):
            client = await self.connect()
            subscription = await client.jetstream().pull_subscribe(self.subject, stream=self.stream)
            begun, got = time.perf_counter(), 0
            while got < messages:
                fetched = await subscription.fetch(min(FETCH, messages - got))
                for msg in fetched:
                    await msg.ack()
                got += len(fetched)
            took = time.perf_counter() - begun
            await subscription.unsubscribe()
            await client.close()
            return messages / took
