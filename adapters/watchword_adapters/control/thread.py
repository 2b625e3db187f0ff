"""Follows the control log in a separate thread with its own connection, so that no handler can block it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

from watchword import ConfigurationError, Unavailable
from watchword_adapters.background import Background
from watchword_adapters.control.following import Following

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from watchword import Watchword
    from watchword.control import Operator
    from watchword_adapters.control.following import Parts
    from watchword_adapters.control.presence import Announcer

TIMEOUT: Final = 10.0
"""Seconds without progress after which a start stops waiting for the log."""

_LOOK_EVERY: Final = 0.02


class FollowerThread:
    """Makes an agent obey the control log, from its first start until the process ends.

    The thread begins when something that needs it is started, and again in a forked process. An ``announcer`` announces
    the agent from the same thread, once a client has connected.
    """

    def __init__(
        self, agent: Watchword, parts: Parts, *, announcer: Announcer | None = None, timeout: float = TIMEOUT
    ) -> None:
        self._agent = agent
        self._parts = parts
        self._timeout = timeout
        self._pid = 0
        self._following: Following | None = None
        self._background: Background | None = None
        self._announcer = announcer
        agent.verifier.obey(parts.control, self.start)
        if announcer is not None:
            agent.when_connected(self._connected)

    def begin(self) -> None:
        """Start the thread, unless it runs in this process."""
        if self._pid == os.getpid():
            return
        self._pid = os.getpid()
        following = self._following = Following(self._parts, self._changed)
        works: list[Callable[[], Coroutine[Any, Any, None]]] = [following.run]
        if (announcer := self._announcer) is not None:
            works.append(lambda: announcer.run(following))
        self._background = Background("watchword-control", *works)

    async def start(self) -> None:
        """Start the thread, and wait until the log has been read; Unavailable if it cannot be read.

        ConfigurationError for a log that cannot be trusted.
        """
        self.begin()
        loop, following = asyncio.get_running_loop(), self._following
        until, place = loop.time() + self._timeout, None if following is None else following.place
        while following is not None and not following.is_known:
            if following.place != place:  # a long log may take its time
                until, place = loop.time() + self._timeout, following.place
            error = following.error
            if isinstance(error, ConfigurationError):
                raise ConfigurationError(str(error)) from error
            if loop.time() >= until:
                why = f"nothing was read of the control log for {self._timeout:g} s"
                raise Unavailable("control", why if error is None else f"{why}: {error}")
            await asyncio.sleep(_LOOK_EVERY)

    def switch(self, operators: tuple[Operator, ...]) -> None:
        """Judge the log again with other operators."""
        if self._following is not None and self._background is not None:
            self._background.call(self._following.switch, operators)

    def _connected(self, bus: str) -> None:
        """Start the thread for announcements, in case nothing that reads does."""
        assert self._announcer is not None  # noqa: S101 - for the type checker
        self._announcer.connected(bus)
        self.begin()

    def _changed(self) -> None:
        """Stop a contained agent from signing: its readers would drop its messages anyway."""
        identity = self._agent.signing_as
        if identity is None:
            return
        found = self._parts.control.containment(identity[0], self._parts.clock)
        why = None if found is None else f"this agent is contained by {found.by}: {found.why or 'no reason given'}"
        self._agent.signer.hold(why)
