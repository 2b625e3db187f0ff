"""A proxy in front of a server: whatever passes it is late by the same time, either way."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_CHUNK: Final = 1 << 16


@asynccontextmanager
async def delaying(address: str, seconds: float) -> AsyncIterator[str]:
    """Yield an address at which the server of ``address`` (a URL) answers ``seconds`` later, each way."""
    there = urlsplit(address)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(task := asyncio.current_task())  # type: ignore[arg-type]  # a callback runs in one
        writers = [writer]
        try:
            onward, backward = await asyncio.open_connection(there.hostname, there.port)
            writers.append(backward)
            await asyncio.gather(_pass(reader, backward, seconds), _pass(onward, writer, seconds))
        except OSError:  # the server is away
            pass
        finally:
            tasks.discard(task)
            for one in writers:
                one.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Hand on what comes, each part when it is due: a delay, and no limit to the pace."""
    clock = asyncio.get_running_loop().time
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            at, part = await due.get()
            await asyncio.sleep(at - clock())
            if not part:
                writer.write_eof()
                return
            writer.write(part)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    try:
        with suppress(OSError):
            while part := await reader.read(_CHUNK):
                due.put_nowait((clock() + seconds, part))
        due.put_nowait((clock() + seconds, b""))
        with suppress(OSError):
            await delivering
    finally:
        delivering.cancel()
