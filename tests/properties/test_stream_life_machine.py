"""Any order of events in the life of a reader of a stream, against a memory that forgets nothing: A43, A46.

The reader is one by the name of its consumer, over restarts, resubscriptions, resets and re-creation. Its parts are the
product's own (``Lives``, ``StreamLife``, ``Verifier`` and its guard), driven as the NATS adapter drives them.
"""

from math import inf
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.properties.log_reader import AGES, ANY, DELAYS, WAITS, WITHIN
from tests.properties.log_world import HORIZON, POLICY, SKEW, WRITERS, Ident, Keys
from tests.properties.stream_world import CONSUMER, JUNK, STRANGE, STREAM, Delivery, Server, Stored, read_as
from tests.unit.core.world import ALICE, BOB, at_once
from watchword import Rejected, Unavailable, VerifiedMessage
from watchword.audit import Audit
from watchword.errors import Forgotten
from watchword.lives import Lives, stream_reader
from watchword.spi import Expected, MemoryReplayStore, Verifier
from watchword.stream_life import Beginning, StreamFacts

pytestmark = pytest.mark.usefixtures("not_traced")

READER: Final = stream_reader(STREAM, CONSUMER)
BY: Final = (STREAM, CONSUMER)
COUNTS: Final = st.sampled_from([1, 2, 3, 100])
CLOCKS: Final = st.tuples(WITHIN, WITHIN, WITHIN)
HOW: Final = st.sampled_from(["new", "middle", "all", "all", "all"])


