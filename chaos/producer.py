"""The honest senders: several principals, at a bounded rate, until enough was acknowledged."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from chaos.bus import bus_of
from chaos.child import beside, commands, run, tell
from chaos.evidence import ACKED, SENT, Writer
from chaos.plan import Plan

_TICK = 0.02
_MOST_WAITING = 500
"""Messages that may wait for the bus at a time: they are signed, and grow old in an outage."""


class Producer:
    """Sends until as many are acknowledged as the driver allows; what is not is made up for by further messages."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._limit = 0
        self._numbers = count()
        self._acked = 0
        self._waiting = 0

    async def produce(self) -> None:
        """Send."""
        acked, sent = Writer(self._plan.directory, ACKED), Writer(self._plan.directory, SENT)
        batch = max(1, int(self._plan.rate * _TICK))
        async with bus_of(self._plan).speaking() as speaking, asyncio.TaskGroup() as sending:

            async def send(names: list[str]) -> None:
                sent.tell(*((name,) for name in names))
                told = await speaking.send(names)
                acked.tell(*told.items())
                self._acked += len(told)
                self._waiting -= len(names)

            tell("ready")
            while self._acked < self._plan.honest:
                size = min(batch, self._limit - self._acked - self._waiting, _MOST_WAITING - self._waiting)
                if size > 0:
                    self._waiting += size
                    sending.create_task(send([f"{next(self._numbers):07d}" for _ in range(size)]))
                await asyncio.sleep(_TICK)
        tell("done")
        await asyncio.Event().wait()

    async def obey(self) -> None:
        """Take the driver's commands."""
        async for command in commands():
            match command:
                case ["until", limit]:
                    self._limit = int(limit)


async def main(path: str, _: str) -> None:
    """Play the role."""
    producer = Producer(Plan.load(path))
    await beside(producer.produce(), until=producer.obey())


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
