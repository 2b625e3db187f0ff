"""The file of the SQLite store: its tables, its birth mark, and one transaction a batch. Blocking; for one thread."""

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
"""So that processes do not keep step; the module's own numbers are the program's, which may have seeded them."""

_TURN: Final = 0.001
"""Seconds after which SQLite says "locked": its own patience sleeps ever longer, and lets others pass."""

T = TypeVar("T")

_APPLICATION: Final = 0x57744368
_VERSION: Final = 1
_LEAVING_AT_ONCE: Final = 5000
"""Forgotten ids that one batch deletes, so that forgetting a day's does not hold up the claims of a second."""

# A bucket holds what was issued in ``bucket_seconds``; it leaves as a whole, when all of it may. Its newest issue time
# then becomes the floor: whatever was issued up to it and is not known is too old. So nothing that was forgotten can
# come back, whatever the clock does, and whoever asked for a shorter time.
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
    """When the file was born, the floor over what left it, the seconds of a bucket, and how many batches it holds."""

    birth: float
    floor: float
    width: int
    batches: int


class Judged(NamedTuple):
    """What was answered, by a file that was born at ``birth``, and the readers among them that it does not know."""

    birth: float
    answers: list[Answer]
    unknown: set[str]


class Ledger:
    """One open file; sqlite3.OperationalError if it cannot serve now, ConfigurationError if it never will.

    ``wait`` bounds in seconds how long another process's turn is waited for. A ``suspect`` file may lack what was
    written to it, and is born anew.
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
        """Answer claims in one transaction, in which mark and readers are read; it is on the disk when this returns."""
        with self._batch() as mark:
            swept = mark._replace(floor=self._sweep(mark.floor))
            batch = _Batch(self._db, swept, self._readers, max_skew=self._max_skew, per_principal=self._per_principal)
            answers = [batch.judge(use) for use in uses]
            batch.write()
        return Judged(mark.birth, answers, batch.unknown)

    def together(self, asks: Sequence[Callable[[], T]]) -> list[T]:
        """Ask about readers, by ``birth`` and ``admit``, in one transaction; it is on the disk when this returns."""
        with self._batch():
            return [ask() for ask in asks]

    def birth(self, reader: str) -> ReaderBirth | None:
        """Return what is known of a reader."""
        found = self._readers.find(reader)
        return None if found is None else ReaderBirth(floor=found.floor, accepted=found.accepted)

    def admit(self, reader: str, birth: ReaderBirth, *, replace: bool) -> ReaderBirth:
        """Put what is to be known of a reader where nothing is, or ``replace`` it; return what holds."""
        known = None if replace else self.birth(reader)
        if known is None:
            self._readers.put(reader, birth)
        return known or birth

    @contextmanager
    def _batch(self) -> Iterator[_Mark]:
        """Hold one transaction that counts."""
        with self._transaction():
            mark = self._mark()
            yield mark
        self._batches = mark.batches
        # Not before: a count ahead of what is committed would make an older copy of the next restart.
        self.files.write_count(mark.batches)

    def _prepare(self, *, suspect: bool) -> None:
        # The schema first: another process may give the file all three at once, between two of these readings.
        names = ("schema_version", "application_id", "user_version")
        schema, application, version = (self._in_turn(f"PRAGMA {name}").fetchone()[0] for name in names)
        if schema and (application, version) != (_APPLICATION, _VERSION):
            raise ConfigurationError(f"path {self._path}: another program's file; name one of its own")
        if self._in_turn("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise ConfigurationError(f"path {self._path}: no write-ahead log is possible here; use a local disk")
        # NORMAL would lose the last commits in a power cut, and what was delivered could be delivered again.
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self.files.open_count()
            least = self.files.least_batches()
            mark = self._mark(suspect=suspect or least is None, least=least or 0)
            # Inside, so that another process finds no database without a count; and not yet with what is not committed.
            self.files.write_count(mark.batches - 1)
        self._batches = mark.batches

    def _in_turn(self, statement: str) -> sqlite3.Cursor:
        """Execute what has to wait for other processes."""
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
        """Return the mark, with one batch more.

        A file without a mark is born now; so is one that holds fewer batches than it once did: it is an older copy.
        """
        marks = self._db.execute("SELECT birth, floor, bucket_seconds, batches FROM mark").fetchall()
        birth, floor, width, batches = marks[0] if len(marks) == 1 else (None, 0.0, self._bucket_seconds, 0)
        least = max(least, self._batches)
        if len(marks) != 1:
            for table in ("mark", "ids", "buckets", "held", "owners", "leaving"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
            self._db.execute("INSERT INTO mark VALUES (0, ?, ?, 0)", (floor, width))
        if birth is None or suspect or batches < least:
            birth = self._clock()
            self._readers.forget()
        batches = max(batches, least) + 1
        self._db.execute("UPDATE mark SET birth = ?, batches = ?", (birth, batches))
        return _Mark(birth, floor, width, batches)

    def _sweep(self, floor: float) -> float:
        """Let buckets leave whose time is over, and return the floor above them."""
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
            (oldest, newest, _LEAVING_AT_ONCE),
        ).rowcount
        if gone < _LEAVING_AT_ONCE:
            self._db.execute("DELETE FROM leaving WHERE rowid = ?", (number,))


class _Reader:
    """What is known of a reader; what was accepted is read when it is asked for."""

    def __init__(self, db: sqlite3.Connection, reader: str, floor: float) -> None:
        self._db = db
        self._reader = reader
        self.floor: Final = floor

    @cached_property
    def accepted(self) -> Mapping[str, tuple[int, float]]:
        """The backlogs that are free of the floor."""
        rows = self._db.execute("SELECT log, last, appended FROM accepted WHERE reader = ?", (self._reader,))
        return {log: (last, appended) for log, last, appended in rows}


class _Readers:
    """The readers that a file knows."""

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
    """The claims of one transaction, and what they add to the counts."""

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
        """The readers that the file does not know."""
        return {reader for reader, found in self._found.items() if found is None}

    def judge(self, use: Use) -> Answer:
        """Answer one claim and note it where it is the first use."""
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
                raise StoreError("an id is there and not there: the file is damaged")
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
