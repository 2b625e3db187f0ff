"""Looks up keys concurrently, so that no message waits for another one's key."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from watchword.errors import Pending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from nats.aio.msg import Msg

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


class LookUp:
    """The look-up of one key by a ``task``, and the messages that wait for it.

    Once it ``is_old``, its result is used for no further message.
    """

    def __init__(self, pair: tuple[str, bytes], task: asyncio.Task[VerificationKey | None]) -> None:
        self.pair: Final = pair
        self.task: Final = task
        self.waiting: Final[list[Msg]] = []
        self.is_old = False

    @property
    def holds_back(self) -> bool:
        """True if a message of this key has to wait, for the key or behind messages that wait for it."""
        return bool(self.waiting) or not self.task.done()


class LookUps:
    """Wraps a key source; raises Pending, with the LookUp as ``found``, while the source is looking a key up.

    A look-up over the source's budget raises Shed before it costs a task. While the source answers at once, it is
    called directly. Results are kept for the messages that wait for them, which ``come_back`` when the look-up ends and
    are judged again. While messages are parked for a look-up, later ones of its key wait too, ended or not, and so does
    one that ``overtakes`` returned messages: otherwise they would pass those.
    """

    def __init__(
        self,
        keys: KeyBudget,
        overtakes: Callable[[], bool] = lambda: False,
        come_back: Callable[[Msg], None] = lambda _: None,
    ) -> None:
        self._keys: Final = keys
        self._overtakes: Final = overtakes
        self._come_back: Final = come_back
        self._known: dict[tuple[str, bytes], LookUp] = {}
        self._slow_until = 0.0
        self.parked = 0
        """How many messages wait."""

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        loop, pair = asyncio.get_running_loop(), (principal, key_id)
        look_up = self._known.get(pair)
        if look_up is None:
            if loop.time() >= self._slow_until and not self._overtakes():
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
            look_up = self._known.get(pair) or self._begin(pair)
            await asyncio.sleep(0)  # by then a source with the key in memory has answered
        if look_up.holds_back or self._overtakes():
            raise Pending(look_up)
        return look_up.task.result()

    def park(self, look_up: LookUp, raw: Msg) -> LookUp:
        """Let a message wait, and return the look-up that it waits for: the current one of its key."""
        look_up = self._known.setdefault(look_up.pair, look_up)
        if not look_up.waiting:
            look_up.task.add_done_callback(lambda _: self._return(look_up))
        look_up.waiting.append(raw)
        self.parked += 1
        return look_up

    def give_up(self, look_up: LookUp, raw: Msg) -> None:
        """Let a message wait no longer."""
        look_up.waiting[:] = [one for one in look_up.waiting if one is not raw]
        self.parked -= 1

    def knows(self, look_up: LookUp) -> bool:
        """Return True if the source has, or had, the key."""
        return self._keys.knows(*look_up.pair)

    def _begin(self, pair: tuple[str, bytes]) -> LookUp:
        task = asyncio.get_running_loop().create_task(self._in_time(*pair))
        look_up = self._known[pair] = LookUp(pair, task)
        task.add_done_callback(lambda _: self._ended(look_up))
        return look_up

    def _ended(self, look_up: LookUp) -> None:
        if not look_up.task.cancelled():
            look_up.task.exception()  # or asyncio would log its text, a secret maybe, if no message waits any more
        look_up.task.get_loop().call_later(FRESH, self._age, look_up)

    def _age(self, look_up: LookUp) -> None:
        look_up.is_old = True
        if not look_up.waiting and self._known.get(look_up.pair) is look_up:
            del self._known[look_up.pair]

    def _return(self, look_up: LookUp) -> None:
        waiting = look_up.waiting[:]
        look_up.waiting.clear()
        self.parked -= len(waiting)
        for raw in reversed(waiting):
            self._come_back(raw)
        if look_up.is_old:
            self._age(look_up)

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
