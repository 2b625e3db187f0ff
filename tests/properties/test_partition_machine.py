"""Any order of events against the machine that reads a Kafka partition: docs/replay.md, "The promise"."""

from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.properties.log_world import POLICY, Keys
from tests.properties.partition_group import Group, Member, Options
from tests.properties.partition_log import HORIZON, MAX_AGE, SKEW, Log, Record
from tests.unit.core.world import ALICE, BOB, MALLORY
from watchword import partition

HONEST = [ALICE, BOB]
ANY = st.integers(0, 30)
WITHIN = st.sampled_from([-1.0, 0.0, 1.0])
DELAYS = st.sampled_from([0.0, 0.0, 1.0, 3.0])
WAITS = st.sampled_from([0.5, 1.0, 2.0, 4.0, 7.0, 20.0])
AGES = st.sampled_from([-SKEW, 0.0, HORIZON, HORIZON, HORIZON + 0.5, HORIZON + 1])
DATES = st.sampled_from([-HORIZON, -HORIZON - 1, -4.0, -1.0, 1.0, SKEW, SKEW + 1, HORIZON, 30.0])


class Reading(RuleBasedStateMachine):
    """A partition, those who write to it, and the members of one group."""

    stamping = True
    switching = False
    observing = False

    def __init__(self) -> None:
        super().__init__()
        self.patched = patch.multiple(partition, SPACING=3)
        self.patched.start()
        self.log = Log(self.stamping)
        self.keys = Keys()

    @initialize(
        clocks=st.tuples(WITHIN, WITHIN, WITHIN),
        grouped=st.sampled_from([True, True, True, False]),
        leased=st.booleans(),
        committed_only=st.booleans(),
        latest=st.booleans(),
        most_metadata=st.sampled_from([4096, 4096, 4096, 10]),
        most=st.sampled_from([1000, 1000, 1, 3]),
        small=st.sampled_from([False, False, False, True]),
    )
    def set_up(
        self,
        clocks: tuple[float, float, float],
        *,
        grouped: bool,
        leased: bool,
        committed_only: bool,
        latest: bool,
        most_metadata: int,
        most: int,
        small: bool,
    ) -> None:
        """Choose the clocks, and how the group reads; a first member begins."""
        self.log.broker, self.off, self.log.signer = clocks
        self.log.most_metadata = most_metadata
        self.options = Options(
            grouped=grouped,
            leased=leased,
            committed_only=committed_only,
            latest=latest,
            observing=self.observing,
            small=small,
            most=most,
        )
        self.new_group()

    def new_group(self) -> None:
        """Let a group read that has never read."""
        self.log.committed = None
        self.group = Group(self.log, self.keys, self.options)
        self.members = [self.new_member(), self.new_member()]
        self.member.assign()

    def new_member(self, max_age: float = MAX_AGE) -> Member:
        """Start a process."""
        return Member(self.group, self.off, replace(POLICY, max_hold=2.0, max_age=max_age))

    @property
    def member(self) -> Member:
        """The one that has the partition, or had it last."""
        return self.members[0]

    def some(self, which: int) -> Record | None:
        """Return a captured message."""
        ever = [record for record in self.log.records if not record.marker and record.headers]
        return ever[-1 - which % len(ever)] if ever else None

    # Who writes, and time

    @rule(principal=st.sampled_from(HONEST), delay=DELAYS, number=st.integers(1, 3))
    def send(self, principal: str, delay: float, number: int) -> None:
        """Let honest messages arrive."""
        for _ in range(number):
            self.log.write(principal, delay)

    @rule(ahead=DATES)
    def date(self, ahead: float) -> None:
        """Let a compromised principal date a message as it likes."""
        self.log.write(MALLORY, delay=-1.0, ahead=ahead - 1.0)

    @rule(which=ANY, shift=st.sampled_from([0.0, 0.0, -60.0, -3.0, 3.0]))
    def replay(self, which: int, shift: float) -> None:
        """Write a captured record again."""
        record = self.some(which)
        if record is not None:
            self.log.copy(record, shift)

    @rule(read=st.booleans())
    def replay_all(self, *, read: bool) -> None:
        """Write one copy of each of the last few messages again, to be read at once or later."""
        latest = {record.ident: record for record in self.log.records if record.genuine and record.known}
        for record in list(latest.values())[-8:]:
            self.log.copy(record)
        if read:
            self.read_all()

    @rule(which=ANY, how=st.sampled_from(["alter", "disown", "garbage"]))
    def forge(self, which: int, how: str) -> None:
        """Alter a captured record, put its claims under a key that nobody knows, or write rubbish."""
        record = self.some(which)
        if how == "garbage":
            self.log.garbage()
        elif record is not None:
            (self.log.alter if how == "alter" else self.log.disown)(record)

    @rule(principal=st.sampled_from(HONEST), which=ANY, copy=st.booleans())
    def write_in_transaction(self, principal: str, which: int, *, copy: bool) -> None:
        """Write in a transaction, which is open from then on."""
        record = self.some(which)
        if not copy or record is None:
            self.log.write(principal, producer=1)
        else:
            self.log.copy(record, producer=2)

    @rule(abort=st.booleans())
    @precondition(lambda self: self.log.open)
    def end_transaction(self, *, abort: bool) -> None:
        """End the oldest transaction."""
        self.log.end(next(iter(self.log.open)), abort=abort)

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Let time pass, and read nothing."""
        self.log.now += seconds

    @rule(which=ANY, age=AGES)
    def wait_for_age(self, which: int, age: float) -> None:
        """Let time pass until a message is just as old as matters."""
        record = self.some(which)
        if record is not None:
            self.log.now += max(0.0, record.issued_at + age - self.log.now - self.log.broker)

    @rule(broker=WITHIN, reader=WITHIN, signer=WITHIN)
    def step_clocks(self, broker: float, reader: float, signer: float) -> None:
        """Let all clocks step, within the skew."""
        self.log.broker, self.log.signer = broker, signer
        self.off = self.member.off = reader

    @rule(off=st.sampled_from([-20.0, -7.0, -3.0, 3.0, 7.0]))
    @precondition(lambda self: self.stamping)
    def lead(self, off: float) -> None:
        """Let a new leader's clock be far off."""
        self.log.broker, self.log.wild = off, True

    @rule()
    @precondition(lambda self: self.switching)
    def switch(self) -> None:
        """Let the broker begin or cease to stamp records."""
        self.log.stamping = not self.log.stamping

    @rule(keep=st.integers(0, 12))
    def cut(self, keep: int) -> None:
        """Let retention take the oldest records; all of them, maybe."""
        log = self.log
        log.first = max(log.first, min(log.high - keep, log.stable))

    # Key sources, quarantine, broker

    @rule(down=st.booleans(), quarantine=st.booleans())
    def fail_keys(self, *, down: bool, quarantine: bool) -> None:
        """Let the key source fail, or answer again; and the quarantine."""
        self.keys.down, self.group.quarantine = down, quarantine

    @rule(hidden=st.sets(st.sampled_from(HONEST)))
    def hide_keys(self, hidden: set[str]) -> None:
        """Let keys become known, or be not yet."""
        self.keys.unknown = hidden

    @rule(contained=st.sets(st.sampled_from([BOB, MALLORY])))
    def contain(self, contained: set[str]) -> None:
        """Cut principals off, or let them speak again."""
        for member in self.members:
            member.verifier.policy = replace(member.verifier.policy, contained=frozenset(contained))

    @rule(number=st.integers(1, 2))
    def fail_broker(self, number: int) -> None:
        """Let the broker's next answers be errors."""
        self.member.failures = number

    @rule(number=st.integers(1, 2))
    def lose_commits(self, number: int) -> None:
        """Let the next commits fail."""
        self.member.lost_commits = number

    # The reader, step by step

    @rule()
    def fetch(self) -> None:
        """Let the client fetch."""
        self.member.fetch()

    @rule(want=st.sampled_from([None, 1, 2]))
    def pump(self, want: int | None) -> None:
        """Let the machine do what takes no time, and begin what does."""
        self.member.pump(want)

    @rule()
    def carry_out(self) -> None:
        """Carry out what is under way; its result is reported later."""
        self.member.carry_out()

    @rule()
    def perform(self) -> None:
        """Let what is under way end."""
        self.member.perform()

    @rule(most=st.sampled_from([None, 1, 2]), but=st.sampled_from([0, 1]))
    def hand_over(self, most: int | None, but: int) -> None:
        """Give out what is ready."""
        self.member.hand_over(most, but=but)

    @rule()
    def handled(self) -> None:
        """Let the caller be done with what it got."""
        self.member.done()

    @rule(most=st.sampled_from([None, None, 1, 2]), one=st.booleans(), times=st.integers(1, 3))
    def read(self, most: int | None, *, one: bool, times: int) -> None:
        """Read as callers do."""
        for _ in range(times):
            self.member.read(most, one=one)

    def read_all(self) -> None:
        """Read while something comes."""
        for _ in range(100):
            if not self.member.read(None):
                return

    # Commits

    @rule()
    def commit_regularly(self) -> None:
        """Commit what is handled."""
        if self.options.grouped:
            self.member.commit_handled()

    @rule(back=st.sampled_from([0, 0, 1, 3]))
    def commit(self, back: int) -> None:
        """Let the caller commit what it got, or less."""
        judged = self.member.reader.judged()
        if judged is not None and self.options.grouped and self.member.mine:
            offset = max(0, judged - back)
            try:
                self.member.commit(offset, self.member.metadata(offset), self.log.now)
            except OSError:
                return

    @rule(back=st.integers(-2, 10), metadata=st.sampled_from(["", "application"]))
    @precondition(lambda self: self.options.grouped)
    def commit_from_outside(self, back: int, metadata: str) -> None:
        """Commit an offset of someone's choice, without our metadata."""
        self.log.committed = max(0, self.log.high - back), metadata

    # The life of members

    @rule(committing=st.booleans(), max_age=st.sampled_from([MAX_AGE, MAX_AGE, 2 * MAX_AGE]))
    def crash(self, *, committing: bool, max_age: float = MAX_AGE) -> None:
        """Kill the process; another one continues, with other settings maybe."""
        if committing:
            self.commit_regularly()
        if self.options.grouped and not (self.observing and self.log.committed is None):
            self.members[0] = self.new_member(MAX_AGE if self.log.wild else max_age)
            self.member.assign()
        else:
            self.new_group()

    @rule(ahead=st.sampled_from([3.0, 30.0, 60.0]), rubbish=st.integers(0, 4), told=st.booleans())
    def crash_behind_a_rogue(self, ahead: float, rubbish: int, *, told: bool) -> None:
        """Kill the process when all is read; what comes next is dated ahead, and hides honest messages from a look."""
        self.read_all()
        if not told and self.options.grouped:
            self.commit_from_outside(0, "")
        self.crash(committing=told)
        self.date(ahead)
        for _ in range(rubbish):
            self.log.garbage()
        self.send(ALICE, 0.0, 2)
        self.wait(ahead)
        self.read_all()

    @rule(committing=st.booleans(), steps=st.integers(0, 6), keep=st.integers(0, 12), reader=WITHIN)
    def crash_and_cut(self, *, committing: bool, steps: int, keep: int, reader: float) -> None:
        """Kill the process when all is read and copied; retention takes something while the next one begins."""
        self.read_all()
        self.replay_all(read=False)
        self.crash(committing=committing)
        self.off = self.member.off = reader
        self.cut_meanwhile(steps, keep)

    @rule(by=st.sampled_from([-30, -10, -3, -1]), steps=st.integers(0, 6), keep=st.integers(0, 12))
    def seek_and_cut(self, by: int, steps: int, keep: int) -> None:
        """Go back when all is read and copied; retention takes something meanwhile."""
        self.read_all()
        self.replay_all(read=False)
        self.seek(by)
        self.cut_meanwhile(steps, keep)

    def cut_meanwhile(self, steps: int, keep: int) -> None:
        """Go so many steps; let retention take something; read on."""
        for _ in range(steps):
            self.member.fetch()
            self.member.pump(None)
            self.member.perform()
        self.cut(keep)
        self.read_all()

    @rule(committing=st.booleans(), told=st.booleans())
    @precondition(lambda self: self.options.grouped)
    def move(self, *, committing: bool, told: bool) -> None:
        """Let the partition go to the other member; who had it may not notice."""
        if committing and self.options.leased:
            self.member.commit_handled()
        if told:
            self.member.lose()
        self.member.mine, self.member.zombie = False, not told and self.options.leased
        self.members.reverse()
        self.member.assign()

    @rule(most=st.sampled_from([None, 1]))
    @precondition(lambda self: self.members[1].zombie)
    def read_on(self, most: int | None) -> None:
        """Let a member that does not know that it lost the partition go on."""
        self.members[1].read(most)

    @rule(committing=st.booleans())
    @precondition(lambda self: self.options.grouped)
    def rebalance(self, *, committing: bool) -> None:
        """Let the same member have the partition again."""
        if committing and self.options.leased:
            self.member.commit_handled()
        self.member.assign()

    @rule(by=st.sampled_from([-30, -10, -3, -2, -1, -1, 0, 1, 3]))
    def seek(self, by: int) -> None:
        """Go back or forth, as an application may; beyond the log's end, maybe."""
        judged = self.member.reader.judged()
        if judged is not None and self.member.client.position is not None:
            self.member.seek(max(0, judged + by))

    @rule(latest=st.booleans())
    def seek_to_end(self, *, latest: bool) -> None:
        """Go to one of the log's ends."""
        if self.member.client.position is not None:
            self.member.seek_to_end(latest=latest)

    # What holds

    @invariant()
    def check(self) -> None:
        """Hold the member against all that it must not do."""
        if hasattr(self, "group"):
            self.member.check()

    def teardown(self) -> None:
        """Read everything; then replay everything, and let a new process read it."""
        try:
            if hasattr(self, "group"):
                self.drain()
                self.replay_all(read=False)
                self.crash(committing=True)
                self.drain()
        finally:
            self.patched.stop()

    def drain(self) -> None:
        """Read all there is, with everything in order: the machine gets to the end, and stays there."""
        log, member = self.log, self.member
        self.keys.down, self.keys.unknown = False, set()
        for producer in [*log.open]:
            log.end(producer, abort=False)
        member.lost_commits, member.failures, self.group.quarantine = 0, 0, True
        self.contain(set())
        for _ in range(300):
            got = member.read(None)
            if not got and member.reader.is_reading and member.reader.judged() == log.high == member.client.position:
                return
            if not got:
                log.now += 0.25
                if self.options.grouped and self.options.leased:
                    member.commit_handled()
        raise AssertionError("the machine does not get to the log's end")


class UnstampedReading(Reading):
    """A partition on which producers choose the records' times."""

    stamping = False


class SwitchingReading(Reading):
    """A partition whose topic is set to the other kind of time while members read it."""

    stamping = False
    switching = True


class ObservedReading(Reading):
    """A group that only observes, and is handed everything."""

    stamping = False
    observing = True


SETTINGS = settings(max_examples=40, stateful_step_count=40)
TestStamped = pytest.mark.slow(Reading.TestCase)
TestUnstamped = pytest.mark.slow(UnstampedReading.TestCase)
TestSwitching = pytest.mark.slow(SwitchingReading.TestCase)
TestObserved = pytest.mark.slow(ObservedReading.TestCase)
for case in (TestStamped, TestUnstamped, TestSwitching, TestObserved):
    case.settings = SETTINGS
del case
