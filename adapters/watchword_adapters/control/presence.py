"""Announces this process on the presence channel at intervals, with its own connection."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import TYPE_CHECKING, Final, Protocol, Self

import watchword
from watchword.presence import CONTENT_TYPE, Announcement, Evidence

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from types import TracebackType

    from watchword import Watchword
    from watchword.spi import Message
    from watchword_adapters.control.following import Following

LOOK_EVERY: Final = 0.1
"""Seconds between two checks whether a client has connected; before that there is nothing to announce."""


class PresenceChannel(Protocol):
    """Port: where a bus carries announcements; one implementation per client.

    An async context: entering connects. Raises the client's errors; ConfigurationError for what the operator must fix.
    """

    async def __aenter__(self) -> Self:
        """Connect."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        ...

    async def make(self) -> bool:
        """Make the bus store announcements for a day, if it does not; return True if something was created."""
        ...

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """Sign an announcement and send it; SigningError if the agent may not sign."""
        ...

    async def stores(self) -> bool:
        """Return True if the bus stores announcements, so that later readers find them."""
        ...

    def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """Yield announcements made at ``since`` (seconds since the epoch) or later, up to now, unverified.

        It can be called again on the same connection. If the bus stores nothing, it yields what arrives in the next
        ``listen`` seconds.
        """
        ...


class Announcer:
    """Announces one agent every ``every`` seconds, once one of its clients has connected.

    A failure is logged once and retried at the next interval; nothing else waits for it.
    """

    def __init__(self, agent: Watchword, open_channel: Callable[[], PresenceChannel], *, every: float) -> None:
        self._agent = agent
        self._open = open_channel
        self._every = every
        self._buses: dict[str, None] = {}
        self._pid = 0
        self._instance = ""
        self._number = self._started = 0
        self._told: str | None = None

    def connected(self, bus: str) -> None:
        """Record that a client of this bus has connected; may be called from any thread."""
        self._buses[bus] = None

    async def run(self, following: Following) -> None:
        """Announce until this is cancelled."""
        while not self._buses:  # noqa: ASYNC110 - another thread's client connects
            await asyncio.sleep(LOOK_EVERY)
        while True:
            try:
                async with self._open() as channel:
                    while True:
                        await channel.announce(self.announcement(following).to_json(), {"content-type": CONTENT_TYPE})
                        self._told = None
                        await asyncio.sleep(self._every)
            except Exception as error:  # noqa: BLE001 - retried, whatever a client raises
                self._tell(error)
            await asyncio.sleep(self._every)

    def announcement(self, following: Following) -> Announcement:
        """Return the current announcement."""
        if self._pid != os.getpid():  # a forked child is another process
            self._pid, self._instance = os.getpid(), secrets.token_hex(8)
            self._started = int(self._agent.clock())
        self._number += 1
        control, place = following.control, following.place
        evidence = self._agent.verifier.trust.evidence()
        return Announcement(
            instance=self._instance,
            number=self._number,
            version=watchword.__version__,
            buses=tuple(sorted(self._buses)),
            started=self._started,
            known=following.is_known,
            place=None if place is None else (place.identity, place.position),
            statements=control.held,
            heard={by: control.link(by) for by in control.speakers},
            full=control.full,
            evidence={
                name: Evidence(score, facts)
                for name, (score, facts) in evidence.items()
                if name != self._agent.verifier.principal
            },
        )

    def _tell(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        if told != self._told:
            self._told = told
            self._agent.audit.warn(
                "presence.unavailable",
                detail=told,
                remedy="nothing else depends on it, but watchword who does not show this process",
            )
