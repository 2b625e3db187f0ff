"""Follows the settings files: applies changes of policy and keys while a process runs, all together or not at all."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword import Policy, Watchword
    from watchword.spi import KeySource, NamedBackend

CHECK_EVERY: Final = 5.0
"""Seconds between two checks of the files."""

READ_LIMIT: Final = 5.0
"""Seconds for which messages wait for a file system that does not respond."""


class Change(NamedTuple):
    """New settings; ``later`` names changed ones that take effect only after a restart.

    ``what`` describes the change for the log; ``then`` is called once it is in effect.
    """

    policy: Policy
    keys: KeySource | None
    key: NamedBackend | None
    later: tuple[str, ...] = ()
    what: str = "nothing"
    then: Callable[[], None] | None = None


class Source(Protocol):
    """Where settings are read from."""

    def read(self, *, again: bool) -> Change | None:
        """Return what has changed since the last call; raises ConfigurationError once for each mistake.

        With ``again`` it returns everything, changed or not.
        """
        ...


class SettingsWatch:
    """Checks the settings at most every ``check_every`` seconds, as messages come or go, and switches an agent.

    A mistake changes nothing and is logged; so are changes that need a restart. ``clock`` is in seconds and never steps
    back.
    """

    def __init__(
        self,
        agent: Watchword,
        source: Source,
        *,
        check_every: float = CHECK_EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent = agent
        self._source = source
        self._check_every = check_every
        self._clock = clock
        self._looked = clock()
        self._reading: asyncio.Future[Change | None] | None = None
        self._late: asyncio.Future[Change | None] | None = None

    def is_due(self) -> bool:
        """See ``Watch``."""
        return self._clock() - self._looked >= self._check_every

    async def look(self) -> None:
        """See ``Watch``; the files are read in another thread, since a disk or a network share may be slow.

        Messages wait only once for one that does not respond.
        """
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.get_loop() is not loop:
            self._reading = loop.run_in_executor(None, partial(self._source.read, again=False))
        reading = self._reading
        _, waiting = await asyncio.wait([reading], timeout=0 if reading is self._late else READ_LIMIT)
        if reading is not self._reading:  # another task has taken the result
            return
        self._looked = self._clock()
        if waiting:
            if reading is not self._late:
                self._late = reading
                self._refused(f"reading the settings takes longer than {READ_LIMIT:g} s")
            return
        self._reading = None
        try:
            self._take(reading.result())
        except ConfigurationError as error:
            self._refused(str(error))

    def reload(self) -> None:
        """See ``Watch``."""
        self._looked = self._clock()
        self._take(self._source.read(again=True))

    def _take(self, change: Change | None) -> None:
        if change is None:
            return
        later = [*change.later, *self._agent.switch(change.policy, change.keys, change.key)]
        if change.then is not None:
            change.then()
        self._agent.audit.note("settings.changed", changed=change.what, mode=str(change.policy.mode))
        if later:
            self._agent.audit.warn("settings.need_restart", names=", ".join(later), remedy="restart this process")

    def _refused(self, detail: str) -> None:
        self._agent.audit.warn("settings.not_changed", detail=detail, remedy="the previous ones stay in effect")
