"""A nats-py subscription whose every way in passes a reader."""

# ruff: noqa: SLF001 - nats-py has no hooks: its subclasses must reach where the base reaches

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from nats import errors
from nats.aio.subscription import Subscription, _SubscriptionMessageIterator
from nats.errors import Error
from nats.js import JetStreamContext

from watchword_adapters.nats.answers import HANDLED
from watchword_adapters.nats.message import proof_of
from watchword_adapters.nats.read_ahead import ReadAhead
from watchword_adapters.nats.waiting import WaitingQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg

    from watchword_adapters.nats.reader import Reader

    Handler = Callable[[Msg], Awaitable[None]]


class VerifyingSubscription(Subscription):
    """Callback, ``next_msg`` and ``messages`` give verified messages only; ``reader`` None leaves them raw.

    Raw ones are for the client's own use: answers that it judges itself, and what the server says. A maximum counts
    what was delivered, so the server is told nothing of it: else forged messages would use it up. What the server has
    sent beyond it by then is discarded.
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
        waiting = self._pending_queue = WaitingQueue(self)
        if reader is not None:
            reader.waiting = waiting
        self._ahead = None if cb is None or reader is None else ReadAhead(reader, self._pending_queue, client.check)

    def _start(self, error_cb: Any) -> None:
        super()._start(error_cb)  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
        if self._handler is None and self.reader is not None:
            self._message_iterator = _VerifyingIterator(self)  # type: ignore[assignment]  # the base starts at None

    async def unsubscribe(self, limit: int = 0) -> None:
        """Stop reading; with ``limit`` once so many messages were delivered, those before this call among them."""
        if self._closed or self._conn.is_closed or self._conn.is_draining or not limit:
            await super().unsubscribe()
        elif limit > self._given:
            self._most = limit
        else:
            self._most, self._closed = self._given, True
            await self._end()

    async def next_msg(self, timeout: float | None = 1.0) -> Msg:  # noqa: ASYNC109 - the base's own signature
        """Return the next message that verifies; nats.errors.TimeoutError after ``timeout`` seconds without one."""
        if self.reader is None:
            return await self._next(timeout)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout

        async def take() -> Msg:
            return await self._next(None if deadline is None else max(0.0, deadline - loop.time()))

        return await self.judged(take, deadline)

    async def _next(self, seconds: float | None) -> Msg:
        """Take the next message; where one is there already, without the tasks that the base makes to wait for it."""
        if self._cb is not None or self._conn.is_closed or self._pending_queue.empty():
            return await super().next_msg(seconds)
        return self.taken()

    def taken(self) -> Msg:
        """Take a message that is there."""
        raw = self._pending_queue.get_nowait()
        self._pending_queue.task_done()
        self._pending_size -= len(raw.data)
        return raw

    async def judged(self, take: Callable[[], Awaitable[Msg]], deadline: float | None = None) -> Msg:
        """Take messages until one verifies; a caller that gives up in between leaves it to the next one.

        nats.errors.TimeoutError at the ``deadline``, in seconds of the event loop's clock.
        """
        assert self.reader is not None  # noqa: S101 - for the type checker: asked for by verifying paths only
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
        assert self._ahead is not None  # noqa: S101 - as in judged
        assert self._handler is not None  # noqa: S101 - as in judged
        delivered = await self._ahead.judge(raw, exclusive=self._most > 0)
        if delivered is not None and await self._counts():
            HANDLED.set(proof_of(delivered))
            await self._handler(delivered)

    async def _counts(self) -> bool:
        """Count a message that is about to be handed over, and end with the last; False behind that one."""
        if 0 < self._most <= self._given:
            return False
        self._given += 1
        if self._given == self._most:
            await self._end()
        return True

    async def _end(self) -> None:
        """End behind what was delivered; a handler that is under way may end."""
        while not self._pending_queue.empty():
            self.taken()
        self._conn._remove_sub(self._id)
        if asyncio.current_task() is self._wait_for_msgs_task:
            self._max_msgs = 1  # the base ends its task behind this handler: it has received as many
        else:
            self._stop_processing()
        if self._conn.is_connected:
            await self._conn._send_unsubscribe(self._id)


class VerifyingPushSubscription(JetStreamContext.PushSubscription):
    """A push subscription; the base's would count what was received, and not know when that was delivered."""

    async def unsubscribe(self, limit: int = 0) -> None:
        """Stop reading; see VerifyingSubscription."""
        await self._sub.unsubscribe(limit)
        self._closed = self._sub._closed
        state: Any = self._sub._jsi
        for task in (state._hbtask, state._fctask):
            if task is not None:
                task.cancel()


class _VerifyingIterator(_SubscriptionMessageIterator):
    _sub: VerifyingSubscription

    async def __anext__(self) -> Msg:
        return await self._sub.judged(self._take)

    async def _take(self) -> Msg:
        sub = self._sub
        if self._queue.empty():
            return await super().__anext__()
        return sub.taken()
