"""The attacker: holds no key, sees everything, and sends all of it again, soon and late, through every restart."""

from __future__ import annotations

import asyncio
import sys
import time
from heapq import heappop, heappush

from chaos.bus import Attacking, Captured, bus_of
from chaos.child import beside, commands, run, tell
from chaos.plan import Plan

_TICK = 0.02
_MOST_WAITING = 500
_THROUGHOUT = 0.2
"""Chance in each tick that some message is sent again, whenever it was captured: so after restarts and purges, too."""

_TWICE = 0.25
"""Share of the messages that are sent again twice."""


class Attacker:
    """Replays each message at a moment of its own: half of them soon, a fifth in the end."""

    def __init__(self, plan: Plan) -> None:
        self._longest = plan.longest_delay
        self._chance = plan.random("attacker")
        self._known: set[tuple[str, str]] = set()
        self._captured: list[Captured] = []
        self._due: list[tuple[float, int, Captured]] = []
        self._waiting = 0
        self._taken = 0
        self._wanted: int | None = None

    async def attack(self, plan: Plan) -> None:
        """Capture and replay until the bus took as many copies as are wanted, and none is left to send."""
        async with bus_of(plan).attacking() as attacking, asyncio.TaskGroup() as tasks:
            capturing = tasks.create_task(self._capture(attacking))
            tell("ready")
            while self._wanted is None or self._due or self._waiting or self._taken < self._wanted:
                for captured in self._next():
                    self._waiting += 1
                    tasks.create_task(self._replay(attacking, captured))
                await asyncio.sleep(_TICK)
            capturing.cancel()
        tell("done")
        await asyncio.Event().wait()

    async def obey(self) -> None:
        """Take the driver's commands: "finish" says how many copies are wanted at least."""
        async for command in commands():
            match command:
                case ["finish", wanted]:
                    self._wanted = int(wanted)

    async def _capture(self, attacking: Attacking) -> None:
        async for captured in attacking.captures():
            if (captured.name, captured.source) in self._known:  # our own copy, most likely
                continue
            self._known.add((captured.name, captured.source))
            self._captured.append(captured)
            for _ in range(1 + (self._chance.random() < _TWICE)):
                heappush(self._due, (time.monotonic() + self._delay(), len(self._captured), captured))

    def _delay(self) -> float:
        late = self._longest * 2 / 3
        spans = [(0.02, min(1.0, late)), (min(1.0, late), late), (late, self._longest)]
        near, far = self._chance.choices(spans, [5, 3, 2])[0]
        return self._chance.uniform(near, far)

    def _next(self) -> list[Captured]:
        room = _MOST_WAITING - self._waiting
        found: list[Captured] = []
        while self._due and len(found) < room and self._due[0][0] <= time.monotonic():
            found.append(heappop(self._due)[2])
        missing = 0 if self._wanted is None else self._wanted - self._taken - self._waiting - len(self._due)
        if not found and missing > 0 and self._captured:
            found = self._chance.choices(self._captured, k=min(room, missing))
        if self._wanted is None and self._captured and self._chance.random() < _THROUGHOUT:
            found.append(self._chance.choice(self._captured))
        return found

    async def _replay(self, attacking: Attacking, captured: Captured) -> None:
        taken = await attacking.replay(captured)  # first: others count meanwhile
        self._taken += taken
        self._waiting -= 1


async def main(path: str, _: str) -> None:
    """Play the role."""
    plan = Plan.load(path)
    attacker = Attacker(plan)
    await beside(attacker.attack(plan), until=attacker.obey())


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
