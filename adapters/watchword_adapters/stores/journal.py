"""The journal of one principal on this machine: a SQLite file in the directory that ``[replay] state`` names.

SQLite and not a format of our own: it costs 12 us for a message alone and 0.2 us for each of 128 together, where a
plain append takes 1.5 and 0.04 (docs/decisions/0014). Nothing is synced to the disk, for what a process has written
outlives that process. It does not outlive the machine, so the file is only believed

- if it was written since this machine was started (the kernel's boot id is the same), or closed in good order, which is
  synced;
- if nobody else has changed it: the file system's own time of its last change is that of our last write, so a copy that
  somebody put back is not taken for the original; and a count beside it, in a file of its own, is not ahead of it.

Otherwise it is deleted, and begins anew. All processes of one principal share the file; each reader that starts takes
over what all of them know, so a process that is about to replace another knows what that one was given.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import re
import sqlite3
import struct
import time
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from watchword import ConfigurationError
from watchword.guard import Kind, Note
from watchword.journal import Recalled
from watchword_adapters.stores.sqlite_files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watchword import Policy
    from watchword_adapters.plugins import Warn

_APPLICATION: Final = 0x5774636A
_VERSION: Final = 1
_BUSY: Final = 2.0
"""Seconds for which another process's write is waited for; one takes some microseconds."""

_TOUCHED: Final = 2.0
"""Seconds by which the time of a file's last change may differ from that of our last write."""

_CLEANED_EVERY: Final = 30.0
_AGAIN_AFTER: Final = 60.0
"""Seconds after which a journal that could not be written is begun anew."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS: Final = Path("/proc/self/mounts")
_ELSEWHERE: Final = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|fuse\..*|9p|ceph|glusterfs|lustre|afs|gpfs|beegfs")
"""File systems on which locks and times are another machine's, or may be."""

_SCHEMA: Final = f"""
CREATE TABLE about (boot TEXT NOT NULL, initialised REAL, closed INTEGER NOT NULL, written REAL NOT NULL);
CREATE TABLE readers (number INTEGER PRIMARY KEY, log TEXT NOT NULL UNIQUE, floor REAL NOT NULL);
CREATE TABLE names (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);
CREATE TABLE notes (number INTEGER PRIMARY KEY AUTOINCREMENT, reader INTEGER NOT NULL, time REAL NOT NULL,
    newest INTEGER NOT NULL, packed BLOB NOT NULL);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION}
"""

