"""A TCP proxy that delays what it passes on, for a server far away without one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class DelayingProxy:
    """Passes on bytes in both directions, each ``delay`` seconds after it came, and in a stall not at all.

    So a round trip takes twice ``delay``, and the throughput is that of the server behind.
    """

    def __init__(self, target: str, delay: float) -> None:
        parts = urlsplit(target if "://" in target else f"tcp://{target}")
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self.delay = delay
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.address = ""

    def stall(self) -> None:
        """Pass on nothing until ``go_on``; connections stay open, as when a cable is pulled."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Pass on what came meanwhile, and go on."""
        self._flowing.set()

    async def serve(self, near: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        """Connect one client to the server."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far, requests = await asyncio.open_connection(self._host, self._port)
        try:
            await asyncio.gather(self._pass_on(near, requests), self._pass_on(far, answers))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for writer in (requests, answers):
                writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def take() -> None:
            while data := await source.read(1 << 16):
                due.put_nowait((now() + self.delay, data))
            due.put_nowait((now() + self.delay, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                at, data = await due.get()
                await asyncio.sleep(at - now())
                await self._flowing.wait()
                if not data:
                    sink.close()
                    return
                sink.write(data)
                await sink.drain()
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    async def end(self) -> None:
        """Cut all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def far_away(target: str, *, delay: float = 0.0) -> AsyncIterator[DelayingProxy]:
    """Give a proxy in front of ``target`` (host:port, or a URL); ``address`` is the proxy's own host:port."""
    proxy = DelayingProxy(target, delay)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    proxy.address = f"{host}:{port}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
        await server.wait_closed()
