"""A control log in memory, whose broker tests can make misbehave."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from watchword import ConfigurationError, Watchword
from watchword.spi import Channel, Message, Position
from watchword_adapters.control.log import TOGETHER, End

CHANNEL = Channel("nats", "prod", "watchword.control")


class Entries:
    """What the broker keeps; readers are woken when more comes."""

    def __init__(self) -> None:
        self.kept: list[Message | None] = []
        self.identity = "log 1"
        self.down = False
        self.unfit: str | None = None
        self.now = 1_700_000_000.0
        self.clock: Callable[[], float] = lambda: self.now
        self.opened = 0

    def append(self, message: Message, at: float | None = None) -> int:
        """Keep a message from any sender; return its position."""
        stamp = self.clock() if at is None else at
        position = Position("control", len(self.kept))
        self.kept.append(
            Message(
                channel=message.channel,
                value=message.value,
                key=message.key,
                headers=message.headers,
                position=position,
                appended_at=stamp,
            )
        )
        return position.offset


class MemoryLog:
    """See ``ControlLog``."""

    def __init__(self, entries: Entries, agent: Watchword | None = None) -> None:
        self._entries = entries
        self._agent = agent

    async def __aenter__(self) -> Self:
        self._require()
        self._entries.opened += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def _require(self) -> None:
        if self._entries.down:
            raise ConnectionError("the broker is down")

    async def make(self) -> bool:
        """Make nothing: it is there."""
        return False

    async def check(self) -> None:
        """Refuse what the test calls unfit."""
        if self._entries.unfit is not None:
            raise ConfigurationError(self._entries.unfit)

    async def end(self) -> End:
        """Return how far it goes."""
        self._require()
        return End(self._entries.identity, 0, len(self._entries.kept))

    async def read(self, position: int) -> AsyncGenerator[tuple[Sequence[Message], int]]:
        """Yield what is there, and what comes."""
        identity = self._entries.identity
        while True:
            self._require()
            if identity != self._entries.identity:
                raise ConnectionError("the log is another one")
            if position >= len(self._entries.kept):
                await asyncio.sleep(0.001)
                continue
            some = self._entries.kept[position : position + TOGETHER]
            position += len(some)
            yield [one for one in some if one is not None], position

    async def publish(self, value: bytes, headers: Mapping[str, str]) -> int:
        """Sign and keep."""
        self._require()
        assert self._agent is not None
        pairs = tuple((name, text.encode()) for name, text in headers.items())
        message = Message(channel=CHANNEL, value=value, key=None, headers=pairs)
        signed = await self._agent.signer.sign(message)
        return self._entries.append(Message(channel=CHANNEL, value=value, key=None, headers=(*pairs, signed.header)))
