"""A consumer group on the partition: members that come and go, each with a machine, and a memory that forgets nothing.

A member drives the product's machine, verifier and guard as an adapter does, but one step at a time. The group sees
each commit and whatever is handed over or dropped, and says what must not be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from math import inf
from typing import Final, TypeAlias

from tests.properties.log_world import Ident, Keys
from tests.properties.partition_log import HORIZON, SKEW, WINDOW, Client, Log, Record
from tests.unit.core.world import BOB, at_once
from watchword import Policy, Rejected, Unavailable, VerifiedMessage
from watchword.checkpoint import read_line
from watchword.endings import Endings, Outage
from watchword.guard import DEFAULT_BOUNDS
from watchword.message import log_name
from watchword.partition import (
    Action,
    Commit,
    Judge,
    Judged,
    Keep,
    Locate,
    Located,
    LookUp,
    PartitionReader,
    Peek,
    Ready,
    Recall,
    Recollected,
    Renew,
    Seek,
    Take,
    Taken,
    Wait,
)
from watchword.quota import Bounds
from watchword.spi import MemoryReplayStore, Message, ObservedMessage, Verifier

FEW: Final = Bounds(per_principal=2, in_all=100, unverified=1)

LEASE: Final = 5.0
"""Seconds after a commit for which records are handed over."""

SPINS: Final = 40
"""Actions in a row that take no time, at most."""

Place: TypeAlias = tuple[int, float | None]


def fail(error: Exception) -> None:
    """Raise an error."""
    raise error


async def checked(jobs: Sequence[Callable[[], bool]]) -> list[bool]:
    """Check signatures."""
    return [job() for job in jobs]


@dataclass
class Options:
    """How the members of a group are set up."""

    grouped: bool = True
    leased: bool = True
    committed_only: bool = True
    latest: bool = False
    observing: bool = False
    small: bool = False
    """Whether there is little room for ids."""

    most: int = 1000
    """Records in an answer to a fetch."""


@dataclass
class Group:
    """What all members of a group have been given, forever."""

    log: Log
    keys: Keys
    options: Options
    handed: dict[Ident, Record] = field(default_factory=dict)
    given: list[tuple[Record, float]] = field(default_factory=list)
    """What was handed over, and when by the clock of who got it."""

    latest: float = -inf
    """Up to when what was handed over was issued, as far as members can know."""

    quarantine: bool = True
    spent: list[str] = field(default_factory=list)
    """What happened, for a reader of a counterexample."""

    tags: "count[int]" = field(default_factory=count)

    def take(self, member: "Member", entry: Ready[Record]) -> None:
        """Look at what is handed over."""
        record = entry.record
        verdict = entry.verdict.verdict if isinstance(entry.verdict, ObservedMessage) else entry.verdict
        if isinstance(verdict, Rejected):  # observe mode hands everything over
            self.dropped(member, record, verdict)
        if not isinstance(verdict, VerifiedMessage):
            return
        assert record.genuine, "a forgery was handed over"
        assert record.known, "a message of nobody's was handed over"
        first = self.handed.setdefault(record.ident, record)
        if not self.is_beyond_memory(first):
            assert first.place == record.place, f"an id was handed over at {first.place} and at {record.place}"
        if verdict.redelivered:
            assert record.place in member.handed, "what this process never handed over is said to come again"
        self.given.append((record, member.clock))
        self.latest = max(self.latest, record.issued_at)

    def dropped(self, member: "Member", record: Record, verdict: Rejected) -> None:
        """Look at what is dropped: nothing honest may be lost."""
        reason = str(verdict.reason)
        if reason in {"unknown_key", "from_future", "contained", "over_quota"}:
            self.latest = max(self.latest, member.clock + 2 * SKEW + 1)
        if not self.is_honest(record) or reason == "unknown_key":
            return
        if (reason in {"stale", "from_future"} and self.log.wild) or reason == "contained":
            return
        if self.options.small and reason in {"stale", "over_quota", "replayed"}:
            return
        excused = reason == "stale" and record.issued_at < member.excused
        assert excused, f"honest {record.offset} is {reason}: {verdict.detail}"

    def forget_gone(self) -> None:
        """Let go what retention took: without a checkpoint only writers' timestamps tell how far back the log goes."""
        self.handed = {ident: record for ident, record in self.handed.items() if record.offset >= self.log.first}
        self.given = [one for one in self.given if one[0].offset >= self.log.first]

    def is_beyond_memory(self, record: Record) -> bool:
        """Return True for what no log can tell, which docs/replay.md states as limits.

        Retention took it, and the broker's clock was further off than the skew. Or its sender dated it so far ahead
        that it was not remembered, and no stamp says so when it is read again.
        """
        far = record.issued_at > self.log.records[record.ident[1]].appended + WINDOW - SKEW
        return far or (record.offset < self.log.first and self.log.wild)

    def is_honest(self, record: Record) -> bool:
        """Return True if a principal that dates truly wrote this, and nobody could read it elsewhere before."""
        return record.genuine and record.known and record.ident[1] == record.offset and record.delay >= 0

    def commit(self, offset: int, metadata: str) -> None:
        """Look at a commit, and keep it."""
        assert 0 <= offset <= self.log.high, "committed beyond the log's end"
        line = read_line(metadata)
        if line is not None and not self.options.small:
            point = line[1]
            assert point.at <= offset
            for record, _ in self.given:
                if record.offset < point.at and not self.is_beyond_memory(record):
                    assert self.is_told(record, point.floor, point.since, point.at), f"{record} below {point}"
                for mark in () if self.log.wild else point.marks:
                    assert record.offset >= mark.offset or record.issued_at <= mark.issued_at, f"{record} after {mark}"
        self.log.committed = offset, metadata

    def is_told(self, record: Record, floor: int, since: int, at: int) -> bool:
        """Return True if a successor that reads [since, at) with this floor refuses a copy of the record."""
        if record.issued_at < floor or record.offset >= since:
            return True
        return any(
            one.ident[0] == record.ident[0] and one.genuine and one.known and one.issued_at - HORIZON > record.issued_at
            for one in self.log.records[since:at]
        )


