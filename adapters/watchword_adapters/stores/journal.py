"""The journal of one principal on this machine: a SQLite file in the directory named by ``[replay] state``.

Why SQLite: docs/decisions/0014. Nothing is synced to disk, since what a process has written outlives that process. It
does not outlive the machine, so the file is trusted only

- if it was written since this machine was started (the kernel's boot id is the same) and has not been changed by anyone
  else: the file system's time of its last change is that of our last entry; or if it was closed cleanly, which is
  synced, and that was its last change. A copy that was put back is therefore not taken for the original;
- and if the wall clock has not moved against the machine's monotonic clock since, by more than clocks differ: a virtual
  machine may be reset while it runs, including its disk, and then shows less time since its start;
- and if it holds at least as many entries as the mark file next to it says.

Otherwise it is deleted and recreated. All processes of one principal share the file; a reader that starts takes over
what all of them know, so that a process that replaces another knows what that one has delivered.

A forked child opens the file itself. SQLite then takes the parent's locks for the child's, so the parent may remove the
write-ahead log under the child. The child detects that before its next entry, and starts with a floor; if it dies
before, the mark shows that an entry is missing.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import sqlite3
import threading
import time
import weakref
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from watchword import ConfigurationError
from watchword.guard import Kind
from watchword.journal import Recalled
from watchword_adapters.regular_file import check_ours
from watchword_adapters.stores.journal_file import JournalFile, delete

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchword import Policy
    from watchword.guard import Note
    from watchword.spi import Warn

CLEANED_EVERY: Final = 1.0
_AGAIN_AFTER: Final = 60.0
"""Seconds after which a journal that could not be written is tried again."""

MOUNTS: Final = Path("/proc/self/mounts")
_ELSEWHERE: Final = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|fuse\..*|9p|ceph|glusterfs|lustre|afs|gpfs|beegfs")
"""File systems on which locks and times may be another machine's."""

T = TypeVar("T")


