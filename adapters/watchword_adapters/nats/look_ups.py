"""Looks up keys concurrently, so that no message waits for another one's key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from watchword.errors import Pending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Coroutine, Generator

    from watchword import VerificationKey
    from watchword.key_budget import KeyBudget

T = TypeVar("T")

FRESH: Final = 1.0
"""Seconds for which a verdict holds; after that the message is judged again before delivery."""

PATIENCE: Final = 0.02
"""Seconds for which a message waits for its key before others are judged instead."""

LONGEST: Final = 10.0
"""Time limit of a look-up in seconds, after which its messages cannot be judged."""

_SLOW_FOR: Final = 60.0
"""Seconds for which a slow key source is no longer waited for. A task for each look-up costs some 50 us."""


class LookUps:
    """Wraps a key source; raises Pending while the source is looking a key up.

    A look-up over the source's budget raises Shed before it costs a task. While the source answers at once, it is
    called directly. Results are cached for the messages that wait for them, which are judged again when the look-up
    completes. While messages are ``parked`` for a look-up, later ones for it wait too, completed or not, and so does
    one that ``overtakes`` returned messages: otherwise they would pass those.
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
                except StopIteration as found:  # the usual case: the key is in memory, and no timer is needed
                    key: VerificationKey | None = found.value
                    return key
                with suppress(_SlowError):
                    return await self._soon(_going_on(coming, waited_for))
            else:
                self._keys.require(principal, key_id)
            task = self._known[pair] = loop.create_task(self._in_time(principal, key_id))
            task.add_done_callback(lambda _: loop.call_later(FRESH, self._known.pop, pair, None))
            await asyncio.sleep(0)  # by then a source with the key in memory has answered
        if not task.done() or task in self._parked or self._overtakes():
            raise Pending(task)
        return task.result()

    async def _soon(self, coming: Awaitable[VerificationKey | None]) -> VerificationKey | None:
        """Return what the source finds; _SlowError if it takes longer than PATIENCE."""
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
    """Continue a coroutine that was started by hand and awaits ``waited_for``."""
    try:
        while True:
            try:
                sent = yield waited_for
            except BaseException as error:  # noqa: BLE001 - everything is passed on to the coroutine
                waited_for = coming.throw(error)
            else:
                waited_for = coming.send(sent)
    except StopIteration as done:
        result: T = done.value
        return result


class _SlowError(Exception):
    """The source took longer than PATIENCE."""
