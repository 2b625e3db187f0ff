"""A journal in use: floors, outages, directories, clocks, and several processes."""

import fcntl
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.journal.agents import LOG, NOW, POLICY, Agent, Clock
from watchword import ConfigurationError
from watchword.guard import Kind, Note
from watchword_adapters.stores import journal, journal_file

Start = Callable[..., Agent]
BIRTH = NOW + 5
LATER = "nats://prod/later#0"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Kind),
            st.sampled_from(["agent://a", "agent://größe", "\ud800", "x" * 255]),
            st.sampled_from([b"", b"k", b"k" * 300]),
            st.integers(0, 2**33),
            st.sampled_from([b"", b"i" * 16, b"d" * 32]),
        )
    )
)
def test_notes_come_back_as_they_were(fields: list[tuple[Kind, str, bytes, int, bytes]]) -> None:
    """Promise: whatever the guard takes note of is read again as it was, and in order."""
    notes = [Note(LOG, *each) for each in fields]
    assert list(journal_file._unpacked(LOG, journal_file._packed(notes))) == notes


def test_what_is_too_old_is_forgotten(start: Start, clock: Clock) -> None:
    """Promise: the journal keeps no more than the window, and what it forgot stays stale for everyone."""
    first = start()
    first.open()
    clock.now += 6
    assert first.offer(1, NOW + 6)
    first.close()
    clock.now += POLICY.window + 1
    second = start()
    recalled = second.open()
    assert (recalled.floor, list(recalled.notes)) == (clock.now - POLICY.window, [])
    assert second.offer(2, clock.now)
    second.close()
    longer = start(policy=replace(POLICY, max_age=3600.0))
    longer.open()
    assert not longer.offer(1, NOW + 6)
    assert longer.offer(3, clock.now)


