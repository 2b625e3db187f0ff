"""Signs with a slow back-end: envelopes that arrive while it is busy are signed together next."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from watchword import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.signer import Signed, Signer
    from watchword.unsigned import UnsignedEnvelope


class _Waiting(NamedTuple):
    unsigned: UnsignedEnvelope
    future: asyncio.Future[Signed]


class SigningQueue:
    """Signs envelopes of one signer for the tasks of one event loop, in order.

    One call to the back-end is pending at a time; envelopes that arrive meanwhile wait and share the next signature (up
    to ``signer.batch`` of them). A single message is therefore signed at once. Cancelling one caller does not affect
    others; a call is cancelled once all of its callers are.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._waiting: deque[_Waiting] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._served: Sequence[_Waiting] = ()
        self._call: asyncio.Task[list[Signed]] | None = None

    async def sign(self, unsigned: UnsignedEnvelope) -> Signed:
        """Return the signed envelope; Unavailable if the back-end failed."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(unsigned, loop.create_future())
        self._waiting.append(waiting)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        try:
            return await waiting.future
        except asyncio.CancelledError:
            waiting.future.cancel()  # it may have been answered in the same turn of the loop
            if self._call is not None and all(served.future.cancelled() for served in self._served):
                self._call.cancel()
            raise

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while served := self._take():
                call = loop.create_task(self._signer.sign_prepared([waiting.unsigned for waiting in served]))
                self._served, self._call = served, call
                await asyncio.wait((call,))
                self._call = None
                _answer(served, call)
        finally:
            # Here, and not when the task is done: an envelope that arrives in between needs a new task.
            self._worker = None

    def _take(self) -> list[_Waiting]:
        """Return the next envelopes to sign, without cancelled ones."""
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < self._signer.batch:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                taken.append(waiting)
        return taken


def _answer(served: Sequence[_Waiting], call: asyncio.Task[list[Signed]]) -> None:
    """Pass the results of a call to the callers that still wait; each gets its own error object."""
    failure = asyncio.CancelledError() if call.cancelled() else call.exception()
    if failure is None:
        for waiting, signed in zip(served, call.result(), strict=True):
            if not waiting.future.done():
                waiting.future.set_result(signed)
        return
    why = failure.detail if isinstance(failure, Unavailable) else type(failure).__name__
    for waiting in served:
        if not waiting.future.done():
            error = Unavailable("signing", why)
            error.__cause__ = failure
            waiting.future.set_exception(error)
