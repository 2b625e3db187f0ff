"""Any order of events in the life of journals, compared with a memory that forgets nothing (docs/replay.md)."""

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.unit.journal.agents import LOG, NOW, POLICY, Agent, Clock
from watchword_adapters.stores import journal, journal_file

pytestmark = pytest.mark.usefixtures("not_traced")

LOGS = [LOG, "nats://prod/tasks#1"]
WHO = [{}, {"principal": "agent://acme/other"}, {"realm": "test"}]
SKEW = POLICY.max_skew
WINDOW = replace(POLICY, max_age=60.0).window
WHICH = st.integers(0, 30)


@dataclass(eq=False)
class Process:
    """One process, which reads one log; ``began`` when by its clock, ``turn`` when in the order of events."""

    agent: Agent
    who: int
    log: str
    turn: int
    began: float
    arrived: list["Sent"] = field(default_factory=list)

    @property
    def reader(self) -> tuple[int, str]:
        """Return whose memory it continues with."""
        return self.who, self.log


@dataclass(eq=False)
class Sent:
    """A message: when it was published, and who was given it."""

    number: int
    issued_at: int
    log: str
    turn: int
    handed: dict[tuple[int, str], list[Process]] = field(default_factory=dict)


class Journals(RuleBasedStateMachine):
    """Processes of three principals that share a directory; any may read two subjects, several of them at once."""

    wrong_clocks = loses_journals = False

    def __init__(self) -> None:
        super().__init__()
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - mkdtemp makes it safe
        self.place = Path(tempfile.mkdtemp(prefix="watchword-journal-", dir=memory))
        self.state = self.place / "state"
        self.clock, self.turn, self.boots = Clock(), 0, 0
        self.running: list[Process] = []
        self.sent: list[Sent] = []
        self.graves: list[Any] = []
        self.copy: Path | None = None
        self.floors: dict[tuple[int, str], float] = {}  # from which on nothing honest may be refused
        self.ghosts: set[tuple[int, str]] = set()  # killed, while others have the journal in use
        self.before = journal_file.BOOT_ID, journal.CLEANED_EVERY
        journal_file.BOOT_ID = self.place / "boot_id"  # type: ignore[misc] # the test's
        journal.CLEANED_EVERY = 0.0  # type: ignore[misc] # the test's
        self.boot()

    def boot(self) -> None:
        """Start the machine once more."""
        self.boots += 1
        journal_file.BOOT_ID.write_text(f"boot {self.boots}\n")

    def teardown(self) -> None:
        """Replay everything to a new process of each reader in the end."""
        self.end_all(clean=True)
        for who in range(len(WHO)):
            for log in LOGS:
                process = self.start(who, log, 300.0)
                for sent in self.sent:
                    self.give(process, sent)
                self.end(process, clean=True)
        for opened in self.graves:
            with contextlib.suppress(Exception):
                opened._database.close()
        journal_file.BOOT_ID, journal.CLEANED_EVERY = self.before  # type: ignore[misc] # as they were
        shutil.rmtree(self.place)

    # Processes

    @initialize(ahead=st.booleans())
    def initialise(self, ahead: bool) -> None:  # noqa: FBT001
        """Make the journals ahead, or do not."""
        for who in range(len(WHO)) if ahead else ():
            agent = Agent(self.state, self.clock, **WHO[who])  # type: ignore[arg-type] # one or the other
            assert agent.journal.initialise()
            agent.close()
            for log in LOGS:
                self.floors[who, log] = self.clock.now - SKEW
        self.clock.now += 1

    @precondition(lambda self: len(self.running) < 4)
    @rule(
        who=st.sampled_from([0, 0, 0, 1, 2]), log=st.sampled_from(LOGS), max_age=st.sampled_from([60.0, 300.0, 900.0])
    )
    def begin(self, who: int, log: str, max_age: float) -> None:
        """Start a process."""
        self.start(who, log, max_age)

    def start(self, who: int, log: str, max_age: float) -> Process:
        """Start a process, which continues where its like before it ended, or begins with a floor."""
        self.turn += 1
        policy = replace(POLICY, max_age=max_age)
        agent = Agent(self.state, self.clock, policy=policy, **WHO[who])  # type: ignore[arg-type] # one or the other
        process = Process(agent, who, log, self.turn, self.clock.now)
        birth = self.clock.now + SKEW
        expected = self.floors.setdefault(process.reader, birth)
        if not any(other.who == who for other in self.running):
            self.ghosts = {ghost for ghost in self.ghosts if ghost[0] != who}
        if process.reader in {*self.ghosts, *[other.reader for other in self.running]}:
            expected = max(expected, birth)
        floor = agent.open(log).floor
        if not (self.wrong_clocks or self.loses_journals):
            # A process with a shorter window may have forgotten more; nothing so old is on its way on core NATS.
            assert floor <= max(expected, self.clock.now - WINDOW)
        process.began = max(expected, floor)
        self.running.append(process)
        return process

    @precondition(lambda self: self.running)
    @rule(which=WHICH, clean=st.booleans())
    def stop(self, which: int, clean: bool) -> None:  # noqa: FBT001
        """Stop a process, or kill it."""
        self.end(self.running[which % len(self.running)], clean=clean)

    def end(self, process: Process, *, clean: bool) -> None:
        """End a process; what had arrived and was not looked at is gone."""
        self.running.remove(process)
        if not clean:
            self.ghosts.add(process.reader)
        process.agent.close() if clean else process.agent.kill(self.graves)

    def end_all(self, *, clean: bool) -> None:
        """End all processes."""
        for process in list(self.running):
            self.end(process, clean=clean)

    # Messages

    @rule(
        log=st.sampled_from(LOGS), ahead=st.sampled_from([-4, 0, 0, 0, 4]), late=st.booleans(), count=st.integers(1, 3)
    )
    def publish(self, log: str, ahead: int, late: bool, count: int) -> None:  # noqa: FBT001
        """Publish honest messages by a clock that differs; who reads gets them, some only look at them later."""
        for _ in range(count):
            self.turn += 1
            sent = Sent(len(self.sent), int(self.clock.now) + ahead, log, self.turn)
            self.sent.append(sent)
            for process in [process for process in self.running if process.log == log]:
                if late:
                    process.arrived.append(sent)
                else:
                    handed = self.give(process, sent)
                    assert handed or self.wrong_clocks or sent.issued_at < process.began

    @rule()
    def look(self) -> None:
        """Let all look at what has arrived."""
        for process in self.running:
            arrived, process.arrived = process.arrived, []
            for sent in arrived:
                self.give(process, sent)

    @precondition(lambda self: self.running and self.sent)
    @rule(which=WHICH, message=WHICH)
    def replay(self, which: int, message: int) -> None:
        """Let a process be given a captured message."""
        process = self.running[which % len(self.running)]
        self.give(process, self.sent[-1 - message % len(self.sent)])

    def give(self, process: Process, sent: Sent) -> bool:
        """Let a process judge a message; see that nobody else of the same reader was given it.

        Two processes that were both there when it was published are each to be given it once.
        """
        handed = process.agent.offer(sent.number, sent.issued_at, process.log) if sent.log == process.log else False
        if handed:
            others = sent.handed.setdefault(process.reader, [])
            assert process not in others
            assert not others or all(other.turn < sent.turn for other in (process, *others))
            others.append(process)
        return handed

    @rule(by=st.sampled_from([1, 3, 6, 30, 100, 400]))
    def wait(self, by: float) -> None:
        """Let time pass."""
        self.clock.now += by


