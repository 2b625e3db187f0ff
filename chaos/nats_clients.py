"""NATS clients that outlive the server's restarts."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from nats.aio.client import Client
from nats.errors import Error

from chaos.cast import speaker
from watchword_adapters.nats import WatchwordClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chaos.plan import Plan

C = TypeVar("C", bound=Client)

FLUSH_SECONDS: Final = 5


@asynccontextmanager
async def connected(client: C, address: str) -> AsyncIterator[C]:
    """Connect, again and again where the server is away, and close in the end."""
    while True:
        try:
            await client.connect(
                address,
                error_cb=_heard,
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


async def settled(client: Client) -> None:
    """Wait until the server has what was sent: nats-py's first PING overtakes that, its second does not."""
    await client.flush(FLUSH_SECONDS)
    await client.flush(FLUSH_SECONDS)


async def _heard(error: Exception) -> Any:
    """Say nothing of the connection's ups and downs: they are what is played."""
