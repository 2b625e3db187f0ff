"""A publisher and a subscriber in processes of their own."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self, TypeAlias

from . import cast
from .core import SIZE
from .figures import tidy
from .processes import Child, FailedError, orders

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.connection import Connection

_STAMP: Final = 8
_QUIET_SECONDS: Final = 15.0
"""Time without any delivery after which messages count as lost."""

Hear: TypeAlias = "Callable[[bytes], None]"
"""Takes the value of a delivered message."""


class Talker(NamedTuple):
    """Sends a value, and waits until all that was sent is on its way."""

    send: Callable[[bytes], Awaitable[object]]
    flush: Callable[[], Awaitable[object]]


class Bus(Protocol):
    """How to talk and listen on one bus; it is sent to both processes."""

    def talking(self) -> AbstractAsyncContextManager[Talker]:
        """Open a sender."""
        ...

    def listening(self, hear: Hear) -> AbstractAsyncContextManager[None]:
        """Let everything that is delivered be heard."""
        ...


class Order(NamedTuple):
    """Send so many messages: as fast as can be, or at a ``pace`` per second."""

    messages: int
    pace: float | None = None


class Heard(NamedTuple):
    """When the last message came (seconds), and how long each took (microseconds) if there was a pace."""

    last: float
    latencies: list[float]


class Pair:
    """The two processes, with an engine; they share the machine's clock."""

    def __init__(self, bus: Bus, engine: str) -> None:
        self._stack = ExitStack()
        self._bus = bus
        self._engine = engine

    def __enter__(self) -> Self:
        with self._stack:  # where something fails on the way
            self._listener = self._stack.enter_context(Child(_listen, self._bus, engine=self._engine))
            self._talker = self._stack.enter_context(Child(_talk, self._bus, engine=self._engine))
            self._stack = self._stack.pop_all()
        self._begins = [self._listener, self._talker]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rate(self, count: int) -> float:
        """Return how many messages a second came through, from the first call of send to the last delivery."""
        begun, heard = self._play(Order(count))
        return count / (heard.last - begun)

    def latencies(self, count: int, pace: float) -> list[float]:
        """Return the microseconds from the call of send to the handler, for messages at a pace."""
        return self._play(Order(count, pace))[1].latencies

    def _play(self, order: Order) -> tuple[float, Heard]:
        while self._begins:  # not sooner, so that several pairs can begin side by side
            self._begins.pop().answer()
        self._listener.tell(order)
        self._listener.answer()
        self._talker.tell(order)
        begun: float = self._talker.answer()
        heard: Heard = self._listener.answer()
        return begun, heard


def _talk(connection: Connection, bus: Bus) -> None:
    asyncio.run(_talking(connection, bus))


def _listen(connection: Connection, bus: Bus) -> None:
    asyncio.run(_listening(connection, bus))


async def _talking(connection: Connection, bus: Bus) -> None:
    values = cast.values(SIZE, 1000)
    async with bus.talking() as talker:
        connection.send("ready")
        while (order := await orders(connection)) is not None:
            tidy()
            begun = time.perf_counter()
            await _send(talker, order, values)
            connection.send(begun)


async def _send(talker: Talker, order: Order, values: list[bytes]) -> None:
    if order.pace is None:
        for number in range(order.messages):
            await talker.send(values[number % len(values)])
        await talker.flush()
        return
    filler = values[0][_STAMP:]
    begun = time.perf_counter()
    for number in range(order.messages):
        await asyncio.sleep(begun + number / order.pace - time.perf_counter())
        await talker.send(time.perf_counter_ns().to_bytes(_STAMP) + filler)


async def _listening(connection: Connection, bus: Bus) -> None:
    ear = _Ear()
    async with bus.listening(ear.hear):
        connection.send("ready")
        while (order := await orders(connection)) is not None:
            tidy()
            ear.expect(order)
            connection.send("ready")
            connection.send(await ear.all_of_it())


class _Ear:
    """Counts what is heard of an order."""

    def __init__(self) -> None:
        self._done = asyncio.Event()

    def expect(self, order: Order) -> None:
        self._order = order
        self._missing = order.messages
        self._done.clear()
        self._last = 0.0
        self._latencies: list[float] = []

    def hear(self, value: bytes) -> None:
        if self._order.pace is not None:
            self._latencies.append((time.perf_counter_ns() - int.from_bytes(value[:_STAMP])) / 1000)
        self._missing -= 1
        if not self._missing:
            self._last = time.perf_counter()
            self._done.set()

    async def all_of_it(self) -> Heard:
        while not self._done.is_set():
            before = self._missing
            try:
                async with asyncio.timeout(_QUIET_SECONDS):
                    await self._done.wait()
            except TimeoutError:
                if self._missing == before:
                    raise FailedError(f"{before} of {self._order} were not delivered") from None
        return Heard(self._last, self._latencies)
