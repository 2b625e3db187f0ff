"""One life of a worker: writes down what its handler gets before it acknowledges, and can be stopped in between."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from chaos.bus import bus_of
from chaos.cast import HAND, Worker
from chaos.child import beside, commands, run, tell
from chaos.evidence import place
from chaos.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.bus import Handed


class Hands:
    """The handler; after the command ``hang`` it stays forever between what it did and the acknowledgement."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.hanging = False

    async def handle(self, handed: Sequence[Handed]) -> None:
        """Write down what was delivered."""
        now = time.time()
        self._worker.delivered.tell(
            *(
                (
                    (one.value or b"").decode(),
                    place(one.position, None),
                    str(int(one.redelivered)),
                    str(round(1000 * (now - since))),
                    HAND.get(),
                )
                for one, since in handed
            )
        )
        if self.hanging and handed:
            tell("hanging")
            await asyncio.Event().wait()


async def obey(worker: Worker, hands: Hands) -> None:
    """Take the driver's commands."""
    async for command in commands():
        match command:
            case ["hang"]:
                hands.hanging = True
            case ["keys", seconds]:
                worker.keys.down_until = time.monotonic() + float(seconds)
            case ["clock", seconds]:
                worker.clock.offset = float(seconds)
            case ["leap", seconds]:
                worker.store_clock.leap(float(seconds))
            case ["seek" | "lag" | "resubscribe" as wish, number]:
                worker.wishes.append((wish, float(number)))


async def main(path: str, name: str) -> None:
    """Play the role."""
    plan = Plan.load(path)
    worker, stop = Worker(plan, name), asyncio.Event()
    hands = Hands(worker)
    working = asyncio.create_task(bus_of(plan).work(worker, hands.handle, lambda: tell("ready"), stop))

    async def obeyed() -> None:
        await obey(worker, hands)
        stop.set()
        await working

    await beside(_outcome(working), until=obeyed())


async def _outcome(working: asyncio.Task[None]) -> None:
    await asyncio.shield(working)


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
