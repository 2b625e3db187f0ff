"""Plays one scenario: starts the processes, does what the schedule says, waits until all is handled, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from chaos.accounting import account
from chaos.bus import Leading, Retaining, bus_of
from chaos.child import Child
from chaos.evidence import APART, EVENTS, LOG, Evidence, Tally, Writer
from chaos.nats_clients import make_quarantine
from chaos.plan import schedule
from chaos.proxy import delaying

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.accounting import Figures
    from chaos.plan import Deed, Event, Plan
    from tests.brokers.broker import Broker

_TICK: Final = 0.1
_PATIENCE: Final = 30.0
"""Seconds that a process may take to start, to hang or to end."""

_HANG_SECONDS: Final = 15.0
"""Seconds that a worker may take to get a message to hang on; then it is killed without."""

_TRICKLE: Final = 0.05
"""Share of the rate at which the load continues while something takes long."""

_FOR_SENDING: Final = 0.7
"""Share of the deadline after which no more honest messages are sent."""

_SLACK: Final = 0.03
"""Share of the honest messages that may be sent while a deed is done, beyond the moment of the next one."""

_LULL: Final = 1.5
"""Seconds without a message, before and after a log is emptied: so long retention has taken nothing of the present."""

_OF_ONE_WORKER: Final = frozenset(
    {"kill", "kill between handler and commit", "keys", "clock", "seek", "lag", "leap", "resubscribe"}
)

_FEW: Final = 500
"""Records that may be on their way when all is handled: the attacker never stops."""

_ROUND_TRIP: Final = 0.04
"""Seconds to the quarantine's server and back."""

_QUIET: Final = 1.0
"""Seconds without a sign of life after which the workers are done."""

