"""A plain subscriber of core NATS: writes down what the server delivers to any listener."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from nats.aio.client import Client

from chaos.child import beside, commands, run, tell
from chaos.evidence import COPY, ORIGINAL, WITNESSED, Writer
from chaos.nats_clients import connected
from chaos.plan import Plan

if TYPE_CHECKING:
    from nats.aio.msg import Msg


async def watch(plan: Plan) -> None:
    """Write down every message and whose it is: a copy is marked by a subject, and its sender learns there of this."""
    writer, asked = Writer(plan.directory, WITNESSED), plan.scene.shape == "requests"

    async def saw(msg: Msg) -> None:
        mark = (msg.headers or {}).get(COPY) if asked else msg.reply
        writer.write((msg.data.decode(errors="replace"), mark or ORIGINAL))
        if mark:
            await client.publish(mark, b"")

    async with connected(Client(), plan.address) as client:
        for subject in plan.subjects:
            await client.subscribe(subject, cb=saw)
        await client.flush()
        tell("ready")
        await asyncio.Event().wait()


async def obey() -> None:
    """Wait for the end."""
    async for _ in commands():
        pass


async def main(path: str, _: str) -> None:
    """Play the role."""
    await beside(watch(Plan.load(path)), until=obey())


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
