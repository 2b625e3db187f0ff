"""The journal of one principal on this machine: a SQLite file in the directory that ``[replay] state`` names.

SQLite and not a format of our own: docs/decisions/0014. Nothing is synced to the disk, for what a process has written
outlives that process. It does not outlive the machine, so the file is only believed

- if it was written since this machine was started (the kernel's boot id is the same), and nobody else has changed it
  since: the file system's own time of its last change is that of our last entry; or if it was closed in good order,
  which is synced, and its last change is that very one. So a copy that somebody put back is not taken for the original;
- and if the wall clock has not moved against the machine's own since, by more than clocks differ: a virtual machine
  may be set back while it runs, disk and all, and shows then less of the time since its start;
- and if it holds as many entries as a mark beside it says, in a file of its own.

Otherwise it is deleted, and begins anew. All processes of one principal share the file; each reader that starts takes
over what all of them know, so a process that replaces another knows what that one was given.

A forked child opens the file for itself. SQLite then takes the parent's locks for the child's, so the parent may take
the write-ahead log away under the child. The child finds that before its next entry and begins with a floor; should it
die before, the mark tells that an entry is missing.
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

_CLEANED_EVERY: Final = 1.0
_AGAIN_AFTER: Final = 60.0
"""Seconds after which a journal that could not be written is begun anew."""

_MOUNTS: Final = Path("/proc/self/mounts")
_ELSEWHERE: Final = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|fuse\..*|9p|ceph|glusterfs|lustre|afs|gpfs|beegfs")
"""File systems on which locks and times are another machine's, or may be."""

T = TypeVar("T")


class FileJournal:
    """See ``watchword.journal.Journal``; ConfigurationError where ``directory`` cannot hold one.

    ``required`` says that the operator has named the directory; otherwise a warning tells that there is no journal.
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
        """See Journal; where it cannot be written it is deleted, so that nobody takes it for complete."""
        with self._lock:
            # What was handed over, and may be lost; claims from the future were not.
            self._newest = max([self._newest, *[note.issued_at for note in notes if note.kind is Kind.ID]])
            self._try(lambda opened: opened.write(notes))
            now = time.monotonic()
            if now - self._cleaned >= _CLEANED_EVERY:
                self._cleaned = now
                self._try(lambda opened: opened.forget(self._clock() - self._needed_for))

    def raise_floors(self, floor: float) -> None:
        """See Journal."""
        with self._lock:
            self._try(lambda opened: opened.raise_floors(floor))

    def initialise(self) -> bool:
        """Say that no reader of this principal runs, or has run in the last moments; return False if that was said.

        A reader that the journal does not know begins without a floor, but for what was issued before this moment by
        more than clocks differ. So it must have been stopped for ``settled`` seconds, if it has ever run.
        """
        with self._lock:
            done = self._try(lambda opened: opened.initialise(self._clock() - self._max_skew))
        if done is None:
            raise ConfigurationError(f"state: {self.path} cannot be written: name a directory of your own")
        return done

    @property
    def settled(self) -> float:
        """Seconds after a reader's end when nothing that it was given can be at stake any more; see ``initialise``."""
        return 2 * self._max_skew + 1  # a time of issue has no fraction

    def close(self) -> None:
        """Close the file; what was written is synced, if nobody else uses it."""
        with self._lock:
            self._opened = None
            if self._closing is not None:
                self._closing()

    def _try(self, work: Callable[[JournalFile], T]) -> T | None:
        """Do something with the file; None where there is none."""
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
        """Return the open file; open it if need be, or if it is not the one that bears its name any more."""
        opened = self._opened
        if opened is not None and opened.pid != os.getpid():
            self._inherited.append(opened)  # closing it is its parent's
            opened = None
        elif opened is not None and opened.files.are_others():
            self._has_lost = True
            self._forsake(opened)
            opened = None
        if opened is None:
            check_place(self.path.parent)
            self._opened = opened = JournalFile(self.path, owner=self._owner, max_skew=self._max_skew)
            # At the latest when the process ends: SQLite would tidy up then, and leave a file that nobody closed.
            self._closing = weakref.finalize(self, _close, opened)
            self._has_been_open = True
            # What this process has noted so far may stand in no file: to a successor, it was issued until now.
            floor = max(self._clock() + self._max_skew, self._newest + 1)
            opened.begin(self._logs, floor=floor, known=self._has_lost)
            self._has_lost = False
        return opened

    def _forsake(self, opened: JournalFile) -> None:
        """Close a file as it is, which is ours no longer, or cannot be written."""
        if self._closing is not None:
            self._closing.detach()
        with contextlib.suppress(sqlite3.Error, OSError):
            opened.abandon()

    def _give_up(self, error: Exception) -> None:
        """Go on without a journal for a while; raise where one stays behind that somebody might believe."""
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
            raise ConfigurationError(f'state: {self.path}: {error}; name a directory to write to, or write state = ""')
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
    """Make the directory; OSError where it is on another machine's disk, or others may write to it."""
    try:
        import fcntl  # noqa: F401, PLC0415 - not everywhere
    except ImportError:
        raise OSError("this system has no locks on files") from None
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    there = directory.resolve()
    check_ours(there, there.stat())
    if _ELSEWHERE.fullmatch(kind := _file_system(there)):
        raise OSError(f"{there} is on a network file system ({kind}); name a local directory")


def _file_system(there: Path) -> str:
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return ""
    around = [fields for fields in mounts if there.is_relative_to(fields[1].replace("\\040", " "))]
    return max(around, key=lambda fields: len(fields[1]), default=["", "", ""])[2]


def _file_name(realm: str, principal: str | None) -> str:
    """Return a name that is this principal's, and that an operator can read."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{realm}-{principal or 'anonymous'}").strip("-")[:80]
    return f"{readable}-{sha256(repr((realm, principal)).encode(errors='surrogatepass')).hexdigest()[:12]}"
