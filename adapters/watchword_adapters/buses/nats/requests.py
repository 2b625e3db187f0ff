"""What this client asked and whom it owes an answer, each bounded in number and time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request under way: its unread answers, and whether the server has answered the PING sent behind it.

    The server says "no responders" before that PONG; whoever else says it can do so only later.
    """

    pong: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    answers: asyncio.Queue[Msg] = field(default_factory=lambda: asyncio.Queue(MAX_UNREAD_ANSWERS))

    def arrived(self, raw: Msg) -> None:
        """Keep an answer for the requester to judge; a flood is cut off."""
        if not self.answers.full():
            self.answers.put_nowait(raw)
