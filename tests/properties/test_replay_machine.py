"""Any order of events in a log that one process reads alone, against the guard: docs/replay.md, "The invariant"."""

from collections.abc import Callable
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.properties.log_world import (
    HORIZON,
    LOG,
    POLICY,
    SKEW,
    WINDOW,
    WRITERS,
    Ident,
    Keys,
    Memory,
    Place,
    Record,
    World,
    stated_floor,
)
from tests.unit.core.world import ALICE, BOB, at_once
from watchword import MemoryReplayStore, Rejected, Unavailable, Verifier
from watchword.rebuild import anchor_without_record, floor_at, window_start

PER_PRINCIPAL: Final = 2
UNVERIFIED: Final = 1
MANY: Final = 10_000

ANY: Final = st.integers(0, 30)
WITHIN: Final = st.sampled_from([-1.0, 0.0, 1.0])
BEYOND: Final = st.sampled_from([-60.0, -9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0])
BLIND: Final = st.sampled_from([0, 0, 0, 1, 2])
AGES: Final = st.sampled_from([-SKEW, 0.0, HORIZON, HORIZON, HORIZON + 0.5, HORIZON + 1])
DELAYS: Final = st.sampled_from([0.0, 0.0, 1.0, 4.0])
WAITS: Final = st.sampled_from([0.5, 1.0, 2.0, 4.0, 7.0, 20.0])


