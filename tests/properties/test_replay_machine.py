"""Any order of events in a log that one process reads alone, against the guard: docs/replay.md, "The invariant"."""

from math import floor as floor_of
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.properties.log_reader import ANY, BLIND, Reading
from tests.properties.log_world import LOG, POLICY, SKEW, Memory, Record
from watchword.looks import Looks

pytestmark = pytest.mark.usefixtures("not_traced")


class Partition(Reading):
    """A Kafka partition that the broker stamps, in a group."""

    def __init__(self) -> None:
        super().__init__()
        self.position = 0

    def restart_reader(self) -> None:
        """Let a new process take over at the position."""
        self.verifier = self.new_verifier()
        self.begin(self.position, self.position)

    @rule(count=st.sampled_from([1, 2, 100, 100]), patient=st.booleans())
    def read(self, count: int, patient: bool) -> None:  # noqa: FBT001
        """Judge the next records; one that cannot be is held, or passed over in the end."""
        self.position = max(self.position, self.world.start)
        while count and (record := self.world.at(self.position)) is not None:
            if self.judge(record) == "unavailable":
                if patient:
                    return
                self.give_up(record)
            self.position += 1
            count -= 1

    def catch_up(self) -> None:
        """Read all there is."""
        self.read(1000, patient=False)

    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 30]), blind=BLIND, small=st.booleans())
    def restart(self, back: int, blind: int, small: bool) -> None:  # noqa: FBT001
        """Kill the process; what was committed is where it stood, or earlier; the new one may have less room."""
        self.choose_room(small)
        self.verifier = self.new_verifier()
        self.go_to(self.position - back, blind)

    @rule(by=st.sampled_from([-10, -3, -1, 1, 3]), blind=BLIND)
    def seek(self, by: int, blind: int) -> None:
        """Go to another offset, back or forth, as an application may."""
        self.go_to(self.position + by, blind)

    def go_to(self, offset: int, blind: int = 0) -> None:
        """Start over at an offset, or where the log begins or ends."""
        self.position = min(max(offset, self.world.start), len(self.world.records))
        self.begin(self.position, self.position, blind=blind)

    @rule(count=st.integers(0, 5))
    def rebalance_and_back(self, count: int) -> None:
        """Let another member read some records and commit none; our guard comes back to the position that it left."""
        ours, memory, store, position = self.verifier, self.memory, self.store, self.position
        self.restart_reader()
        self.read(count, patient=True)
        self.verifier, self.memory, self.store, self.position = ours, memory, store, position

    @rule(which=ANY)
    def redrive(self, which: int) -> None:
        """Read again at its place, through the live guard, what was rejected or passed over."""
        passed = list(self.world.retained(self.position))
        if passed:
            record = passed[-1 - which % len(passed)]
            if self.judge(record, again=True) == "unavailable":
                self.give_up(record)

    def cut(self, offset: int) -> None:
        """Let retention take what lies before an offset."""
        self.world.cut(max(0, offset))

    @rule(kind=st.sampled_from(["cut", "cut", "truncate", "recreate"]), keep=st.integers(0, 10))
    def lose(self, kind: str, keep: int) -> None:
        """Lose the oldest to retention, the newest to an election, or all as the topic is recreated."""
        world, end = self.world, len(self.world.records)
        if kind == "cut":
            self.cut(end - keep)
        elif kind == "truncate":
            world.truncate(max(world.start, end - keep))
        else:
            world.recreate()
        for ident in [ident for ident, record in self.delivered.items() if record.gone == "lost"]:
            if ident not in self.memory.first:  # delivered before the reader went back, and lost since
                del self.delivered[ident]
        if not world.start <= self.position <= len(world.records) or kind == "recreate":
            self.go_to(self.position if kind != "recreate" else 0)

    def teardown(self) -> None:
        """Read everything in the end; then replay everything, and let a new process read it."""
        self.keys.down, self.keys.unknown = False, set()
        self.replay_all(read=True)
        self.replay_all(read=False)
        self.restart(0, 0, small=False)
        self.catch_up()


class Checkpoint(NamedTuple):
    """What a reader commits with its position: a successor that continues there, or behind, knows enough by it."""

    position: int
    floor: float
    lowest: int