class StreamReaders(RuleBasedStateMachine):
    """Processes that read one consumer one after the other; ``sides`` of its subscriptions judge out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.keys = Keys()
        self.handed: dict[Ident, int] = {}
        """Where each id was handed over, forever."""

        self.cut = -inf
        """What was issued up to then may be stale, for what was stored then has gone before the reader was given it."""

        self.way: list[Delivery] = []
        self.held: set[int] = set()
        """What the application has, and has not acknowledged."""

        self.may_come: set[int] = set()
        """What may come again, as far as this process can know."""

        self.unseen: set[Ident] = set()
        """What was lost on its way from a renumbered consumer without a missing number (SECURITY.md, "Reset under")."""

        self.is_renumbered = False
        self.sides = 0
        self.is_lasting = True

    @initialize(clocks=CLOCKS, acked=st.booleans(), most=st.sampled_from([0, 0, 1, 2]), how=HOW)
    def set_up(self, clocks: tuple[float, float, float], acked: bool, most: int, how: str) -> None:  # noqa: FBT001
        """Choose clocks and a consumer, and begin."""
        self.server.clock, self.server.reader, self.server.signer = clocks
        self.make(acked=acked, most=most, how=how)
        self.start()

    # A process, its subscriptions and its memory

    def start(self) -> None:
        """Start a process with one subscription."""
        self.is_renumbered = False
        self.way.clear()
        self.held.clear()
        store = MemoryReplayStore(horizon=POLICY.horizon)
        self.guard = store
        self.verifier = Verifier(
            realm="prod",
            keys=self.keys,
            replay=store,
            policy=POLICY,
            clock=lambda: self.server.local,
            principal=BOB,
        )
        self.lives = Lives(self.verifier, Audit(clock=lambda: self.server.local))
        self.sides = 0
        self.subscribe(early=0, cut=0)

    @rule(early=st.integers(0, 2), cut=st.sampled_from([0, 0, 0, 3]))
    def subscribe(self, early: int, cut: int) -> None:
        """Open a subscription; the server may deliver once it was asked, and take out what is being read again."""
        self.life = self.lives.open_stream(STREAM, CONSUMER)
        self.sides += 1
        look = self.look()
        for _ in range(early):
            self.deliver(1)
        beginning = self.life.bind(self.facts(*look[1:]), look[0])
        if beginning is not None:
            self.build(beginning, cut=cut)

    @rule()
    def unsubscribe(self) -> None:
        """Close a subscription with what it has not judged; a consumer that does not last is of no use then."""
        if self.sides:
            self.sides -= 1
            self.lives.close_stream(self.life, for_good=not self.is_lasting and not self.sides)
            if not self.sides:
                self.way.clear()

    @rule(blind=st.booleans())
    def restart(self, blind: bool) -> None:  # noqa: FBT001
        """Kill the process; the next one's keys may come late."""
        down, self.keys.down = self.keys.down, blind or self.keys.down
        self.start()
        self.keys.down = down

    def look(self) -> tuple[float, int, int, int]:
        """Ask where the consumer stands."""
        consumer = self.server.consumer
        acknowledged = consumer.floor if consumer.pending else consumer.delivered
        return self.server.local, consumer.delivered, consumer.numbered, acknowledged

    def facts(self, delivered: int, number: int, acknowledged: int) -> StreamFacts:
        """Ask for the rest."""
        following = self.server.first(acknowledged + 1, read=True)
        return StreamFacts(
            origin=("stream", self.server.consumer.made),
            subjects=("tasks",),
            delivered=delivered,
            number=number,
            acknowledged=acknowledged,
            next_at=None if following is None else following.stamp,
            last_gone_at=self.server.last_gone_at(),
            last=self.server.last,
        )

    def build(self, beginning: Beginning, *, cut: int = 0) -> None:
        """Build the memory; what is taken out meanwhile is found missing in the end."""
        self.verifier.begin(self.life.log, floor=beginning.floor)
        gone = self.server.last_gone_at()
        self.recall(beginning)
        if cut:
            self.server.purge(cut)
            again = self.server.last_gone_at()
            if again is not None and (raised := POLICY.floor_at(-inf, cut=again)) > beginning.floor:
                self.verifier.begin(self.life.log, floor=raised)
                self.recall(beginning)
                gone = again
        self.cut = -inf if gone is None else gone + SKEW

    def recall(self, beginning: Beginning) -> None:
        """Read the stream again."""
        self.may_come = set()
        for stored in self.server.since(beginning.since, beginning.upto):
            self.recall_one(stored, unacked=stored.sequence > beginning.acknowledged)

    def recall_one(self, stored: Stored, *, unacked: bool) -> None:
        """Recall a message that may come again if it is not acknowledged."""
        unacked, message = unacked and self.server.consumer.acked, read_as(stored, READER)
        try:
            at_once(self.verifier.recall(message, unacked=unacked))
        except Unavailable:
            self.verifier.remember_unjudged(message, comes_again=unacked)
        if unacked:
            self.life.recalled([stored.sequence])
            self.may_come.add(stored.sequence)

    def begin_again(self, sequence: int) -> None:
        """Begin where the consumer stands, which delivered a sequence again that log time has passed."""
        at, delivered, number, acknowledged = self.look()
        self.build(self.life.begin(self.facts(delivered, number, min(acknowledged, sequence - 1)), at))
        self.life.recalled([sequence])
        self.may_come.add(sequence)

    # What is published, lost, and delivered

    @rule(principal=st.sampled_from(list(WRITERS)), delay=DELAYS, count=st.integers(1, 3))
    def send(self, principal: str, delay: float, count: int) -> None:
        """Let honest messages arrive."""
        for _ in range(count):
            self.server.store(self.server.sign(principal, min(delay, 3.0)))

    @rule(principal=st.sampled_from(list(WRITERS)))
    def capture(self, principal: str) -> None:
        """Let the attacker see a message before the server does, and hold it up."""
        self.server.waiting.append(self.server.sign(principal, 0.0))

    @rule(which=ANY, keep=st.booleans())
    def release(self, which: int, keep: bool) -> None:  # noqa: FBT001
        """Store what was held up; once more later, if he likes."""
        if self.server.waiting:
            message = self.server.waiting[which % len(self.server.waiting)]
            self.server.store(message)
            if not keep:
                self.server.waiting.remove(message)

    @rule(which=ANY, count=st.integers(1, 2))
    def replay(self, which: int, count: int) -> None:
        """Store a captured message again."""
        for _ in range(count):
            if self.server.ever:
                self.server.store(self.server.ever[-1 - which % len(self.server.ever)])

    @rule()
    def replay_all(self) -> None:
        """Store one copy of each of the last few messages again."""
        for stored in list({one.ident: one for one in self.server.ever}.values())[-8:]:
            self.server.store(stored)

    @rule(count=st.integers(1, 3), read=st.booleans(), limit=st.sampled_from([0, 0, 3]))
    def flood(self, count: int, read: bool, limit: int) -> None:  # noqa: FBT001
        """Store junk, which makes the limits of the stream take out what is old."""
        for _ in range(count):
            self.server.store(STRANGE if read else JUNK)
        if limit:
            self.server.purge(limit)

    @rule(keep=st.sampled_from([0, 0, 1, 2, 5]))
    def purge(self, keep: int) -> None:
        """Take out all but the last few."""
        self.server.purge(keep)

    @rule(which=ANY)
    def delete(self, which: int) -> None:
        """Take one out of the middle."""
        if self.server.kept:
            kept = list(self.server.kept)
            self.server.delete(kept[-1 - which % len(kept)])

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.server.now += seconds

    @rule(which=ANY, age=AGES)
    def wait_for_age(self, which: int, age: float) -> None:
        """Let time pass until a message is just as old as matters."""
        if self.server.ever:
            stored = self.server.ever[-1 - which % len(self.server.ever)]
            self.server.now += max(0.0, stored.issued_at + age - self.server.now - self.server.clock)

    @rule(clocks=CLOCKS, age=AGES, keep=st.sampled_from([0, 1, 9]), how=st.none() | HOW)
    def replay_after_restart(self, clocks: tuple[float, float, float], age: float, keep: int, how: str | None) -> None:
        """Read all; lose some of it, and let a new process find a copy, maybe by a consumer that was recreated."""
        server, acked = self.server, self.server.consumer.acked
        server.clock, server.reader, server.signer = clocks
        self.send(ALICE, 0.0, 1)
        server.clock = -server.clock
        self.send(BOB, 0.0, 2)
        self.finish()
        if keep:
            self.delete(2)
        self.purge(keep)
        self.wait_for_age(2, age)
        if how is not None:
            self.make(acked=acked, most=0, how=how)
        self.restart(blind=False)
        self.replay(2, 1)
        self.finish()

    @rule(down=st.booleans())
    def judge_a_copy_first(self, down: bool) -> None:  # noqa: FBT001
        """Lose a message on its way, and judge a copy of it; then let a new process be given both again."""
        self.finish()
        self.send(ALICE, 0.0, 1)
        self.deliver(1)
        self.way.clear()
        self.replay(0, 1)
        self.keys.down = down
        self.deliver(100)
        self.judge(100, 0, 1, patient=True)
        self.keys.down = False
        self.restart(blind=False)
        self.finish()

    @rule(seconds=WAITS, how=HOW, recreated=st.booleans(), replayed=st.booleans())
    def set_back(self, seconds: float, how: str, recreated: bool, replayed: bool) -> None:  # noqa: FBT001
        """Read all, let log time pass it, and set the consumer back under the reader."""
        self.send(ALICE, 0.0, 1)
        self.finish()
        self.wait(seconds)
        self.send(BOB, 0.0, 1)
        self.finish()
        if recreated:
            self.make(acked=self.server.consumer.acked, most=0, how=how)
        else:
            self.reset(how)
        if replayed:
            self.replay_all()
        self.finish()

    @rule(count=st.integers(0, 2), keep=st.integers(1, 4), early=st.booleans(), reset=st.booleans())
    def overtake(self, count: int, keep: int, early: bool, reset: bool) -> None:  # noqa: FBT001
        """Read all, and start over; let the stream lose what has not come again by then, and has copies."""
        self.send(ALICE, 0.0, 2)
        self.send(BOB, 0.0, 2)
        self.finish()
        if early:
            self.replay_all()
        if reset:
            self.reset("all")
        else:
            self.make(acked=self.server.consumer.acked, most=0, how="all")
        self.restart(blind=False)
        self.deliver(count)
        self.judge(count, 0, 1, patient=True)
        if not early:
            self.replay_all()
        self.purge(keep)
        self.finish()

    @rule(server=WITHIN, reader=WITHIN, signer=WITHIN)
    def step_clocks(self, server: float, reader: float, signer: float) -> None:
        """Let all clocks step, within the skew."""
        self.server.clock, self.server.reader, self.server.signer = server, reader, signer

    @rule(down=st.booleans())
    def fail_keys(self, down: bool) -> None:  # noqa: FBT001
        """Let the key source fail, or answer again."""
        self.keys.down = down

    @rule(acked=st.booleans(), most=st.sampled_from([0, 0, 1, 2]), how=HOW)
    def make(self, acked: bool, most: int, how: str) -> None:  # noqa: FBT001
        """Recreate the consumer, under whatever reads it."""
        self.is_renumbered = True
        self.server.make_consumer(at=self.place(how), acked=acked, most=most)
        self.is_lasting = acked
        self.way.clear()

    @rule(how=HOW)
    def reset(self, how: str) -> None:
        """Set the consumer back, or forth, under whatever reads it."""
        self.is_renumbered = True
        self.server.reset(self.place(how))

    def place(self, how: str) -> int:
        """Return where a consumer begins."""
        return {"new": self.server.last + 1, "middle": self.server.last - 2, "all": 1}[how]

    # What is delivered and judged

    @rule(count=COUNTS)
    def deliver(self, count: int) -> None:
        """Let the server send what is next."""
        while self.sides and count and (delivery := self.server.deliver()) is not None:
            self.way.append(delivery)
            count -= 1

    @rule(count=COUNTS)
    def deliver_again(self, count: int) -> None:
        """Let the server send again what it has waited for too long."""
        if self.sides:
            waited_for = [self.server.deliver_again(one) for one in list(self.server.consumer.pending)[:count]]
            self.way += [delivery for delivery in waited_for if delivery is not None]

    @rule(which=ANY)
    def lose(self, which: int) -> None:
        """Lose what was sent, as a connection may."""
        if self.way:
            self.way.pop(which % len(self.way))

    @rule(count=COUNTS, which=ANY, acks=st.sampled_from([0, 1, 1, 2]), patient=st.booleans())
    def judge(self, count: int, which: int, acks: int, patient: bool) -> None:  # noqa: FBT001
        """Judge what has come: in turn, or, if there are two subscriptions, in any order."""
        while self.way and count:
            delivery = self.way.pop(which % len(self.way) if self.sides > 1 else 0)
            self.conclude(delivery, self.judged(delivery), patient=patient)
            if acks and delivery.stored.sequence % acks == 0 and delivery.stored.sequence in self.held:
                self.acknowledge(delivery.stored.sequence)
            count -= 1

    @rule(which=ANY, lost=st.sampled_from([False, False, True]))
    def ack(self, which: int, lost: bool) -> None:  # noqa: FBT001
        """Acknowledge, in any order; that may be lost on the way to the server."""
        if self.held:
            self.acknowledge(list(self.held)[which % len(self.held)], lost=lost)

    def acknowledge(self, sequence: int, *, lost: bool = False) -> None:
        """Acknowledge what was handed over."""
        self.held.discard(sequence)
        if not lost:
            self.server.consumer.pending.pop(sequence, None)
        self.lives.acknowledged_at(STREAM, CONSUMER, sequence)
        self.may_come.discard(sequence)

    def judged(self, delivery: Delivery) -> VerifiedMessage | Rejected | Unavailable:
        """Let the reader judge; where its memory was passed, it begins again."""
        sequence = delivery.stored.sequence
        while True:
            self.catch_up(delivery)
            expected = Expected(consumer=BY, was_passed=self.life.was_passed(sequence))
            (verdict,) = at_once(self.verifier.verify_many([read_as(delivery.stored, READER)], expected))
            if not (isinstance(verdict, Forgotten)):
                return verdict
            self.begin_again(sequence)

    def catch_up(self, delivery: Delivery) -> None:
        """Recall what was missed before a delivery, and note what is gone there."""
        sequence, number = delivery.stored.sequence, delivery.number
        missed, unread = self.life.missed_before(sequence, number), self.life.gone_before(sequence, number)
        if missed is not None:
            for stored in self.server.between(missed, sequence):
                self.recall_one(stored, unacked=True)
        elif self.is_renumbered:
            before = self.server.between(1, sequence)
            self.unseen |= {one.ident for one in before if one.ident and not self.life.was_reached(one.sequence)}
        if unread is not None:
            delivered = self.server.consumer.delivered
            gone = self.server.gone_between(unread, sequence)
            if gone is not None:
                gone = min(gone, delivery.stored.stamp)
                self.verifier.raise_floor(self.life.log, POLICY.floor_at(-inf, cut=gone))
                self.cut = max(self.cut, gone + SKEW)
            stood = self.server.gone_between(sequence, delivered + 1) is None
            self.life.stood(delivered if stood else sequence)
        if missed is not None or unread is not None:
            self.life.filled(sequence - 1)

    def conclude(self, delivery: Delivery, verdict: VerifiedMessage | Rejected | Unavailable, *, patient: bool) -> None:
        """Do what a verdict asks for; and hold it against all that ever happened."""
        stored, consumer = delivery.stored, self.server.consumer
        self.life.judged(stored.sequence, delivery.number, undetermined=isinstance(verdict, Unavailable))
        if isinstance(verdict, VerifiedMessage):
            assert stored.ident is not None
            at = self.handed.setdefault(stored.ident, stored.sequence)
            assert at == stored.sequence or stored.ident in self.unseen, "handed over at two places"
            self.held.add(stored.sequence)
            self.may_come.add(stored.sequence)
            if self.is_last(delivery):
                self.lives.settle(self.life, stored.sequence)
                self.may_come.discard(stored.sequence)
        elif isinstance(verdict, Rejected):
            self.life.acknowledged(stored.sequence)
            consumer.pending.pop(stored.sequence, None)
            self.may_come.discard(stored.sequence)
            self.check_rejection(stored, str(verdict.reason))
        else:
            assert self.keys.down, "what can be judged is judged"
            if not patient:
                consumer.pending.pop(stored.sequence, None)
            self.remember_unjudged(delivery, comes_again=patient and not self.is_last(delivery))

    def is_last(self, delivery: Delivery) -> bool:
        """Return True for a delivery that is not repeated whatever becomes of it."""
        consumer = self.server.consumer
        return not consumer.acked or 0 < consumer.most <= delivery.attempt

    def remember_unjudged(self, delivery: Delivery, *, comes_again: bool) -> None:
        """Remember what cannot be judged."""
        sequence = delivery.stored.sequence
        self.verifier.remember_unjudged(read_as(delivery.stored, READER), comes_again=comes_again)
        if comes_again:
            self.may_come.add(sequence)
        else:
            self.life.acknowledged(sequence)
            self.may_come.discard(sequence)

    def check_rejection(self, stored: Stored, reason: str) -> None:
        """Hold a rejection against what the reader was given, and what may be wrong with the message."""
        is_fresh = -SKEW <= stored.stamp - stored.issued_at <= HORIZON
        if stored is STRANGE or not stored.headers:
            assert reason == "unsigned"
        elif reason == "replayed":
            assert not stored.is_first, "the first of its id is accused"
        elif stored.is_first and is_fresh:
            assert reason == "stale"
            assert stored.issued_at <= self.cut, "honest and lost"

    @invariant()
    def memory_is_bounded(self) -> None:
        """Only what may come again is pinned."""
        log = self.guard._logs.get(f"{READER}#{STREAM}")
        if log is not None:
            assert log.pins.places() <= self.may_come

    def teardown(self) -> None:
        """Deliver everything in the end; replay it all, and let a new process read it."""
        self.keys.down = False
        self.finish()
        self.replay_all()
        self.finish()
        self.replay_all()
        self.restart(blind=False)
        self.finish()

    def finish(self) -> None:
        """Deliver, judge and acknowledge everything."""
        if not self.sides:
            self.subscribe(early=0, cut=0)
        self.deliver_again(100)
        self.deliver(100)
        self.judge(100, 0, 1, patient=True)


