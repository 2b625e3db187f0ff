"""When a journal is believed: each rule, and what gets through without it."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.journal.agents import NOW, Agent, Clock
from watchword import ConfigurationError
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.stores import journal_file

Start = Callable[..., Agent]
Boot = Callable[[str], None]
BIRTH = NOW + 5


def test_a_reader_that_starts_again_goes_on(start: Start, clock: Clock, graves: list[Any]) -> None:
    """Promise (A14): after a clean stop or a kill no message is handed over twice, and no honest one is lost."""
    first = start()
    assert first.open().floor == BIRTH
    assert not first.offer(1, NOW)
    clock.now += 6
    assert first.offer(2, NOW + 6)
    for end in (Agent.close, lambda agent: agent.kill(graves)):
        end(first)
        first = start()
        assert first.open().floor == BIRTH
        assert not first.offer(2, NOW + 6)
        clock.now += 1
        assert first.offer(int(clock.now), clock.now)
        assert not first.offer(int(clock.now), clock.now)


@pytest.mark.parametrize("clean", [True, False])
def test_a_machine_that_starts_again(start: Start, clock: Clock, boot: Boot, graves: list[Any], *, clean: bool) -> None:
    """Promise (N7): after the machine was started again a journal counts only if it was closed in good order."""
    first = start()
    first.open()
    clock.now += 6
    assert first.offer(1, NOW + 6)
    first.close() if clean else first.kill(graves)
    boot("two")
    second = start()
    assert second.open().floor == (BIRTH if clean else clock.now + 5)
    assert not second.offer(1, NOW + 6)
    assert second.offer(2, NOW + 6) is clean


def test_a_machine_without_a_name_for_its_start(
    start: Start, state: Path, monkeypatch: pytest.MonkeyPatch, graves: list[Any]
) -> None:
    """Promise: where the kernel gives its start no name, only a clean stop counts."""
    monkeypatch.setattr(journal_file, "BOOT_ID", state / "none")
    first = start()
    first.open()
    first.close()
    assert start_floor(start, advance=1, graves=graves) == BIRTH
    assert start_floor(start, advance=1, graves=graves) == BIRTH + 2


def start_floor(start: Start, *, advance: float, graves: list[Any]) -> float:
    """Start a process later, kill it, and return the floor with which it began."""
    agent = start()
    assert isinstance(agent.clock, Clock)
    agent.clock.now += advance
    floor = agent.open().floor
    agent.kill(graves)
    return floor


def test_a_crash_after_a_seal_was_broken(start: Start, boot: Boot, graves: list[Any], clock: Clock) -> None:
    """Promise (N7): a clean stop counts for one start; what ran after it may have lost what it wrote."""
    first = start()
    first.open()
    first.close()
    start_floor(start, advance=10, graves=graves)
    boot("two")
    assert start().open().floor == clock.now + 5


def files(state: Path) -> list[Path]:
    """Return the files of the journal."""
    return sorted(state.iterdir())


def database(state: Path) -> Path:
    """Return the database itself."""
    (path,) = state.glob("*.journal")
    return path


def put_back(copy: Path, state: Path) -> None:
    """Put an older copy in the place of the journal, byte for byte, all files of it."""
    for file in files(state):
        file.unlink()
    for file in files(copy):
        shutil.copy2(file, state / file.name)


def over(copy: Path, state: Path) -> None:
    """Write an older copy over the journal, so that files keep their numbers."""
    for file in files(state):
        if not (copy / file.name).exists():
            file.unlink()
    for file in files(copy):
        (state / file.name).write_bytes(file.read_bytes())


def rename(copy: Path, state: Path) -> None:
    """Rename the copy's files to the journal's."""
    for file in files(state):
        file.unlink()
    for file in files(copy):
        file.rename(state / file.name)


@pytest.mark.parametrize("way", [put_back, over, rename])
@pytest.mark.parametrize("clean", [True, False])
def test_an_older_copy_put_back(  # noqa: PLR0917 - fixtures
    start: Start, state: Path, tmp_path: Path, graves: list[Any], clock: Clock, way: Callable[..., None], *, clean: bool
) -> None:
    """Promise (N8): a backup that was put back, as it was and with its mark, lets nothing in that was handed over."""
    first = start()
    first.open()
    first.close() if clean else first.kill(graves)
    shutil.copytree(state, tmp_path / "copy")
    time.sleep(0 if clean else 2.1)  # the file system's clock is nobody's to set
    second = start()
    second.open()
    clock.now += 6
    assert second.offer(1, NOW + 6)
    second.close()
    way(tmp_path / "copy", state)
    third = start()
    assert third.open().floor == clock.now + 5
    assert not third.offer(1, NOW + 6)


def test_a_copy_made_within_two_seconds_of_the_last_entry(
    start: Start, state: Path, tmp_path: Path, graves: list[Any], clock: Clock
) -> None:
    """Promise (N8): a copy is another file, however soon it was made, and renamed into its place it is not believed."""
    first = start()
    first.open()
    shutil.copytree(state, tmp_path / "copy")
    clock.now += 6
    assert first.offer(1, NOW + 6)
    first.kill(graves)
    rename(tmp_path / "copy", state)
    second = start()
    assert second.open().floor == clock.now + 5
    assert not second.offer(1, NOW + 6)


def test_an_older_log_beside_a_sealed_database(start: Start, clock: Clock) -> None:
    """Promise (N8): a write-ahead log that is put beside a database that was closed in good order is no part of it."""
    first = start()
    first.open()
    log = Path(f"{first.journal.path}-wal")
    old = log.read_bytes()
    first.close()
    log.write_bytes(old)
    clock.now += 6
    assert start().open().floor == clock.now + 5


def test_a_seal_is_broken_on_the_disk_before_anything_is_changed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise (N7): after a crash of the machine no seal is found whose journal was opened since."""
    first = start()
    first.open()
    first.close()
    path = first.journal.path
    mark, synced = Path(f"{path}-mark"), list[tuple[bool, bool]]()
    closed = path.stat().st_ctime_ns
    assert int.from_bytes(mark.read_bytes()[8:]) == closed

    def fsync(_: int) -> None:
        log = Path(f"{path}-wal")
        is_changed = path.stat().st_ctime_ns != closed or (log.exists() and log.stat().st_size > 0)
        synced.append((any(mark.read_bytes()[8:]), is_changed))

    monkeypatch.setattr(os, "fsync", fsync)
    start().open()
    assert synced == [(False, False)]


