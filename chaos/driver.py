"""Plays one scenario: starts the processes, does what the schedule says, waits until all is handled, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from chaos.accounting import account
from chaos.bus import bus_of
from chaos.child import Child
from chaos.evidence import EVENTS, LOG, Evidence, Tally, Writer
from chaos.plan import schedule

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.accounting import Figures
    from chaos.plan import Event, Plan
    from tests.brokers.broker import Broker

_TICK: Final = 0.1
_PATIENCE: Final = 30.0
"""Seconds that a process may take to start, to hang or to end."""

_HANG_SECONDS: Final = 15.0
"""Seconds that a worker may take to get a message to hang on; then it is killed without."""

_TRICKLE: Final = 0.05
"""Share of the rate at which the load goes on while something takes long."""

_FOR_SENDING: Final = 0.7
"""Share of the deadline after which no more honest messages are sent."""

_SLACK: Final = 0.03
"""Share of the honest messages that may be sent while a deed is done, beyond the moment of the next one."""

_QUIET: Final = 1.0
"""Seconds without a delivery after which the workers are done."""


class TooSlowError(Exception):
    """The run did not end in its time."""


class Driver:
    """One run; every process that it started is gone when ``play`` returns."""

    def __init__(self, plan: Plan, broker: Broker, store: Broker | None, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._broker = broker
        self._store = store
        self._say = say
        self._bus = bus_of(plan)
        self._tally = Tally(plan.directory)
        self._events = Writer(plan.directory, EVENTS)
        self._children: list[Child] = []
        self._workers: dict[int, Child] = {}
        self._lives: Counter[int] = Counter()
        self._end = 0.0

    async def play(self) -> Figures:
        """Play the scenario and count."""
        plan = self._plan
        plan.save()
        self._end = time.monotonic() + plan.deadline
        try:
            await self._bus.prepare()
            bystanders = [await self._start("witness")] if plan.scene.shape == "queue" else []
            for number in range(plan.workers):
                await self._start_worker(number)
            attacker, producer = await self._start("attacker"), await self._start("producer")
            for child in (*bystanders, *self._workers.values(), attacker, producer):
                await child.answer(_PATIENCE)
            await asyncio.sleep(plan.max_skew + 1.5)  # a fresh store vouches for nothing that is as old as itself
            await self._load(producer)
            self._say("all honest messages are sent")
            attacker.say("finish", int(self._tally.acked * 1.02))
            await attacker.answer(self._left())
            self._say("all replays are sent")
            await self._handled()
            self._say("all is handled")
            # Together, or the last workers would go through a rebalance for each of the others.
            await asyncio.gather(*(child.end() for child in (attacker, producer, *self._workers.values())))
            await asyncio.gather(*(child.end() for child in bystanders))
            await self._read_log()
        finally:
            await asyncio.gather(*(child.kill() for child in self._children), return_exceptions=True)
        return account(Evidence.read(plan.directory))

    async def _load(self, producer: Child) -> None:
        """Let the honest send, at the workers' pace, and do what is scheduled meanwhile."""
        plan, events = self._plan, schedule(self._plan)
        patience = plan.scene.patience * plan.rate
        stop_at = self._end - (1 - _FOR_SENDING) * plan.deadline
        limit, doing = 0.0, None
        known, since = 0, time.monotonic()
        while not producer.said and time.monotonic() < stop_at:
            self._tally.update()
            if doing is not None and doing.done():
                doing.result()
                doing = None
            if doing is None and events and events[0].at * plan.honest <= self._tally.acked:
                doing = asyncio.create_task(self._do(events.pop(0)))
            # What is done takes its time: the load goes on meanwhile, but hardly beyond what comes next.
            ahead = ((events[0].at if events else 1) + _SLACK) * plan.honest
            limit = max(limit + _TRICKLE * plan.rate * _TICK, ahead) if self._tally.acked >= int(limit) else limit
            if len(self._tally.delivered) != known:
                known, since = len(self._tally.delivered), time.monotonic()
            elif plan.scene.shape == "queue" and time.monotonic() > since + _QUIET:
                self._tally.give_up()  # else what a restart took would hold up the load for good
            slow = self._tally.waiting >= patience  # the workers do not keep up
            producer.say("until", self._tally.acked if slow else min(int(limit), plan.honest))
            await asyncio.sleep(_TICK)
        if doing is not None:
            await doing
        if producer.said:
            await producer.answer(1)
            for event in events:  # while the attacker goes on
                await self._do(event)
        producer.say("until", 0)
        await asyncio.sleep(2 * _TICK)
        self._tally.update()

    async def _do(self, event: Event) -> None:
        """Do one thing, and write down that it was done."""
        detail = f"{event.worker}" if event.deed not in {"restart", "pause", "store"} else ""
        self._say(f"{self._tally.acked:,} sent: {event.deed} {detail}".rstrip())
        worker = self._workers[event.worker]
        match event.deed:
            case "kill" | "kill between handler and commit":
                await self._kill(event)
                return
            case "restart":
                await asyncio.to_thread(self._broker.restart)
            case "pause":
                await asyncio.to_thread(self._broker.pause)
                await asyncio.sleep(event.seconds)
                await asyncio.to_thread(self._broker.unpause)
            case "store" if self._store is not None:
                await asyncio.to_thread(self._store.restart)
            case "keys" | "clock":
                worker.say(event.deed, event.seconds)
        self._events.write((event.deed, worker.name))

    async def _kill(self, event: Event) -> None:
        worker, hanging = self._workers[event.worker], False
        if event.deed != "kill":
            worker.say("hang")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HANG_SECONDS):
                    while await worker.answer(_PATIENCE) != "hanging":
                        pass
                    hanging = True
        if await worker.kill():
            self._events.write(("kill", worker.name))
            if hanging:
                self._events.write((event.deed, worker.name))
        await asyncio.sleep(event.seconds)
        await self._start_worker(event.worker)

    async def _start(self, role: str, name: str | None = None) -> Child:
        child = await Child.start(role, self._plan, name or role)
        self._children.append(child)
        return child

    async def _start_worker(self, number: int) -> None:
        self._workers[number] = await self._start("worker", f"{number}.{self._lives[number]}")
        self._lives[number] += 1

    async def _handled(self) -> None:
        """Wait until the workers have nothing left to do."""
        known, since = -1, time.monotonic()
        while True:
            self._tally.update()
            if len(self._tally.delivered) != known:
                known, since = len(self._tally.delivered), time.monotonic()
            elif time.monotonic() > since + _QUIET and not await self._bus.lag():
                return
            if not self._left():
                self._say("deadline: the workers are not done")
                return
            await asyncio.sleep(_TICK)

    async def _read_log(self) -> None:
        log = self._bus.log()
        if log is not None:
            writer = Writer(self._plan.directory, LOG)
            writer.write(*[row async for row in log])

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def play(plan: Plan, broker: Broker, store: Broker | None, say: Callable[[str], None]) -> Figures:
    """Play one scenario in an event loop of its own."""
    return asyncio.run(Driver(plan, broker, store, say).play())
