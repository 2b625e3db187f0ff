"""The file of a journal: a SQLite database, and a mark file by which a successor can trust it (see ``journal``).

The mark is 16 bytes: the least number of entries in the database, and the **seal**, which is the file system's time of
the database's last change when it was closed cleanly, 0 while it is open. All users of the database hold a lock on the
mark. Opening and closing are serialized by a lock on the directory.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from watchword import ConfigurationError
from watchword.guard import Kind, Note
from watchword.journal import Recalled
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.stores.sqlite_files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

_APPLICATION: Final = 0x5774636A
_VERSION: Final = 1
BUSY_WAIT: Final = 2.0
"""Seconds to wait for another process; a write takes some microseconds, opening some milliseconds."""

_TOUCHED: Final = 2.0
"""Seconds by which a file's time of change may differ from the time of the last entry."""

_STEPPED: Final = 1.0
"""Seconds by which the wall clock may be corrected, whatever the policy."""

UNUSED_READERS: Final = 30 * 24 * 3600.0
"""Seconds after which an unused reader is forgotten; it would then start like a new one."""

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
PID_SPACE: Final = Path("/proc/self/ns/pid")

_SCHEMA: Final = f"""
CREATE TABLE about (boot TEXT NOT NULL, started REAL NOT NULL, inode INTEGER NOT NULL, initialised REAL);
CREATE TABLE readers (number INTEGER PRIMARY KEY, log TEXT NOT NULL UNIQUE, floor REAL NOT NULL, seen REAL NOT NULL);
CREATE TABLE reading (log TEXT NOT NULL, process TEXT NOT NULL, pid INTEGER NOT NULL, space TEXT NOT NULL,
    PRIMARY KEY (log, process)) WITHOUT ROWID;
CREATE TABLE entries (number INTEGER PRIMARY KEY AUTOINCREMENT, reader INTEGER NOT NULL, time REAL NOT NULL,
    newest INTEGER NOT NULL, packed BLOB NOT NULL);
CREATE INDEX entries_of ON entries (reader);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION}
"""

_MARK: Final = struct.Struct(">QQ")
_COUNT: Final = struct.Struct(">I")
_PAIR: Final = struct.Struct(">HH")
_NOTE: Final = struct.Struct(">BIQB")
"""Kind, index of its principal and key id, time of issue, length of the data that follows."""


