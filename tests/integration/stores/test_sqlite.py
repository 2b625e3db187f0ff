import asyncio
import multiprocessing
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from watchword import ConfigurationError, Policy
from watchword.replay import ReaderBirth, StoreError
from watchword.spi import Admission, Claim
from watchword_adapters.contract.replay_store import make_claim
from watchword_adapters.stores import sqlite_ledger
from watchword_adapters.stores.batched import GRACE
from watchword_adapters.stores.sqlite import SqliteReplayStore

FIRST, REDELIVERED, REPLAYED, TOO_OLD, OVER_QUOTA = Admission
POLICY = Policy(max_age=60, max_skew=5, max_lag=600)
BIRTH = 1_800_000_000
LATER = BIRTH + 100
SETTINGS: dict[str, Any] = {
    "clock": lambda: float(BIRTH),
    "max_skew": 5,
    "bucket_seconds": 60,
    "per_principal": 1000,
    "wait": 20.0,
}

Opened = Callable[..., SqliteReplayStore]


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = float(BIRTH)

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock that shows the birth of the file."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for the file."""
    return tmp_path / "ids.db"


@pytest_asyncio.fixture
async def opened(path: Path, clock: Clock) -> AsyncIterator[Opened]:
    """Give what opens the file once more."""
    made: list[SqliteReplayStore] = []

    def make(**options: Any) -> SqliteReplayStore:
        made.append(SqliteReplayStore(path, policy=POLICY, clock=clock, **options))
        return made[-1]

    yield make
    for store in made:
        await store.close()


class Statements:
    """What is executed on any file: ``answer`` is given each statement, and returns the one to execute or raises."""

    def __init__(self) -> None:
        self.answer: Callable[[str], str] = str
        self.connections: list[sqlite3.Connection] = []


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Give a look at each statement of the connections that are opened from now on."""
    found, connect = Statements(), sqlite3.connect

    class Connection(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            return super().execute(found.answer(statement), *values)

    def connected(*given: Any, **options: Any) -> sqlite3.Connection:
        found.connections.append(connect(*given, **options, factory=Connection))
        return found.connections[-1]

    monkeypatch.setattr(sqlite3, "connect", connected)
    return found


def _serve(path: Path, claims: list[Claim], start: Any, answers: Any) -> None:
    async def claim_all() -> list[str]:
        async with SqliteReplayStore(path, policy=POLICY, clock=time.time, timeout=20.0) as store:
            start.wait()
            return [str(await store.claim(claim)) for claim in claims]

    answers.put(asyncio.run(claim_all()))


def test_of_several_processes_exactly_one_is_first(path: Path) -> None:
    """Promise (A15): processes that share the file share what it knows, though they all open it new at once."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(4), context.Queue()
    claims = [make_claim(number) for number in range(100)]
    processes = [context.Process(target=_serve, args=(path, claims, start, answers), daemon=True) for _ in range(4)]
    for process in processes:
        process.start()
    given = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    for each in zip(*given, strict=True):
        assert sorted(each) == ["first", "replayed", "replayed", "replayed"]


@pytest.mark.parametrize("moment", range(6))
async def test_a_file_that_another_process_makes_meanwhile_is_ours(
    opened: Opened, path: Path, moment: int, statements: Statements
) -> None:
    """Promise (A15): whichever of two processes that open a new file is first, and when, both open it."""
    before = list[str]()

    def ask_when_overtaken(statement: str) -> str:
        before.append(statement)
        if len(before) == moment + 1:
            sqlite_ledger.Ledger(path, **SETTINGS).close()
        return statement

    statements.answer = ask_when_overtaken
    assert await opened().claim(make_claim(1, at=LATER)) is FIRST
    assert len(statements.connections) == 2
    assert "BEGIN IMMEDIATE" not in before[:moment]