class Member:
    """One process: a client, a verifier with its guard, and the machine, driven step by step."""

    def __init__(self, group: Group, off: float, policy: Policy) -> None:
        self.group, self.log, self.off = group, group.log, off
        options = group.options
        self.client = Client(self.log, committed_only=options.committed_only, latest=options.latest, most=options.most)
        self.verifier = Verifier(
            realm="prod",
            keys=group.keys,
            replay=MemoryReplayStore(horizon=policy.horizon, bounds=FEW if options.small else DEFAULT_BOUNDS),
            policy=policy,
            clock=lambda: self.clock,
            principal=BOB,
        )
        self.name = log_name(self.log.message(Record(0, None, 0, 0, ("", 0), 0, ()), (0, 0)))
        self.outage = Outage(policy.max_hold)
        self.reader = self.new_reader(policy)
        self.task: tuple[Action[Record], Callable[[], object]] | None = None
        self.holding: int | None = None
        """The first record of those that the caller is not done with."""

        self.zombie = False
        """Whether it has lost the partition, but does not know it yet."""

        self.failures = 0
        """Of the broker's next answers, how many are errors."""

        self.lease = -inf
        self.handed: set[Place] = set()
        self.accounted: set[int] = set()
        self.base: int | None = None
        self.meant: int | None = None
        self.begun: int | None = None
        """From where on this process has checkpoints of its own."""

        self.reached: int | None = None
        self.excused = -inf
        self.mine = False
        self.lost_commits = 0

    def new_reader(self, policy: Policy) -> PartitionReader[Record]:
        """Return the machine."""
        options = self.group.options
        memory = self.verifier.memory(self.name)
        begin = memory.begin

        def begun(*, floor: float) -> None:
            self.excuse()
            begin(floor=floor)

        memory.begin = begun  # type: ignore[method-assign] # to see when
        return PartitionReader(
            policy=policy,
            stamp=lambda record: record.stamp,
            clock=lambda: self.clock,
            endings=Endings(self.outage),
            memory=memory,
            tag=f"{next(self.group.tags):08x}",
            grouped=options.grouped,
            leased=options.leased and options.grouped,
            observing=options.observing,
        )

    @property
    def grouped(self) -> bool:
        """Whether it is one of a group."""
        return self.group.options.grouped

    @property
    def clock(self) -> float:
        """What its clock shows."""
        return self.log.now + self.off

    def excuse(self) -> None:
        """Note up to when what retention may have taken excuses a loss, as a guard begins."""
        log, group = self.log, self.group
        position, line = self.reader._resume, None if log.committed is None else read_line(log.committed[1])
        told = self.grouped and not group.options.observing and line is not None and line[1].at <= position
        if told or self.begun is None or position < self.begun:
            self.begun = position
        else:
            told = True
        if not told and any(record.stamp is None for record in log.records):
            group.forget_gone()
        behind = log.committed is not None and log.committed[0] < log.first
        if not told or behind or (self.meant is not None and self.meant < log.first) or self.reader._has_skipped:
            group.latest = max(group.latest, self.clock + 2 * SKEW + 1)
        nothing_gone = log.first == 0 or not (self.reader._has_given or log.committed)
        self.excused = -inf if nothing_gone else group.latest + 1

    # What its group does

    def assign(self) -> None:
        """Get the partition; from where to read, the client finds out."""
        self.client.begin()
        self.reader.assigned()
        self.base = self.meant = self.reached = self.holding = self.begun = None
        self.mine, self.zombie = True, False

    def lose(self) -> None:
        """Lose the partition."""
        self.reader.lost()
        self.lease = -inf
        self.mine = self.zombie = False
        self.holding = None
        self.verifier.forget(self.name)

    # Reading

    def fetch(self) -> None:
        """Let the client do what it does in the background."""
        client = self.client
        if client.position is None:
            client.find_position()
            self.base = client.position
            if self.meant is None:
                self.meant = client.position
            return
        before = self.clock
        end = client.fetch()
        if end is not None:
            stable = self.log.stable
            self.reader.looked(before, end, self.clock, stable=stable if stable < end else None)
        if not client.has_position:
            self.base = self.reached = None

    def pump(self, want: int | None) -> None:
        """Do what the machine says, up to what takes time."""
        for _ in range(SPINS):
            if self.task is not None:
                return
            now, position = self.log.now, self.client.position
            action = self.reader.next(now, position, want)
            match action:
                case Wait(until):
                    if until > now:
                        return
                case Seek(offset):
                    assert 0 <= offset <= self.log.high, "sought beyond the log's end"
                    self.client.seek(offset)
                    if self.reader._stage.name == "PLACING":
                        self.base = offset
                case Take(most):
                    records = self.client.take(most)
                    self.reader.answered(action, Taken(records, self.client.position), now)
                    if not records and self.client.position == position:
                        return
                case _:
                    self.task = action, self.begin(action)
        raise AssertionError("the machine spins")

    def begin(self, action: "Action[Record]") -> Callable[[], object]:
        """Begin an action; what is returned carries it out."""
        log = self.log
        match action:
            case Locate():
                return partial(self.asked, lambda: Located(log.committed if self.grouped else None, log.first))
            case LookUp(time):
                return partial(self.asked, lambda: log.look_up(time, committed_only=self.client.committed_only))
            case Commit(offset):
                return partial(self.commit, offset, self.metadata(offset), log.now)
            case Keep():
                return lambda: self.group.quarantine
            case _:
                return self.judging(action)

    def asked(self, question: Callable[[], object]) -> object:
        """Ask the broker, which may fail."""
        if self.failures:
            self.failures -= 1
            raise OSError
        return question()

    def judging(self, action: "Action[Record]") -> Callable[[], object]:
        """Begin what the verifier does."""
        match action:
            case Judge(records):
                return partial(self.judged, self.messages(records), self.log.now)
            case Recall(records):
                return partial(self.recollected, self.messages(records))
            case Peek(records):
                return partial(self.times_of_issue, self.messages(records))
            case Renew(entries):
                return lambda: at_once(self.verifier.reverify([entry.message for entry in entries]))
            case _:
                raise AssertionError(action)

    def messages(self, records: Sequence[Record]) -> list[Message]:
        """Return what the verifier judges."""
        interval = self.reader.looks.interval
        return [self.log.message(record, interval(record.offset, self.clock)) for record in records]

    def judged(self, messages: Sequence[Message], begun: float) -> Judged:
        """Judge."""
        verdicts = at_once(self.verifier.verify_many(messages))
        if not self.group.options.observing:
            return Judged(messages, verdicts, begun)
        pairs = zip(messages, verdicts, strict=False)
        return Judged(messages, [ObservedMessage(message, verdict) for message, verdict in pairs], begun)

    def times_of_issue(self, messages: list[Message]) -> list[int]:
        """Look at messages."""
        return at_once(self.verifier.times_of_issue(messages, check=checked))

    def recollected(self, messages: list[Message]) -> Recollected:
        """Have messages remembered."""
        done = at_once(self.verifier.recall_many(messages, check=checked))
        return Recollected(done, messages[done] if done < len(messages) else None)

    def carry_out(self) -> None:
        """Do what takes time, if something is under way; the answer comes later."""
        if self.task is not None:
            action, work = self.task
            try:
                answer = work()
            except (OSError, Unavailable) as error:
                self.task = action, partial(fail, error)
            else:
                self.task = action, lambda: answer

    def perform(self) -> None:
        """Do what takes time, if that was not done yet, and say what came of it."""
        if self.task is None:
            return
        (action, work), self.task = self.task, None
        reader, now = self.reader, self.log.now
        try:
            answer = work()
        except (OSError, Unavailable):
            reader.failed(action, now)
        else:
            given_up = reader._given_up
            reader.answered(action, answer, now)
            if isinstance(action, Keep) and given_up is not None and reader._given_up is None and not reader.failure:
                self.account(action.message)
        if isinstance(action, Keep):
            self.group.latest = max(self.group.latest, self.clock + 2 * SKEW + 1)
        for message, verdict in reader.dropped:
            self.group.dropped(self, self.account(message), verdict)
        reader.dropped.clear()
        reader.notes.clear()
        reader.failure = None
        if not (self.mine or self.zombie):
            self.verifier.forget(self.name)

    def account(self, message: Message) -> Record:
        """Note that a record ended without being handed over."""
        assert message.position is not None
        self.accounted.add(message.position.offset)
        return self.log.records[message.position.offset]

    def hand_over(self, most: int | None, *, but: int = 0) -> int:
        """Give what is ready to the caller, all ``but`` the last ones, which it cannot read; return how many."""
        reader, now = self.reader, self.log.now
        if not ((self.mine or self.zombie) and reader.ready and reader.is_fresh(now)):
            return 0
        if reader._leased and now - self.lease >= LEASE:
            return 0
        entries = reader.hand_over(most)
        kept = len(entries) - min(but, len(entries) - 1)
        reader.give_back(entries[kept:])
        del entries[kept:]
        for entry in entries:
            self.group.take(self, entry)
            self.handed.add(entry.record.place)
            self.accounted.add(entry.record.offset)
        if entries and self.holding is None:
            self.holding = entries[0].record.offset
        return len(entries)

    def read(self, most: int | None, *, one: bool = False) -> int:
        """Read as a caller does, until something comes; return how many."""
        self.done()
        got = idle = 0
        while not got and idle < 4:
            self.fetch()
            self.pump(self.reader.look_ahead(self.log.now) if one else most)
            idle = 0 if self.task is not None else idle + 1
            self.perform()
            got = self.hand_over(1 if one else most)
            self.check()
        return got

    def done(self) -> None:
        """Be done with all that was handed over."""
        self.reader.all_handled()
        self.holding = None

    # Commits

    def metadata(self, offset: int) -> str:
        """Return what a commit tells a successor."""
        return self.reader.metadata(offset, until=self.clock + LEASE if self.reader._leased else 0)

    def commit(self, offset: int, metadata: str, sent: float) -> None:
        """Commit, if the broker takes it."""
        if self.lost_commits or self.zombie:
            self.lost_commits = max(0, self.lost_commits - 1)
            raise OSError
        if len(metadata) > self.log.most_metadata:
            metadata = ""
        self.group.commit(offset, metadata)
        self.lease = sent
        if self.mine:
            self.reader.committed = offset

    def commit_handled(self) -> None:
        """Commit what the caller is done with."""
        handled = self.reader.handled()
        if handled is not None and self.mine:
            assert self.holding is None or handled <= self.holding, "committed what the caller is not done with"
            try:
                self.commit(handled, self.metadata(handled), self.log.now)
            except OSError:
                return

    # What the caller does

    def seek(self, offset: int) -> None:
        """Go elsewhere."""
        self.client.seek(offset)
        self.reader.sought(offset)
        self.holding = None
        self.skip()
        self.base, self.meant, self.reached = offset, offset, None

    def seek_to_end(self, *, latest: bool) -> None:
        """Go to one of the log's ends, once the client has found it."""
        self.reader.sought(None)
        self.client.seek_to_end(latest=latest)
        self.holding = None
        self.skip()
        self.base = self.meant = self.reached = None

    def skip(self) -> None:
        """Note that others may have been given what nobody judges here."""
        self.group.latest = max(self.group.latest, self.clock + 2 * SKEW + 1)

    # What holds at any time

    def check(self) -> None:
        """Nothing is passed unaccounted for, and nothing goes beyond the log or backwards."""
        reader, log = self.reader, self.log
        judged = reader.judged()
        if judged is None or not self.mine or not reader.is_reading:
            return
        assert judged <= log.high, "beyond the log's end"
        assert self.reached is None or judged >= self.reached, "backwards"
        self.reached = judged
        if self.base is not None and self.base < judged:
            for record in log.readable(self.base, committed_only=self.client.committed_only):
                if record.offset < judged:
                    assert record.offset in self.accounted, f"{record.offset} was passed without an ending"