def test_a_running_process_forgets_too(
    start: Start, state: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (A21): the file does not grow with time, however many names and keys a flood invents."""
    monkeypatch.setattr(journal, "CLEANED_EVERY", 0.0)
    agent = start()
    agent.open()
    for turn in range(30):
        clock.now += POLICY.window + 1
        issued = int(clock.now)
        agent.journal.write(
            [Note(LOG, Kind.CLAIMS, f"agent://{turn}/{at}", b"%d" % at, issued, b"d" * 32) for at in range(500)]
        )
    agent.close()
    assert sum(file.stat().st_size for file in state.iterdir()) < 300_000


def test_entries_are_forgotten_up_to_the_first_that_is_needed(start: Start, clock: Clock) -> None:
    """Promise: claims from the future, and what follows them, stay until their own time has passed."""
    agent = start()
    agent.open()
    notes = [Note(LOG, Kind.CLAIMS, "a", b"k", int(NOW) + at, b"%032d" % at) for at in (50, 200, 51)]
    for note in notes:
        agent.journal.write([note])
    clock.now += POLICY.window + 100
    assert list(agent.journal.recall([LOG], birth=clock.now)[0].notes) == notes[1:]
    clock.now += 101
    assert not list(agent.journal.recall([LOG], birth=clock.now)[0].notes)


def test_a_clock_that_is_set_back_between_two_processes(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (A34): what was handed over and forgotten is not fresh again because the clock says so."""
    monkeypatch.setattr(journal, "CLEANED_EVERY", 0.0)
    first = start()
    first.open()
    clock.now += 6
    assert first.offer(1, NOW + 6)
    clock.now += POLICY.window + 3600
    assert first.offer(2, clock.now)
    first.close()
    clock.now = NOW + 6
    second = start()
    second.open()
    assert not second.offer(1, NOW + 6)
    ((event, fields),) = second.warned
    assert event == "replay.journal_ahead"
    assert "delete" in str(fields["cost"])


@pytest.mark.parametrize("waits", [False, True])
def test_a_clock_that_was_ahead(start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch, *, waits: bool) -> None:
    """Promise (A34): what was handed over while a clock was ahead is not handed over again when its time has come."""
    monkeypatch.setattr(journal, "CLEANED_EVERY", 0.0)
    first = start()
    first.open()
    clock.now += 3600
    assert first.offer(1, clock.now)
    if waits:
        clock.now += 3600
        assert first.offer(2, clock.now)
    first.close()
    clock.now = NOW + 10
    second = start()
    second.open()
    clock.now = NOW + 3600
    assert not second.offer(1, clock.now)


def test_a_machine_that_was_set_back(start: Start, clock: Clock) -> None:
    """Promise (A51): where the machine was set back all readers get a floor, those that are not known included."""
    agent = start()
    assert agent.journal.initialise()
    agent.open()
    clock.now += 9
    agent.journal.raise_floors(clock.now + 5)
    assert agent.journal.recall([LOG], birth=clock.now)[0].floor == clock.now + 5
    assert agent.open(LATER).floor == clock.now + 5


def test_initialised_ahead(start: Start, clock: Clock) -> None:
    """Promise: what is initialised begins without a floor, however late; once, and not while a reader runs."""
    for is_first in (True, False):
        agent = start()
        assert agent.journal.initialise() is is_first
        agent.close()
        clock.now += 1000
    for log in (LOG, LATER):
        agent = start()
        assert agent.open(log).floor == NOW - POLICY.max_skew
        assert agent.offer(1, clock.now, log)
        agent.close()


def test_not_while_a_reader_runs(start: Start, clock: Clock) -> None:
    """Promise (N1): a reader that runs may have been given what the journal does not know: it is not initialised."""
    running = start()
    running.open()
    other = start()
    with pytest.raises(ConfigurationError, match="is in use: stop the readers of this principal first"):
        other.journal.initialise()
    running.close()
    assert other.journal.initialise()
    assert clock.now == NOW


def test_two_readers_at_once(start: Start, clock: Clock, graves: list[Any]) -> None:
    """Promise (N1): while another process is this reader, one that starts begins at its birth, others do not."""
    first = start()
    first.open()
    clock.now += 10
    second = start()
    beside = second.open()
    assert (beside.floor, beside.is_shared) == (clock.now + 5, True)
    later = second.open(LATER)
    assert (later.floor, later.is_shared) == (clock.now + 5, False)
    clock.now += 10
    assert start().open(LATER).floor == clock.now + 5
    first.close()
    second.kill(graves)


def test_a_reader_that_closed_holds_nobody_up(start: Start, clock: Clock) -> None:
    """Promise: a process that stopped in order is no other reader; it seals nothing, for the file stayed in use."""
    sibling = start()
    sibling.open(LATER)
    first = start()
    first.open()
    first.close()
    assert not any(Path(f"{first.journal.path}-mark").read_bytes()[8:])
    clock.now += 10
    second = start()
    assert second.open().floor == BIRTH
    assert second.open().floor == BIRTH  # its own subscription, once more


def test_a_reader_that_never_came_back(start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: readers with invented names do not fill the journal forever."""
    agent = start()
    agent.open()
    agent.close()
    monkeypatch.setattr(journal_file, "UNUSED_READERS", -1.0)
    clock.now += 10
    assert start().open().floor == clock.now + 5


def fill(connection: sqlite3.Connection) -> None:
    """Let the disk be full."""
    connection.execute("PRAGMA max_page_count = 1")
    connection.execute("PRAGMA cache_size = 1")


def test_a_full_disk(
    start: Start, state: Path, clock: Clock, connections: list[sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (N8): a journal that cannot be written is deleted, logged once, and started over later, with a floor."""
    first = start()
    first.open()
    fill(connections[-1])
    clock.now += 6
    assert all(first.offer(ident, NOW + 6) for ident in range(500))
    assert [event for event, _ in first.warned] == ["replay.no_journal"]
    assert not list(state.glob("*.journal"))
    clock.now += 10
    assert start().open().floor == clock.now + 5
    much_later(monkeypatch)
    assert first.offer(1000, clock.now)
    first.close()
    following = start()
    assert following.open().floor == clock.now + 5
    assert not following.offer(1, NOW + 6)


def much_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an hour pass on the clock that never steps back."""
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 3600.0)


def test_what_was_handed_over_without_a_journal(
    start: Start, clock: Clock, connections: list[sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise (N8): a journal that another process began meanwhile learns of the gap when the disk has room again."""
    first = start()
    first.open()
    fill(connections[-1])
    clock.now += 6
    assert all(first.offer(ident, NOW + 6) for ident in range(500))
    second = start()
    second.open()
    second.close()
    clock.now += 20
    assert first.offer(1000, clock.now)
    much_later(monkeypatch)
    assert first.offer(1001, clock.now)
    first.close()
    third = start()
    third.open()
    assert not third.offer(1000, clock.now)


def test_replaced_while_it_is_in_use(start: Start, state: Path, tmp_path: Path, clock: Clock) -> None:
    """Promise (N8): a process that finds another journal in the place of its own tells it that it lost something."""
    first = start()
    first.open()
    shutil.copytree(state, tmp_path / "copy")
    clock.now += 20
    assert first.offer(1, clock.now)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "copy", state)
    assert first.offer(2, clock.now)
    first.close()
    second = start()
    second.open()
    assert not second.offer(1, clock.now)


def test_what_can_neither_be_written_nor_deleted(
    start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch, state: Path
) -> None:
    """Promise (N8): while a file stays behind that someone would believe, nothing is handed over."""

    def refuse(_: Path) -> None:
        raise PermissionError("Read-only file system")

    agent = start()
    agent.open()
    clock.now += 6
    with monkeypatch.context() as patched:
        patched.setattr(journal, "delete", refuse)
        patched.setattr(journal_file.JournalFile, "write", lambda *_: refuse(state))
        for ident in range(3):
            with pytest.raises(ConfigurationError, match="can neither be written nor deleted"):
                agent.offer(ident, NOW + 6)
    assert agent.offer(4, NOW + 6)


def test_deleted_while_it_is_in_use(start: Start, state: Path, clock: Clock) -> None:
    """Promise (N8): a journal that is deleted under a process is started over before its next message, with a floor."""
    first = start()
    first.open()
    clock.now += 6
    assert first.offer(1, NOW + 6)
    assert first.offer(2, NOW + 11)
    shutil.rmtree(state)
    clock.now -= 3600  # what was handed over is not below a floor by this clock
    first.offer(3, clock.now)
    first.close()
    clock.now = NOW + 6
    following = start()
    assert following.open().floor == NOW + 12
    assert not following.warned  # the time of issue that was highest, and not a clock that was ahead
    assert not following.offer(1, NOW + 6)
    assert not following.offer(2, NOW + 11)


def test_replaced_before_it_is_closed(start: Start, state: Path, tmp_path: Path, clock: Clock) -> None:
    """Promise (N8): a copy that stands in the journal's place when a process stops is not sealed by it."""
    first = start()
    first.open()
    first.close()
    shutil.copytree(state, tmp_path / "copy")
    second = start()
    second.open()
    clock.now += 6
    assert second.offer(1, NOW + 6)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "copy", state)
    second.close()
    third = start()
    third.open()
    assert not third.offer(1, NOW + 6)


