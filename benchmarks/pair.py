"""A publisher and a subscriber in processes of their own, plain and with Watchword side by side on one broker."""

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
    from collections.abc import Awaitable, Callable, Mapping
    from multiprocessing.connection import Connection

KINDS: Final = ("plain", "watchword")
_STAMP: Final = 8
_QUIET_SECONDS: Final = 15.0
"""Time without any delivery after which messages count as lost."""

Hear: TypeAlias = "Callable[[str, bytes], None]"
"""Takes a delivered message: its kind and its value."""


class Talker(NamedTuple):
    """Sends a value, and waits until all that was sent is on its way."""

    send: Callable[[bytes], Awaitable[object]]
    flush: Callable[[], Awaitable[object]]


class Bus(Protocol):
    """How to talk and listen on one bus; it is sent to both processes."""

    def talking(self) -> AbstractAsyncContextManager[Mapping[str, Talker]]:
        """Open a sender for each kind."""
        ...

    def listening(self, hear: Hear) -> AbstractAsyncContextManager[None]:
        """Let everything that is delivered be heard."""
        ...


class Order(NamedTuple):
    """Send so many messages of a kind: as fast as can be, or at a ``pace`` per second."""

    kind: str
    messages: int
    pace: float | None = None


class Heard(NamedTuple):
    """When the last message came (seconds), and how long each took (microseconds) if there was a pace."""

    last: float
    latencies: list[float]


class Pair:
    """The two processes; they share the machine's clock."""

    def __init__(self, bus: Bus) -> None:
        self._stack = ExitStack()
        self._bus = bus

    def __enter__(self) -> Self:
        with self._stack:  # where something fails on the way
            self._listener = self._stack.enter_context(Child(_listen, self._bus))
            self._listener.answer()
            self._talker = self._stack.enter_context(Child(_talk, self._bus))
            self._talker.answer()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def rate(self, kind: str, count: int) -> float:
        """Return how many messages a second came through, from the first call of send to the last delivery."""
        begun, heard = self._play(Order(kind, count))
        return count / (heard.last - begun)

    def latencies(self, kind: str, count: int, pace: float) -> list[float]:
        """Return the microseconds from the call of send to the handler, for messages at a pace."""
        return self._play(Order(kind, count, pace))[1].latencies

    def _play(self, order: Order) -> tuple[float, Heard]:
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
    async with bus.talking() as talkers:
        connection.send("ready")
        while (order := await orders(connection)) is not None:
            tidy()
            begun = time.perf_counter()
            await _send(talkers[order.kind], order, values)
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

    def hear(self, kind: str, value: bytes) -> None:
        if kind != self._order.kind:
            return
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