_NOTE: Final = struct.Struct(">BIIQB")
"""Kind, numbers of principal and key id, time of issue, length of the data that follows."""

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
        self._opened: _Opened | None = None
        self._inherited: list[_Opened] = []
        self._logs: set[str] = set()
        self._has_been_open = False
        self._has_lost = False
        self._fails_until = -math.inf
        self._cleaned = 0.0

    def recall(self, log: str, *, birth: float) -> Recalled:
        """See Journal."""
        self._logs.add(log)
        found = self._try(lambda opened: opened.recall(log, birth))
        return Recalled(floor=birth) if found is None else found

    def write(self, notes: Sequence[Note]) -> None:
        """See Journal; where it cannot be written it is deleted, so that nobody takes it for complete."""
        if notes:
            self._try(lambda opened: opened.write(notes))
            now = time.time()
            if not 0 <= now - self._cleaned < _CLEANED_EVERY:
                self._cleaned = now
                self._try(lambda opened: opened.forget(self._clock() - self._needed_for))

    def raise_floors(self, floor: float) -> None:
        """See Journal."""
        self._try(lambda opened: opened.raise_floors(floor))

    def initialise(self) -> bool:
        """Say that no reader of this principal runs, or has run in the last minutes; return False if that was said.

        A reader that the journal does not know begins with this moment as its floor, and not with that of its start.
        """
        # Times of issue are whole seconds: what is issued in this one may bear its beginning.
        done = self._try(lambda opened: opened.initialise(math.floor(self._clock())))
        if done is None:
            raise ConfigurationError(f"state: {self.path} cannot be written: name a directory of your own")
        return done

    def close(self) -> None:
        """Close the file; what was written is synced, if nobody else uses it."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            with contextlib.suppress(sqlite3.Error, OSError):
                opened.close(in_order=True)

    def _try(self, work: Callable[[_Opened], T]) -> T | None:
        """Do something with the file; None where there is none."""
        if time.monotonic() < self._fails_until:
            return None
        try:
            return work(self._current())
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return None

    def _current(self) -> _Opened:
        """Return the open file; open it if need be, or if it is not the one that bears its name any more."""
        opened = self._opened
        if opened is not None and opened.pid != os.getpid():
            self._inherited.append(opened)  # closing it would take the parent's locks away
            opened = None
        elif opened is not None and opened.files.are_others():
            self._has_lost = True
            opened.close(in_order=False)
            opened = None
        if opened is None:
            _check_place(self.path.parent)
            self._opened = opened = _Opened(self.path)
            self._has_been_open = True
            if self._has_lost:
                # What this process has noted so far stands in no file: to a successor, it was issued until now.
                opened.begin(self._logs, self._clock() + self._max_skew)
                self._has_lost = False
        return opened

    def _give_up(self, error: Exception) -> None:
        """Go on without a journal for a while; raise where one stays behind that somebody might believe."""
        opened, self._opened = self._opened, None
        if opened is not None and opened.pid == os.getpid():
            with contextlib.suppress(sqlite3.Error, OSError):
                opened.close(in_order=False)
        self._has_lost = True
        self._fails_until = time.monotonic() + _AGAIN_AFTER
        try:
            _delete(self.path)
        except OSError as other:
            if self.path.exists():
                raise ConfigurationError(f"state: {self.path} can neither be written nor deleted: {other}") from error
        if self._required and not self._has_been_open:
            raise ConfigurationError(f'state: {self.path}: {error}; name a directory to write to, or write state = ""')
        self._warn(
            "replay.no_journal",
            path=str(self.path),
            detail=str(error),
            cost=f"after a restart, what was issued up to {self._max_skew:g} s after it is stale on core NATS",
        )


class _Opened:
    """The file, opened by one process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pid: Final = os.getpid()
        self._lock: Final = _Lock(path)
        try:
            if self._lock.is_ours_alone() and path.exists() and not _is_sound(path):
                _delete(path)
            self.files: Final = Files(path)
            self._database: Final = _connected(path)
            self._numbers: dict[bytes, int] = {}
            self._readers: dict[str, int] = {}
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                self.files.close()
                raise
            self._lock.share()
        except BaseException:
            self._lock.close()
            raise

    def _prepare(self) -> None:
        database = self._database
        if database.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise OSError("no write-ahead log is possible here")
        with _transaction(database, synced=True):  # before anything that a crash of the machine may take
            if not database.execute("PRAGMA schema_version").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute("INSERT INTO about VALUES ('', NULL, 0, 0)")
            database.execute("UPDATE about SET boot = ?, closed = 0, written = ?", (_boot_id(), time.time()))
        self.files.open_count()
        self.files.write_count(_last(database))
        self.files.remember()

    def recall(self, log: str, birth: float) -> Recalled:
        """Return what is known of a reader; one that is not has its floor from now on."""
        database = self._database
        with _transaction(database):
            row = database.execute("SELECT number, floor FROM readers WHERE log = ?", (log,)).fetchone()
            if row is None:
                initialised = database.execute("SELECT initialised FROM about").fetchone()[0]
                floor = birth if initialised is None else min(birth, initialised)
                database.execute("INSERT INTO readers (log, floor) VALUES (?, ?)", (log, floor))
                self._touch()
                return Recalled(floor=floor)
            number, floor = row
            packed = database.execute("SELECT packed FROM notes WHERE reader = ? ORDER BY number", (number,)).fetchall()
            names = dict(database.execute("SELECT number, name FROM names").fetchall())
        notes = [note for (blob,) in packed for note in _unpacked(log, blob, names)]
        return Recalled(floor=min(floor, birth), notes=notes)

    def begin(self, logs: set[str], floor: float) -> None:
        """Give readers a floor, of which nothing else is known here."""
        with _transaction(self._database):
            self._database.executemany(
                "INSERT INTO readers (log, floor) VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET floor = max(floor, excluded.floor)",
                [(log, floor) for log in logs],
            )
            self._touch()

    def write(self, notes: Sequence[Note]) -> None:
        """Keep notes."""
        by_log: defaultdict[str, list[Note]] = defaultdict(list)
        for note in notes:
            by_log[note.log].append(note)
        now = time.time()
        with _transaction(self._database):
            for log, some in by_log.items():
                packed = b"".join([self._packed(note) for note in some])
                newest = max(note.issued_at for note in some)
                row = (self._reader(log), now, newest, packed)
                last = self._database.execute(
                    "INSERT INTO notes (reader, time, newest, packed) VALUES (?, ?, ?, ?)", row
                ).lastrowid
        self.files.write_count(last or 0)

    def forget(self, floor: float) -> None:
        """Forget what was issued below ``floor``, which becomes that of all whom it concerns."""
        with _transaction(self._database):
            self._database.execute(
                "UPDATE readers SET floor = max(floor, ?) WHERE number IN (SELECT reader FROM notes WHERE newest < ?)",
                (floor, floor),
            )
            self._database.execute("DELETE FROM notes WHERE newest < ?", (floor,))
            self._touch()

    def raise_floors(self, floor: float) -> None:
        """Let whatever was issued below ``floor`` be stale for all readers."""
        with _transaction(self._database):
            self._database.execute("UPDATE readers SET floor = max(floor, ?)", (floor,))
            self._touch()

    def initialise(self, now: float) -> bool:
        """See FileJournal."""
        with _transaction(self._database, synced=True):
            before = self._database.execute("SELECT initialised FROM about").fetchone()[0]
            if before is None:
                self._database.execute("UPDATE about SET initialised = ?", (now,))
                self._touch()
        return before is None

    def close(self, *, in_order: bool) -> None:
        """Close the file; ``in_order`` says that a successor may believe it after the machine was started again."""
        try:
            if in_order and self._lock.is_ours_alone():
                with _transaction(self._database, synced=True):
                    self._database.execute("UPDATE about SET closed = 1, written = ?", (time.time(),))
                self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._database.close()
        finally:
            self.files.close()
            self._lock.close()

    def _touch(self) -> None:
        self._database.execute("UPDATE about SET written = ?", (time.time(),))

    def _packed(self, note: Note) -> bytes:
        names = self._named(note.principal.encode(errors="surrogatepass")), self._named(note.key_id)
        return _NOTE.pack(note.kind, *names, note.issued_at, len(note.data)) + note.data

    def _named(self, name: bytes) -> int:
        number = self._numbers.get(name)
        if number is None:
            self._database.execute("INSERT INTO names (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            number = self._database.execute("SELECT number FROM names WHERE name = ?", (name,)).fetchone()[0]
            self._numbers[name] = number
        return number

    def _reader(self, log: str) -> int:
        number = self._readers.get(log)
        if number is None:
            number = self._database.execute("SELECT number FROM readers WHERE log = ?", (log,)).fetchone()[0]
            self._readers[log] = number
        return number


class _Lock:
    """Held by all who use a file together; by one alone while it looks whether the file is sound."""

    def __init__(self, path: Path) -> None:
        self._file: Final = os.open(f"{path}-lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)

    def is_ours_alone(self) -> bool:
        """Return True if nobody else uses the file, and keep others waiting until it is shared."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            return False
        return True

    def share(self) -> None:
        """Let others use the file too."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        """Use the file no longer."""
        os.close(self._file)


def _is_sound(path: Path) -> bool:
    """Return True if nothing that was written is missing: see above."""
    both = [file for file in (path, Path(f"{path}-wal")) if file.exists()]
    changed = max(file.stat().st_ctime for file in both)
    files = Files(path)
    try:
        files.open_count()
        least = files.least_batches()
        with contextlib.closing(_connected(path)) as database:
            names = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            if database.execute("PRAGMA schema_version").fetchone()[0] and names != [_APPLICATION, _VERSION]:
                raise ConfigurationError(f"state: {path} is another program's: name a directory of your own")
            boot, closed, written = database.execute("SELECT boot, closed, written FROM about").fetchone()
            noted = database.execute("SELECT max(time) FROM notes").fetchone()[0] or 0.0
            is_whole = least is not None and _last(database) >= least
            lives_on = boot == _boot_id() != "" or closed == 1
            return is_whole and lives_on and abs(changed - max(written, noted)) <= _TOUCHED
    except (sqlite3.Error, TypeError, ValueError):
        return False
    finally:
        files.close()


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    database.execute("PRAGMA synchronous = OFF")
    return database


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, *, synced: bool = False) -> Iterator[None]:
    if synced:
        database.execute("PRAGMA synchronous = FULL")
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    finally:
        if synced:
            database.execute("PRAGMA synchronous = OFF")


def _last(database: sqlite3.Connection) -> int:
    """Return the number of the last notes that were written, forgotten ones included."""
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notes'").fetchone()
    return 0 if row is None else int(row[0])


def _unpacked(log: str, packed: bytes, names: dict[int, bytes]) -> Iterator[Note]:
    at = 0
    while at < len(packed):
        kind, principal, key_id, issued_at, size = _NOTE.unpack_from(packed, at)
        at += _NOTE.size + size
        data = packed[at - size : at]
        yield Note(log, Kind(kind), names[principal].decode(errors="surrogatepass"), names[key_id], issued_at, data)


def _delete(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-count"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _boot_id() -> str:
    """Return what the kernel names this run of the machine; "" where it has no name."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _check_place(directory: Path) -> None:
    """Refuse a directory on another machine's disk."""
    try:
        mounts = [line.split() for line in _MOUNTS.read_text().splitlines()]
    except OSError:
        return
    there = directory.resolve()
    around = [fields for fields in mounts if there.is_relative_to(fields[1].replace("\\040", " "))]
    kind = max(around, key=lambda fields: len(fields[1]), default=["", "", ""])[2]
    if _ELSEWHERE.fullmatch(kind):
        raise ConfigurationError(
            f'state: {there} is on a network file system ({kind}): name a local directory, or write state = ""'
        )


def _file_name(realm: str, principal: str | None) -> str:
    """Return a name that is this principal's, and that an operator can read."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{realm}-{principal or 'anonymous'}").strip("-")[:80]
    return f"{readable}-{sha256(repr((realm, principal)).encode(errors='surrogatepass')).hexdigest()[:12]}"