def test_a_process_whose_journal_is_gone_spoils_no_other(start: Start, clock: Clock, graves: list[Any]) -> None:
    """Promise: what a process still had to say when it stops does not go into a journal that was started over."""
    first = start()
    first.open()
    clock.now += 6
    assert all(first.offer(ident, NOW + 6) for ident in range(20))
    first.journal.path.unlink()
    second = start()
    second.open(LATER)
    first.close()
    second.kill(graves)
    clock.now += 10
    assert start().open(LATER).floor == NOW + 11


def test_used_again_after_it_was_closed(start: Start, clock: Clock) -> None:
    """Promise: a client that stops and starts again in one process uses the same journal."""
    agent = start()
    agent.open()
    agent.close()
    agent.close()
    clock.now += 6
    assert agent.offer(1, NOW + 6)
    agent.close()
    assert not start().warned


def test_deleted_between_two_uses(start: Start, state: Path, clock: Clock) -> None:
    """Promise (N8): a journal that is gone when it is used again begins with a floor."""
    agent = start()
    agent.open()
    clock.now += 6
    assert agent.offer(1, NOW + 6)
    agent.close()
    shutil.rmtree(state)
    assert agent.offer(2, NOW + 6)
    agent.close()
    following = start()
    assert following.open().floor == NOW + 11
    assert not following.offer(1, NOW + 6)


@pytest.mark.parametrize("clean", [True, False])
def test_a_process_that_ends_without_a_word(state: Path, clock: Clock, tmp_path: Path, *, clean: bool) -> None:
    """Promise: a journal that nobody closed is closed in good order when the process ends, or lets go of it."""
    agent = Agent(state, clock)
    agent.open()
    path = agent.journal.path
    if clean:
        agent.close()
    del agent
    gc.collect()
    assert not Path(f"{path}-wal").exists()
    assert any(Path(f"{path}-mark").read_bytes()[8:])
    program = f"""
import pathlib, time
from tests.unit.journal.agents import Agent
agent = Agent(pathlib.Path({str(tmp_path / "other")!r}), time.time)
agent.open()
"""
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own
    (mark,) = (tmp_path / "other").glob("*-mark")
    assert any(mark.read_bytes()[8:])


def test_a_reader_that_was_never_recalled(start: Start) -> None:
    """Promise: notes of a reader that nobody announced are an error, and not lost in silence."""
    agent = start()
    agent.open()
    with pytest.raises(LookupError, match="no reader of 'other' was recalled"):
        agent.journal.write([Note("other", Kind.ID, "a", b"k", int(NOW), b"i" * 16)])


