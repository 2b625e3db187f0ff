"""JetStream: many publishes in flight, and fetching and acknowledging in bulk, plain and with Watchword in turns."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

import nats

from watchword_adapters.nats import connect

from . import cast
from .buses import HEADERS
from .core import BATCH, SIZE
from .figures import AsyncRun, Figure, take_turns_async
from .pair import KINDS

if TYPE_CHECKING:
    from nats.aio.client import Client

REPEATS: Final = 7
MESSAGES: Final = 5000
IN_FLIGHT: Final = 500
FETCH: Final = 500
_PATIENCE: Final = 120.0


def measure(address: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    count, repeats = (100, 1) if small else (MESSAGES, REPEATS)
    figures = asyncio.run(_Bench(address, count).measure(repeats))
    rows = [{"what": what, "kind": kind} | figure.to_json() for (what, kind), figure in figures.items()]
    report = {
        "messages": count,
        "repeats": repeats,
        "value_bytes": SIZE,
        "in_flight": IN_FLIGHT,
        "fetch": FETCH,
        "storage": "file",
        "figures": rows,
    }
    names = {"publish": "jetstream_publish_signed_over_plain", "pull": "jetstream_pull_verified_over_plain"}
    ratios = {name: figures[what, "watchword"].over(figures[what, "plain"]) for what, name in names.items()}
    return {"jetstream": report, "ratios": ratios}


class _Bench:
    def __init__(self, address: str, messages: int) -> None:
        self._address = address
        self._messages = messages
        self._run = secrets.token_hex(4)
        self._values = cast.values(SIZE, messages)

    async def measure(self, repeats: int) -> dict[tuple[str, str], Figure]:
        """Publish by turns, and then pull by turns what was published."""
        async with AsyncExitStack() as stack:
            publishing: dict[tuple[str, str], AsyncRun] = {
                ("publish", kind): await self._publishing(stack, kind) for kind in KINDS
            }
            pulling: dict[tuple[str, str], AsyncRun] = {("pull", kind): self._pulling(kind) for kind in KINDS}
            async with asyncio.timeout(_PATIENCE):
                published = await take_turns_async(publishing, repeats)
            async with asyncio.timeout(_PATIENCE):
                return published | await take_turns_async(pulling, repeats)

    async def _publishing(self, stack: AsyncExitStack, kind: str) -> AsyncRun:
        client = await self._client(kind)
        stack.push_async_callback(client.close)
        context = client.jetstream(timeout=60.0)
        stream, subject = self._names(kind)
        await context.add_stream(name=stream, subjects=[subject])
        stack.push_async_callback(context.delete_stream, stream)

        async def run() -> float:
            begun = time.perf_counter()
            for at in range(0, self._messages, IN_FLIGHT):
                values = self._values[at : at + IN_FLIGHT]
                await asyncio.gather(*(context.publish(subject, value, headers=HEADERS) for value in values))
            return self._messages / (time.perf_counter() - begun)

        return run

    def _pulling(self, kind: str) -> AsyncRun:
        async def run() -> float:
            stream, subject = self._names(kind)
            client = await self._client(kind)
            subscription = await client.jetstream().pull_subscribe(subject, stream=stream)
            begun, got = time.perf_counter(), 0
            while got < self._messages:
                fetched = await subscription.fetch(min(FETCH, self._messages - got))
                for msg in fetched:
                    await msg.ack()
                got += len(fetched)
            took = time.perf_counter() - begun
            await subscription.unsubscribe()
            await client.close()
            return self._messages / took

        return run

    async def _client(self, kind: str) -> Client:
        if kind == "plain":
            return await nats.connect(self._address)
        return await connect(self._address, watchword=cast.agent(batch=BATCH))

    def _names(self, kind: str) -> tuple[str, str]:
        return f"watchword-bench-{kind}-{self._run}", f"watchword-bench.stream.{kind}.{self._run}"