class UnstampedPartition(Partition):
    """A Kafka partition on which producers choose the records' times; only looks at its end tell when they came."""

    stamped = False

    def __init__(self) -> None:
        super().__init__()
        self.checkpoints: list[Checkpoint] = []

    def restart_reader(self) -> None:
        """Let a new process take over at the position, which knows of no look at the log's end but its own."""
        self.looks = Looks()
        self.verifier = self.new_verifier()
        self.go_to(self.position)

    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 30]), blind=BLIND, small=st.booleans())
    def restart(self, back: int, blind: int, small: bool) -> None:  # noqa: FBT001
        """Kill the process; see Partition."""
        self.looks = Looks()
        super().restart(back, blind, small)

    @rule()
    def look(self) -> None:
        """Ask for records, and take none of them."""
        self.looks.add(self.world.local, len(self.world.records), self.world.local)

    def read(self, count: int, patient: bool) -> None:  # noqa: FBT001
        """Look, judge the next records, forget looks that are needed no more, and commit."""
        self.look()
        super().read(count, patient)
        self.looks.prune(self.position)
        self.commit()

    def commit(self) -> None:
        """Commit what is judged, with all that a successor must know."""
        memory = self.verifier.memory(LOG)
        floor, lowest = memory.floor(), memory.lowest_needed()
        self.checkpoints.append(Checkpoint(self.position, floor, self.position if lowest is None else lowest))

    def go_to(self, offset: int, blind: int = 0) -> None:
        """Start over where the last checkpoint says that lies at that offset or before it."""
        world = self.world
        self.position = min(max(offset, world.start), len(world.records))
        self.look()
        known = max(
            (one for one in self.checkpoints[::-1] if one.position <= self.position), default=None, key=_position
        )
        floor, lowest = self.without_checkpoint() if known is None else known[1:]
        if known is not None and world.start > lowest:  # what was handed over and is gone
            handed = [one.issued_at for one in self.delivered.values() if one.offset < world.start]
            self.excused = max(self.excused, *handed, -inf)
        if world.start > offset:  # what was handed over after the commit may be gone too
            self.excused = max(self.excused, floor_of(world.local + SKEW))
        if known is None:
            self.excused = max(self.excused, floor)
        floor = max(floor, self.excused + 1)
        self.excuse(None)
        self.memory = Memory(floor)
        self.verifier.begin(LOG, floor=floor)
        world.now += self.takes
        self.read_again(max(lowest, world.start), self.position, blind=blind)
        self.commit()

    def without_checkpoint(self) -> tuple[float, int]:
        """Return floor and lowest offset where nothing is known: by the next messages, and by records' own times."""
        world = self.world
        ahead = [one for one in world.records[self.position :] if self.is_known(one) and self.is_unaltered(one)]
        issued = [one.issued_at for one in ahead[:3]]
        anchor = max(min(issued, default=world.local), world.local - POLICY.max_lag)
        stated = POLICY.floor_at(anchor)
        since = anchor - POLICY.window
        return stated, next((one.offset for one in world.retained(self.position) if one.stamp >= since), self.position)

    @rule(count=st.integers(0, 5))
    def rebalance_and_back(self, count: int) -> None:
        """Let another member read some records and commit none; see Partition."""
        looks, checkpoints = self.looks, [*self.checkpoints]
        super().rebalance_and_back(count)
        self.looks, self.checkpoints = looks, checkpoints

    @rule(kind=st.sampled_from(["cut", "cut", "truncate", "recreate"]), keep=st.integers(0, 10))
    def lose(self, kind: str, keep: int) -> None:
        """Lose what Partition loses; a log that lost its end is another one, at which nobody has looked."""
        world = self.world
        if kind != "cut":
            end = 0 if kind == "recreate" else max(world.start, len(world.records) - keep)
            self.checkpoints = [one for one in self.checkpoints if one.position <= end and kind != "recreate"]
            self.looks = Looks()
        super().lose(kind, keep)


def _position(checkpoint: Checkpoint) -> int:
    return checkpoint.position


