"""The scenario's clients on NATS."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import nats
from nats.errors import Error

from watchword import ConfigurationError
from watchword_adapters.demo.attacks import Raw
from watchword_adapters.demo.scenario import FORGED_ANSWER
from watchword_adapters.nats import connect

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from watchword_adapters.demo.stage import Cast, Handler


_AT_ONCE: Final[dict[str, Any]] = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0.1}
"""By default nats-py would try a missing server for two minutes."""


class NatsStage:
    """Planner, controller and attacker on one nats-server; ``cast`` None is the act without Watchword."""

    bus: Final = "nats"

    def __init__(self, url: str, handler: Handler, cast: Cast | None, run: str) -> None:
        self.captured: list[Raw] = []
        # The subjects bear the run's name, so that two demos on one server do not meet.
        self.commands, self.reports, self._status = (f"cloud.{run}.{name}" for name in ("scale", "report", "status"))
        self._everything = f"cloud.{run}.>"
        self._url = url
        self._handler = handler
        self._cast = cast
        self._lied = asyncio.Event()
        self.heard = asyncio.Event()

    async def open(self) -> None:
        """See ``Stage.open``."""
        try:
            self._planner = await self._client(None if self._cast is None else self._cast.planner)
        except (Error, OSError, ValueError) as error:
            raise ConfigurationError(f"no NATS server at {self._url!r}: write nats://HOST:PORT ({error})") from None
        await self._start_controller()
        self._spy = await self._eavesdrop()
        self._wire = await Wire.connect(self._url)

    async def send(
        self, name: str, value: bytes, *, key: bytes, headers: dict[str, str], recipient: str | None
    ) -> None:
        """See ``Stage.send``; NATS has no keys."""
        del key
        if self._cast is None:
            await self._planner.publish(name, value, headers=dict(headers))
        else:
            await self._planner.publish(name, value, headers=dict(headers), recipient=recipient)  # type: ignore[call-arg]
        await self._planner.flush()

    async def attack(self, raw: Raw) -> None:
        """See ``Stage.attack``; on the wire itself, since no client library would send this."""
        await self._wire.publish(raw)

    async def revive(self) -> None:
        """See ``Stage.revive``."""
        await self._controller.close()
        if self._cast is not None:
            self._cast.restart_controller()
        await self._start_controller()

    async def ask(self) -> bytes | None:
        """See ``Stage.ask``."""
        await self._spy.close()  # its own attack has killed it
        self._spy = await self._eavesdrop()
        self._lied.clear()
        answer = await self._planner.request(self._status, b"how many instances?", timeout=5)
        return bytes(answer.data)

    async def close(self) -> None:
        """See ``Stage.close``."""
        await self._wire.close()
        for client in (self._planner, self._controller, self._spy):
            await client.close()

    async def _client(self, watchword: Any) -> Client:
        if watchword is None:
            return await nats.connect(self._url, error_cb=_say_nothing, **_AT_ONCE)
        return await connect(self._url, watchword=watchword, **_AT_ONCE)

    async def _eavesdrop(self) -> Client:
        spy = await self._client(None)
        await spy.subscribe(self._everything, cb=self._capture)
        await _arrived(spy)
        return spy

    async def _start_controller(self) -> None:
        self._controller = await self._client(None if self._cast is None else self._cast.controller)
        await self._controller.subscribe(self.commands, cb=self._obey)
        await self._controller.subscribe(self._status, cb=self._report)
        await _arrived(self._controller)

    async def _obey(self, message: Msg) -> None:
        await self._handler(message.data)

    async def _report(self, message: Msg) -> None:
        await self._lied.wait()  # the attacker is always quicker
        await message.respond(b'{"instances": 10}')

    async def _capture(self, message: Msg) -> None:
        headers = tuple((name, value.encode()) for name, value in (message.headers or {}).items())
        self.captured.append(
            Raw(name=message.subject, value=message.data, headers=headers, reply=message.reply or None)
        )
        self.heard.set()
        if message.subject == self._status and message.reply:
            await self._wire.publish(Raw(name=message.reply, value=FORGED_ANSWER))
            self._lied.set()


async def _arrived(client: Client) -> None:
    """Wait until the server knows the subscriptions: nats-py's first PING overtakes pending writes."""
    await client.flush()
    await client.flush()


async def _say_nothing(_: Exception) -> None:
    """Suppress the plain clients' errors, which the table shows anyway."""


class Wire:
    """A bare connection to a nats-server, for messages that no client library would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, url: str) -> Wire:
        """Open a connection with header support."""
        parts = urlsplit(url)
        wire = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        await wire._reader.readline()  # INFO
        wire._writer.write(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
        await wire._flush()
        return wire

    async def publish(self, raw: Raw) -> None:
        """Send one message, and wait until the server has it."""
        block = f"NATS/1.0{' ' + raw.status if raw.status else ''}\r\n".encode()
        block += b"".join(name.encode() + b": " + (value or b"") + b"\r\n" for name, value in raw.headers) + b"\r\n"
        if raw.broken_headers:
            block = b"X"
        value = raw.value or b""
        to = f"{raw.name} {raw.reply}" if raw.reply else raw.name
        async with self._turn:
            head = f"HPUB {to} {len(block)} {len(block) + len(value)}\r\n".encode()
            self._writer.write(head + block + value + b"\r\n")
            await self._flush()

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        with suppress(OSError):  # a stopped server has closed it
            await self._writer.wait_closed()

    async def _flush(self) -> None:
        self._writer.write(b"PING\r\n")
        while (line := await self._reader.readline()) != b"PONG\r\n":
            if not line or line.startswith(b"-ERR"):
                raise ConnectionError(f"nats-server refused the attack: {line!r}")