@pytest.mark.parametrize("lost", ["journal", "journal-wal", "journal-mark", ""])
def test_a_part_that_is_gone(start: Start, state: Path, graves: list[Any], clock: Clock, lost: str) -> None:
    """Promise (N8): a journal of which a file was deleted is not believed; deleting all of it is a new birth."""
    first = start()
    first.open()
    clock.now += 6
    assert first.offer(1, NOW + 6)
    first.kill(graves)
    for file in files(state):
        if file.name.endswith(lost):
            file.unlink()
    second = start()
    assert second.open().floor == clock.now + 5
    assert not second.offer(1, NOW + 6)


def test_a_log_that_is_gone_and_held_only_a_floor(
    start: Start, state: Path, graves: list[Any], clock: Clock, connections: list[sqlite3.Connection]
) -> None:
    """Promise (N13): the loss of a floor is noticed like that of an id, though the rest of the file is in order."""
    first = start()
    first.open()
    connections[-1].execute("PRAGMA wal_checkpoint(TRUNCATE)")
    first.journal.raise_floors(NOW + 1000)
    first.kill(graves)
    Path(f"{database(state)}-wal").unlink()
    clock.now += 1
    assert start().open().floor == clock.now + 5


def test_a_mark_that_is_ahead(start: Start, state: Path, graves: list[Any], clock: Clock) -> None:
    """Promise (N8): a database that was changed a moment ago, and holds less than its mark says, is not believed."""
    first = start()
    first.open()
    first.kill(graves)
    old = {file: file.read_bytes() for file in files(state)}
    second = start()
    second.open()
    clock.now += 6
    assert second.offer(1, NOW + 6)
    second.kill(graves)
    for file, content in old.items():
        if not file.name.endswith("-mark"):
            file.write_bytes(content)
    third = start()
    third.open()
    assert not third.offer(1, NOW + 6)


