"""Honest senders on Kafka, with and without transactions."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

from chaos.cast import speaker
from chaos.evidence import ABORTED, UNSETTLED, Writer, place
from chaos.kafka_transactions import FAILURES, Transactor
from watchword.spi import Position
from watchword_adapters.kafka import SigningProducer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from random import Random

    from chaos.plan import Plan

_KEYS: Final = 50
"""Different keys that messages bear: on a compacted topic most are soon displaced."""


class Speakers:
    """See ``Speaking``: the speakers take turns, each message in the partition that its name gives."""

    def __init__(self, plan: Plan, partitions: int, producers: Sequence[SigningProducer]) -> None:
        self._topic = plan.channel
        self._partitions = partitions
        self._producers = cycle(producers)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """See ``Speaking``."""
        told = await asyncio.gather(*(self._send(next(self._producers), name) for name in names))
        return {name: position for name, position in zip(names, told, strict=True) if position is not None}

    async def _send(self, producer: SigningProducer, name: str) -> str | None:
        try:
            told = await producer.send_and_wait(self._topic, **fields(name, self._partitions))
        except FAILURES:
            return None
        return _place(told)


class TransactionSpeaker:
    """One principal that sends all that it is given at a time as one transaction, and aborts some."""

    def __init__(self, plan: Plan, partitions: int, transactor: Transactor, chance: Random) -> None:
        self._plan = plan
        self._partitions = partitions
        self._transactor = transactor
        self._chance = chance
        self._busy = asyncio.Lock()
        self._unsettled = Writer(plan.directory, UNSETTLED)
        self._aborted = Writer(plan.directory, ABORTED)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """Return the messages with their positions if their transaction was committed, else nothing."""
        aborted = self._chance.random() < self._plan.aborts
        async with self._busy:
            try:
                async with self._transactor.transaction(aborted=aborted) as producer:
                    sent = [await producer.send(self._plan.channel, **fields(one, self._partitions)) for one in names]
                    told = {name: _place(await one) for name, one in zip(names, sent, strict=True)}
            except FAILURES:
                told = {}
        if told and not aborted:
            return told
        self._unsettled.write(*((name,) for name in names))
        self._aborted.write(*told.items())
        return {}


class TransactionSpeakers:
    """See ``Speaking``: the speakers take turns."""

    def __init__(self, ones: Sequence[TransactionSpeaker]) -> None:
        self._ones = cycle(ones)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """See ``Speaking``."""
        return await next(self._ones).send(names)


@asynccontextmanager
async def speaking(plan: Plan, partitions: int) -> AsyncIterator[Speakers | TransactionSpeakers]:
    """Connect the honest senders."""
    async with AsyncExitStack() as stack:
        if plan.scene.transactions:
            ones = [
                TransactionSpeaker(
                    plan,
                    partitions,
                    await stack.enter_async_context(Transactor(plan, principal, f"speaker-{number}")),
                    plan.random(principal),
                )
                for number, principal in enumerate(plan.speakers())
            ]
            yield TransactionSpeakers(ones)
            return
        producers = [
            await stack.enter_async_context(
                SigningProducer(
                    bootstrap_servers=plan.address, watchword=speaker(plan, principal), enable_idempotence=True
                )
            )
            for principal in plan.speakers()
        ]
        yield Speakers(plan, partitions, producers)


def fields(name: str, partitions: int) -> dict[str, Any]:
    """Return value, key and partition of the message of this name."""
    return {"value": name.encode(), "key": b"%d" % (int(name) % _KEYS), "partition": home_of(name, partitions)}


def home_of(name: str, partitions: int) -> int:
    """Return the partition of the message of this name."""
    return int(name) % partitions


def _place(told: Any) -> str:
    return place(Position(f"/{told.partition}", told.offset), None)
