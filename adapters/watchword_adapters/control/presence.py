"""Announces what this process is, beside the following of the control log, with a connection of its own."""

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

_LOOK_EVERY: Final = 0.1
"""Seconds between two looks whether a client has connected: before that there is nothing to announce."""


class PresenceChannel(Protocol):
    """Port: where a bus carries announcements; one for each client.

    It is a context: entering connects. The client's errors; ConfigurationError for what the operator has to mend.
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
        """Let the bus keep announcements for a day, where it keeps none; return True if something was made for it."""
        ...

    async def announce(self, value: bytes, headers: Mapping[str, str]) -> None:
        """Sign an announcement and send it; SigningError where the agent may not sign."""
        ...

    async def stores(self) -> bool:
        """Return True if the bus keeps what is announced, so that whoever reads later finds it."""
        ...

    def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """Yield what was announced at ``since`` (seconds since the epoch) or later, up to now; nothing is judged.

        It may be asked again, on the same connection. Where the bus stores nothing it is what comes in the next
        ``listen`` seconds.
        """
        ...


class Announcer:
    """Announces one agent every so many seconds, once a client of its has connected.

    Whatever fails is told once and tried again at the next turn: nothing else waits for it.
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
        """Take note that a client of this bus has connected; any thread may say so."""
        self._buses[bus] = None

    async def run(self, following: Following) -> None:
        """Announce until this is cancelled."""
        while not self._buses:  # noqa: ASYNC110 - another thread's client connects
            await asyncio.sleep(_LOOK_EVERY)
        while True:
            try:
                async with self._open() as channel:
                    while True:
                        await channel.announce(self.announcement(following).to_json(), {"content-type": CONTENT_TYPE})
                        self._told = None
                        await asyncio.sleep(self._every)
            except Exception as error:  # noqa: BLE001 - whatever a client raises, it is tried again
                self._tell(error)
            await asyncio.sleep(self._every)

    def announcement(self, following: Following) -> Announcement:
        """Return what there is to say now."""
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
                remedy="nothing else waits for it; watchword who does not show this",
            )
