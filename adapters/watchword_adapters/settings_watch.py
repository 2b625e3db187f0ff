"""Follows the settings: policy and keys change while a process runs, as one whole or not at all."""

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
"""Seconds between two looks at the files."""

_READ_LIMIT: Final = 5.0
"""Seconds for which messages wait for files that do not answer."""


class Change(NamedTuple):
    """What is to hold from now on; ``later`` names what was changed and holds only after a restart.

    ``what`` says for the log in what it differs; ``then`` is called once it holds.
    """

    policy: Policy
    keys: KeySource | None
    key: NamedBackend | None
    later: tuple[str, ...] = ()
    what: str = "nothing"
    then: Callable[[], None] | None = None


class Source(Protocol):
    """What settings are read from."""

    def read(self, *, again: bool) -> Change | None:
        """Return what has changed since it was last asked; ConfigurationError once for each mistake.

        If it is asked ``again`` it tells all anew, changed or not.
        """
        ...


class SettingsWatch:
    """Looks at the settings every ``check_every`` seconds at most, as messages come or go, and lets an agent switch.

    What has a mistake changes nothing and is told; so is what holds only after a restart. ``clock`` is in seconds and
    never steps back.
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
        """See ``Watch``; the files are read by another thread, for a disk or a network share may be slow.

        Nobody waits a second time for one that does not answer.
        """
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.get_loop() is not loop:
            self._reading = loop.run_in_executor(None, partial(self._source.read, again=False))
        reading = self._reading
        _, waiting = await asyncio.wait([reading], timeout=0 if reading is self._late else _READ_LIMIT)
        if reading is not self._reading:  # somebody else has taken what was found
            return
        self._looked = self._clock()
        if waiting:
            if reading is not self._late:
                self._late = reading
                self._refused(f"reading the settings takes longer than {_READ_LIMIT:g} s")
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
        self._agent.audit.warn("settings.not_changed", detail=detail, remedy="until then what held before holds")
