"""The file of the SQLite store: its tables, its birth mark, and one transaction per batch. Blocking, one thread."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from watchword import ConfigurationError
from watchword.replay import ReaderBirth, StoreError
from watchword.spi import Admission
from watchword_adapters.stores.batched import refusal
from watchword_adapters.stores.sqlite_files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from watchword_adapters.stores.batched import Answer, Refusal, Use

_JITTER: Final = random.SystemRandom()
"""Desynchronizes processes; the random module's own generator may have been seeded by the program."""

_TURN: Final = 0.001
"""SQLite's own lock time-out in seconds, kept short: its back-off grows, and lets other processes overtake."""

T = TypeVar("T")

_APPLICATION: Final = 0x57744368
_VERSION: Final = 1
LEAVING_AT_ONCE: Final = 5000
"""Most expired ids that one batch deletes, so that deletions do not delay claims."""

# A bucket holds the ids issued in ``bucket_seconds``; it expires as a whole, once all of them may. Its newest time of
# issue then becomes the floor: an unknown id issued up to the floor is too old. An expired id can therefore never be
# accepted again, whatever the clock does, and however short a lifetime other processes ask for.
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS mark
    (birth REAL NOT NULL, floor REAL NOT NULL, bucket_seconds INTEGER NOT NULL, batches INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS ids
    (issued_at INTEGER NOT NULL, key BLOB NOT NULL, mark BLOB NOT NULL, PRIMARY KEY (issued_at, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS buckets
    (bucket INTEGER PRIMARY KEY, lives REAL NOT NULL, newest INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS held
    (bucket INTEGER NOT NULL, owner BLOB NOT NULL, ids INTEGER NOT NULL, PRIMARY KEY (bucket, owner)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (owner BLOB PRIMARY KEY, ids INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leaving (oldest INTEGER NOT NULL, newest INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS readers (reader TEXT PRIMARY KEY, floor REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS accepted
    (reader TEXT NOT NULL, log TEXT NOT NULL, last INTEGER NOT NULL, appended REAL NOT NULL, PRIMARY KEY (reader, log))
    WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION}
"""


class _Mark(NamedTuple):
    """The file's birth, the floor above expired ids, the seconds per bucket, and the number of batches it holds."""

    birth: float
    floor: float
    width: int
    batches: int


class Judged(NamedTuple):
    """The answers of a file born at ``birth``, and the readers in the batch that it does not know."""

    birth: float
    answers: list[Answer]
    unknown: set[str]


class Ledger:
    """One open file; sqlite3.OperationalError if it cannot serve now, ConfigurationError if it never can.

    ``wait`` is the longest wait for another process, in seconds. A ``suspect`` file may lack what was written to it,
    and is reborn.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        max_skew: float,
        bucket_seconds: int,
        per_principal: int,
        wait: float,
        suspect: bool = False,
    ) -> None:
        self._path = path
        self._clock = clock
        self._max_skew = max_skew
        self._bucket_seconds = bucket_seconds
        self._per_principal = per_principal
        self._batches = 0
        self.files: Final = Files(path)
        self._wait = wait
        self._db = sqlite3.connect(path, timeout=_TURN, isolation_level=None, check_same_thread=False)
        self._readers: Final = _Readers(self._db)
        try:
            self._prepare(suspect=suspect)
            self.files.remember()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self.files.close()

    def judge(self, uses: Sequence[Use]) -> Judged:
        """Answer claims in one transaction, which also reads mark and readers; it is synced to disk on return."""
        with self._batch() as mark:
            swept = mark._replace(floor=self._sweep(mark.floor))
            batch = _Batch(self._db, swept, self._readers, max_skew=self._max_skew, per_principal=self._per_principal)
            answers = [batch.judge(use) for use in uses]
            batch.write()
        return Judged(mark.birth, answers, batch.unknown)

    def together(self, asks: Sequence[Callable[[], T]]) -> list[T]:
        """Run calls of ``birth`` and ``admit`` in one transaction; it is synced to disk on return."""
        with self._batch():
            return [ask() for ask in asks]

    def birth(self, reader: str) -> ReaderBirth | None:
        """Return what is known of a reader."""
        found = self._readers.find(reader)
        return None if found is None else ReaderBirth(floor=found.floor, accepted=found.accepted)

    def admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        """Store the entry of an unknown reader, or ``replace`` it; return the entry in force."""
        known = None if replace else self.birth(reader)
        if known is None:
            self._readers.put(reader, birth)
        return known or birth

    @contextmanager
    def _batch(self) -> Iterator[_Mark]:
        """Hold one transaction, counted as a batch."""
        with self._transaction():
            mark = self._mark()
            yield mark
        self._batches = mark.batches
        # Not earlier: with a count ahead of the commits, the file would look like an older copy after a restart.
        self.files.write_count(mark.batches)

    def _prepare(self, *, suspect: bool) -> None:
        # The schema first: another process may set all three at once, between two of these reads.
        names = ("schema_version", "application_id", "user_version")
        schema, application, version = (self._in_turn(f"PRAGMA {name}").fetchone()[0] for name in names)
        if schema and (application, version) != (_APPLICATION, _VERSION):
            raise ConfigurationError(f"path {self._path}: belongs to another program; write another path")
        if self._in_turn("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise ConfigurationError(f"path {self._path}: SQLite cannot use a write-ahead log here; use a local disk")
        # NORMAL would lose the last commits in a power failure, and messages could be delivered twice.
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self.files.open_count()
            least = self.files.least_batches()
            mark = self._mark(suspect=suspect or least is None, least=least or 0)
            # Inside the transaction, so that there is never a database without a count; one less, until the commit.
            self.files.write_count(mark.batches - 1)
        self._batches = mark.batches

    def _in_turn(self, statement: str) -> sqlite3.Cursor:
        """Execute a statement that may have to wait for other processes."""
        deadline = time.monotonic() + self._wait
        while True:
            try:
                return self._db.execute(statement)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(_JITTER.uniform(0, _TURN))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._in_turn("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _mark(self, *, suspect: bool = False, least: int = 0) -> _Mark:
        """Return the mark, with one more batch.

        A file without a mark is born now, and so is one that holds fewer batches than it once did: it is an older copy.
        """
        marks = self._db.execute("SELECT birth, floor, bucket_seconds, batches FROM mark").fetchall()
        birth, floor, width, batches = marks[0] if len(marks) == 1 else (None, 0.0, self._bucket_seconds, 0)
        least = max(least, self._batches)
        if len(marks) != 1:
            for table in ("mark", "ids", "buckets", "held", "owners", "leaving"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own table names
            self._db.execute("INSERT INTO mark VALUES (0, ?, ?, 0)", (floor, width))
        if birth is None or suspect or batches < least:
            birth = self._clock()
            self._readers.forget()
        batches = max(batches, least) + 1
        self._db.execute("UPDATE mark SET birth = ?, batches = ?", (birth, batches))
        return _Mark(birth, floor, width, batches)

    def _sweep(self, floor: float) -> float:
        """Expire buckets whose time is over, and return the floor above them."""
        over = self._db.execute("SELECT bucket, newest FROM buckets WHERE lives < ?", (self._clock(),)).fetchall()
        for bucket, newest in over:
            floor = max(floor, newest)
            for owner, ids in self._db.execute("SELECT owner, ids FROM held WHERE bucket = ?", (bucket,)).fetchall():
                self._db.execute("UPDATE owners SET ids = ids - ? WHERE owner = ?", (ids, owner))
            self._db.execute(
                "INSERT INTO leaving SELECT bucket * bucket_seconds, newest FROM buckets, mark WHERE bucket = ?",
                (bucket,),
            )
            self._db.execute("DELETE FROM held WHERE bucket = ?", (bucket,))
            self._db.execute("DELETE FROM buckets WHERE bucket = ?", (bucket,))
        if over:
            self._db.execute("DELETE FROM owners WHERE ids <= 0")
            self._db.execute("UPDATE mark SET floor = ?", (floor,))
        self._delete_some()
        return floor

    def _delete_some(self) -> None:
        leaving = self._db.execute("SELECT rowid, oldest, newest FROM leaving LIMIT 1").fetchone()
        if leaving is None:
            return
        number, oldest, newest = leaving
        gone = self._db.execute(
            "DELETE FROM ids WHERE (issued_at, key) IN"
            " (SELECT issued_at, key FROM ids WHERE issued_at BETWEEN ? AND ? LIMIT ?)",
            (oldest, newest, LEAVING_AT_ONCE),
        ).rowcount
        if gone < LEAVING_AT_ONCE:
            self._db.execute("DELETE FROM leaving WHERE rowid = ?", (number,))


class _Reader:
    """The entry of a reader; accepted backlogs are read on demand."""

    def __init__(self, db: sqlite3.Connection, reader: str, floor: float) -> None:
        self._db = db
        self._reader = reader
        self.floor: Final = floor

    @cached_property
    def accepted(self) -> Mapping[str, tuple[int, float]]:
        """The backlogs that are exempt from the floor."""
        rows = self._db.execute("SELECT log, last, appended FROM accepted WHERE reader = ?", (self._reader,))
        return {log: (last, appended) for log, last, appended in rows}


class _Readers:
    """The readers known to a file."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def find(self, reader: str) -> _Reader | None:
        row = self._db.execute("SELECT floor FROM readers WHERE reader = ?", (reader,)).fetchone()
        return None if row is None else _Reader(self._db, reader, row[0])

    def put(self, reader: str, birth: ReaderBirth) -> None:
        self._db.execute("INSERT OR REPLACE INTO readers VALUES (?, ?)", (reader, birth.floor))
        self._db.execute("DELETE FROM accepted WHERE reader = ?", (reader,))
        rows = [(reader, log, last, appended) for log, (last, appended) in birth.accepted.items()]
        self._db.executemany("INSERT INTO accepted VALUES (?, ?, ?, ?)", rows)

    def forget(self) -> None:
        self._db.execute("DELETE FROM readers")
        self._db.execute("DELETE FROM accepted")


class _Batch:
    """The claims of one transaction, and their increments of the counts."""

    def __init__(
        self, db: sqlite3.Connection, mark: _Mark, readers: _Readers, *, max_skew: float, per_principal: int
    ) -> None:
        self._db = db
        self._mark = mark
        self._max_skew = max_skew
        self._per_principal = per_principal
        self._readers = readers
        self._found: dict[str, _Reader | None] = {}
        self._room: dict[bytes, int] = {}
        self._held: Counter[tuple[int, bytes]] = Counter()
        self._buckets: dict[int, tuple[float, int]] = {}

    @property
    def unknown(self) -> set[str]:
        """The readers in this batch that the file does not know."""
        return {reader for reader, found in self._found.items() if found is None}

    def judge(self, use: Use) -> Answer:
        """Answer one claim, and store it if it is the first use."""
        refused = self._refusal(use)
        if refused is not None or self._room_for(use.owner) <= 0:
            known = self._find(use)
            if known is None:
                return refused or Admission.OVER_QUOTA
        else:
            put = self._db.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (use.issued_at, use.key, use.mark))
            if put.rowcount == 1:
                self._count(use)
                return Admission.FIRST
            known = self._find(use)
            if known is None:
                raise StoreError("an id is both present and missing: the file is damaged")
        return Admission.REDELIVERED if use.mark and known == use.mark else Admission.REPLAYED

    def _refusal(self, use: Use) -> Refusal | None:
        if use.issued_at <= self._mark.floor:
            return Admission.TOO_OLD
        if use.reader not in self._found:
            self._found[use.reader] = self._readers.find(use.reader)
        return refusal(use, self._found[use.reader], birth=self._mark.birth, max_skew=self._max_skew)

    def write(self) -> None:
        """Write the counts."""
        self._db.executemany(
            "INSERT INTO buckets VALUES (?, ?, ?) ON CONFLICT (bucket) DO UPDATE SET"
            " lives = max(lives, excluded.lives), newest = max(newest, excluded.newest)",
            [(bucket, lives, newest) for bucket, (lives, newest) in self._buckets.items()],
        )
        owners: Counter[bytes] = Counter()
        for (_, owner), ids in self._held.items():
            owners[owner] += ids
        self._db.executemany(
            "INSERT INTO held VALUES (?, ?, ?) ON CONFLICT (bucket, owner) DO UPDATE SET ids = ids + excluded.ids",
            [(bucket, owner, ids) for (bucket, owner), ids in self._held.items()],
        )
        self._db.executemany(
            "INSERT INTO owners VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET ids = ids + excluded.ids",
            list(owners.items()),
        )

    def _find(self, use: Use) -> bytes | None:
        found = self._db.execute("SELECT mark FROM ids WHERE issued_at = ? AND key = ?", (use.issued_at, use.key))
        row = found.fetchone()
        return None if row is None else row[0]

    def _room_for(self, owner: bytes) -> int:
        if owner not in self._room:
            held = self._db.execute("SELECT ids FROM owners WHERE owner = ?", (owner,)).fetchone()
            self._room[owner] = self._per_principal - (0 if held is None else held[0])
        return self._room[owner]

    def _count(self, use: Use) -> None:
        bucket = use.issued_at // self._mark.width
        lives, newest = self._buckets.get(bucket, (use.lives, use.issued_at))
        self._buckets[bucket] = max(lives, use.lives), max(newest, use.issued_at)
        self._held[bucket, use.owner] += 1
        self._room[use.owner] -= 1
