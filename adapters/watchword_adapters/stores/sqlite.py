"""A replay store in one SQLite file: shared by the processes of one machine, and kept across restarts."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from watchword import ConfigurationError
from watchword.replay import StoreError
from watchword_adapters.stores.batched import PER_PRINCIPAL, TIMEOUT, BatchedReplayStore, StoreOptions
from watchword_adapters.stores.sqlite_ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from watchword import Policy
    from watchword.replay import ReaderBirth
    from watchword.spi import Context, Warn
    from watchword_adapters.stores.batched import Answer, Use

_BUSY_SHARE: Final = 0.75
"""Share of a claim's time limit that may be spent waiting for other processes."""
_BUCKETS: Final = 64
"""Number of parts of an id's lifetime; ids expire by whole parts, so up to one part late."""
_REMEDIES: Final = {
    "BUSY": "another process has locked it: if that is not a reader of this store, let it finish",
    "FULL": "free space on its disk",
    "READONLY": "let this user write to the file and its directory",
}
_RESTART: Final = (
    "if the file, its -wal or its -shm was removed or put back while it was open, restart every process that uses it"
)
"""Remedies for SQLite's errors by name, and for any other error."""

T = TypeVar("T")
Ask: TypeAlias = "Callable[[Ledger], ReaderBirth | None]"


class Options(StoreOptions):
    """Options of ``[replay] store = "sqlite"``."""

    path: str


def from_options(options: Mapping[str, Any], context: Context) -> SqliteReplayStore:
    """Return the store in the file ``path``; a relative one starts from the settings file."""
    chosen = context.validate(Options, options)
    return SqliteReplayStore(
        context.directory / chosen.path,
        policy=context.policy,
        clock=context.clock,
        realm=context.realm,
        timeout=chosen.timeout,
        per_principal=chosen.per_principal,
        warn=context.warn,
    )


class SqliteReplayStore(BatchedReplayStore):
    """Stores ids in the SQLite file ``path`` on a local disk, for the processes of one machine.

    A batch is one transaction, synced to disk before anything is delivered (``synchronous=FULL``): otherwise a power
    failure would undo commits without a trace. One thread does all the work, so that the event loop never blocks. A
    deleted or replaced file is detected before the next batch, and a recreated one has a new birth mark.
    """

    most = 2000

    def __init__(
        self,
        path: str | Path,
        *,
        policy: Policy,
        clock: Callable[[], float],
        timeout: float = TIMEOUT,
        per_principal: int = PER_PRINCIPAL,
        realm: str = "",
        warn: Warn | None = None,
    ) -> None:
        self._path: Final = Path(path).absolute()
        self._thread: ThreadPoolExecutor | None = None
        self._ledger: Ledger | None = None
        self._inherited: Ledger | None = None
        self._pid = 0
        self._asks: list[tuple[Ask, asyncio.Future[ReaderBirth | None]]] = []
        self._ask_task: asyncio.Task[None] | None = None
        super().__init__(
            policy=policy, clock=clock, timeout=timeout, per_principal=per_principal, realm=realm, warn=warn
        )

    @property
    def where(self) -> str:
        """See the base."""
        return f"path {self._path}"

    async def _open(self) -> None:
        await self._in_thread(self._open_ledger)

    async def _judge(self, uses: Sequence[Use]) -> Sequence[Answer]:
        judged = await self._in_thread(lambda: self._current().judge(uses))
        self._noted(judged.birth, judged.unknown)
        return judged.answers

    async def _birth_of(self, reader: str) -> ReaderBirth | None:
        return await self._together(lambda ledger: ledger.birth(reader))

    async def _admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        admitted = await self._together(lambda ledger: ledger.admit(reader, birth, replace=replace))
        return admitted or birth

    async def _together(self, ask: Ask) -> ReaderBirth | None:
        """Run a query about a reader together with concurrent ones: thousands of subscriptions share one sync."""
        answer: asyncio.Future[ReaderBirth | None] = asyncio.get_running_loop().create_future()
        self._asks.append((ask, answer))
        if self._ask_task is None:
            self._ask_task = asyncio.get_running_loop().create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        try:
            while self._asks:
                asked, self._asks = self._asks, []
                found: Sequence[ReaderBirth | Exception | None]
                try:
                    found = await self._in_thread(partial(self._ask_all, [ask for ask, _ in asked]))
                except Exception as error:  # noqa: BLE001 - raised by every call
                    found = [error] * len(asked)
                for (_, answer), one in zip(asked, found, strict=True):
                    if answer.done():  # the call has timed out
                        continue
                    if isinstance(one, Exception):
                        answer.set_exception(one)
                    else:
                        answer.set_result(one)
        finally:
            self._ask_task = None

    def _ask_all(self, asks: Sequence[Ask]) -> list[ReaderBirth | None]:
        ledger = self._current()
        return ledger.together([partial(ask, ledger) for ask in asks])

    async def _close(self) -> None:
        if self._thread is not None:
            await self._in_thread(self._close_ledger)
            self._thread.shutdown(wait=False)
            self._thread = None

    def _abandon(self) -> None:
        """Keep thread and file, which do not depend on an event loop."""
        self._asks, self._ask_task = [], None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None or self._pid != os.getpid():
            # A forked child has no such thread, and must neither use its parent's connection nor close
            # it (SQLite, "How To Corrupt").
            self._thread = ThreadPoolExecutor(1, "watchword-sqlite")
            self._pid = os.getpid()
            self._inherited, self._ledger = self._ledger, None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.OperationalError as error:
            kind = getattr(error, "sqlite_errorname", "").removeprefix("SQLITE_").partition("_")[0]
            raise StoreError(f"{self.where}: {error}; {_REMEDIES.get(kind, _RESTART)}") from error

    def _open_ledger(self, *, suspect: bool = False) -> Ledger:
        if self._path.is_dir():
            raise ConfigurationError(f"{self.where}: a directory; write a file in it, such as {self._path / 'ids.db'}")
        if not self._path.parent.is_dir():
            raise ConfigurationError(f"{self.where}: the directory is missing; create {self._path.parent}")
        try:
            self._ledger = Ledger(
                self._path,
                clock=self._clock,
                max_skew=self._max_skew,
                bucket_seconds=math.ceil(self._lifetime / _BUCKETS),
                per_principal=self._per_principal,
                wait=self._timeout * _BUSY_SHARE,
                suspect=suspect,
            )
        except sqlite3.OperationalError:
            raise  # locked, disk full, ...: may be temporary
        except (OSError, sqlite3.DatabaseError) as error:
            raise ConfigurationError(f"{self.where}: {error}; write another file, on a local disk") from error
        return self._ledger

    def _current(self) -> Ledger:
        """Return the open file; reopen it if its path leads to another file now."""
        ledger = self._ledger
        if ledger is None:
            return self._open_ledger()
        if not ledger.files.are_others():
            return ledger
        self._close_ledger()
        # It may be an older copy that looks new with the previous file's log, or a file that lost its log.
        return self._open_ledger(suspect=True)

    def _close_ledger(self) -> None:
        if self._ledger is not None:
            ledger, self._ledger = self._ledger, None
            ledger.close()
