"""The attacker on NATS: hears every subject, sends copies to all of them, and floods them with what it forges."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client
from nats.errors import Error

from chaos.bus import Captured
from chaos.cast import impostor
from chaos.forging import forged
from chaos.nats_clients import connected
from watchword.message import ENVELOPE_HEADER, channel_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.aio.msg import Msg

    from chaos.plan import Plan

_BURSTS: Final = 10
"""Bursts of forged messages in a second."""

_ELSEWHERE: Final = 0.1
"""Share of the copies that go to the alias's subject, where there is one."""


class Eavesdropper:
    """What all attackers on NATS do; ``subjects`` are those of the honest, the first is where they speak."""

    def __init__(self, plan: Plan, client: Client) -> None:
        self.client: Final = client
        self._plan = plan
        self.chance: Final = plan.random("elsewhere")
        self._seen: asyncio.Queue[Msg] = asyncio.Queue()
        self._latest: deque[str] = deque(maxlen=100)

    async def captures(self) -> AsyncIterator[Captured]:
        """See ``Attacking``; what comes from the quarantine is captured as well, and what is forged is our own."""
        while True:
            msg = await self._seen.get()
            name = msg.data.decode(errors="replace")
            if name.isdigit() and msg.headers:
                if ENVELOPE_HEADER in msg.headers:
                    self._latest.append(msg.headers[ENVELOPE_HEADER])
                yield Captured(name, msg, msg.subject)

    def elsewhere(self) -> str:
        """Return a subject for a copy."""
        _, *others = self._plan.subjects
        return self.chance.choice(others) if others and self.chance.random() < _ELSEWHERE else self._plan.subjects[0]

    async def listen(self) -> None:
        """Hear everything."""
        for subject in (*self._plan.subjects, self._plan.quarantine_subject):
            await self.client.subscribe(subject, cb=self._seen.put)
        await self.client.flush()

    async def flood(self) -> None:
        """Send bursts of forged messages; a few may be lost on the way, as those of others are."""
        signer = impostor(self._plan)
        envelope: Callable[[], bytes | None] = lambda: (  # noqa: E731 - handed on at once
            self.chance.choice(self._latest).encode() if self._latest else None
        )
        while True:
            subject = self.elsewhere()
            channel = channel_of("nats", signer.realm, subject)
            async for value, header in forged(signer, channel, self._plan.flood // _BURSTS, envelope):
                with suppress(Error, OSError):
                    await self.client.publish(
                        subject, value, headers=None if header is None else {ENVELOPE_HEADER: header.decode()}
                    )
            await asyncio.sleep(1 / _BURSTS)


@asynccontextmanager
async def eavesdropping(plan: Plan) -> AsyncIterator[Eavesdropper]:
    """Connect the attacker, and let the flood go on meanwhile."""
    async with connected(Client(), plan.address) as client:
        attack = Eavesdropper(plan, client)
        await attack.listen()
        flood = asyncio.create_task(attack.flood()) if plan.flood else None
        try:
            yield attack
        finally:
            if flood is not None:
                flood.cancel()
                for ended in await asyncio.gather(flood, return_exceptions=True):
                    if isinstance(ended, Exception):
                        raise ended
