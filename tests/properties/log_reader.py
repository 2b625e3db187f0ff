"""The writers, the attacker and the clocks of a log, and the judging of its records; for the state machines."""

from collections.abc import Callable
from math import inf
from typing import Final

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
    Record,
    World,
    stated_floor,
)
from tests.unit.core.world import ALICE, BOB, at_once
from watchword import Rejected, Unavailable
from watchword.looks import Looks
from watchword.quota import Bounds
from watchword.spi import MemoryReplayStore, Message, Verifier

PER_PRINCIPAL: Final = 2
UNVERIFIED: Final = 1
MANY: Final = 10_000

ANY: Final = st.integers(0, 30)
WITHIN: Final = st.sampled_from([-1.0, 0.0, 1.0])
BEYOND: Final = st.sampled_from([-60.0, -9.0, -3.0, -1.0, 0.0, 1.0, 3.0, 9.0])
BLIND: Final = st.sampled_from([0, 0, 0, 1, 2])
AGES: Final = st.sampled_from([-SKEW, 0.0, HORIZON, HORIZON, HORIZON + 0.5, HORIZON + 1])
DELAYS: Final = st.sampled_from([0.0, 0.0, 1.0, 4.0])
AHEAD: Final = st.sampled_from([3.0, 4.0, 5.0])
WAITS: Final = st.sampled_from([0.5, 1.0, 2.0, 4.0, 7.0, 20.0])