class Reading(RuleBasedStateMachine):
    """What is common to all who read a log: its writers, its attacker, its clocks, and the judging of one record."""

    stamped = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.stamped)
        self.keys = Keys()
        self.small = False
        self.delivered: dict[Ident, Record] = {}
        self.verifier, self.memory = self.new_verifier(), Memory(-float("inf"))

    @initialize(small=st.booleans(), clocks=st.tuples(WITHIN, WITHIN, WITHIN))
    def set_up(self, small: bool, clocks: tuple[float, float, float]) -> None:  # noqa: FBT001 - hypothesis names it
        """Choose a quota and clocks, and begin at the beginning."""
        self.small = small
        self.world.broker, self.world.reader, self.world.signer = clocks
        self.restart_reader()

    def restart_reader(self) -> None:
        """Begin with nothing in memory."""
        raise NotImplementedError

    def catch_up(self) -> None:
        """Read all there is."""
        raise NotImplementedError

    def new_verifier(self) -> Verifier:
        """A process that has just started."""
        self.store = MemoryReplayStore(
            horizon=POLICY.horizon,
            per_principal=PER_PRINCIPAL if self.small else MANY,
            unverified=UNVERIFIED if self.small else MANY,
        )
        return Verifier(
            realm="prod",
            keys=self.keys,
            replay=self.store,
            policy=POLICY,
            clock=lambda: self.world.local,
            principal=BOB,
        )

    # The writers, the attacker, and time

    @rule(principal=st.sampled_from(list(WRITERS)), delay=DELAYS, count=st.integers(1, 3))
    def send(self, principal: str, delay: float, count: int) -> None:
        """Honest messages arrive."""
        for _ in range(count):
            self.world.write(principal, delay)

    @rule(which=ANY, shift=BEYOND)
    def replay(self, which: int, shift: float) -> None:
        """The attacker writes a captured record again."""
        if self.world.ever:
            self.world.copy(self.world.ever[-1 - which % len(self.world.ever)], shift)

    @rule(read=st.booleans())
    def replay_all(self, read: bool) -> None:  # noqa: FBT001
        """The attacker writes one copy of the last few messages again, which are read at once or later."""
        latest = {record.ident: record for record in self.world.ever if record.genuine and record.known}
        for record in list(latest.values())[-8:]:
            self.world.copy(record)
        if read:
            self.catch_up()

    @rule(which=ANY, alter=st.booleans())
    def forge(self, which: int, alter: bool) -> None:  # noqa: FBT001
        """The attacker alters a captured record, or puts its claims under a key that nobody knows."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            (self.world.alter if alter else self.world.disown)(record)

    @rule(principal=st.sampled_from([ALICE, BOB]), count=st.integers(1, 3))
    def babble(self, principal: str, count: int) -> None:
        """The attacker signs in somebody's name under a key that nobody knows, and the owner speaks after that."""
        for _ in range(count):
            self.world.write(principal, known=False)
        self.world.write(principal)

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Time passes, and nothing is read."""
        self.world.now += seconds

    @rule(which=ANY, age=AGES)
    def wait_for_age(self, which: int, age: float) -> None:
        """Time passes until a message is just as old as matters."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            self.world.now += max(0.0, record.issued_at + age - self.world.clock)

    @rule(which=ANY, age=AGES)
    def replay_after_restart(self, which: int, age: float) -> None:
        """The reader dies; the attacker writes a record again at the last moment; another reader takes over."""
        self.catch_up()
        self.wait_for_age(which, age)
        self.replay(which, 0.0)
        self.restart_reader()
        self.catch_up()

    @rule(principal=st.sampled_from([ALICE, BOB]))
    def learn_late(self, principal: str) -> None:
        """A message passes before its key is known; then it is written again."""
        hidden = self.keys.hidden
        self.keys.hidden = {*hidden, principal}
        self.world.write(principal)
        self.catch_up()
        self.keys.hidden = hidden - {principal}
        self.replay(0, 0.0)

    @rule(which=ANY, age=AGES)
    def step_broker(self, which: int, age: float) -> None:
        """A new leader's clock shows a time at which some message is fresh, far off the true one maybe."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            self.world.broker = record.issued_at + age - self.world.now

    @rule(broker=WITHIN, reader=WITHIN, signer=WITHIN)
    def step_clocks(self, broker: float, reader: float, signer: float) -> None:
        """All clocks step, within the skew."""
        self.world.broker, self.world.reader, self.world.signer = broker, reader, signer

    @rule(down=st.booleans())
    def fail_keys(self, down: bool) -> None:  # noqa: FBT001
        """The key source fails, or answers again."""
        self.keys.down = down

    @rule(hidden=st.sets(st.sampled_from([ALICE, BOB])))
    def hide_keys(self, hidden: set[str]) -> None:
        """Keys become known, or are not yet."""
        self.keys.hidden = hidden

    # Judging

    def is_known(self, record: Record) -> bool:
        """Tell whether the key source knows the key that a record bears."""
        return record.known and record.ident[0] not in self.keys.hidden

    def verdict(self, record: Record, *, pin: bool = False) -> str:
        """Let the real verifier judge a record."""
        message = self.world.read(record, delivered_by=("S", "C") if pin else None)
        try:
            at_once(self.verifier.verify(message))
        except Rejected as refused:
            return str(refused.reason)
        except Unavailable:
            return "unavailable"
        return "delivered"

    def expected(self, record: Record, *, pin: bool = False) -> str:
        """What the naive memory says of it."""
        place, reference = self.world.place(record), self.world.reference(record)
        if reference - record.issued_at > HORIZON:
            return "stale"
        if reference - record.issued_at < -SKEW:
            return "from_future"
        if self.keys.down:
            return "unavailable"
        if not self.is_known(record):
            self.memory.pass_over(record, place, pin=False)
            return "unknown_key"
        if not self.is_unaltered(record):
            return "altered"
        return self.memory.claim(record.ident, place, record.issued_at, reference, pin=pin)

    def is_unaltered(self, record: Record) -> bool:
        """Check 7."""
        return record.genuine and (self.stamped or abs(record.stamp - record.issued_at) <= SKEW)

    def judge(self, record: Record, *, pin: bool = False) -> str:
        """Judge one record, and hold the verdict against the naive memory and against everything ever delivered."""
        expected, verdict = self.expected(record, pin=pin), self.verdict(record, pin=pin)
        if verdict != expected:
            assert self.may_overflow(record), f"{verdict} instead of {expected}"
            assert verdict in {"stale", "over_quota"}, f"{verdict} instead of {expected}"
        if verdict == "delivered":
            first = self.delivered.setdefault(record.ident, record)
            assert self.world.place(first) == self.world.place(record), "an id was delivered at two places"
        return verdict

    def may_overflow(self, record: Record) -> bool:
        """Tell whether something under this record's key may not have found room."""
        principal = record.ident[0]
        return self.small and (
            sum(ident[0] == principal for ident in self.memory.first) >= PER_PRINCIPAL
            or (len(self.memory.undetermined) > UNVERIFIED and (principal, record.known) in self.memory.doubted)
        )

    def give_up(self, record: Record, *, pin: bool = False) -> None:
        """Pass a record over that cannot be judged."""
        self.memory.pass_over(record, self.world.place(record), pin=pin)
        self.verifier.pass_over(self.world.read(record, delivered_by=("S", "C") if pin else None))

    # Rebuilding

    def begin(
        self, position: int, anchor_at: int, *, blind: int = 0, pinned: Callable[[int], bool] | None = None
    ) -> None:
        """Begin the guard anew at a position, as docs/replay.md says; of the first ``blind`` records no key is known."""
        world, local = self.world, self.world.local
        anchor_record = world.at(anchor_at)
        if self.stamped and anchor_record is not None:
            anchor = stated = anchor_record.stamp
        else:
            anchor, stated = anchor_without_record(POLICY, local), local - SKEW
        cut = None
        if world.start:
            first = world.at(world.start)
            cut = local if first is None or not self.stamped else first.stamp
            if not self.stamped:
                cut = None
        self.excuse(cut)
        self.memory = Memory(stated_floor(stated, cut))
        self.verifier.begin(LOG, floor=floor_at(POLICY, anchor, cut=cut))
        since = window_start(POLICY, anchor)
        begun = False
        down = self.keys.down
        for record in world.retained(position):
            begun = begun or record.stamp >= since
            self.keys.down = down or blind > 0
            blind -= begun
            pin = pinned is not None and pinned(record.offset)
            self.remember(record, pin=pin)
            if begun:
                self.recall(record, pin=pin)
        self.keys.down = down

    def remember(self, record: Record, *, pin: bool) -> None:
        """Let the naive memory see all that is retained, however old."""
        place, age = self.world.place(record), record.stamp - record.issued_at
        if self.stamped and not -SKEW <= age <= HORIZON:
            return
        if self.keys.down or not self.is_known(record):
            self.memory.pass_over(record, place, pin=pin)
        elif self.is_unaltered(record):
            self.memory.recall(record, place, pin=pin)

    def recall(self, record: Record, *, pin: bool) -> None:
        """Let the real verifier see it."""
        message = self.world.read(record, delivered_by=("S", "C") if pin else None)
        try:
            at_once(self.verifier.recall(message, unsettled=pin))
        except Unavailable:
            self.verifier.pass_over(message)

    def excuse(self, cut: float | None) -> None:
        """Take back the promise where the log has lost its memory: what was lost may come again, once.

        So may what retention took, if it was issued later than the first record that is left: the broker's clock had
        stepped back by more than the skew.
        """
        for ident, record in list(self.delivered.items()):
            late = record.gone == "cut" and cut is not None and record.issued_at > cut + SKEW
            if record.gone == "lost" or late:
                del self.delivered[ident]

    @invariant()
    def memory_is_bounded(self) -> None:
        """No principal holds more than its quota, nor does what nobody verified."""
        if self.small:
            assert all(held <= PER_PRINCIPAL for held in self.store._quota.held().values())
            assert self.store._quota._held[0] <= UNVERIFIED