class Stream(Reading):
    """A JetStream consumer that one process reads: acknowledged in any order, offered again until then."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 0
        self.open: dict[int, Record] = {}
        """What the server has delivered and not seen acknowledged."""

        self.handed: dict[int, Record] = {}
        """What the handler has, and has not acknowledged to this process."""

    def restart_reader(self) -> None:
        """Let a new process take the consumer over."""
        self.restart(blind=0, small=self.small)

    @rule(blind=BLIND, small=st.booleans())
    def restart(self, blind: int, small: bool) -> None:  # noqa: FBT001
        """Kill the process; the server still offers what it has not seen acknowledged."""
        self.choose_room(small)
        self.verifier = self.new_verifier()
        self.handed.clear()
        self.begin(self.next, min(self.open, default=self.next), blind=blind, pinned=self.open.__contains__)

    @rule(count=st.sampled_from([1, 2, 100, 100]), acks=st.sampled_from([0, 1, 1, 2]))
    def read(self, count: int, acks: int) -> None:
        """Take the next messages for the first time; one in so many is acknowledged at once."""
        self.next = max(self.next, self.world.start)
        while count and (record := self.world.at(self.next)) is not None:
            self.next += 1
            self.open[record.offset] = record
            self.handle(record)
            if acks and record.offset % acks == 0 and record.offset in self.handed:
                self.acknowledge(record)
            count -= 1

    def catch_up(self) -> None:
        """Read all there is."""
        self.read(1000, 0)

    @rule(which=ANY)
    def redeliver(self, which: int) -> None:
        """Take again what the server has not seen acknowledged."""
        if self.open:
            self.handle(list(self.open.values())[which % len(self.open)])

    def handle(self, record: Record) -> None:
        """Judge a message: it is handed over, or terminated, or offered again later."""
        verdict = self.judge(record, pin=True)
        if verdict == "delivered":
            self.handed[record.offset] = record
        elif verdict == "unavailable":
            self.give_up(record, pin=True)
        else:
            del self.open[record.offset]
            if self.memory.seen_at(record.ident) == self.world.place(record):
                self.memory.pinned.discard(record.ident)

    @rule(which=ANY, lost=st.sampled_from([False, False, True]))
    def ack(self, which: int, lost: bool) -> None:  # noqa: FBT001
        """Acknowledge, in any order; that may be lost on the way to the server."""
        if self.handed:
            self.acknowledge(list(self.handed.values())[which % len(self.handed)], lost=lost)

    def acknowledge(self, record: Record, *, lost: bool = False) -> None:
        """Acknowledge what was handed over."""
        del self.handed[record.offset]
        if not lost:
            self.open.pop(record.offset, None)
        self.memory.pinned.discard(record.ident)
        self.store.acknowledge_at(LOG, record.offset)

    @rule(keep=st.integers(0, 10))
    def cut(self, keep: int) -> None:
        """Let retention take what is oldest, delivered or not."""
        self.world.cut(max(0, len(self.world.records) - keep))
        self.open = {offset: record for offset, record in self.open.items() if offset >= self.world.start}
        self.handed = {offset: record for offset, record in self.handed.items() if offset >= self.world.start}

    def teardown(self) -> None:
        """Read everything in the end; then replay everything, and let a new process read it."""
        self.keys.down, self.keys.unknown = False, set()
        self.replay_all(read=True)
        self.replay_all(read=False)
        self.restart(0, small=False)
        for offset in list(self.open):
            self.handle(self.open[offset])
        self.catch_up()


TestPartition = pytest.mark.slow(Partition.TestCase)
TestPartition.__doc__ = "Promise (A12, A14, A16-A20, A34, A35, A39): on a log that the broker stamps."
TestUnstampedPartition = pytest.mark.slow(UnstampedPartition.TestCase)
TestUnstampedPartition.__doc__ = "Promise: the same on a log whose times producers choose."
TestStream = pytest.mark.slow(Stream.TestCase)
TestStream.__doc__ = "Promise: the same where deliveries are offered until they are acknowledged, in any order."
TestPartition.settings = TestUnstampedPartition.settings = TestStream.settings = settings(
    max_examples=200, stateful_step_count=40
)
