"""The delaying proxy: late, but not slow."""

import asyncio

from chaos.proxy import delaying

DELAY = 0.05


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say again what is said, until nothing more is."""
    while part := await reader.read(1000):
        writer.write(part)
        await writer.drain()
    writer.close()


async def test_what_passes_is_late_by_the_delay_each_way_and_none_waits_for_another() -> None:
    """An answer takes both delays; a thousand messages at once take no longer than one, and arrive in order."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, delaying(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", DELAY) as address:
        host, _, port = address.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        clock = asyncio.get_running_loop().time
        for _ in range(2):
            begun = clock()
            for number in range(1000):
                writer.write(b"%03d" % number)
                await writer.drain()
                await asyncio.sleep(0)
            assert await reader.readexactly(3000) == b"".join(b"%03d" % number for number in range(1000))
            assert 2 * DELAY <= clock() - begun < 400 * DELAY  # one after another would take a thousand, each way
        writer.close()
        await writer.wait_closed()


async def test_an_end_passes_too() -> None:
    """Who hangs up is hung up on; and where the server is away, nobody is left waiting."""
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with delaying(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", DELAY) as address:
        host, _, port = address.removeprefix("nats://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"bye")
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 60) == b"bye"
        server.close()
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()
