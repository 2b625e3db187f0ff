"""What this client asked and whom it owes an answer, each bounded in number and time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg

MAX_REMEMBERED: Final = 10_000
MAX_UNREAD_ANSWERS: Final = 64

T = TypeVar("T")


class Recent(Generic[T]):
    """Up to ``limit`` values by name, each for ``seconds``; the oldest make room."""

    def __init__(self, *, seconds: float, clock: Callable[[], float], limit: int = MAX_REMEMBERED) -> None:
        self._seconds = seconds
        self._clock = clock
        self._limit = limit
        self._values: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def put(self, name: str, value: T) -> None:
        """Remember ``value`` from now on."""
        self._values.pop(name, None)
        self._values[name] = (self._clock() + self._seconds, value)
        while len(self._values) > self._limit:
            self._values.popitem(last=False)

    def get(self, name: str) -> T | None:
        """Return what is remembered under ``name``."""
        until, value = self._values.get(name, (0.0, None))
        if value is not None and self._clock() >= until:
            del self._values[name]
            return None
        return value


class Waiting:
    """A request under way: its unread answers, and (once it is sent) what the server's answer to a PING behind it ends.

    The server says "no responders" before that PONG; whoever else says it can do so only later.
    """

    __slots__ = ("_answers", "_arrival", "_is_over", "pong")

    def __init__(self) -> None:
        self.pong: asyncio.Future[bool] | None = None
        self._answers: deque[Msg] = deque()
        self._arrival: asyncio.Future[None] | None = None
        self._is_over = False

    def arrived(self, raw: Msg) -> None:
        """Keep an answer for the requester to judge; a flood is cut off."""
        if self._is_over:  # what came in time is still judged, and no more: a flood keeps nobody waiting
            return
        if len(self._answers) < MAX_UNREAD_ANSWERS:
            self._answers.append(raw)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    async def answer(self) -> Msg:
        """Return the next answer; TimeoutError once none is left and the time is up. One task may wait at a time."""
        while not self._answers:
            if self._is_over:
                raise TimeoutError
            self._arrival = asyncio.get_running_loop().create_future()
            await self._arrival
        return self._answers.popleft()

    def over(self) -> None:
        """Say that the time is up."""
        self._is_over = True
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