class Reading(RuleBasedStateMachine):
    """What is common to all who read a log: its writers, its attacker, its clocks, and the judging of one record."""

    stamped = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.stamped)
        self.keys = Keys()
        self.small = self.has_ahead = False
        self.takes = 0.0
        self.looks = Looks()
        self.excused = -inf
        """Up to when even prompt messages may have been issued that are stale, for the log has lost its memory."""

        self.doubtful: set[str] = set()
        """Principals whose prompt messages may be refused: their clocks were wrong, or there was no room for all."""

        self.delivered: dict[Ident, Record] = {}
        self.verifier, self.memory = self.new_verifier(), Memory(-float("inf"))

    @initialize(small=st.booleans(), takes=st.sampled_from([0.0, 1.0]), clocks=st.tuples(WITHIN, WITHIN, WITHIN))
    def set_up(self, small: bool, takes: float, clocks: tuple[float, float, float]) -> None:  # noqa: FBT001
        """Choose a quota, the seconds that a rebuild takes, and clocks; begin at the beginning."""
        self.small, self.takes = small, takes
        self.world.broker, self.world.reader, self.world.signer = clocks
        self.restart_reader()

    def restart_reader(self) -> None:
        """Begin with nothing in memory."""
        raise NotImplementedError

    def choose_room(self, small: bool) -> None:  # noqa: FBT001
        """Give the next process little room, unless a clock was ahead: what finds no room then may come once more."""
        self.small = small and not self.has_ahead

    def catch_up(self) -> None:
        """Read all there is."""
        raise NotImplementedError

    def new_verifier(self) -> Verifier:
        """Return what a process that has just started has."""
        self.store = MemoryReplayStore(
            horizon=POLICY.horizon,
            bounds=Bounds(
                per_principal=PER_PRINCIPAL if self.small else MANY,
                in_all=MANY,
                unverified=UNVERIFIED if self.small else MANY,
            ),
        )
        verifier = Verifier(
            realm="prod",
            keys=self.keys,
            replay=self.store,
            policy=POLICY,
            clock=lambda: self.world.local,
            principal=BOB,
        )
        verifier.keys._forgiven = inf  # what is put off while a source fails has tests of its own, and time to wait
        return verifier

    # The writers, the attacker, and time

    @rule(principal=st.sampled_from(list(WRITERS)), delay=DELAYS, count=st.integers(1, 3))
    def send(self, principal: str, delay: float, count: int) -> None:
        """Let honest messages arrive."""
        for _ in range(count):
            self.world.write(principal, delay)

    @rule(principal=st.sampled_from(list(WRITERS)), by=AHEAD)
    def sign_ahead(self, principal: str, by: float) -> None:
        """Let a message arrive whose signer's clock was ahead by more than the skew."""
        if not self.small:
            self.world.write(principal, -by)
            self.doubtful.add(principal)
            self.has_ahead = True

    @rule(which=ANY, shift=BEYOND)
    def replay(self, which: int, shift: float) -> None:
        """Write a captured record again."""
        if self.world.ever:
            self.world.copy(self.world.ever[-1 - which % len(self.world.ever)], shift)

    @rule(read=st.booleans())
    def replay_all(self, read: bool) -> None:  # noqa: FBT001
        """Write one copy of each of the last few messages again, to be read at once or later."""
        latest = {record.ident: record for record in self.world.ever if record.genuine and record.known}
        for record in list(latest.values())[-8:]:
            self.world.copy(record)
        if read:
            self.catch_up()

    @rule(which=ANY, alter=st.booleans())
    def forge(self, which: int, alter: bool) -> None:  # noqa: FBT001
        """Alter a captured record, or put its claims under a key that nobody knows."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            (self.world.alter if alter else self.world.disown)(record)

    @rule(principal=st.sampled_from([ALICE, BOB]), count=st.integers(1, 3))
    def babble(self, principal: str, count: int) -> None:
        """Sign in someone's name under a key that nobody knows; then the owner of the name speaks."""
        for _ in range(count):
            self.world.write(principal, known=False)
        self.world.write(principal)

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Let time pass, and read nothing."""
        self.world.now += seconds

    @rule(which=ANY, age=AGES)
    def wait_for_age(self, which: int, age: float) -> None:
        """Let time pass until a message is just as old as matters."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            self.world.now += max(0.0, record.issued_at + age - self.world.clock)

    @rule(which=ANY, age=AGES, reader=WITHIN)
    def replay_after_restart(self, which: int, age: float, reader: float) -> None:
        """Write a record again at the last moment, while one reader is dead; the next one's clock steps at once."""
        self.catch_up()
        self.wait_for_age(which, age)
        self.replay(which, 0.0)
        self.restart_reader()
        self.world.reader = reader
        self.catch_up()

    @rule(principal=st.sampled_from([ALICE, BOB]))
    def learn_late(self, principal: str) -> None:
        """Let a message pass before its key is known; then write it again."""
        hidden = self.keys.unknown
        self.keys.unknown = {*hidden, principal}
        self.world.write(principal)
        self.catch_up()
        self.keys.unknown = hidden - {principal}
        self.replay(0, 0.0)

    @rule(which=ANY, age=AGES)
    def step_broker(self, which: int, age: float) -> None:
        """Let a new leader's clock show a time at which some message is fresh, far off the true one maybe."""
        if self.world.ever:
            record = self.world.ever[-1 - which % len(self.world.ever)]
            self.world.broker = record.issued_at + age - self.world.now

    @rule(broker=WITHIN, reader=WITHIN, signer=WITHIN)
    def step_clocks(self, broker: float, reader: float, signer: float) -> None:
        """Let all clocks step, within the skew."""
        self.world.broker, self.world.reader, self.world.signer = broker, reader, signer

    @rule(down=st.booleans())
    def fail_keys(self, down: bool) -> None:  # noqa: FBT001
        """Let the key source fail, or answer again."""
        self.keys.down = down

    @rule(hidden=st.sets(st.sampled_from([ALICE, BOB])))
    def hide_keys(self, hidden: set[str]) -> None:
        """Let keys become known, or be not yet."""
        self.keys.unknown = hidden

    # Judging

    def is_known(self, record: Record) -> bool:
        """Return True if the key source knows the key that a record bears."""
        return record.known and record.ident[0] not in self.keys.unknown

    def interval(self, record: Record) -> tuple[float, float]:
        """Return when a record can have been appended, by its stamp or by the reader's looks."""
        if self.stamped:
            return record.stamp, record.stamp
        return self.looks.interval(record.offset, self.world.local)

    def read_as(self, record: Record, *, pin: bool) -> Message:
        """Return a record as the verifier is given it."""
        return self.world.read(record, self.interval(record), delivered_by=("S", "C") if pin else None)

    def verdict(self, record: Record, *, pin: bool = False) -> str:
        """Let the real verifier judge a record."""
        message = self.read_as(record, pin=pin)
        try:
            at_once(self.verifier.verify(message))
        except Rejected as refused:
            return str(refused.reason)
        except Unavailable:
            return "unavailable"
        return "delivered"

    def expected(self, record: Record, *, pin: bool = False) -> str:
        """Return what the naive memory says of it."""
        memory, place, (low, high) = self.memory, self.world.place(record), self.interval(record)
        is_stale, is_ahead = record.issued_at < low - HORIZON, record.issued_at > high + SKEW
        if self.keys.down and not is_stale and not is_ahead:
            return "unavailable"
        if not self.stamped:
            memory.look(low)
        if is_stale:
            return "stale"
        if is_ahead:
            self.remember_ahead(record, high)
            return "from_future"
        if not self.is_known(record):
            memory.remember_unjudged(record, place, pin=False)
            return "unknown_key"
        if not self.is_unaltered(record):
            return "altered"
        memory.look(low)
        return memory.claim(record.ident, place, record.issued_at, pin=pin)

    def remember_ahead(self, record: Record, high: float) -> None:
        """Let the naive memory see what is from the future by looks, and may not be when it is read again."""
        judged = not self.keys.down and self.is_known(record)
        if not self.stamped and record.issued_at <= high + WINDOW and (not judged or self.is_unaltered(record)):
            self.memory.remember_unjudged(record, self.world.place(record), pin=False)

    def is_unaltered(self, record: Record) -> bool:
        """Check 7."""
        return record.genuine and (self.stamped or abs(record.stamp - record.issued_at) <= SKEW)

    def judge(self, record: Record, *, pin: bool = False, again: bool = False) -> str:
        """Judge one record, and hold the verdict against the naive memory and against everything ever delivered.

        One that is read in its turn, and not ``again``, must not be called late if it came promptly.
        """
        memory, latest = self.memory, {**self.memory.latest}
        expected, verdict = self.expected(record, pin=pin), self.verdict(record, pin=pin)
        if verdict != expected:
            assert verdict in self.without_room(record), f"{verdict} instead of {expected}"
            if verdict == "delivered":
                memory.first[record.ident] = self.world.place(record)
            elif verdict == "stale":
                memory.latest = latest  # it has not passed, so it raises no floor of its principal
        if self.small:
            self.doubtful = set(WRITERS)
        if record.prompt and not again and not self.stamped and verdict in {"stale", "from_future"}:
            assert record.issued_at <= self.excused or record.ident[0] in self.doubtful, (
                f"a prompt message is {verdict}"
            )
        if verdict == "delivered":
            first = self.delivered.setdefault(record.ident, record)
            assert self.world.place(first) == self.world.place(record), "an id was delivered at two places"
        return verdict

    def without_room(self, record: Record) -> set[str]:
        """Return what else may become of a record where its sight, or another under its key, may have found no room.

        What passed under an invented key and found none holds up nothing under the true one.
        """
        principal, allowed, memory = record.ident[0], set[str](), self.memory
        # What was seen and found no room takes that of another where it passes again without a verdict.
        unknown = sum(self.is_over_quota(name) for name, _ in memory.passed_again) + len(memory.undetermined)
        full = self.small and unknown > UNVERIFIED
        if full and record.ident in memory.strange:
            allowed.add("delivered")
        if (full and (principal, record.known) in memory.doubted) or self.is_over_quota(principal):
            allowed |= {"stale", "over_quota"}
        if self.is_over_quota(principal) and record.ident in memory.passed_again:
            allowed.add("replayed")  # then it is that passing which is known
        return allowed

    def is_over_quota(self, principal: str) -> bool:
        """Return True if something that a principal signed may have found no room."""
        return self.small and sum(name == principal for name, _ in self.memory.first) >= PER_PRINCIPAL

    def give_up(self, record: Record, *, pin: bool = False) -> None:
        """Pass a record over that cannot be judged."""
        self.memory.remember_unjudged(record, self.world.place(record), pin=pin)
        self.verifier.remember_unjudged(self.read_as(record, pin=pin))

    # Rebuilding

    def begin(
        self, position: int, anchor_at: int, *, blind: int = 0, pinned: Callable[[int], bool] | None = None
    ) -> None:
        """Start the guard over, as docs/replay.md says; for the first ``blind`` records the key source is down."""
        world, local = self.world, self.world.local
        following = world.at(anchor_at)
        if following is None:
            anchor, stated = local - POLICY.max_skew, local - SKEW
        else:
            anchor = stated = following.stamp
        cut = None
        if world.start:
            first = world.at(world.start)
            cut = local if first is None else first.stamp
        self.excuse(cut)
        self.memory = Memory(stated_floor(stated, cut))
        self.verifier.begin(LOG, floor=POLICY.floor_at(anchor, cut=cut))
        world.now += self.takes
        since = anchor - POLICY.window
        lowest = next((record.offset for record in world.retained(position) if record.stamp >= since), position)
        self.read_again(lowest, position, blind=blind, pinned=pinned)

    def read_again(
        self, lowest: int, position: int, *, blind: int, pinned: Callable[[int], bool] | None = None
    ) -> None:
        """Recall from the lowest offset up to the position; the naive memory sees all that is retained."""
        down = self.keys.down
        for record in self.world.retained(position):
            begun = record.offset >= lowest
            self.keys.down = down or blind > 0
            blind -= begun
            pin = pinned is not None and pinned(record.offset)
            self.remember(record, pin=pin, begun=begun)
            if begun:
                self.recall(record, pin=pin)
        self.keys.down = down

    def remember(self, record: Record, *, pin: bool, begun: bool) -> None:
        """Let the naive memory see a record, however old; log time passes with those only that are recalled."""
        place, (low, high) = self.world.place(record), self.interval(record)
        is_stale, is_ahead = record.issued_at < low - HORIZON, record.issued_at > high + SKEW
        # No log time passes with one that cannot be judged, and what is read again is stale for nobody's looks.
        if begun and not self.stamped and (is_ahead or not self.keys.down):
            self.memory.look(low)
        if is_ahead:
            self.remember_ahead(record, high)
        elif is_stale:
            return
        elif self.keys.down or not self.is_known(record):
            self.memory.remember_unjudged(record, place, pin=pin)
        elif self.is_unaltered(record):
            self.memory.recall(record, place, pin=pin)

    def recall(self, record: Record, *, pin: bool) -> None:
        """Let the real verifier see it."""
        message = self.read_as(record, pin=pin)
        try:
            at_once(self.verifier.recall(message, unacked=pin))
        except Unavailable:
            self.verifier.remember_unjudged(message)

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