@pytest.mark.parametrize("other", [{"realm": "pr-od"}, {"principal": "agent://acme/other"}, {"principal": None}])
def test_each_principal_and_realm_has_its_own(start: Start, state: Path, clock: Clock, other: dict[str, Any]) -> None:
    """Promise (N13): nobody begins with another's journal."""
    first = start(realm="pr--od")
    first.open()
    first.close()
    clock.now += 9
    assert start(**{"realm": "pr--od"} | other).open().floor == clock.now + 5
    assert len(list(state.glob("*.journal"))) == 2


def test_each_reader_has_its_own_birth(start: Start, clock: Clock) -> None:
    """Promise (N4): a reader that is added later has never read, or was another's: it begins with its own birth."""
    agent = start()
    agent.open()
    clock.now += 9
    assert agent.open("nats://prod/later#0").floor == clock.now + 5


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"x" * 5000])
def test_what_is_no_database(start: Start, state: Path, clock: Clock, content: bytes) -> None:
    """Promise: what stands under the journal's name and cannot be read is replaced, and is a new birth."""
    first = start()
    first.open()
    first.close()
    clock.now += 9
    database(state).write_bytes(content)
    second = start()
    assert second.open().floor == clock.now + 5
    clock.now += 9
    assert second.offer(1, clock.now)


def test_another_programs_database(start: Start, state: Path) -> None:
    """Promise: a database that another program made is left alone, and the start says what to write."""
    first = start()
    first.open()
    first.close()
    database(state).unlink()
    with sqlite3.connect(database_name := first.journal.path) as foreign:
        foreign.execute("CREATE TABLE precious (a)")
    foreign.close()
    with pytest.raises(ConfigurationError, match="belongs to another program: write another directory"):
        start().open()
    assert b"precious" in database_name.read_bytes()


