"""Publishes an operator's statements, and confirms that they count."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError, Unavailable, WatchwordError
from watchword.keys import thumbprint
from watchword.statements import CONTENT_TYPE, MAX_RANK, Contain, Revoke, Statement
from watchword_adapters.control.following import Following

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from watchword import Watchword
    from watchword.control import Control, OperatorKey
    from watchword.statements import Saying
    from watchword_adapters.control.following import Heard, Parts

TIMEOUT: Final = 10.0
LOOK_EVERY: Final = 0.01
MOST_OUTCOMES: Final = 10_000
"""Most entries whose outcome is remembered."""


class Desk:
    """Makes statements with a signer's key, each based on what its operator has read of the log.

    A statement's rank is at least the time (seconds): it therefore also outranks statements that only others know, such
    as those on a log that has been lost since. Readers compare ranks and use no clock.
    """

    def __init__(self, agent: Watchword, following: Following, by: OperatorKey, fates: Mapping[int, Heard]) -> None:
        self._following = following
        self._agent = agent
        self._fates = fates
        self.by: Final = by

    @property
    def control(self) -> Control:
        """The statements in force."""
        return self._following.control

    async def say(self, saying: Saying) -> int:
        """Publish a statement, and return its position once it was read back and counts.

        ConfigurationError, before publishing, if it would not count; Unavailable if it is not read back in time.
        """
        following, control = self._following, self._following.control
        log = following.log
        if log is None:
            raise Unavailable("control", f"not connected: {following.error}")
        link, entry = control.link(self.by), Statement(1, "", 1, saying).entry
        rank = 0 if entry is None else min(MAX_RANK, max(control.rank(entry) + 1, int(self._agent.clock())))
        statement = Statement(link.number + 1, link.digest, rank, saying)
        why = control.objection(self.by, statement)
        if why is not None:
            raise ConfigurationError(
                f"{statement.verb}: {self.by[0]} may not state that: {why}; see [[control.operators]] in the settings"
            )
        try:
            position = await log.publish(statement.to_json(), {"content-type": CONTENT_TYPE})
        except WatchwordError:
            raise
        except Exception as error:
            raise Unavailable("control", f"{statement.verb}: {type(error).__name__}: {error}") from error
        await until(lambda: following.place is not None and following.place.position > position, following)
        heard = self._fates.get(position)
        if heard is None or heard.why is not None:
            why = "it was not read back" if heard is None else heard.why
            raise ConfigurationError(f"{statement.verb}: the log has it at {position}, but it does not count: {why}")
        if entry is not None and not isinstance(saying, Revoke) and control.deciding_on(entry) != saying:
            raise ConfigurationError(
                f"{statement.verb}: the log has it at {position}, but another operator's statement outranks it:"
                " see watchword control log; it ends with the revocation of that operator's key"
            )
        if (
            isinstance(saying, Contain)
            and saying.until is not None
            and saying.until <= (heard.message.appended_at or 0)
        ):
            raise ConfigurationError(
                "contain: by the broker's clock, which is ahead by more than the duration, it has already ended:"
                " set this clock, or contain for longer"
            )
        return position


@asynccontextmanager
async def desk(agent: Watchword, parts: Parts) -> AsyncGenerator[Desk]:
    """Read the log to its end, and yield a Desk; ConfigurationError if the agent's key is not known."""
    principal, key_id = agent.signer.principal, agent.signer.key_id
    key = await parts.root.find(principal, key_id)
    if key is None or key.principal != principal:
        raise ConfigurationError(f"{principal} is in none of [[keys]] here, so its statements would be ignored")
    fates: dict[int, Heard] = {}

    def note(heard: Heard) -> None:
        by, position = heard.by, heard.message.position
        if position is not None and (by is None or by[0] == principal):
            fates[position.offset] = heard
            if len(fates) > MOST_OUTCOMES:
                del fates[next(iter(fates))]

    async with followed(replace(parts, listen=note)) as following:
        yield Desk(agent, following, (principal, thumbprint(key.public)), fates)


@asynccontextmanager
async def followed(parts: Parts) -> AsyncGenerator[Following]:
    """Follow the log in this event loop, and yield once all of it has been read: the state file may be old."""
    following = Following(parts)
    running = asyncio.get_running_loop().create_task(following.run())
    try:
        await until(lambda: following.is_current, following)
        yield following
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def until(condition: Callable[[], bool], following: Following) -> None:
    """Wait for a condition that the log brings about; ConfigurationError for an unfit log.

    Unavailable after a while without progress in reading; a long log may take its time.
    """
    loop = asyncio.get_running_loop()
    end, place = loop.time() + TIMEOUT, following.place
    while not condition():
        if following.place != place:
            end, place = loop.time() + TIMEOUT, following.place
        if isinstance(following.error, ConfigurationError):
            raise ConfigurationError(str(following.error)) from following.error
        if loop.time() >= end:
            why = "" if following.error is None else f": {following.error}"
            raise Unavailable("control", f"the log did not answer within {TIMEOUT:g} s{why}")
        await asyncio.sleep(LOOK_EVERY)
