"""A nats-py subscription whose every way in passes a reader."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

from nats.aio.subscription import Subscription, _SubscriptionMessageIterator
from nats.errors import Error

from watchword_adapters.nats.read_ahead import ReadAhead

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from nats.aio.msg import Msg

    from watchword_adapters.nats.reader import Reader

    Handler = Callable[[Msg], Awaitable[None]]


class VerifyingSubscription(Subscription):
    """Callback, ``next_msg`` and ``messages`` give verified messages only; ``reader`` None leaves them raw.

    Raw ones are for the client's own use: answers that it judges itself, and what the server says.
    """

    def __init__(
        self, client: Any, number: int, subject: str, *, reader: Reader | None, cb: Handler | None, **options: Any
    ) -> None:
        if cb is not None and not inspect.iscoroutinefunction(getattr(cb, "func", cb)):
            raise Error("nats: must use coroutine for subscriptions")
        self.reader = reader
        self._handler = cb
        self._interrupted: deque[asyncio.Task[Msg | None]] = deque()
        judged = cb if cb is None or reader is None else self._judge_for_handler
        super().__init__(client, number, subject, cb=judged, **options)
        self._ahead = None if cb is None or reader is None else ReadAhead(reader, self._pending_queue, client.check)

    def _start(self, error_cb: Any) -> None:
        super()._start(error_cb)  # type: ignore[no-untyped-call]  # nats-py leaves it untyped
        task: asyncio.Task[None] | None = self._wait_for_msgs_task  # nats-py leaves it untyped
        if task is not None:
            task.add_done_callback(self._ended)
        if self._handler is None and self.reader is not None:
            self._message_iterator = _VerifyingIterator(self)  # type: ignore[assignment]  # the base starts at None

    async def next_msg(self, timeout: float | None = 1.0) -> Msg:  # noqa: ASYNC109 - the base's own signature
        """Return the next message that verifies; nats.errors.TimeoutError after ``timeout`` seconds without one."""
        if self.reader is None:
            return await self._next(timeout)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout

        async def take() -> Msg:
            return await self._next(None if deadline is None else max(0.0, deadline - loop.time()))

        return await self.judged(take)

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

    async def judged(self, take: Callable[[], Awaitable[Msg]]) -> Msg:
        """Take messages until one verifies; a caller that is cancelled in between leaves it to the next one."""
        assert self.reader is not None  # noqa: S101 - for the type checker: asked for by verifying paths only
        while True:
            if self._interrupted:
                judging = self._interrupted.popleft()
            else:
                judging = asyncio.create_task(self.reader.judge(await take()))
            try:
                delivered = await asyncio.shield(judging)
            except asyncio.CancelledError:
                self._interrupted.append(judging)
                raise
            self._close_when_full()
            if delivered is not None:
                return delivered

    async def _judge_for_handler(self, raw: Msg) -> None:
        assert self._ahead is not None  # noqa: S101 - as in judged
        assert self._handler is not None  # noqa: S101 - as in judged
        if self._max_msgs > 0:
            delivered = await self._judged_in_full(self._ahead.judge(raw, exclusive=True))
        else:
            delivered = await self._ahead.judge(raw, exclusive=False)
        self._close_when_full()
        if delivered is not None:
            await self._handler(delivered)

    async def _judged_in_full(self, judge: Coroutine[Any, Any, Msg | None]) -> Msg | None:
        """Judge, though the base ends this very task, as it does behind any message once ``max_msgs`` have come.

        So only a handler that waits is cut off, as with nats-py, and never what waits for a key or a store.
        """
        judging, ended = asyncio.ensure_future(judge), False
        while not judging.done():
            try:
                await asyncio.shield(judging)
            except asyncio.CancelledError:
                if not self._is_full() or self._closed or self._conn.is_closed:
                    judging.cancel()
                    raise
                ended = True
        task = asyncio.current_task()
        if ended and task is not None:
            task.cancel()
        return judging.result()

    def _is_full(self) -> bool:
        return 0 < self._max_msgs <= self._received

    def _close_when_full(self) -> None:
        """Close the reader of a subscription to ``max_msgs`` messages, which the base drops without a word."""
        if self.reader is not None and self._is_full() and self._pending_queue.empty():
            self.reader.close()

    def _ended(self, _: object) -> None:
        """Close the reader where the base dropped what waited."""
        if self.reader is not None and self._is_full():
            self.reader.close()


class _VerifyingIterator(_SubscriptionMessageIterator):
    _sub: VerifyingSubscription

    async def __anext__(self) -> Msg:
        return await self._sub.judged(self._take)

    async def _take(self) -> Msg:
        sub = self._sub
        if self._queue.empty() or sub._max_msgs > 0:  # noqa: SLF001 - of our own class
            return await super().__anext__()
        return sub.taken()