def test_a_reader_that_is_set_back_while_no_keys_can_be_had_loses_nothing() -> None:
    """Promise (A46): what log time has passed, and was offered again in vain, is judged from the log once it can be."""
    readers: Any = StreamReaders()
    readers.set_up(clocks=(-1.0, -1.0, -1.0), acked=True, most=0, how="new")
    readers.set_back(recreated=False, how="new", replayed=False, seconds=7.0)
    readers.fail_keys(down=True)
    readers.set_back(recreated=False, how="all", replayed=False, seconds=0.5)
    readers.teardown()


@pytest.mark.parametrize(("before", "hidden"), [(1, 1), (2, 0)])
def test_only_numbers_that_agree_by_chance_hide_what_was_lost(before: int, hidden: int) -> None:
    """SECURITY.md says so: a reset consumer lost as many messages as it had delivered ``before``; a copy follows."""
    readers: Any = StreamReaders()
    readers.set_up(clocks=(0.0, 0.0, 0.0), acked=True, most=0, how="new")
    readers.send(ALICE, 0.0, before)
    readers.finish()
    readers.reset("new")
    readers.judge_a_copy_first(down=False)
    assert len(readers.unseen) == hidden
    readers.teardown()


TestStreamReaders: Any = pytest.mark.slow(StreamReaders.TestCase)
TestStreamReaders.__doc__ = "Promise (A43, A46): one reader, one memory, whatever becomes of consumer and stream."
TestStreamReaders.settings = settings(max_examples=200, stateful_step_count=40)
