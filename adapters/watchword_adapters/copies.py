"""Writes quarantine copies in the background: readers offer messages, and need not wait for the copy."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from watchword import Rejected, Unavailable
from watchword.quarantine import CappedQuarantine, Room

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from watchword.audit import Audit
    from watchword.quarantine import Quarantine
    from watchword.spi import Message

    Then: TypeAlias = Callable[[bool], Awaitable[None]]

SIDE_BY_SIDE: Final = 64
"""Copies written concurrently, so that a round trip of 20 ms allows 3,200 per second and not 50."""

LONGEST: Final = 60.0
"""Time limit for a copy in seconds, also for a custom quarantine that hangs."""

FAREWELL: Final = 5.0
"""Seconds for which closing waits for pending copies."""

CLOSING_WAIT: Final = 1.0
"""Seconds for which closing waits for cancelled tasks."""


class _Offer(NamedTuple):
    number: int
    message: Message
    verdict: Rejected | Unavailable
    then: Then | None


class Copies:
    """The pending quarantine copies of one client.

    All clients with the same quarantine share its limit of pending messages, so that memory is bounded per process. A
    rejected message without a copy is counted (``left_out``); for one that could not be judged the caller does that.
    """

    def __init__(self, quarantine: Quarantine, audit: Audit) -> None:
        self._quarantine = quarantine
        self._audit = audit
        self._room = quarantine.room if isinstance(quarantine, CappedQuarantine) else Room()
        self._waiting: deque[_Offer] = deque()
        self._open: dict[int, _Offer] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._number = 0
        self._progress: asyncio.Future[None] | None = None
        self._is_closed = self._has_failed = False

    def offer(self, message: Message, verdict: Rejected | Unavailable, then: Then | None = None) -> bool:
        """Queue a message for copying and return True; False if there is no space for it.

        ``then`` is awaited with True once the copy is stored, or with False once it is known that it will not be; it is
        never awaited if closing comes first.
        """
        if self._is_closed or not self._room.take(message, verdict):
            self._no_room(verdict)
            return False
        self._number += 1
        offer = self._open[self._number] = _Offer(self._number, message, verdict, then)
        self._waiting.append(offer)
        if len(self._workers) < SIDE_BY_SIDE:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return True

    async def ask(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Queue a message, and return True once its copy is stored; False if it will not be."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def then(kept: bool) -> None:  # noqa: FBT001 - the only argument
            if not answer.done():
                answer.set_result(kept)

        return self.offer(message, verdict, then) and await answer

    async def written(self, seconds: float) -> None:
        """Wait until every message queued so far is written or left out, for at most ``seconds``."""
        last, loop = self._number, asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._open and next(iter(self._open)) <= last and (left := until - loop.time()) > 0:
            if self._progress is None or self._progress.done():
                self._progress = loop.create_future()
            await asyncio.wait((self._progress,), timeout=left)

    async def close(self, seconds: float | None = None) -> None:
        """Accept no more, wait for pending copies, and leave out those not written in time (``FAREWELL``)."""
        self._is_closed = True
        await self.written(FAREWELL if seconds is None else seconds)
        workers = self._workers - {asyncio.current_task()}
        for worker in workers:
            worker.cancel()
        if workers:  # bounded, for a client may swallow the cancellation
            await asyncio.wait(workers, timeout=CLOSING_WAIT)
        self._waiting.clear()
        for offer in tuple(self._open.values()):  # those that no worker had started
            self._end(offer, kept=False)

    def reopen(self) -> None:
        """Accept messages again."""
        self._is_closed = False

    async def _work(self) -> None:
        while self._waiting:
            offer = self._waiting.popleft()
            kept = False
            try:
                kept = await self._put(offer)
                if offer.then is not None:
                    await offer.then(kept)
            finally:
                self._end(offer, kept=kept)

    async def _put(self, offer: _Offer) -> bool:
        try:
            async with asyncio.timeout(LONGEST):
                return await self._quarantine.put(offer.message, offer.verdict)
        except Unavailable:  # counted and logged there
            return False
        except Exception as error:  # noqa: BLE001 - a custom quarantine must not end the worker
            if not self._has_failed:
                self._has_failed = True
                self._audit.warn(
                    "quarantine.failed",
                    error=type(error).__name__,
                    cost="such messages have no copy, and are counted",
                    remedy="put() of a quarantine must return within seconds, and raise nothing but Unavailable",
                )
            return False

    def _end(self, offer: _Offer, *, kept: bool) -> None:
        if self._open.pop(offer.number, None) is None:  # closing has already left it out
            return
        self._room.give_back(offer.message, offer.verdict)
        if not kept and isinstance(offer.verdict, Rejected):
            self._audit.left_out()
        if self._progress is not None and not self._progress.done():
            self._progress.set_result(None)

    def _no_room(self, verdict: Rejected | Unavailable) -> None:
        if isinstance(verdict, Rejected):
            self._audit.left_out()
        if isinstance(self._quarantine, CappedQuarantine) and not self._is_closed:
            self._quarantine.no_room(verdict)