class Partition(Reading):
    """A Kafka partition that the broker stamps, in a group."""

    def __init__(self) -> None:
        super().__init__()
        self.position = 0

    def restart_reader(self) -> None:
        """A new process takes over at the position."""
        self.verifier = self.new_verifier()
        self.begin(self.position, self.position)

    @rule(count=st.sampled_from([1, 2, 100, 100]), patient=st.booleans())
    def read(self, count: int, patient: bool) -> None:  # noqa: FBT001
        """The next records are judged; one that cannot be is held, or passed over in the end."""
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
        """The process is killed; what was committed is where it stood, or earlier; the new one may have less room."""
        self.small = small
        self.verifier = self.new_verifier()
        self.go_to(self.position - back, blind)

    @rule(by=st.sampled_from([-10, -3, -1, 1, 3]), blind=BLIND)
    def seek(self, by: int, blind: int) -> None:
        """The application goes to another offset, back or forth."""
        self.go_to(self.position + by, blind)

    def go_to(self, offset: int, blind: int = 0) -> None:
        """Begin anew at an offset, or where the log begins or ends."""
        self.position = min(max(offset, self.world.start), len(self.world.records))
        self.begin(self.position, self.position, blind=blind)

    @rule(count=st.integers(0, 5))
    def rebalance_and_back(self, count: int) -> None:
        """Another member reads some records and commits none; our guard comes back to the position that it left."""
        ours, memory, store, position = self.verifier, self.memory, self.store, self.position
        self.restart_reader()
        self.read(count, patient=True)
        self.verifier, self.memory, self.store, self.position = ours, memory, store, position

    @rule(which=ANY)
    def redrive(self, which: int) -> None:
        """What was rejected or passed over is read again at its place, through the live guard."""
        passed = list(self.world.retained(self.position))
        if passed:
            record = passed[-1 - which % len(passed)]
            if self.judge(record) == "unavailable":
                self.give_up(record)

    def cut(self, offset: int) -> None:
        """Retention takes what lies before an offset."""
        self.world.cut(max(0, offset))

    @rule(kind=st.sampled_from(["cut", "cut", "truncate", "recreate"]), keep=st.integers(0, 10))
    def lose(self, kind: str, keep: int) -> None:
        """Retention takes the oldest, an election the newest, or the topic is made anew."""
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
        """In the end everything is read; then everything is replayed, and read by a new process."""
        self.keys.down, self.keys.hidden = False, set()
        self.replay_all(read=True)
        self.replay_all(read=False)
        self.restart(0, 0, small=False)
        self.catch_up()