async def test_a_restart_forgets_nothing(opened: Opened, clock: Clock) -> None:
    """Promise (A14): what was claimed is known after a restart, and is not called too old for it."""
    store = opened()
    assert await store.claim(make_claim(1, offset=1, at=LATER)) is FIRST
    await store.close()
    clock.now += 500
    assert await opened().claim(make_claim(1, offset=1, at=LATER)) is REDELIVERED
    assert await opened().claim(make_claim(1, offset=2, at=LATER)) is REPLAYED
    assert await opened().claim(make_claim(2, offset=3, at=LATER)) is FIRST


async def test_the_floor_is_birth_and_skew(opened: Opened) -> None:
    """Promise: what another clock may have dated before the birth is too old, and nothing else is."""
    store = opened()
    assert await store.claim(make_claim(1, at=BIRTH + 5)) is TOO_OLD
    assert await store.claim(make_claim(1, at=BIRTH + 6)) is FIRST


async def test_ids_leave_when_their_messages_are_too_old(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: the file does not grow forever, and what left it cannot come back, whatever the clock does."""
    store = opened(per_principal=2)
    for number in (1, 2):
        assert await store.claim(make_claim(number, offset=number, at=LATER)) is FIRST
    assert await store.claim(make_claim(3, at=LATER)) is OVER_QUOTA
    clock.now = LATER + POLICY.window + POLICY.max_lag + GRACE + 60
    new = int(clock.now)
    assert await store.claim(make_claim(3, at=new)) is FIRST
    assert await store.claim(make_claim(4, at=new)) is FIRST
    assert await store.claim(make_claim(5, at=new)) is OVER_QUOTA
    clock.now = BIRTH
    assert await store.claim(make_claim(1, offset=1, at=LATER)) is TOO_OLD
    await store.close()
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM ids").fetchone() == (2,)
    database.close()


async def test_ids_leave_a_few_at_a_time(
    opened: Opened, clock: Clock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: forgetting much holds up no batch for long."""
    monkeypatch.setattr("watchword_adapters.stores.sqlite_ledger.LEAVING_AT_ONCE", 10)
    store = opened()
    await asyncio.gather(*(store.claim(make_claim(number, at=LATER)) for number in range(25)))
    clock.now = LATER + POLICY.window + POLICY.max_lag + GRACE + 60
    database = sqlite3.connect(path)
    left = []
    for number in range(30, 34):
        assert await store.claim(make_claim(number, at=int(clock.now))) is FIRST
        left.append(database.execute("SELECT count(*) FROM ids WHERE issued_at = ?", (LATER,)).fetchone()[0])
    database.close()
    assert left == [15, 5, 0, 0]


async def _claimed_and_copied(store: SqliteReplayStore, path: Path) -> Path:
    """Claim 1, copy the file, claim 2."""
    assert await store.claim(make_claim(1, at=LATER)) is FIRST
    await store.close()
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    assert await store.claim(make_claim(2, at=LATER)) is FIRST
    await store.close()
    return copy


@pytest.mark.parametrize("put_back", [shutil.copy, os.replace])
async def test_an_older_copy_is_born_anew(
    opened: Opened, clock: Clock, path: Path, put_back: Callable[[Path, Path], object]
) -> None:
    """Promise: who puts an older copy back in place brings back what it had forgotten as too old, not as new."""
    copy = await _claimed_and_copied(opened(), path)
    clock.now = LATER + 10
    put_back(copy, path)
    store = opened()
    assert await store.claim(make_claim(2, at=LATER)) is TOO_OLD
    assert await store.claim(make_claim(1, at=LATER)) is REPLAYED
    assert await store.claim(make_claim(3, at=LATER + 16)) is FIRST


async def test_a_copy_elsewhere_is_born_anew(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: without the count beside it nobody knows how old a file is."""
    await _claimed_and_copied(opened(), path)
    clock.now = LATER + 10
    path.with_name("ids.db-count").unlink()
    assert await opened().claim(make_claim(3, at=LATER)) is TOO_OLD
    assert await opened().claim(make_claim(2, at=LATER)) is REPLAYED


async def test_an_older_copy_under_a_running_process_is_born_anew(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: a file that is replaced while it is open is noticed at the next batch."""
    copy = await _claimed_and_copied(opened(), path)
    store = opened()
    await store.start()
    clock.now = LATER + 10
    copy.replace(path)
    assert await store.claim(make_claim(2, at=LATER)) is TOO_OLD
    assert await store.claim(make_claim(3, at=LATER + 16)) is FIRST


async def test_a_lost_log_is_noticed(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: without its write-ahead log the file lacks what was written last, so it gets a new birth."""
    store = opened()
    assert await store.claim(make_claim(1, at=LATER)) is FIRST
    clock.now = LATER + 10
    path.with_name("ids.db-wal").unlink()
    assert await store.claim(make_claim(1, at=LATER)) in {TOO_OLD, REPLAYED}
    assert await store.claim(make_claim(2, at=LATER)) is TOO_OLD


async def test_a_failed_batch_is_no_reason_for_a_birth(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise (A35): a disk that was full for a moment loses nothing."""
    store = opened(timeout=1.0)
    assert await store.claim(make_claim(1, offset=1, at=LATER)) is FIRST
    clock.now = LATER + 10
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"ids\.db: database is locked; another process has locked it"):
        await store.claim(make_claim(2, offset=2, at=LATER))
    other.execute("ROLLBACK")
    other.close()
    assert await store.claim(make_claim(2, offset=2, at=LATER)) is FIRST


def test_a_child_process_opens_the_file_itself(path: Path, clock: Clock) -> None:
    """Promise: a pre-forking server may make the store before it forks."""
    store = SqliteReplayStore(path, policy=POLICY, clock=clock)
    assert asyncio.run(store.claim(make_claim(1, at=LATER))) is FIRST
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "died"
        try:
            answer = str(asyncio.run(store.claim(make_claim(1, at=LATER))))
        finally:
            os.write(writer, answer.encode())
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"replayed"
    os.close(reader)
    os.close(writer)
    assert asyncio.run(store.claim(make_claim(2, at=LATER))) is FIRST
    asyncio.run(store.close())


@pytest.mark.parametrize("content", [b"no database at all, but long enough" * 100, None])
def test_another_file_is_refused(clock: Clock, path: Path, content: bytes | None) -> None:
    """Promise: a file that is not a store's is left alone, and the error says what to do."""
    if content is None:
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE theirs (x)")
        database.close()
        content = path.read_bytes()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="write another"):
        asyncio.run(SqliteReplayStore(path, policy=POLICY, clock=clock).start())
    assert path.read_bytes() == content


async def test_a_damaged_file_gives_no_answer(opened: Opened, statements: Statements) -> None:
    """Promise: a batch that fails half-way is undone, and answers nothing."""
    store = opened()
    assert await store.claim(make_claim(1, at=LATER)) is FIRST
    find, found = "SELECT mark FROM ids WHERE issued_at = ? AND key = ?", list[str]()

    def not_there(statement: str) -> str:
        found.append(statement)
        return f"{find} AND 0" if statement == find else statement

    statements.answer = not_there
    answers = await asyncio.gather(
        store.claim(make_claim(2, at=LATER)), store.claim(make_claim(1, at=LATER)), return_exceptions=True
    )
    assert find in found
    statements.answer = str
    assert [type(answer) for answer in answers] == [StoreError] * 2
    assert await store.claim(make_claim(2, at=LATER)) is FIRST


async def test_a_disk_without_a_log_is_refused(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: where SQLite cannot have a write-ahead log, the error says what to do."""
    monkeypatch.setattr(sqlite3, "connect", lambda *_args, **_options: _Sqlite("delete"))
    with pytest.raises(ConfigurationError, match="use a local disk"):
        await opened().start()


async def test_a_lock_at_the_start_is_waited_for(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: processes that open a new file at once wait for each other, but not forever."""
    monkeypatch.setattr(sqlite3, "connect", lambda *_args, **_options: _Sqlite(None))
    with pytest.raises(StoreError, match="locked"):
        await opened(timeout=0.8).start()


class _Sqlite:
    """A connection whose file allows but one journal mode, or is locked."""

    def __init__(self, mode: str | None) -> None:
        self._mode = mode
        self._asks_mode = False

    def execute(self, statement: str) -> "_Sqlite":
        self._asks_mode = "journal_mode" in statement
        if self._mode is None and self._asks_mode:
            raise sqlite3.OperationalError("database is locked")
        return self

    def fetchone(self) -> tuple[str | int | None]:
        return (self._mode if self._asks_mode else 0,)

    def close(self) -> None:
        """Do nothing."""


async def test_a_missing_directory_is_told(path: Path, clock: Clock) -> None:
    """Promise: a mistake in the path is one line that names it."""
    store = SqliteReplayStore(path / "deeper" / "ids.db", policy=POLICY, clock=clock)
    with pytest.raises(ConfigurationError, match=r"the directory is missing; create .*deeper$"):
        await store.start()


async def test_a_path_that_is_a_directory_is_told(tmp_path: Path, clock: Clock) -> None:
    """Promise: it is the settings' mistake, and no outage that may pass; the error says what to write."""
    store = SqliteReplayStore(tmp_path, policy=POLICY, clock=clock)
    with pytest.raises(
        ConfigurationError, match=rf"^path {tmp_path}: a directory; write a file in it, such as .*ids\.db$"
    ):
        await store.start()


@pytest.mark.parametrize("put_back", [False, True])
async def test_files_that_go_under_an_open_one_are_told(opened: Opened, path: Path, *, put_back: bool) -> None:
    """Promise: if an open store loses its log, also with an older file put back, an error names file and remedy."""
    store = opened()
    assert await store.claim(make_claim(1, at=LATER)) is FIRST
    copy = shutil.copy(path, path.with_name("copy"))
    assert await store.claim(make_claim(2, at=LATER)) is FIRST
    if put_back:
        shutil.copy(copy, path)
    path.with_name("ids.db-wal").unlink()
    with pytest.raises(StoreError, match=r"ids\.db: .*; if the file, its -wal .* restart every process that uses it$"):
        await opened().start()


async def test_a_loss_is_told(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: the operator learns which reader was forgotten, and from when on its messages are judged again."""
    told: list[tuple[str, dict[str, Any]]] = []
    store = opened(warn=lambda event, **fields: told.append((event, fields)))
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    await store.claim(make_claim(1, at=LATER))
    assert not told
    os.unlink(path)  # noqa: PTH108 - at once
    clock.now += 50
    for number in (2, 3):
        await store.claim(make_claim(number, at=LATER))
    ((event, fields),) = told
    assert (event, fields["reader"]) == ("replay.store_forgot", "group")
    assert fields["judged_if_issued_after"] == datetime.fromtimestamp(BIRTH + 55, UTC).isoformat()


@pytest.mark.parametrize(
    "late",
    [0, 3 * 60.0 - 1],  # two time-outs of a minute, and a clock that is another one ahead
)
async def test_an_id_outlives_what_its_claim_asks_for(opened: Opened, clock: Clock, late: float) -> None:
    """Promise: a claim that is judged late, or by a clock that is ahead, finds what it must find."""
    claim = make_claim(1, offset=1, at=LATER)
    store = opened()
    assert await store.claim(claim) is FIRST
    clock.now = claim.keep_until + late
    honest = replace(claim, reference=clock.now)
    assert await store.claim(honest) is REDELIVERED
    assert await store.claim(replace(honest, place=None)) is REPLAYED


async def test_a_clock_that_jumps_ahead_and_comes_back_lets_nothing_through(opened: Opened, clock: Clock) -> None:
    """Promise (A47): what left meanwhile is too old for good, also for a reader that has no floor of its own."""
    store = opened()
    await store.admit_reader("group", ReaderBirth(floor=-inf))
    claim = make_claim(1, offset=1, at=LATER)
    assert await store.claim(claim) is FIRST
    clock.now += 30 * 86400
    ahead = int(clock.now)
    assert await store.claim(make_claim(2, offset=2, at=ahead)) is FIRST
    clock.now = LATER
    for copy in (claim, replace(claim, place=None), make_claim(1, offset=9, at=LATER)):
        assert await store.claim(copy) is TOO_OLD
    assert await store.claim(make_claim(3, offset=3, at=LATER + 1)) is FIRST


def test_each_batch_is_synced_to_the_disk(path: Path, statements: Statements) -> None:
    """Promise (A14): a power cut takes nothing back that was answered, so each commit waits for the disk."""
    ledger = sqlite_ledger.Ledger(path, **SETTINGS)
    full = 2
    assert statements.connections[0].execute("PRAGMA synchronous").fetchone() == (full,)
    ledger.close()


@pytest.mark.parametrize("work", ["judge", "birth", "admit"])
async def test_a_crash_before_the_commit_is_no_older_copy(
    opened: Opened, clock: Clock, path: Path, statements: Statements, work: str
) -> None:
    """Promise (A35): the count beside the file is never ahead of it, so a crash costs no honest message."""
    store = opened()
    assert await store.claim(make_claim(1, offset=1, at=LATER)) is FIRST
    count = path.with_name("ids.db-count")
    before, counted = count.read_bytes(), list[bytes]()

    def crash(statement: str) -> str:
        if statement == "COMMIT":
            counted.append(count.read_bytes())
            raise sqlite3.OperationalError("crash")
        return statement

    statements.answer = crash
    works: dict[str, Callable[[], Awaitable[object]]] = {
        "judge": lambda: store.claim(make_claim(2, offset=2, at=LATER)),
        "birth": lambda: store.birth("group"),
        "admit": lambda: store.admit_reader("group", ReaderBirth(floor=0.0)),
    }
    with pytest.raises(StoreError, match="crash"):
        await works[work]()
    assert [*counted, count.read_bytes()] == [before, before]
    statements.answer = str
    await store.close()
    clock.now = LATER + 10
    assert await opened().claim(make_claim(2, offset=2, at=LATER)) is FIRST


async def test_readers_outlive_a_restart_and_no_loss(opened: Opened, clock: Clock, path: Path) -> None:
    """Promise: what is known of a reader stands in the file, and is void with what the file may have forgotten."""
    store = opened()
    born = ReaderBirth(floor=LATER + 0.5, accepted={"tasks/0": (5, LATER + 0.25), "tasks/1": (2**60, 1.0)})
    await store.admit_reader("group", born)
    await store.admit_reader("other", ReaderBirth(floor=-inf))
    await store.close()
    assert await opened().birth("group") == born
    assert await opened().birth("other") == ReaderBirth(floor=-inf)
    for each in [store, *[opened() for _ in range(2)]]:
        await each.close()
    path.with_name("ids.db-count").unlink()
    clock.now += 1
    assert await opened().birth("group") is None


async def test_readers_that_begin_together_share_a_sync(opened: Opened, statements: Statements) -> None:
    """A client that opens thousands of subscriptions waits for a few transactions, not for some of each."""
    store, executed = opened(), list[str]()
    await store.start()

    def noted(statement: str) -> str:
        executed.append(statement)
        return statement

    statements.answer = noted
    births = [ReaderBirth(floor=float(number)) for number in range(500)]
    assert await asyncio.gather(*[store.birth(f"r{n}") for n in range(500)]) == [None] * 500
    assert await asyncio.gather(*[store.admit_reader(f"r{n}", birth) for n, birth in enumerate(births)]) == births
    assert await asyncio.gather(*[store.birth(f"r{n}") for n in range(500)]) == births
    assert 1 <= executed.count("COMMIT") <= 6


async def test_who_asks_together_is_told_together(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is raised to each caller that still waits, and the next call tries again."""
    store = opened()
    await store.start()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_ledger.Ledger, "together", _full)
        impatient = asyncio.create_task(store.birth("r0"))
        others = [asyncio.create_task(store.birth(f"r{n}")) for n in (1, 2)]
        await asyncio.sleep(0)
        impatient.cancel()
        told = await asyncio.gather(impatient, *others, return_exceptions=True)
    assert [type(one) for one in told] == [asyncio.CancelledError, StoreError, StoreError]
    assert await store.birth("r1") is None


def _full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")
