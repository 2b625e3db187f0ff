"""A presence channel in memory: what is announced stands on a board that all who open it share, from any thread."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from watchword import Watchword
from watchword.message import Header
from watchword.spi import Channel, Message, Position

CHANNEL = Channel.parse("kafka://prod/presence")


class Board:
    """What was announced. ``down`` makes all fail, ``keeps`` says whether it stores, ``hangs`` holds readings up.

    ``stuck_at`` holds a reading up before the message with this number. ``reads`` counts readings, ``read_since`` has
    where each began. ``lose`` announcements are not stored.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.messages: list[Message] = []
        self.down = False
        self.keeps = True
        self.lose = False
        self.hangs = threading.Event()
        self.stuck_at: int | None = None
        self.reads = 0
        self.read_since: list[float] = []
        self.opened = 0
        self._lock = threading.Lock()

    def open(self, agent: Watchword) -> "BoardChannel":
        """See ``OpenPresence``."""
        return BoardChannel(self, agent)

    def put(self, value: bytes, headers: tuple[Header, ...], at: float | None = None) -> None:
        """Append a message, as any writer to it can."""
        with self._lock:
            self.messages.append(
                Message(
                    channel=CHANNEL,
                    value=value,
                    headers=headers,
                    partition=0,
                    appended_at=self.clock() if at is None else at,
                    position=Position("presence/0", len(self.messages)),
                )
            )


class BoardChannel:
    """See ``PresenceChannel``."""

    def __init__(self, board: Board, agent: Watchword) -> None:
        self._board, self._agent = board, agent

    async def __aenter__(self) -> Self:
        self._check()
        self._board.opened += 1
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.opened -= 1

    def _check(self) -> None:
        if self._board.down:
            raise ConnectionError("the board is down")

    async def make(self) -> bool:
        """Make nothing."""
        return False

    async def stores(self) -> bool:
        """Return True if the board stores messages, as the test set it."""
        self._check()
        return self._board.keeps

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """Sign, and put it on the board."""
        self._check()
        pairs = tuple((name, text.encode()) for name, text in headers.items())
        message = Message(channel=CHANNEL, value=value, headers=pairs, partition=0)
        signed = await self._agent.signer.sign(message)
        if not self._board.lose:
            self._board.put(value, (*pairs, signed.header))

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """Yield what is there."""
        del listen
        self._check()
        board = self._board
        board.reads += 1
        board.read_since.append(since)
        while board.hangs.is_set():  # noqa: ASYNC110 - another thread lets it go on
            await asyncio.sleep(0.01)
        for number, message in enumerate(list(board.messages)):
            while board.stuck_at == number:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            self._check()
            if message.appended_at is not None and message.appended_at >= since:
                yield replace(message)