def program(state: Path, issued: float, *idents: int) -> subprocess.Popen[str]:
    """Start a process of the planner that hands over some messages."""
    command = [sys.executable, "-m", "tests.unit.journal.agents", str(state), str(issued), *map(str, idents)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own


def said(process: subprocess.Popen[str]) -> str:
    """Return what a process handed over, once it has."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str], *, clean: bool) -> None:
    """Let a process stop, or kill it."""
    if not clean:
        process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("clean", [True, False])
def test_real_processes_one_after_the_other(state: Path, *, clean: bool) -> None:
    """Promise (A14): what a process handed over that was stopped, or killed, its successor does not hand over."""
    issued = initialise(state)
    for idents, handed in (((1, 2, 1), "110"), ((1, 2, 3), "001"), ((3, 2, 1, 4), "0001")):
        process = program(state, issued, *idents)
        assert said(process) == handed
        end(process, clean=clean)


def initialise(state: Path) -> float:
    """Let readers begin without a floor; return the time."""
    agent = Agent(state, time.time)
    assert agent.journal.initialise()
    agent.close()
    return time.time()


@pytest.mark.slow
def test_real_processes_at_once(state: Path) -> None:
    """Promise (A34, N1): of two processes that overlap, the second does not hand over what the first may yet note."""
    issued = initialise(state)
    first = program(state, issued, 1)
    assert said(first) == "1"
    second = program(state, issued, 1, 2)
    assert said(second) == "00"
    end(first, clean=False)
    third = program(state, issued, 1, 2)
    assert said(third) == "00"
    end(second, clean=False)
    end(third, clean=True)
    alone = program(state, issued, 1, 3)
    assert said(alone) == "01"
    end(alone, clean=True)


def test_a_reader_that_was_killed_beside_a_sibling(state: Path, start: Start) -> None:
    """Promise: a process that was killed is no other reader, though a sibling still has the journal in use."""
    issued = initialise(state)
    sibling = start(clock=time.time)
    sibling.open("nats://prod/other#0")
    first = program(state, issued, 1)
    assert said(first) == "1"
    end(first, clean=False)
    second = program(state, issued, 1, 2)
    assert said(second) == "01"
    end(second, clean=True)


@pytest.mark.parametrize("space", ["pid:[1]", None])
def test_a_reader_in_another_container(
    state: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, space: str | None
) -> None:
    """Promise (N1): a process that cannot be seen from here may live."""
    issued = initialise(state)
    sibling = start(clock=time.time)
    sibling.open("nats://prod/other#0")
    first = program(state, issued, 1)
    assert said(first) == "1"
    end(first, clean=False)
    if space is not None:
        (tmp_path / "space").symlink_to(space)
    monkeypatch.setattr(journal_file, "PID_SPACE", tmp_path / "space")
    assert journal_file._may_live(first.pid, "")
    second = start(clock=time.time)
    second.open()
    assert not second.offer(2, issued)


def test_forked_children(start: Start) -> None:
    """Promise (N9): a forked child has its own hold on the journal; neither its parent nor a sibling loses a note."""
    parent = start(clock=time.time)
    parent.journal.initialise()
    parent.open()
    now = time.time()
    assert parent.offer(1, now)
    handed = []
    for ident in (2, 3):
        reads, writes = os.pipe()
        if not (child := os.fork()):
            ended = b"?"
            try:
                is_handed = parent.offer(ident, now)
                opened = parent.journal._opened
                ended = b"%d" % (is_handed and opened is not None and opened.pid == os.getpid())
                parent.close()
            finally:
                os.write(writes, ended)
                os._exit(0)
        os.waitpid(child, 0)
        handed.append(os.read(reads, 1))
        os.close(reads)
        os.close(writes)
    assert handed == [b"1", b"1"]
    assert parent.offer(4, now)
    parent.close()
    following = start(clock=time.time)
    following.open()
    assert [following.offer(ident, now) for ident in (1, 2, 3, 4, 5)] == [False, False, False, False, True]


def test_a_child_that_lives_on(start: Start) -> None:
    """Promise (N9): a forked child that never reads keeps nobody from starting, when its parent is gone."""
    parent = start(clock=time.time)
    parent.open()
    reads, writes = os.pipe()
    if not (child := os.fork()):
        os.read(reads, 1)
        os._exit(0)
    parent.close()
    following = start(clock=time.time)
    following.open()  # TimeoutError, if it waited for the child
    assert not following.warned
    os.write(writes, b"x")
    os.waitpid(child, 0)
    os.close(reads)
    os.close(writes)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(("lost", "believed"), [(4.5, True), (5.5, False), (-5.5, False)])
def test_a_machine_that_was_set_back_between_two_processes(  # noqa: PLR0917 - fixtures
    start: Start,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    graves: list[Any],
    lost: float,
    believed: bool,  # noqa: FBT001 - from the table
    *,
    clean: bool,
) -> None:
    """Promise (N9): its disk is as old as itself, files and marks alike; its own clock shows that."""
    first = start()
    first.open()
    first.close() if clean else first.kill(graves)
    monkeypatch.setattr(journal_file, "since_boot", lambda: since_boot() - lost)
    clock.now += 10
    assert start().open().floor == (BIRTH if believed else clock.now + 5)


def test_a_clock_that_was_set_while_a_journal_was_open(
    start: Start, clock: Clock, boot: Boot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: it costs the floor that it knew, and no other one; nor do two starts of a machine compare."""
    first = start()
    first.open()
    monkeypatch.setattr(journal_file, "since_boot", lambda: since_boot() - 100)
    first.journal.raise_floors(clock.now + 7)
    first.close()
    clock.now += 10
    second = start()
    assert second.open().floor == NOW + 7
    second.close()
    boot("two")
    monkeypatch.setattr(journal_file, "since_boot", lambda: 1.0)
    assert start().open().floor == NOW + 7