def test_from_several_threads(start: Start, clock: Clock) -> None:
    """Promise: readers on event loops in several threads share one journal."""
    agent = start()
    agent.open()
    clock.now += 6

    def write(thread: int) -> None:
        for number in range(50):
            data = b"%016d" % (100 * thread + number)
            agent.journal.write([Note(LOG, Kind.ID, "a", b"k", int(clock.now), data)])

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not agent.warned
    assert len(list(agent.journal.recall([LOG], birth=clock.now)[0].notes)) == 200


class Nowhere:
    """Ways in which a directory is unfit for a journal."""

    @staticmethod
    def open_to_all(state: Path, _: pytest.MonkeyPatch) -> None:
        """Let others write to it."""
        state.mkdir()
        state.chmod(0o1777)

    @staticmethod
    def open_to_a_group(state: Path, _: pytest.MonkeyPatch) -> None:
        """Let a group write to it."""
        state.mkdir()
        state.chmod(0o770)

    @staticmethod
    def of_another_user(state: Path, patch: pytest.MonkeyPatch) -> None:
        """Give it to another user."""
        state.mkdir()
        if os.geteuid() == 0:
            os.chown(state, 4711, -1)
        else:
            patch.setattr(os, "geteuid", lambda: 4711)

    @staticmethod
    def elsewhere(state: Path, patch: pytest.MonkeyPatch) -> None:
        """Put it on another machine's disk."""
        mounts = state.with_name("mounts")
        there = str(state.parent).replace(" ", "\\040")
        mounts.write_text(f"proc /proc proc rw 0 0\n/dev/a / ext4 rw 0 0\nnas:/x {there} nfs4 rw 0 0\n")
        patch.setattr(journal, "MOUNTS", mounts)

    @staticmethod
    def a_file(state: Path, _: pytest.MonkeyPatch) -> None:
        """Make a file of it."""
        state.touch()

    @staticmethod
    def without_locks(_: Path, patch: pytest.MonkeyPatch) -> None:
        """Take the locks on files away, as on Windows."""
        patch.setitem(sys.modules, "fcntl", None)

    @staticmethod
    def busy(state: Path, patch: pytest.MonkeyPatch) -> None:
        """Let someone open a journal there without end."""
        state.mkdir(mode=0o700)
        held = os.open(state, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        patch.setattr(journal_file, "BUSY_WAIT", 0.05)
        patch.setattr(Nowhere, "held", held, raising=False)


WAYS = [
    (Nowhere.open_to_all, "others may write to"),
    (Nowhere.open_to_a_group, "others may write to"),
    (Nowhere.of_another_user, "others may write to"),
    (Nowhere.elsewhere, r"is on a network file system \(nfs4\); use a local directory"),
    (Nowhere.a_file, "File exists"),
    (Nowhere.without_locks, "no file locks"),
    (Nowhere.busy, "busy with its journal for 0.05 s"),
]


@pytest.mark.parametrize(("way", "told"), WAYS)
@pytest.mark.parametrize("required", [True, False])
def test_a_directory_that_is_none(  # noqa: PLR0917 - fixtures
    start: Start,
    state: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[Path, pytest.MonkeyPatch], None],
    told: str,
    *,
    required: bool,
) -> None:
    """Promise: a named directory that cannot hold a journal stops the start; for the default, one warning is logged."""
    way(state, monkeypatch)
    agent = start(required=required)
    with pytest.raises(ConfigurationError, match=told):
        agent.journal.initialise() if required else start(required=True).open()
    if required:
        with pytest.raises(ConfigurationError, match='write state = ""'):
            agent.open()
    else:
        assert agent.open().floor == BIRTH
        clock.now += 6
        assert agent.offer(1, NOW + 6)
        assert [event for event, _ in agent.warned] == ["replay.no_journal"]
        with pytest.raises(ConfigurationError, match="cannot be written: write another directory"):
            agent.journal.initialise()
    held = getattr(Nowhere, "held", None)
    if held is not None:
        os.close(held)


def test_a_machine_that_names_no_mounts(start: Start, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    """Promise: where the system does not list its file systems a directory is taken for a local one."""
    monkeypatch.setattr(journal, "MOUNTS", state / "none")
    assert start().open().floor == BIRTH


def test_what_others_may_read(start: Start, state: Path) -> None:
    """Promise (A31): the journal says who wrote to whom, and is nobody else's to read."""
    start().open()
    assert {file.stat().st_mode & 0o077 for file in (state, *state.iterdir())} == {0}
