"""What the roles need of a bus; one module each says how it is done there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from chaos.cast import Worker
    from chaos.plan import Plan
    from watchword import VerifiedMessage


class Handed(NamedTuple):
    """A message as a handler gets it, and when the bus got it: seconds since the epoch, by the bus's best knowledge."""

    message: VerifiedMessage
    since: float


Handler: TypeAlias = "Callable[[Sequence[Handed]], Awaitable[None]]"


@dataclass(frozen=True, slots=True)
class Captured:
    """A message as an attacker has it; ``raw`` is the client's own, ``source`` where it was heard, if that matters."""

    name: str
    raw: Any
    source: str = ""


class Speaking(Protocol):
    """Agents that sign and send."""

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """Send one message for each name; return those that the bus acknowledged, with their positions."""
        ...


class Attacking(Protocol):
    """A plain client that sees everything."""

    def captures(self) -> AsyncIterator[Captured]:
        """Yield all that passes, the attacker's own copies included."""
        ...

    async def replay(self, captured: Captured) -> bool:
        """Send a captured message again; tell whether the bus took it."""
        ...


class Bus(Protocol):
    """One bus under load."""

    def __init__(self, plan: Plan) -> None: ...

    async def prepare(self) -> None:
        """Make topic, stream, consumer."""
        ...

    def speaking(self) -> AbstractAsyncContextManager[Speaking]:
        """Connect the honest senders."""
        ...

    def attacking(self) -> AbstractAsyncContextManager[Attacking]:
        """Connect the attacker."""
        ...

    async def work(self, worker: Worker, handle: Handler, ready: Callable[[], None], stop: asyncio.Event) -> None:
        """Consume with Watchword until ``stop``; acknowledge what ``handle`` returned from."""
        ...

    async def lag(self) -> int:
        """Return how many messages the workers are not done with; 0 where the bus does not know."""
        ...

    def log(self, end: asyncio.Event) -> AsyncIterator[tuple[str, str]] | None:
        """Yield name and position of all that is sent, each original before its copies, until ``end`` and all is read.

        None where the bus holds nothing.
        """
        ...


@runtime_checkable
class Retaining(Protocol):
    """A bus that can forget on demand."""

    async def cut(self, *, everything: bool) -> int:
        """Let retention take what no reader needs any more, or all that is handled; return how many records went."""
        ...


@runtime_checkable
class Leading(Protocol):
    """A bus whose consumers and leaders can be replaced under those who read."""

    async def recreate(self) -> None:
        """Delete the shared consumer, and recreate it."""
        ...

    async def step_down(self) -> None:
        """Let the leaders of the stream and of its consumers step down."""
        ...


def bus_of(plan: Plan) -> Bus:
    """Return the bus of the plan's scenario; others are not imported."""
    if plan.scene.bus == "kafka":
        from chaos.on_kafka import KafkaGroup  # noqa: PLC0415 - a scenario needs one client only

        return KafkaGroup(plan)
    if not plan.scene.is_core:
        from chaos.on_jetstream import OneStream  # noqa: PLC0415 - as above

        return OneStream(plan)
    if plan.scene.shape == "requests":
        from chaos.on_requests import Requests  # noqa: PLC0415 - as above

        return Requests(plan)
    from chaos.on_core import CoreSubject  # noqa: PLC0415 - as above

    return CoreSubject(plan)
