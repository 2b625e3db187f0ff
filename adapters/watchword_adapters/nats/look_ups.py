"""Looks for keys side by side, so that no message waits for another one's key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from watchword.errors import Pending
from watchword_adapters.freshness import FRESH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Coroutine, Generator

    from watchword import VerificationKey
    from watchword.key_budget import KeyBudget

T = TypeVar("T")

PATIENCE: Final = 0.02
"""Seconds for which a message waits for its key before others are judged instead."""

LONGEST: Final = 10.0
"""Seconds after which a look-up is given up, and its messages cannot be judged."""

_SLOW_FOR: Final = 60.0
"""Seconds for which a key source that was slow once is not waited for. A task for each look-up costs some 50 us."""


class LookUps:
    """A key source in front of another one, which raises Pending where that one takes its time.

    What that one has no budget for is Shed before it costs a task. As long as the source answers at once it is asked
    directly. What was found stays for the messages that wait for it, which are judged again as soon as the look-up is
    done. While some are ``parked`` for a look-up, others wait for it too, done or not, and so does one that
    ``overtakes`` what has come back: else they would pass those.
    """

    def __init__(
        self,
        keys: KeyBudget,
        parked: Container[asyncio.Future[object]] = (),
        overtakes: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keys: Final = keys
        self._parked: Final = parked
        self._overtakes: Final = overtakes
        self._known: dict[tuple[str, bytes], asyncio.Task[VerificationKey | None]] = {}
        self._slow_until = 0.0

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        loop, pair = asyncio.get_running_loop(), (principal, key_id)
        task = self._known.get(pair)
        if task is None:
            if loop.time() >= self._slow_until:
                coming = self._keys.find(principal, key_id)
                try:
                    waited_for = coming.send(None)
                except StopIteration as found:  # it has the key at hand, as most have, and needs no timer
                    key: VerificationKey | None = found.value
                    return key
                with suppress(_SlowError):
                    return await self._soon(_going_on(coming, waited_for))
            else:
                self._keys.require(principal, key_id)
            task = self._known[pair] = loop.create_task(self._in_time(principal, key_id))
            task.add_done_callback(lambda _: loop.call_later(FRESH, self._known.pop, pair, None))
            await asyncio.sleep(0)  # a source that has the key at hand has answered then
        if not task.done() or task in self._parked or self._overtakes():
            raise Pending(task)
        return task.result()

    async def _soon(self, coming: Awaitable[VerificationKey | None]) -> VerificationKey | None:
        """Return what the source finds; _SlowError where it takes its time."""
        try:
            async with asyncio.timeout(PATIENCE) as patience:
                return await coming
        except TimeoutError:
            if not patience.expired():
                raise
            self._slow_until = asyncio.get_running_loop().time() + _SLOW_FOR
            raise _SlowError from None

    async def _in_time(self, principal: str, key_id: bytes) -> VerificationKey | None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(LONGEST):
                return await self._keys.find(principal, key_id)
        finally:
            if loop.time() - begun > PATIENCE:
                self._slow_until = loop.time() + _SLOW_FOR


@coroutine
def _going_on(coming: Coroutine[Any, Any, T], waited_for: object) -> Generator[Any, Any, T]:
    """Go on with what has begun, and waits for something."""
    try:
        while True:
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is meant for what has begun
                waited_for = coming.throw(error)
            else:
                waited_for = coming.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result


class _SlowError(Exception):
    """The source takes its time."""