class FileJournal:
    """See ``watchword.journal.Journal``; ConfigurationError if ``directory`` cannot hold one.

    ``required`` says that the operator has configured the directory; otherwise a missing journal is only a warning.
    """

    def __init__(
        self,
        directory: Path,
        *,
        realm: str,
        principal: str | None,
        policy: Policy,
        clock: Callable[[], float],
        warn: Warn,
        required: bool = True,
    ) -> None:
        self.path: Final = directory / f"{_file_name(realm, principal)}.journal"
        self._needed_for: Final = policy.horizon + policy.max_skew
        self._max_skew: Final = policy.max_skew
        self._clock: Final = clock
        self._warn: Final = warn
        self._required: Final = required
        self._owner: Final = secrets.token_hex(8)
        self._lock: Final = threading.RLock()
        self._opened: JournalFile | None = None
        self._closing: weakref.finalize[[JournalFile], FileJournal] | None = None
        self._inherited: list[JournalFile] = []
        self._logs: set[str] = set()
        self._newest = -1
        self._has_been_open = self._has_lost = self._is_told = False
        self._fails_until = -math.inf
        self._cleaned = -math.inf

    def recall(self, logs: Sequence[str], *, birth: float) -> list[Recalled]:
        """See Journal."""
        with self._lock:
            needed = self._clock() - self._needed_for
            found = self._try(lambda opened: opened.recall(logs, birth=birth, needed=needed))
            self._logs.update(logs)
        if found is None:
            return [Recalled(floor=birth)] * len(logs)
        highest = max([one.floor for one in found], default=birth)
        if highest > birth + self._max_skew + 1:
            self._warn(
                "replay.journal_ahead",
                path=str(self.path),
                detail=f"the journal was written when the clock showed {highest - birth:.0f} s more than now",
                cost="all is stale until it shows that; if it was wrong then, stop all readers and delete the file",
            )
        return found

    def write(self, notes: Sequence[Note]) -> None:
        """See Journal; if it cannot be written it is deleted, so that it is never taken for complete."""
        with self._lock:
            # Newest delivered id, which may be lost; claims from the future were not delivered.
            self._newest = max([self._newest, *[note.issued_at for note in notes if note.kind is Kind.ID]])
            self._try(lambda opened: opened.write(notes))
            now = time.monotonic()
            if now - self._cleaned >= CLEANED_EVERY:
                self._cleaned = now
                self._try(lambda opened: opened.forget(self._clock() - self._needed_for))

    def raise_floors(self, floor: float) -> None:
        """See Journal."""
        with self._lock:
            self._try(lambda opened: opened.raise_floors(floor))

    def initialise(self) -> bool:
        """Record that no reader of this principal runs or has just run; return False if that was recorded before.

        A reader unknown to the journal then starts without a floor, except for messages issued before now by more than
        clocks differ. If it has ever run, it must therefore have been stopped for ``settled`` seconds.
        """
        with self._lock:
            done = self._try(lambda opened: opened.initialise(self._clock() - self._max_skew))
        if done is None:
            raise ConfigurationError(f"state: {self.path} cannot be written: write another directory")
        return done

    @property
    def settled(self) -> float:
        """Seconds after a reader's end until nothing that it delivered can be repeated; see ``initialise``."""
        return 2 * self._max_skew + 1  # times of issue are whole seconds

    def close(self) -> None:
        """Close the file; its content is synced if no other process uses it."""
        with self._lock:
            self._opened = None
            if self._closing is not None:
                self._closing()

    def _try(self, work: Callable[[JournalFile], T]) -> T | None:
        """Call ``work`` with the file; None if there is no usable file."""
        if time.monotonic() < self._fails_until:
            return None
        try:
            done = work(self._current())
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None
        self._is_told = False
        return done

    def _current(self) -> JournalFile:
        """Return the open file; opens it first if it is closed, or if its path leads to another file now."""
        opened = self._opened
        if opened is not None and opened.pid != os.getpid():
            self._inherited.append(opened)  # closing it is up to the parent
            opened = None
        elif opened is not None and opened.files.are_others():
            self._has_lost = True
            self._forsake(opened)
            opened = None
        if opened is None:
            check_place(self.path.parent)
            self._opened = opened = JournalFile(self.path, owner=self._owner, max_skew=self._max_skew)
            # At process exit at the latest: SQLite would otherwise clean up and leave an unsealed file.
            self._closing = weakref.finalize(self, _close, opened)
            self._has_been_open = True
            # This process's notes so far may be in no file: a successor must assume ids issued until now.
            floor = max(self._clock() + self._max_skew, self._newest + 1)
            opened.begin(self._logs, floor=floor, known=self._has_lost)
            self._has_lost = False
        return opened

    def _forsake(self, opened: JournalFile) -> None:
        """Close, without sealing, a file that was replaced or cannot be written."""
        if self._closing is not None:
            self._closing.detach()
        with contextlib.suppress(sqlite3.Error, OSError):
            opened.abandon()

    def _give_up(self, error: Exception) -> None:
        """Continue without a journal for a while; raise if a file remains that a successor might trust."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            self._forsake(opened)
        self._has_lost = True
        try:
            delete(self.path)
        except OSError as other:
            if self.path.exists():
                raise ConfigurationError(f"state: {self.path} can neither be written nor deleted: {other}") from error
        if self._required and not self._has_been_open:
            raise ConfigurationError(f'state: {self.path}: {error}; name a writable directory, or write state = ""')
        self._fails_until = time.monotonic() + _AGAIN_AFTER
        if not self._is_told:
            self._is_told = True
            self._warn(
                "replay.no_journal",
                path=str(self.path),
                detail=str(error),
                cost=f"after a restart, what was issued up to {self._max_skew:g} s after it is stale on core NATS",
            )


def _close(opened: JournalFile) -> None:
    if opened.pid == os.getpid():
        with contextlib.suppress(sqlite3.Error, OSError):
            opened.close()


def check_place(directory: Path) -> None:
    """Create the directory; OSError if it is on a network file system, or others may write to it."""
    try:
        import fcntl  # noqa: F401, PLC0415 - not everywhere
    except ImportError:
        raise OSError("this system has no file locks") from None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = directory.resolve()
    check_ours(there, there.stat())
    if _ELSEWHERE.fullmatch(kind := _file_system(there)):
        raise OSError(f"{there} is on a network file system ({kind}); use a local directory")


def _file_system(there: Path) -> str:
    try:
        mounts = [line.split() for line in MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    around = [fields for fields in mounts if there.is_relative_to(fields[1].replace("\\040", " "))]
    return max(around, key=lambda fields: len(fields[1]), default=["", "", ""])[2]


def _file_name(realm: str, principal: str | None) -> str:
    """Return a file name that is unique to this principal and readable for operators."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{realm}-{principal or 'anonymous'}").strip("-")[:80]
    return f"{readable}-{sha256(repr((realm, principal)).encode(errors='surrogatepass')).hexdigest()[:12]}"
