"""A connection that was to be encrypted is, or there is none."""

import asyncio
import ssl
from typing import Any

import pytest

from tests.unit.kafka.fakes import Keys, watchword
from watchword import ConfigurationError
from watchword_adapters.nats import WatchwordClient

INFO = b'INFO {"server_id":"x","version":"2.10.0","max_payload":1000,"proto":1}\r\n'


async def said_to(scheme: str, **options: Any) -> tuple[BaseException | None, bytes]:
    """Connect to someone who offers no TLS; return the error, and what was said."""
    heard = asyncio.Queue[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        said = await reader.read(1000)
        heard.put_nowait(said)
        if said:
            writer.write(b"PONG\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = WatchwordClient(watchword=watchword(Keys()))
    failed: BaseException | None = None
    try:
        await client.connect(
            f"{scheme}://127.0.0.1:{port}", user="u", password="hunter2", allow_reconnect=False, **options
        )
    except ConfigurationError as error:
        failed = error
    await client.close()
    said = await asyncio.wait_for(heard.get(), 10)
    server.close()
    await server.wait_closed()
    return failed, said


@pytest.mark.parametrize(("scheme", "options"), [("nats", {"tls": ssl.create_default_context()}), ("tls", {})])
async def test_no_login_goes_out_in_the_clear(scheme: str, options: dict[str, Any]) -> None:
    """An attacker who strips the server's wish for TLS learns nothing; nats-py alone would say the password."""
    failed, said = await said_to(scheme, **options)
    assert said == b""
    assert "requests no TLS, so a login would be sent in the clear" in str(failed)


async def test_who_asks_for_no_tls_gets_none() -> None:
    """A plain connection works as before."""
    failed, said = await said_to("nats")
    assert failed is None
    assert b"hunter2" in said
