"""Requests on core NATS: workers of a queue group answer, and the attacker answers as well.

It hears all inboxes. It answers in its own name, with the answers to other requests, and with old answers; and it sends
requests again, with the reply subject that was signed. A header that nobody signed marks its copies: it says where
the witness tells that it saw one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, suppress
from itertools import count, cycle
from typing import TYPE_CHECKING, Final

from nats.errors import Error

from chaos.evidence import ANSWERED, COPY, ORIGINAL, Writer
from chaos.nats_attack import eavesdropping
from chaos.nats_clients import speakers
from chaos.on_core import WITNESS_SECONDS, CoreSubject
from watchword import SigningError, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from nats.aio.msg import Msg

    from chaos.bus import Captured
    from chaos.nats_attack import Eavesdropper
    from chaos.plan import Plan
    from watchword_adapters.nats import VerifiedMsg, WatchwordClient

_ANSWER_SECONDS: Final = 2.0
_ANSWERS: Final = 200
"""Answers that the attacker keeps, for other requests."""


class Requests(CoreSubject):
    """See ``Bus``."""

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[_Speaking]:
        """See ``Bus``."""
        async with speakers(self.plan) as clients:
            yield _Speaking(self.plan, clients)

    @asynccontextmanager
    async def attacking(self) -> AsyncIterator[_Attacking]:  # type: ignore[override]  # another kind of copies
        """See ``Bus``."""
        async with eavesdropping(self.plan) as ears:
            attack = _Attacking(ears)
            await attack.begin(self.plan.subjects[0])
            yield attack

    async def done(self, msg: VerifiedMsg) -> None:
        """Answer."""
        with suppress(Error, SigningError):  # the server is away: then nobody hears it
            await msg.respond(b"re:" + msg.data)


class _Speaking:
    def __init__(self, plan: Plan, clients: Sequence[WatchwordClient]) -> None:
        self._subject = plan.subjects[0]
        self._clients = cycle(clients)
        self._answered = Writer(plan.directory, ANSWERED)

    async def send(self, names: Sequence[str]) -> dict[str, str]:
        """Ask; acknowledged is what was answered, whatever the answer says."""
        told = await asyncio.gather(*(self._ask(name) for name in names))
        return {name: ORIGINAL for name, answered in zip(names, told, strict=True) if answered}

    async def _ask(self, name: str) -> bool:
        try:
            answer = await next(self._clients).request(self._subject, name.encode(), timeout=_ANSWER_SECONDS)
        except (Error, SigningError, Unavailable, TimeoutError):
            return False
        self._answered.write((name, answer.data.decode(errors="replace")))
        return True


class _Attacking:
    """See ``Attacking``; a copy counts as taken once the witness saw it: the server may have nobody to give it to."""

    def __init__(self, ears: Eavesdropper) -> None:
        self._ears = ears
        self._seen = ears.client.new_inbox()
        self._numbers = count(1)
        self._waiting: dict[str, asyncio.Event] = {}
        self._answers: deque[Msg] = deque(maxlen=_ANSWERS)
        self._chance = ears.chance
        self.captures = ears.captures

    async def begin(self, subject: str) -> None:
        """Hear requests before their answers, and the answers."""

        async def asked(msg: Msg) -> None:
            if msg.reply and not (msg.headers and COPY in msg.headers):
                await self._answer(msg.reply)

        async def answered(msg: Msg) -> None:
            if msg.headers and COPY not in msg.headers:
                self._answers.append(msg)

        async def seen(msg: Msg) -> None:
            if (waiting := self._waiting.get(msg.subject)) is not None:
                waiting.set()

        await self._ears.client.subscribe(f"{self._seen}.*", cb=seen)
        await self._ears.client.subscribe(subject, cb=asked)
        await self._ears.client.subscribe("_INBOX.>", cb=answered)
        await self._ears.client.flush()

    async def replay(self, captured: Captured) -> bool:
        raw, mark = captured.raw, f"{self._seen}.{next(self._numbers)}"
        seen = self._waiting[mark] = asyncio.Event()
        try:
            async with asyncio.timeout(WITNESS_SECONDS):
                headers = {**raw.headers, COPY: mark}
                await self._ears.client.publish(raw.subject, raw.data, reply=raw.reply, headers=headers)
                await self._answer(raw.reply)
                await seen.wait()
        except (Error, OSError, TimeoutError):  # the server, or the witness's connection, was away
            return False
        finally:
            del self._waiting[mark]
        return True

    async def _answer(self, inbox: str) -> None:
        """Answer unsigned, and with a signed answer to another request."""
        with suppress(Error, OSError):
            await self._ears.client.publish(inbox, b"re:forged", headers={COPY: "forged"})
            if self._answers:
                other = self._chance.choice(self._answers)
                await self._ears.client.publish(inbox, other.data, headers={**(other.headers or {}), COPY: "swapped"})
