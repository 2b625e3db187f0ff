"""Where an operator makes statements."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError, Unavailable
from watchword.keys import thumbprint
from watchword.statements import CONTENT_TYPE, Statement
from watchword_adapters.control.following import Following

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from watchword import Watchword
    from watchword.control import Control, OperatorKey
    from watchword.statements import Saying
    from watchword_adapters.control.following import Parts

TIMEOUT: Final = 10.0
_LOOK_EVERY: Final = 0.01


class Desk:
    """Makes statements by a signer's key, each behind what its operator has read of the log."""

    def __init__(self, agent: Watchword, following: Following, by: OperatorKey) -> None:
        self._following = following
        self._agent = agent
        self.by: Final = by

    @property
    def control(self) -> Control:
        """What holds."""
        return self._following.control

    async def say(self, saying: Saying) -> int:
        """Make a statement, and return its position once it was read back and counts.

        ConfigurationError if it does not; Unavailable if it is not read back in time.
        """
        following, control = self._following, self._following.control
        log = following.log
        if log is None:
            raise Unavailable("control", f"not connected: {following.error}")
        link, entry = control.link(self.by), Statement(1, "", 1, saying).entry
        rank = 0 if entry is None else control.rank(entry) + 1
        statement = Statement(link.number + 1, link.digest, rank, saying)
        position = await log.publish(statement.to_json(), {"content-type": CONTENT_TYPE})
        await until(lambda: following.place is not None and following.place.position > position, following)
        if control.link(self.by).number <= link.number:
            raise ConfigurationError(
                f"{statement.verb}: the log has it, but it does not count: {self.by[0]} may not say that by [control]"
                " here, or its key is not in [[keys]]"
            )
        return position


@asynccontextmanager
async def desk(agent: Watchword, parts: Parts) -> AsyncGenerator[Desk]:
    """Read the log to its end, and give a place to speak from; ConfigurationError for who cannot."""
    principal, key_id = agent.signer.principal, agent.signer.key_id
    key = await parts.root.find(principal, key_id)
    if key is None or key.principal != principal:
        raise ConfigurationError(f"{principal} is in none of [[keys]] here, so nobody would hear it")
    async with followed(parts) as following:
        yield Desk(agent, following, (principal, thumbprint(key.public)))


@asynccontextmanager
async def followed(parts: Parts) -> AsyncGenerator[Following]:
    """Follow the log here, from the moment when all is known that it held."""
    following = Following(parts)
    running = asyncio.get_running_loop().create_task(following.run())
    try:
        await until(lambda: following.is_known and following.log is not None, following)
        yield following
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], bool], following: Following) -> None:
    """Wait for what the log brings about; Unavailable after a while, ConfigurationError for an unfit log."""
    loop = asyncio.get_running_loop()
    end = loop.time() + TIMEOUT
    while not condition():
        if isinstance(following.error, ConfigurationError):
            raise ConfigurationError(str(following.error)) from following.error
        if loop.time() >= end:
            why = "" if following.error is None else f": {following.error}"
            raise Unavailable("control", f"the log did not answer within {TIMEOUT:g} s{why}")
        await asyncio.sleep(_LOOK_EVERY)
