"""What is kept of trust over restarts: a small file, written beside the event loop, that no crash leaves in pieces."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from watchword.trust import HALF_LIFE, MAX_PRINCIPALS, Demerits, Fact, Trust
from watchword_adapters import trust_file
from watchword_adapters.cli import main
from watchword_adapters.config import load
from watchword_adapters.testing import Clock
from watchword_adapters.trust_file import TrustFile, pause_after

ALICE, BOB = "agent://acme/planner", "agent://acme/cloud"
BARS = {0.95}


class Told:
    """Collects warnings."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.details: list[str] = []

    def __call__(self, event: str, **fields: str | float | None) -> None:
        """Note it; each has a field that says where the file is."""
        assert "path" in fields
        self.events.append(event)
        self.details.append(str(fields.get("detail")))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the thread end at once; a test that needs it in the middle says so."""
    monkeypatch.setattr(trust_file, "EVERY", 0.0)
    monkeypatch.setattr(trust_file, "pause_after", lambda _: trust_file.EVERY)


@pytest.fixture
def clock() -> Clock:
    """Give a clock that a test moves."""
    return Clock(1_700_000_000.0)


def kept(path: Path, clock: Clock, warn: Told | None = None) -> tuple[Trust, TrustFile]:
    """Return trust as a process has it that has just begun."""
    trust = Trust(Demerits(clock))
    return trust, TrustFile(path / "a.trust", trust, clock=clock, warn=warn or Told())


def soon(condition: Callable[[], object]) -> None:
    """Wait for the thread."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def fell(path: Path, clock: Clock, name: str = ALICE, times: int = 1) -> Trust:
    """Let a process see facts, and end."""
    trust, file = kept(path, clock)
    for _ in range(times):
        trust.note(name, Fact.REPORTED, bars=BARS)
        clock.advance(1.0)
    file.close()
    return trust


def test_a_restart_lets_nobody_in(tmp_path: Path, clock: Clock) -> None:
    """Promise: who was kept out is out after a restart, with the same score, until halfway back and no longer."""
    before = fell(tmp_path, clock).score.score(ALICE)
    trust, _ = kept(tmp_path, clock)
    assert trust.score.score(ALICE) == before
    assert not trust.admits(ALICE, 0.95)
    clock.advance(HALF_LIFE)
    later, _ = kept(tmp_path, clock)
    assert 0.95 < later.score.score(ALICE) < 0.975
    assert not later.admits(ALICE, 0.95)
    clock.advance(HALF_LIFE)
    assert later.admits(ALICE, 0.95)


