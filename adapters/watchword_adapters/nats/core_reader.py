"""The readers of core NATS: each judges nothing until it knows what its predecessors may have delivered."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any, Final

from watchword.endings import FIRST_DELAY, delay_after
from watchword.errors import ConfigurationError, WatchwordError
from watchword.replay import ReaderBirth, SharedReplayStore, how_to_admit, told_of
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.nats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from watchword import Watchword

COMPARED_EVERY: Final = 1.0


def compare_clocks(watchword: Watchword) -> None:
    """Restart all memories if the machine's clock was set back; see ``Lives.compare_clocks``."""
    watchword.lives.compare_clocks(time.time(), since_boot())


async def watch_clocks(watchword: Watchword) -> None:
    """Compare the clocks forever, so that a floor passes while no message arrives, instead of after the next one.

    Safety does not depend on it: the clocks are also compared before each judgement.
    """
    while True:
        with suppress(ConfigurationError):  # the journal cannot be written: reported and handled with each message
            compare_clocks(watchword)
        await asyncio.sleep(COMPARED_EVERY)


_TOGETHER: Final = 500
"""Readers that start in one turn of the event loop, with one read of the journal."""


class CoreReader(Reader):
    """A reader of core NATS, which judges nothing until it knows from what time on its memory is complete."""

    def __init__(self, watchword: Watchword, name: str, *, exclusive: bool, **options: Any) -> None:
        super().__init__(watchword, name, exclusive=exclusive, **options)
        self.gate.hold()
        self._has_begun = False
        self._told: asyncio.Event | None = None
        self._beginning: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start, once the server has confirmed the subscription; messages that arrive meanwhile wait."""
        if not self._closed:
            self._beginning = asyncio.get_running_loop().create_task(self._begin())

    async def begun(self) -> None:
        """Wait until the reader has started or is closed."""
        if not self._has_begun:
            self._told = self._told or asyncio.Event()
            await self._told.wait()

    def close(self) -> None:
        """See Reader."""
        if self._beginning is not None:
            self._beginning.cancel()
        super().close()
        self._tell_begun()

    async def _begin(self) -> None:
        failures = 0
        while True:
            try:
                await self._know()
            except Exception as error:  # noqa: BLE001 - nothing can be judged without a memory, whatever the error
                text = str(error) if isinstance(error, WatchwordError) else told_of(error)
                self.watchword.audit.warn("replay.reader_not_begun", reader=self.name, detail=text)
                await asyncio.sleep(delay_after(failures, FIRST_DELAY))
                failures += 1
            else:
                break
        self._go_on()

    def _go_on(self) -> None:
        self.gate.release()
        self._tell_begun()

    def _tell_begun(self) -> None:
        self._has_begun = True
        if self._told is not None:
            self._told.set()

    async def _know(self) -> None:
        """Load what is known of this reader."""
        raise NotImplementedError


class Beginnings:
    """Starts the readers of one client in groups: those opened during one PING wait for the next."""

    def __init__(self, watchword: Watchword, confirmed: Callable[[], Awaitable[None]]) -> None:
        self._watchword = watchword
        self._confirmed = confirmed
        self._waiting: list[CoreReader] = []
        self._task: asyncio.Task[None] | None = None

    def add(self, reader: CoreReader) -> None:
        """Start a reader once the server has confirmed everything sent so far."""
        self._waiting.append(reader)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._begin())

    def close(self) -> None:
        """Start no further readers."""
        if self._task is not None:
            self._task.cancel()
        self._waiting, self._task = [], None

    async def _begin(self) -> None:
        while self._waiting:
            readers, self._waiting = self._waiting, []
            await self._confirmed()
            for at in range(0, len(readers), _TOGETHER):
                some = readers[at : at + _TOGETHER]
                lives = [one.life for one in some if isinstance(one, SubscriptionReader) and one.may_be_born]
                with suppress(Exception):  # each reader then tries by itself, and reports the error
                    compare_clocks(self._watchword)  # the journal may date from before the machine was set back
                    await self._watchword.lives.bear(*lives)
                for reader in some:
                    reader.begin()
                await asyncio.sleep(0)  # let other tasks run
        self._task = None


class SubscriptionReader(CoreReader):
    """One subscription, whose memory is in this process and in the journal.

    A ``solicited`` one only receives answers to requests of this process.
    """

    def __init__(self, watchword: Watchword, pattern: str, *, solicited: bool, **options: Any) -> None:
        self.life: Final = watchword.lives.open(pattern)
        self._pattern = pattern
        self._solicited = solicited
        super().__init__(watchword, self.life.name, exclusive=True, **options)

    def close(self) -> None:
        """See Reader; the memory outlives the subscription."""
        if not self._closed:
            self.watchword.lives.close(self.life, self._pattern)
        super().close()

    @property
    def may_be_born(self) -> bool:
        """True if its memory needs a floor and the reader is open."""
        return not (self._closed or self._solicited)

    def begin(self) -> None:
        """See CoreReader; immediate if its memory was created together with others: a client may open thousands."""
        if self._closed or not self.life.is_born:
            super().begin()
        else:
            self._go_on()

    async def _know(self) -> None:
        compare_clocks(self.watchword)  # the journal may date from before the machine was set back
        await self.watchword.lives.bear(self.life, solicited=self._solicited)

    def _start_work(self) -> None:
        compare_clocks(self.watchword)
        super()._start_work()

    def _forget(self) -> None:
        """Keep the memory for the next subscription with this pattern."""


class SharedReader(CoreReader):
    """A queue group, or a subscription of a named client, whose memory is in a shared store."""

    def __init__(
        self, watchword: Watchword, pattern: str, *, queue: str, client_name: str | None, **options: Any
    ) -> None:
        lives = watchword.lives
        signed = lives.signed_pattern(pattern)
        self._key = ""
        if queue:
            name = f"queue:{queue}:{signed}"
        else:
            self._key = f"name:{client_name}:{pattern}"
            self._number = lives.take_number(self._key)
            name = f"name:{client_name}:{signed}" + (f"#{self._number}" if self._number else "")
        super().__init__(watchword, name, exclusive=False, **options)

    def close(self) -> None:
        """See Reader."""
        if self._key and not self._closed:
            self.watchword.lives.free_number(self._key, self._number)
        super().close()

    async def _know(self) -> None:
        store, verifier = self.watchword.verifier.replay, self.watchword.verifier
        if not isinstance(store, SharedReplayStore):  # no store of readers, as in observe mode
            return
        if await store.birth(self.name) is None:
            floor = self.watchword.lives.floor_from(verifier.clock())
            kept = await store.admit_reader(self.name, ReaderBirth(floor=floor))
            if isfinite(kept.floor) and ceil(kept.floor) > verifier.clock():  # times of issue are whole seconds
                remedy = f"before the first start, {how_to_admit(self.name)}"
                self.watchword.lives.announce(self.name, kept.floor, remedy=remedy)