class JournalFile:
    """The database at ``path``, opened by a process for ``owner``; one that cannot be trusted is deleted and recreated.

    Each change adds an entry, also a change of floors (without notes): the number of the last entry therefore says how
    much there must be, and its time when the file was last changed.
    """

    def __init__(self, path: Path, *, owner: str, max_skew: float) -> None:
        self.pid: Final = os.getpid()
        self._path: Final = path
        self._process: Final = f"{owner}-{self.pid}"
        self._numbers: dict[str, int] = {}
        self._last = 0
        with contextlib.ExitStack() as undo, _turn(path.parent):
            self._mark: Final = _Mark(path)
            undo.callback(self._mark.close)
            is_alone = self._mark.is_ours_alone()
            if path.exists() and not _is_believed(path, self._mark, max_skew):
                self._mark.clear()
                delete(path)
            self._mark.open()
            self.files: Final = Files(path)
            self._database: Final = _connected(path)
            undo.callback(self._database.close)
            self._prepare(is_alone=is_alone)
            self._mark.share()
            undo.pop_all()

    def _prepare(self, *, is_alone: bool) -> None:
        database = self._database
        if database.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise OSError("SQLite cannot use a write-ahead log here")
        with self._transaction():
            if not database.execute("PRAGMA schema_version").fetchone()[0]:
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute("INSERT INTO about VALUES ('', 0, 0, NULL)")
            database.execute("UPDATE about SET boot = ?, inode = ?", (_boot_id(), self._path.stat().st_ino))
            self._note_start()
            database.execute("DELETE FROM readers WHERE seen < ?", (time.time() - UNUSED_READERS,))
            if is_alone:
                database.execute("DELETE FROM reading")
            self._enter()
        self.files.remember()

    def recall(self, logs: Sequence[str], *, birth: float, needed: float) -> list[Recalled]:
        """Return what is known of readers; an unknown one gets its floor now.

        If another process is the same reader, it may still deliver what it received before ``birth``, and note it after
        we have looked; we then start as if nothing were known. Ids issued before ``needed`` are too old anyway.
        """
        with self._transaction():
            self._forget(needed)
            (initialised,) = self._database.execute("SELECT initialised FROM about").fetchone()
            unknown = birth if initialised is None else min(birth, initialised)
            recalled = [self._recall(log, birth=birth, unknown=unknown) for log in logs]
            self._read(logs)
            self._enter()
        return recalled

    def _recall(self, log: str, *, birth: float, unknown: float) -> Recalled:
        database = self._database
        number, floor = self._find(log) or self._add(log, unknown)
        database.execute("UPDATE readers SET seen = ? WHERE number = ?", (time.time(), number))
        others = database.execute(
            "SELECT pid, space FROM reading WHERE log = ? AND process <> ?", (log, self._process)
        ).fetchall()
        packed = database.execute("SELECT packed FROM entries WHERE reader = ? ORDER BY number", (number,)).fetchall()
        notes = (note for (blob,) in packed for note in _unpacked(log, blob))
        is_shared = any(_may_live(*other) for other in others)
        return Recalled(floor=max(floor, birth) if is_shared else floor, notes=notes, is_shared=is_shared)

    def begin(self, logs: AbstractSet[str], *, floor: float, known: bool) -> None:
        """Register this process's readers; unknown ones get a floor, and known ones too if ``known``."""
        with self._transaction():
            for log in logs:
                if self._find(log) is None:
                    self._add(log, floor)
                elif known:
                    self._database.execute("UPDATE readers SET floor = max(floor, ?) WHERE log = ?", (floor, log))
            self._read(logs)
            if logs:
                self._enter()

    def write(self, notes: Sequence[Note]) -> None:
        """Append notes of readers that were recalled."""
        by_log: defaultdict[str, list[Note]] = defaultdict(list)
        for note in notes:
            by_log[note.log].append(note)
        with self._transaction():
            for log, some in by_log.items():
                number = self._numbers.get(log)
                if number is None:
                    number = self._numbers[log] = self._known(log)
                self._enter(number, max([note.issued_at for note in some]), _packed(some))

    def forget(self, floor: float) -> None:
        """Forget what was issued before ``floor``, and raise the floor of the readers concerned."""
        with self._transaction():
            if self._forget(floor):
                self._enter()

    def raise_floors(self, floor: float) -> None:
        """Make messages issued before ``floor`` stale for all readers, including unknown ones."""
        with self._transaction():
            self._database.execute("UPDATE readers SET floor = max(floor, ?)", (floor,))
            self._database.execute("UPDATE about SET initialised = max(initialised, ?)", (floor,))
            self._note_start()
            self._enter()

    def initialise(self, floor: float) -> bool:
        """Set the floor of unknown readers; False if it was set before. ConfigurationError if other processes run."""
        with _turn(self._path.parent):
            is_alone = self._mark.is_ours_alone()
            self._mark.share()
        if not is_alone:
            raise ConfigurationError(f"state: {self._path} is in use: stop the readers of this principal first")
        with self._transaction():
            (before,) = self._database.execute("SELECT initialised FROM about").fetchone()
            if before is None:
                self._database.execute("UPDATE about SET initialised = ?", (floor,))
                self._enter()
        return before is None

    def close(self) -> None:
        """Close the journal cleanly; the last process to do so seals it."""
        try:
            with _turn(self._path.parent):
                if self.files.are_others():
                    return
                with self._transaction():
                    self._database.execute("DELETE FROM reading WHERE process = ?", (self._process,))
                    self._enter()
                if self._mark.is_ours_alone():
                    self._database.execute("PRAGMA synchronous = FULL")
                    self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    self._database.close()
                    self._mark.seal(self._path)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the files without sealing."""
        self._database.close()
        self._mark.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        database, before = self._database, self._last
        database.execute("BEGIN IMMEDIATE")
        try:
            yield
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise
        if self._last != before:
            self._mark.count(self._last)

    def _enter(self, reader: int = 0, newest: int = 0, packed: bytes = b"") -> None:
        row = (reader, time.time(), newest, packed)
        sql = "INSERT INTO entries (reader, time, newest, packed) VALUES (?, ?, ?, ?)"
        self._last = self._database.execute(sql, row).lastrowid or 0

    def _forget(self, floor: float) -> bool:
        """Forget entries before the first that is still needed; return False if there are none."""
        database = self._database
        (first,) = database.execute("SELECT min(number) FROM entries").fetchone()
        (kept,) = database.execute(
            "SELECT coalesce((SELECT number FROM entries WHERE newest >= ? ORDER BY number LIMIT 1), ?)",
            (floor, _last(database) + 1),
        ).fetchone()
        if first is None or kept <= first:
            return False
        database.execute(
            "UPDATE readers SET floor = max(floor, ?) WHERE number IN (SELECT reader FROM entries WHERE number < ?)",
            (floor, kept),
        )
        database.execute("DELETE FROM entries WHERE number < ?", (kept,))
        return True

    def _find(self, log: str) -> tuple[int, float] | None:
        found: tuple[int, float] | None = self._database.execute(
            "SELECT number, floor FROM readers WHERE log = ?", (log,)
        ).fetchone()
        return found

    def _add(self, log: str, floor: float) -> tuple[int, float]:
        row = (log, floor, time.time())
        number = self._database.execute("INSERT INTO readers (log, floor, seen) VALUES (?, ?, ?)", row).lastrowid
        return number or 0, floor

    def _known(self, log: str) -> int:
        found = self._find(log)
        if found is None:
            raise LookupError(f"no reader of {log!r} was recalled")
        return found[0]

    def _note_start(self) -> None:
        """Record when the machine was started, by the current clock."""
        self._database.execute("UPDATE about SET started = ?", (_started(),))

    def _read(self, logs: AbstractSet[str] | Sequence[str]) -> None:
        rows = [(log, self._process, self.pid, _pid_space()) for log in logs]
        self._database.executemany("INSERT INTO reading VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)


class _Mark:
    """The mark file, see above; never deleted, since a lock on a deleted file excludes no one."""

    def __init__(self, path: Path) -> None:
        flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(f"{path}-mark", flags, 0o600)

    def read(self) -> tuple[int, int] | None:
        """Return the count and the seal; None if the file is empty or cut off."""
        held = os.pread(self._file, _MARK.size, 0)
        if len(held) != _MARK.size:
            return None
        count, seal = _MARK.unpack(held)
        return count, seal

    def clear(self) -> None:
        """Invalidate the database."""
        os.ftruncate(self._file, 0)

    def open(self) -> None:
        """Break the seal, synced to disk, before any change that a crash of the machine may undo."""
        count, _ = self.read() or (0, 0)
        os.pwrite(self._file, _MARK.pack(count, 0), 0)
        os.fsync(self._file)

    def count(self, entries: int) -> None:
        """Record the least number of entries; it may lag behind, but never run ahead."""
        os.pwrite(self._file, _MARK.pack(entries, 0), 0)

    def seal(self, path: Path) -> None:
        """Record that the database is complete as it is."""
        count, _ = self.read() or (0, 0)
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
            changed = os.fstat(file).st_ctime_ns
        finally:
            os.close(file)
        os.pwrite(self._file, _MARK.pack(count, changed), 0)
        os.fsync(self._file)

    def is_ours_alone(self) -> bool:
        """Return True if no other process uses the database; call only within ``_turn``."""
        return _locked(self._file, alone=True)

    def share(self) -> None:
        """Take the shared lock that marks this process as a user of the database."""
        if not _locked(self._file, alone=False):
            raise OSError("another program holds a lock on the journal")

    def close(self) -> None:
        """Close the file; unlock first, since a child forked meanwhile holds the same lock."""
        if self._file >= 0:
            _unlock(self._file)
            os.close(self._file)
            self._file = -1


@contextlib.contextmanager
def _turn(directory: Path) -> Iterator[None]:
    """Wait for other processes that open or close a journal in this directory."""
    opened = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + BUSY_WAIT
        while not _locked(opened, alone=True):
            if time.monotonic() > until:
                raise TimeoutError(f"another process has been busy with its journal for {BUSY_WAIT:g} s")
            time.sleep(0.001)
        yield
    finally:
        _unlock(opened)
        os.close(opened)


def _locked(file: int, *, alone: bool) -> bool:
    import fcntl  # noqa: PLC0415 - not everywhere

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unlock(file: int) -> None:
    import fcntl  # noqa: PLC0415 - not everywhere

    fcntl.flock(file, fcntl.LOCK_UN)


def _is_believed(path: Path, mark: _Mark, max_skew: float) -> bool:
    """Return True if nothing that was written can be missing; see ``journal``."""
    found = [file.stat() for file in (path, Path(f"{path}-wal")) if file.exists()]
    parts = [found[0], *[log for log in found[1:] if log.st_size]]
    known = mark.read()
    try:
        with contextlib.closing(_connected(path)) as database:
            names = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
            if database.execute("PRAGMA schema_version").fetchone()[0] and names != [_APPLICATION, _VERSION]:
                raise ConfigurationError(f"state: {path} belongs to another program: write another directory")
            boot, started, inode = database.execute("SELECT boot, started, inode FROM about").fetchone()
            (written,) = database.execute("SELECT time FROM entries ORDER BY number DESC LIMIT 1").fetchone()
            last = _last(database)
    except (sqlite3.Error, TypeError):
        return False
    if known is None or last < known[0] or parts[0].st_ino != inode:
        return False
    runs_on = bool(boot == _boot_id() != "")
    if runs_on and abs(_started() - started) > max(_STEPPED, max_skew):
        return False
    if known[1]:
        return parts[0].st_ctime_ns == known[1]
    changed = max(part.st_ctime for part in parts)
    return runs_on and bool(abs(changed - written) <= _TOUCHED)


def _connected(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time; see FileJournal.
    database = sqlite3.connect(path, timeout=BUSY_WAIT, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA synchronous = OFF")
    return database


def _last(database: sqlite3.Connection) -> int:
    """Return the number of the last entry, including forgotten ones."""
    row = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'entries'").fetchone()
    return 0 if row is None else int(row[0])


def _packed(notes: Sequence[Note]) -> bytes:
    """Return notes as bytes; each pair of principal and key id is written once, at the front."""
    pairs: dict[tuple[str, bytes], int] = {}
    parts: list[bytes] = []
    for note in notes:
        number = pairs.setdefault((note.principal, note.key_id), len(pairs))
        parts += (_NOTE.pack(note.kind, number, note.issued_at, len(note.data)), note.data)
    names = [_COUNT.pack(len(pairs))]
    for principal, key_id in pairs:
        name = principal.encode(errors="surrogatepass")
        names += (_PAIR.pack(len(name), len(key_id)), name, key_id)
    return b"".join(names + parts)


def _unpacked(log: str, packed: bytes) -> Iterator[Note]:
    (count,) = _COUNT.unpack_from(packed)
    at = _COUNT.size
    pairs: list[tuple[str, bytes]] = []
    for _ in range(count):
        name, key_id = _PAIR.unpack_from(packed, at)
        middle = at + _PAIR.size + name
        pairs.append(
            (packed[at + _PAIR.size : middle].decode(errors="surrogatepass"), packed[middle : middle + key_id])
        )
        at = middle + key_id
    while at < len(packed):
        kind, pair, issued_at, size = _NOTE.unpack_from(packed, at)
        at += _NOTE.size + size
        principal, key = pairs[pair]
        yield Note(log, Kind(kind), principal, key, issued_at, packed[at - size : at])


def delete(path: Path) -> None:
    """Delete the database, the main file first."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _pid_space() -> str:
    """Return the kernel's name of our process id namespace; "" if it has none."""
    try:
        return str(PID_SPACE.readlink())
    except OSError:
        return ""


def _may_live(pid: int, space: str) -> bool:
    """Return False only if a process is certainly gone."""
    if space != _pid_space() or not space:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _started() -> float:
    """Return when this machine was started, by the current wall clock."""
    return time.time() - since_boot()


def _boot_id() -> str:
    """Return the kernel's boot id; "" if it has none."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
