"""A nats-py subscription that delivers only what its reader accepts, by callback, ``next_msg`` or iteration."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from nats import errors
from nats.errors import Error

from watchword_adapters.nats._seam import BaseSubscription
from watchword_adapters.nats.answers import HANDLED
from watchword_adapters.nats.message import proof_of
from watchword_adapters.nats.read_ahead import ReadAhead
from watchword_adapters.nats.waiting import WaitingQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from nats.aio.msg import Msg

    from watchword_adapters.nats.message import VerifiedMsg
    from watchword_adapters.nats.reader import Reader

    Handler = Callable[[Msg], Awaitable[None]]


class VerifyingSubscription(BaseSubscription):
    """Callback, ``next_msg`` and ``messages`` yield verified messages only; with ``reader`` None they are raw.

    Types are those of enforce mode: in observe mode an ObservedMsg is yielded, also a DeliveredMsg, whose ``verified``
    may be None.

    Raw subscriptions are for the client itself: answers that it judges elsewhere, and the server's responses. A maximum
    counts delivered messages, so it is not sent to the server, where forged messages would use it up. Messages that the
    server has sent beyond it are discarded.
    """

    def __init__(
        self,
        client: Any,
        number: int,
        subject: str,
        *,
        reader: Reader | None,
        cb: Handler | None,
        max_msgs: int = 0,
        **options: Any,
    ) -> None:
        if cb is not None and not inspect.iscoroutinefunction(getattr(cb, "func", cb)):
            raise Error("nats: must use coroutine for subscriptions")
        self.reader = reader
        self._handler = cb
        self._most = max_msgs
        self._given = 0
        self._interrupted: deque[asyncio.Task[Msg | None]] = deque()
        judged = cb if cb is None or reader is None else self._judge_for_handler
        super().__init__(client, number, subject, cb=judged, **options)
        self.waiting: Final = WaitingQueue(self)
        self.wait_in(self.waiting)
        if reader is not None:
            reader.waiting = self.waiting
        self._ahead = None if cb is None or reader is None else ReadAhead(reader, self.waiting, client.check)

    @property
    def messages(self) -> AsyncIterator[VerifiedMsg]:
        """The verified messages, for ``async for``; the base's would be raw."""
        return _VerifyingIterator(self, super().messages)

    async def unsubscribe(self, limit: int = 0) -> None:
        """Stop reading; with ``limit`` once so many messages were delivered, including those before this call."""
        if self.has_ended or not limit:
            await super().unsubscribe()
        elif limit > self._given:
            self._most = limit
        else:
            self._most = self._given
            self.close()
            await self.end()

    async def next_msg(self, timeout: float | None = 1.0) -> VerifiedMsg:  # noqa: ASYNC109 - the base's own signature
        """Return the next verified message; nats.errors.TimeoutError after ``timeout`` seconds without one."""
        if self.reader is None:
            raw: Any = await self._next(timeout)
            return cast("VerifiedMsg", raw)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout

        async def take() -> Msg:
            return await self._next(None if deadline is None else max(0.0, deadline - loop.time()))

        return cast("VerifiedMsg", await self.judged(take, deadline))

    async def _next(self, seconds: float | None) -> Msg:
        """Take the next message; a pending one without the tasks with which the base would wait."""
        return self.taken() if self.can_take else await super().next_msg(seconds)

    def ended(self) -> None:
        """See the base."""
        if self.reader is not None:
            self.reader.close()

    async def judged(self, take: Callable[[], Awaitable[Msg]], deadline: float | None = None) -> Any:
        """Take messages until one is verified; if the caller is cancelled, the next call continues with that message.

        nats.errors.TimeoutError at the ``deadline``, in seconds of the event loop's clock.
        """
        assert self.reader is not None  # noqa: S101 - for the type checker: only verifying paths get here
        while True:
            if self._interrupted:
                judging = self._interrupted.popleft()
            else:
                judging = asyncio.create_task(self.reader.judge(await take()))
            left = None if deadline is None else max(0.0, deadline - asyncio.get_running_loop().time())
            try:
                await asyncio.wait((judging,), timeout=left)
            except asyncio.CancelledError:
                self._interrupted.append(judging)
                raise
            if not judging.done():
                self._interrupted.append(judging)
                raise errors.TimeoutError
            delivered = judging.result()
            if delivered is not None and await self._counts():
                HANDLED.set(proof_of(delivered))
                return delivered

    async def _judge_for_handler(self, raw: Msg) -> None:
        ahead = self._ahead
        assert ahead is not None  # noqa: S101 - as in judged
        assert self._handler is not None  # noqa: S101 - as in judged
        delivered = ahead.at_hand(raw) if ahead.judged else None
        if delivered is None:
            delivered = await ahead.judge(raw, exclusive=self._most > 0)
        if delivered is None:
            return
        if not self._most:
            self._given += 1
        elif not await self._counts():
            return
        HANDLED.set(proof_of(delivered))
        await self._handler(delivered)

    async def _counts(self) -> bool:
        """Count a message before its delivery, and end with the last; False if the limit is already reached."""
        if 0 < self._most <= self._given:
            return False
        self._given += 1
        if self._given == self._most:
            await self.end()
        return True


class _VerifyingIterator:
    def __init__(self, subscription: VerifyingSubscription, raw: AsyncIterator[Msg]) -> None:
        self._subscription = subscription
        self._raw = raw

    def __aiter__(self) -> _VerifyingIterator:
        return self

    async def __anext__(self) -> VerifiedMsg:
        subscription = self._subscription
        shown: Any = await (self._take() if subscription.reader is None else subscription.judged(self._take))
        return cast("VerifiedMsg", shown)

    async def _take(self) -> Msg:
        return self._subscription.taken() if self._subscription.can_take else await anext(self._raw)