class UnstampedPartition(Partition):
    """A Kafka partition on which producers choose the records' times."""

    stamped = False

    def cut(self, offset: int) -> None:
        """Take only what is older than the window: without the broker's stamps nothing tells what is gone."""
        old = sum(record.appended < self.world.now - WINDOW - 2 * SKEW for record in self.world.records)
        super().cut(min(offset, old))


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
        """A new process takes the consumer over."""
        self.restart(blind=0, small=self.small)

    @rule(blind=BLIND, small=st.booleans())
    def restart(self, blind: int, small: bool) -> None:  # noqa: FBT001
        """The process is killed; the server still offers what it has not seen acknowledged."""
        self.small = small
        self.verifier = self.new_verifier()
        self.handed.clear()
        self.begin(self.next, min(self.open, default=self.next), blind=blind, pinned=self.open.__contains__)

    @rule(count=st.sampled_from([1, 2, 100, 100]), acks=st.sampled_from([0, 1, 1, 2]))
    def read(self, count: int, acks: int) -> None:
        """The next messages are delivered for the first time; one in so many is acknowledged at once."""
        self.next = max(self.next, self.world.start)
        while count and (record := self.world.at(self.next)) is not None:
            self.next += 1
            self.open[record.offset] = record
            self.handle(record)
            if acks and record.offset % acks == 0 and record.offset in self.handed:
                self.settle(record)
            count -= 1

    def catch_up(self) -> None:
        """Read all there is."""
        self.read(1000, 0)

    @rule(which=ANY)
    def redeliver(self, which: int) -> None:
        """The server offers again what it has not seen acknowledged."""
        if self.open:
            self.handle(list(self.open.values())[which % len(self.open)])

    def handle(self, record: Record) -> None:
        """A message comes: handed over, or terminated, or offered again later."""
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
        """The handler acknowledges, in any order; that may be lost on the way to the server."""
        if self.handed:
            self.settle(list(self.handed.values())[which % len(self.handed)], lost=lost)

    def settle(self, record: Record, *, lost: bool = False) -> None:
        """Acknowledge what was handed over."""
        del self.handed[record.offset]
        if not lost:
            self.open.pop(record.offset, None)
        self.memory.pinned.discard(record.ident)
        self.store.settle("group#tasks/0", record.ident[0], record.ident[1].to_bytes(16), record.issued_at)

    @rule(keep=st.integers(0, 10))
    def cut(self, keep: int) -> None:
        """Retention takes what is oldest, delivered or not."""
        self.world.cut(max(0, len(self.world.records) - keep))
        self.open = {offset: record for offset, record in self.open.items() if offset >= self.world.start}
        self.handed = {offset: record for offset, record in self.handed.items() if offset >= self.world.start}

    def teardown(self) -> None:
        """In the end everything is read; then everything is replayed, and read by a new process."""
        self.keys.down, self.keys.hidden = False, set()
        self.replay_all(read=True)
        self.replay_all(read=False)
        self.restart(0, small=False)
        for offset in list(self.open):
            self.handle(self.open[offset])
        self.catch_up()


TestPartition = Partition.TestCase
TestUnstampedPartition = UnstampedPartition.TestCase
TestStream = Stream.TestCase
for _case in (TestPartition, TestUnstampedPartition, TestStream):
    _case.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