class Disasters(Journals):
    """What befalls files and machines, while processes run or not; any of it may be a new birth."""

    loses_journals = True

    @rule(clean=st.booleans())
    def restart_the_machine(self, clean: bool) -> None:  # noqa: FBT001
        """Start the machine again, after a clean stop of all, or without."""
        self.end_all(clean=clean)
        self.boot()
        self.clock.now += 20

    def files(self) -> list[Path]:
        """Return all files of journals."""
        return sorted(self.state.iterdir()) if self.state.exists() else []

    @rule(part=st.sampled_from([".journal", "-wal", "-mark", ""]))
    def delete(self, part: str) -> None:
        """Delete some files, or all, while processes run or not."""
        for file in self.files():
            if file.name.endswith(part):
                file.unlink()

    @rule()
    def save(self) -> None:
        """Make a backup."""
        if self.state.exists():
            self.copy = self.place / "copy"
            shutil.rmtree(self.copy, ignore_errors=True)
            shutil.copytree(self.state, self.copy)
            for path in self.copy.glob("*.journal"):  # nobody can set the file system's own time
                with (
                    contextlib.suppress(sqlite3.Error),
                    contextlib.closing(sqlite3.connect(path)) as database,
                    database,
                ):
                    database.execute("UPDATE entries SET time = time - 10")

    @precondition(lambda self: self.copy is not None and not self.running)
    @rule(by_name=st.booleans())
    def put_back(self, by_name: bool) -> None:  # noqa: FBT001
        """Put the backup in the journals' place, byte for byte."""
        assert self.copy is not None
        for file in self.files():
            if by_name or not (self.copy / file.name).exists():
                file.unlink()
        for file in self.copy.iterdir():
            (self.state / file.name).write_bytes(file.read_bytes())

    @precondition(lambda self: self.running)
    @rule(which=WHICH)
    def fill(self, which: int) -> None:
        """Let the disk be full for a process."""
        process = self.running[which % len(self.running)]
        opened = process.agent.journal._opened
        if opened is not None:
            with contextlib.suppress(sqlite3.DatabaseError):  # its file may be gone from under it
                opened._database.execute("PRAGMA max_page_count = 1")
                opened._database.execute("PRAGMA cache_size = 1")

    @precondition(lambda self: self.running)
    @rule(which=WHICH)
    def heal(self, which: int) -> None:
        """Let a process try its journal again."""
        self.running[which % len(self.running)].agent.journal._fails_until = -inf


class WrongClocks(Journals):
    """A clock that is an hour ahead or behind for a while, for all or for one process; nothing befalls the files."""

    wrong_clocks = True

    @rule(by=st.sampled_from([-3600, -200, -20, 20, 200, 3600]))
    def set_clock(self, by: float) -> None:
        """Set the clock."""
        self.clock.now = max(NOW - 4000, self.clock.now + by)


TestJournals = pytest.mark.slow(Journals.TestCase)
TestDisasters = pytest.mark.slow(Disasters.TestCase)
TestWrongClocks = pytest.mark.slow(WrongClocks.TestCase)
for case in (TestJournals, TestDisasters, TestWrongClocks):
    case.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
del case  # else its last value is collected as one more test