_UNSEEN: Final = 4.0
"""The same where they acknowledge nothing: no broker tells what they have yet to do."""


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
        self._held = False

    async def play(self) -> Figures:
        """Play the scenario and count."""
        plan = self._plan
        plan.save()
        self._end = time.monotonic() + plan.deadline
        ended = asyncio.Event()
        reading = None
        try:
            await self._bus.prepare()
            if plan.scene.is_apart:
                Writer(plan.directory, APART)
            if plan.scene.bus == "nats":
                await make_quarantine(plan)
            reading = asyncio.create_task(self._read_log(ended))
            bystanders = [await self._start("witness")] if plan.scene.is_core else []
            for number in range(plan.workers):
                await self._start_worker(number)
            attacker, producer = await self._start("attacker"), await self._start("producer")
            for child in (*bystanders, *self._workers.values(), attacker, producer):
                await child.answer(_PATIENCE)
            if plan.scene.shape != "group":
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
            ended.set()
            await reading
        finally:
            if reading is not None:
                reading.cancel()
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
            # What is done takes its time: the load continues meanwhile, but hardly beyond what comes next.
            ahead = ((events[0].at if events else 1) + _SLACK) * plan.honest
            limit = max(limit + _TRICKLE * plan.rate * _TICK, ahead) if self._tally.acked >= int(limit) else limit
            if len(self._tally.delivered) != known:
                known, since = len(self._tally.delivered), time.monotonic()
            elif plan.scene.is_core and time.monotonic() > since + _QUIET:
                self._tally.give_up()  # else what a restart took would hold up the load for good
            slow = self._tally.waiting >= patience  # the workers do not keep up
            held = slow or self._held
            producer.say("until", self._tally.acked if held else min(int(limit), plan.honest))
            await asyncio.sleep(_TICK)
        if doing is not None:
            await doing
        if producer.said:
            await producer.answer(1)
            for event in events:  # while the attacker continues
                await self._do(event)
        producer.say("until", 0)
        await asyncio.sleep(2 * _TICK)
        self._tally.update()

    async def _do(self, event: Event) -> None:
        """Do one thing, and write down that it was done."""
        detail = f"{event.worker}" if event.deed in _OF_ONE_WORKER else ""
        self._say(f"{self._tally.acked:,} sent: {event.deed} {detail}".rstrip())
        worker = self._workers[event.worker]
        match event.deed:
            case "kill" | "kill between handler and commit":
                await self._kill(event)
                return  # it writes down itself what came of it
            case "restart":
                await asyncio.to_thread(self._broker.restart)
            case "pause":
                await asyncio.to_thread(self._broker.pause)
                await asyncio.sleep(event.amount)
                await asyncio.to_thread(self._broker.unpause)
            case "store" if self._store is not None:
                await asyncio.to_thread(self._store.restart)
            case "keys" | "clock" | "seek" | "lag" | "leap" | "resubscribe":
                worker.say(event.deed, event.amount)
            case "roll":
                for number in self._workers:
                    await self._replace(number)
            case "away":
                await self._replace(*self._workers, after=event.amount)
            case _:
                await self._change_log(event.deed)
        self._events.tell((event.deed, worker.name))

    async def _change_log(self, deed: Deed) -> None:
        """Do something to the log, its consumers or its leaders, under those who read."""
        if deed in {"cut", "empty"}:
            await self._cut(everything=deed == "empty")
            return
        assert isinstance(self._bus, Leading)  # noqa: S101 - by the scenarios
        await (self._bus.recreate() if deed == "recreate" else self._bus.step_down())

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
            self._events.tell(("kill", worker.name))
            if hanging:
                self._events.tell((event.deed, worker.name))
        await asyncio.sleep(event.amount)
        await self._start_worker(event.worker)

    async def _cut(self, *, everything: bool) -> None:
        """Let retention take what it may; or all, while nobody speaks, and let new workers find that."""
        assert isinstance(self._bus, Retaining)  # noqa: S101 - by the scenarios
        if everything:
            self._held = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while self._tally.waiting > 0 or await self._bus.lag() > _FEW:  # noqa: ASYNC110 - of processes
                        await asyncio.sleep(_TICK)
            await asyncio.sleep(self._lull)
        self._say(f"{await self._bus.cut(everything=everything):,} records are gone")
        if everything:
            await self._replace(*self._workers)
            await asyncio.sleep(self._lull)
        self._held = False

    async def _replace(self, *numbers: int, after: float = 0.0) -> None:
        """End workers in order, together, and start others in their place."""
        await asyncio.gather(*(self._workers[number].end() for number in numbers))
        await asyncio.sleep(after)
        for number in numbers:
            await self._start_worker(number)
        for number in numbers:
            while await self._workers[number].answer(_PATIENCE) != "ready":
                pass

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
        quiet = _UNSEEN if self._plan.scene.is_core or self._plan.scene.shape == "ordered" else _QUIET
        while True:
            self._tally.update()
            if self._tally.handled != known:
                known, since = self._tally.handled, time.monotonic()
            elif time.monotonic() > since + quiet and not await self._bus.lag():
                return
            if not self._left():
                self._say("deadline: the workers are not done")
                return
            await asyncio.sleep(_TICK)

    async def _read_log(self, ended: asyncio.Event) -> None:
        log = self._bus.log(ended)
        if log is not None:
            writer = Writer(self._plan.directory, LOG)
            async for row in log:
                writer.write(row)

    @property
    def _lull(self) -> float:
        """How long the honest are silent before and after a log is emptied: what is issued then is younger for all."""
        return self._plan.max_skew + _LULL

    def _left(self) -> float:
        return max(0.0, self._end - time.monotonic())


def play(plan: Plan, broker: Broker, store: Broker | None, say: Callable[[str], None]) -> Figures:
    """Play one scenario in an event loop of its own."""
    return asyncio.run(_play(plan, broker, store, say))


async def _play(plan: Plan, broker: Broker, store: Broker | None, say: Callable[[str], None]) -> Figures:
    if not plan.quarantine:
        return await Driver(plan, broker, store, say).play()
    async with delaying(plan.address, _ROUND_TRIP / 2) as address:
        return await Driver(replace(plan, quarantine_address=address), broker, store, say).play()
