"""NATS clients that outlive the server's restarts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import DiscardPolicy, StreamConfig

from chaos.cast import speaker
from watchword_adapters.nats import NatsQuarantine, WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.plan import Plan
    from watchword import Watchword

C = TypeVar("C", bound=Client)

FLUSH_SECONDS: Final = 5
_FULL: Final = 50
"""Copies that a full quarantine takes before it is full."""


@asynccontextmanager
async def connected(client: C, address: str) -> AsyncIterator[C]:
    """Connect, again and again where the server is away, and close in the end.

    ``heard``, ``lost`` and ``found`` of the client, where it has them, hear of errors and of the connection.
    """
    while True:
        try:
            await client.connect(
                address.split(","),
                error_cb=getattr(client, "heard", _heard),
                disconnected_cb=getattr(client, "lost", None),
                reconnected_cb=getattr(client, "found", None),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # type: ignore[arg-type] # slept, so a fraction will do
                ping_interval=2,
                connect_timeout=2,
            )
        except (Error, OSError, TimeoutError):
            await asyncio.sleep(0.2)
        else:
            break
    try:
        yield client
    finally:
        if not client.is_closed:
            with suppress(OSError):  # the server is away, and something is unsent: nothing that was acknowledged
                await client.close()


@asynccontextmanager
async def speakers(plan: Plan) -> AsyncIterator[list[WatchwordClient]]:
    """Connect every honest sender."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                connected(WatchwordClient(watchword=speaker(plan, principal)), plan.address)
            )
            for principal in plan.speakers()
        ]


@asynccontextmanager
async def quarantine(plan: Plan, watchword: Watchword) -> AsyncIterator[NatsQuarantine | None]:
    """Connect a quarantine of its own to the server behind the proxy, where the plan has one."""
    if not plan.quarantine:
        yield None
        return
    async with connected(Client(), plan.quarantine_address) as client:
        yield NatsQuarantine(plan.quarantine_subject, watchword=watchword, client=client)


async def make_quarantine(plan: Plan) -> None:
    """Make the stream that keeps the quarantine, unless it is to be missing; a full one takes but a few copies."""
    if plan.quarantine in {"", "missing"}:
        return
    most = _FULL if plan.quarantine == "full" else -1
    config = StreamConfig(
        name=f"{plan.channel}-quarantine", subjects=[plan.quarantine_subject], max_msgs=most, discard=DiscardPolicy.NEW
    )
    async with connected(Client(), plan.address) as client:
        await client.jetstream().add_stream(config)


async def settled(client: Client) -> None:
    """Wait until the server has what was sent: nats-py's first PING overtakes that, its second does not."""
    await client.flush(FLUSH_SECONDS)
    await client.flush(FLUSH_SECONDS)


async def _heard(error: Exception) -> Any:
    """Say nothing of the connection's ups and downs: they are what is played."""