def test_it_is_written_soon_and_not_in_the_event_loop(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: without any end of the process it is on disk; the thread that notes a fact writes nothing itself."""
    trust, file = kept(tmp_path, clock)
    writers, fsync, before = list[threading.Thread](), os.fsync, {*threading.enumerate()}

    def noting(descriptor: int) -> None:
        writers.append(threading.current_thread())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    for name in (ALICE, BOB, "agent://acme/third"):
        trust.note(name, Fact.REPORTED, bars=BARS)
        soon(lambda name=name: file.path.exists() and name in file.path.read_text())  # type: ignore[misc] # bound now
        soon(lambda: before.issuperset(threading.enumerate()))  # the thread ends once there is nothing to write
        assert (file.path.stat().st_mode & 0o777) == 0o600
        assert sorted(one.name for one in tmp_path.iterdir()) == ["a.trust", "a.trust-lock"]
    assert threading.current_thread() not in writers


def test_facts_in_quick_succession_are_written_at_the_end(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a flood of facts is one write in some seconds; what is not written yet is written by close()."""
    monkeypatch.setattr(trust_file, "EVERY", 1000.0)
    trust, file = kept(tmp_path, clock)
    trust.note(ALICE, Fact.REPORTED)
    soon(file.path.exists)
    first = file.path.read_bytes()
    for _ in range(100):
        trust.note(BOB, Fact.REPORTED)
    assert file.path.read_bytes() == first
    file.close()
    assert BOB in file.path.read_text()
    before = file.path.stat().st_ino
    file.close()  # nothing is left to write
    assert file.path.stat().st_ino == before


def test_a_large_file_is_written_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: facts against very many principals take a twentieth of one processor at most."""
    monkeypatch.setattr(trust_file, "EVERY", 5.0)
    assert [pause_after(took) for took in (0.0, 0.1, 4.0)] == [5.0, 5.0, 80.0]


def test_processes_of_one_principal_add_to_one_file(tmp_path: Path, clock: Clock) -> None:
    """Promise: none takes away what another has written; of two accounts of one principal the graver one stands."""
    (one, first), (other, second) = kept(tmp_path, clock), kept(tmp_path, clock)
    for _ in range(2):
        one.note(ALICE, Fact.REPORTED, bars=BARS)
        clock.advance(1.0)
    first.close()
    other.note(ALICE, Fact.REPORTED)
    other.note(BOB, Fact.REPORTED, bars=BARS)
    second.close()
    one.note(ALICE, Fact.REPORTED, bars=BARS)
    first.close()
    assert other.score.score(ALICE) > one.score.score(ALICE), "each judges by what it saw itself"
    both, _ = kept(tmp_path, clock)
    assert both.score.score(ALICE) == one.score.score(ALICE)
    assert both.score.score(BOB) == other.score.score(BOB)
    assert both.kept_out() == {ALICE: (0.95,), BOB: (0.95,)}


def test_who_has_come_back_is_not_kept_out_by_an_old_file(tmp_path: Path, clock: Clock) -> None:
    """Promise: once halfway back is passed the file says so too, no matter who wrote the bar into it."""
    fell(tmp_path, clock)
    trust, file = kept(tmp_path, clock)
    clock.advance(3 * HALF_LIFE)
    assert trust.admits(ALICE, 0.95)
    file.close()
    assert kept(tmp_path, clock)[0].kept_out() == {}


def test_a_score_of_ones_own_keeps_its_own_books(tmp_path: Path, clock: Clock) -> None:
    """Promise: of another score only who is kept out is kept."""

    class Own:
        def __init__(self) -> None:
            self.is_low = True

        def add(self, principal: str, weight: float) -> None: ...

        def score(self, principal: str) -> float:
            return 0.5 if self.is_low and principal == ALICE else 1.0

    own = Own()
    trust = Trust(own)
    file = TrustFile(tmp_path / "a.trust", trust, clock=clock, warn=Told())
    trust.note(ALICE, Fact.REPORTED, bars=BARS)
    file.close()
    again = Trust(own)
    TrustFile(tmp_path / "a.trust", again, clock=clock, warn=Told())
    assert again.kept_out() == {ALICE: (0.95,)}
    assert json.loads(file.path.read_text())["held"] == {}


GOOD = {"watchword_trust": 1, "held": {ALICE: [0.1, 1.0]}, "out": {ALICE: [0.5]}}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        json.dumps(GOOD).encode()[:-1],
        b"\xff\xfe",
        b"[]",
        b"SQLite format 3\0",
        b"[" * 200_000,
        json.dumps(GOOD | {"watchword_trust": 2}).encode(),
        json.dumps(GOOD | {"held": []}).encode(),
        json.dumps(GOOD | {"out": None}).encode(),
        json.dumps(GOOD | {"held": {"": [0.1, 1.0]}}).encode(),
        json.dumps(GOOD | {"held": {ALICE: [0.1]}}).encode(),
        json.dumps(GOOD | {"held": {ALICE: {}}}).encode(),
        json.dumps(GOOD | {"held": {ALICE: [-0.1, 1.0]}}).encode(),
        json.dumps(GOOD | {"held": {ALICE: [True, 1.0]}}).encode(),
        json.dumps(GOOD | {"held": {ALICE: ["0.1", 1.0]}}).encode(),
        b'{"watchword_trust": 1, "held": {"a": [NaN, 1]}, "out": {}}',
        b'{"watchword_trust": 1, "held": {"a": [1e999, 1]}, "out": {}}',
        json.dumps(GOOD | {"out": {ALICE: [1.5]}}).encode(),
        json.dumps(GOOD | {"out": {f"{n}": [0.5] for n in range(MAX_PRINCIPALS + 1)}}).encode(),
    ],
)
def test_a_file_of_somebody_else_is_told_and_put_aside(tmp_path: Path, clock: Clock, text: bytes) -> None:
    """Promise: what is no file of ours, or a part of one, is neither believed nor lost, and stops nobody."""
    (tmp_path / "a.trust").write_bytes(text)
    told = Told()
    trust, file = kept(tmp_path, clock, told)
    assert told.events == ["trust.put_aside"]
    assert (tmp_path / "a.trust-aside").read_bytes() == text
    assert (trust.kept_out(), trust.evidence()) == ({}, {})
    trust.note(ALICE, Fact.REPORTED)
    file.close()
    assert kept(tmp_path, clock)[0].evidence()


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: no file fills the memory."""
    monkeypatch.setattr(trust_file, "MAX_BYTES", 10)
    (tmp_path / "a.trust").write_text(json.dumps(GOOD))
    told = Told()
    kept(tmp_path, clock, told)
    assert told.events == ["trust.put_aside"]


def test_a_directory_that_others_may_write_to_is_told_once(tmp_path: Path, clock: Clock) -> None:
    """Promise: anyone who may write there could say who is kept out, so nothing is read or written; it judges on."""
    fell(tmp_path, clock)
    tmp_path.chmod(0o777)
    told = Told()
    trust, file = kept(tmp_path, clock, told)
    assert trust.kept_out() == {}
    for mode, events in ((0o777, 1), (0o777, 1), (0o700, 1), (0o777, 2)):
        tmp_path.chmod(mode)
        trust.note(BOB, Fact.REPORTED)
        file.close()
        assert told.events == ["trust.not_kept"] * events
        assert (BOB in file.path.read_text()) == (mode == 0o700 or events == 2)


def test_a_file_that_others_may_write_to_is_told(tmp_path: Path, clock: Clock) -> None:
    """Promise: any writer to it could say who is kept out, so it is neither read nor written; it judges on."""
    fell(tmp_path, clock)
    path = tmp_path / "a.trust"
    path.chmod(0o606)
    told = Told()
    trust, file = kept(tmp_path, clock, told)
    assert (trust.kept_out(), told.events) == ({}, ["trust.not_kept"])
    assert told.details == [f"others may write to {path}: type chmod go-w {path}"]
    trust.note(BOB, Fact.REPORTED)
    file.close()
    assert told.events == ["trust.not_kept"]
    path.chmod(0o600)
    trust.note(BOB, Fact.REPORTED)
    file.close()
    assert {ALICE, BOB} <= json.loads(path.read_text())["held"].keys()


def test_a_pipe_in_its_place_is_told_at_once(tmp_path: Path, clock: Clock) -> None:
    """Promise: no start waits for a later writer."""
    os.mkfifo(tmp_path / "a.trust")
    told = Told()
    trust, file = kept(tmp_path, clock, told)
    trust.note(BOB, Fact.REPORTED)
    file.close()
    assert (told.events, told.details) == (["trust.not_kept"], ["is not a regular file"])


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a failure to write is logged, and neither half a file nor a stray one is left."""
    fell(tmp_path, clock)
    told = Told()
    trust, file = kept(tmp_path, clock, told)
    before = file.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    trust.note(BOB, Fact.REPORTED)
    file.close()
    assert told.events == ["trust.not_kept"]
    assert file.path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.trust", "a.trust-lock"]


def test_the_end_waits_for_the_thread(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a write that is under way when the process ends is done before that."""
    trust, file = kept(tmp_path, clock)
    writes, goes_on, fsync = threading.Event(), threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        writes.set()
        assert goes_on.wait(10)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    trust.note(ALICE, Fact.REPORTED)
    assert writes.wait(10)
    ending = threading.Thread(target=file.close)
    ending.start()
    ending.join(0.05)
    assert ending.is_alive()
    goes_on.set()
    ending.join(10)
    assert not ending.is_alive()
    assert file.path.exists()


def test_a_child_writes_for_itself(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a process that was forked from one that had facts keeps its own; its parent's thread is not there."""
    monkeypatch.setattr(trust_file, "EVERY", 1000.0)
    trust, file = kept(tmp_path, clock)
    trust.note(ALICE, Fact.REPORTED)
    soon(file.path.exists)
    trust.note("agent://acme/third", Fact.REPORTED)  # for the parent's thread to write, which sleeps
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    file.close()
    assert "third" not in file.path.read_text()
    trust.note(BOB, Fact.REPORTED)
    soon(lambda: BOB in file.path.read_text())


RUN = """
import sys
from watchword.trust import Fact
from watchword_adapters import trust_file
from watchword_adapters.config import load
trust_file.EVERY = 1000.0
trust = load(sys.argv[1]).verifier.trust
trust.note("agent://acme/first", Fact.REPORTED)
while not trust.changed.__self__.path.exists():
    pass
trust.note("agent://acme/last", Fact.REPORTED, bars={0.95})
"""


def test_the_end_of_the_process_writes_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: an agent of settings keeps trust in [replay] state, up to its last fact; commands add nothing to it."""
    for name in [name for name in os.environ if name.upper().startswith("WATCHWORD_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    assert main(["init", "-r", "prod", "-p", ALICE]) == 0
    subprocess.run([sys.executable, "-c", RUN, "watchword.toml"], check=True, timeout=60)  # noqa: S603 - our own
    trust = load("watchword.toml").verifier.trust
    assert trust.kept_out() == {"agent://acme/last": (0.95,)}
    (path,) = (tmp_path / ".watchword").glob("*.trust")
    before = path.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["verify"]) == 0
    assert path.read_bytes() == before
    text = (tmp_path / "watchword.toml").read_text()
    (tmp_path / "watchword.toml").write_text(text.replace('".watchword"', '""'))
    assert load("watchword.toml").verifier.trust.kept_out() == {}
