"""Any order of events in the lives of core NATS subscriptions, against a memory that forgets nothing: A43, A46, N1.

Core NATS keeps nothing: a message is given to whatever is subscribed at that moment. The readers are the product's own
(``Lives``, ``Verifier`` and its guard), opened, born and closed as the NATS adapter does it.
"""

from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from math import floor, inf
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.properties.log_reader import AGES, ANY, WAITS, WITHIN
from tests.properties.log_world import HORIZON, POLICY, SKEW, START, WINDOW, WRITERS, Ident, Keys
from tests.unit.core.world import BOB, at_once, press
from watchword import Alias, Unavailable, VerifiedMessage
from watchword.audit import Audit
from watchword.guard import Note
from watchword.journal import Recalled
from watchword.lives import Life, Lives
from watchword.message import Header
from watchword.spi import Channel, MemoryReplayStore, Message, Verifier

PROMPT: Final = 3.0
"""Seconds that an honest message may be on its way; with clocks within the skew, none that took them is stale."""

SUBJECTS: Final = ("a.x", "a.y")
MAPPED: Final = "m.x"
PATTERNS: Final = st.sampled_from(["a.x", "a.x", "a.*", ">", "a.y", MAPPED])
WITH_ALIAS: Final = replace(POLICY, aliases=(Alias(f"nats://prod/{MAPPED}", "nats://prod/a.x"),))


def matches(pattern: str, subject: str) -> bool:
    """Return True if a subscription to ``pattern`` is given what is published on ``subject``."""
    return pattern in {">", subject} or (pattern == "a.*" and subject.startswith("a."))


def kind_of(reader: str) -> str:
    """Return what a reader shares with others of its pattern."""
    return reader.rpartition("#")[0]


@dataclass(eq=False)
class Captured:
    """A message that an honest agent signed; the attacker may publish it at any time, on any subject."""

    ident: Ident
    subject: str
    issued_at: int
    headers: tuple[Header, ...]
    sent_at: float
    """True time."""


class MemoryJournal:
    """What outlives processes: the notes of each reader, and the floor that it began with."""

    def __init__(self) -> None:
        self.floors: dict[str, float] = {}
        self.notes = defaultdict[str, list[Note]](list)

    def recall(self, logs: Sequence[str], *, birth: float) -> list[Recalled]:
        """See Journal."""
        return [Recalled(floor=self.floors.setdefault(log, birth), notes=tuple(self.notes[log])) for log in logs]

    def write(self, notes: Any) -> None:
        """See Journal."""
        for note in notes:
            self.notes[note.log].append(note)

    def raise_floors(self, floor: float) -> None:
        """See Journal."""
        self.floors = {log: max(floor, known) for log, known in self.floors.items()}

    def close(self) -> None:
        """See Journal."""


@dataclass(eq=False)
class Subscription:
    """One subscription; what arrives before the server has confirmed it waits.

    ``reader`` says which one it is: what is signed for its pattern, and the lowest number that was free.
    """

    pattern: str
    life: Life
    reader: str
    number: int
    is_confirmed: bool = False
    waiting: list[tuple[Captured, str]] = field(default_factory=list)


class Process:
    """One process of the agent, with all its clients; ``set_to`` is what its machine counts since it was started."""

    def __init__(self, machine: "CoreReaders") -> None:
        self.store = MemoryReplayStore(horizon=POLICY.horizon)
        self.verifier = Verifier(
            realm="prod",
            keys=machine.keys,
            replay=self.store,
            policy=WITH_ALIAS,
            clock=lambda: machine.local,
            principal=BOB,
            journal=machine.journal,
        )
        self.lives = Lives(self.verifier, Quiet(clock=lambda: machine.local))
        self.subscriptions: list[Subscription] = []
        self.handed = defaultdict[str, set[Ident]](set)
        self.unjudged = defaultdict[str, set[Ident]](set)
        """What each reader was given and could not judge."""

        self.inherited: dict[str, set[Ident]] = {}
        """What earlier processes, and others of its pattern in this one, had been given when each reader was born."""

        self.floors: dict[str, float] = {}
        """What each reader says it began with."""

        self.passed: dict[str, float] = {}
        """The latest time at which each reader has judged anything since it began."""


class Quiet(Audit):
    """An audit trail that writes nothing."""

    def warn(self, event: str, **_: str | float | None) -> None:
        """See Audit."""
        assert event == "replay.floor"


class CoreReaders(RuleBasedStateMachine):
    """Processes of one agent one after the other, of which an older one may run on for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.now = float(START)
        self.reader = self.signer = self.lost = 0.0
        self.keys = Keys()
        self.journal: MemoryJournal | None = None
        self.born_on_disk: dict[str, float] = {}
        self.captured: list[Captured] = []
        self.processes: list[Process] = []

    @property
    def local(self) -> float:
        """What the machine's clock shows."""
        return self.now + self.reader

    @initialize(journal=st.booleans(), clocks=st.tuples(WITHIN, WITHIN))
    def set_up(self, journal: bool, clocks: tuple[float, float]) -> None:  # noqa: FBT001
        """Choose whether there is a journal, and clocks."""
        self.journal = MemoryJournal() if journal else None
        self.reader, self.signer = clocks
        self.processes = [Process(self)]

    # Processes and their subscriptions

    @rule(goes_on=st.booleans())
    def restart(self, goes_on: bool) -> None:  # noqa: FBT001
        """Start a new process; the older one may go on for now, and be given what it had subscribed to."""
        if not goes_on:
            self.processes[-1].subscriptions.clear()
        self.processes.append(Process(self))

    @rule()
    def end_older(self) -> None:
        """Kill all but the latest process."""
        for process in self.processes[:-1]:
            process.subscriptions.clear()

    @rule(pattern=PATTERNS, at_once=st.booleans())
    def subscribe(self, pattern: str, at_once: bool) -> None:  # noqa: FBT001
        """Subscribe; the server's confirmation may come later."""
        process = self.processes[-1]
        taken = [one.number for one in process.subscriptions if one.pattern == pattern]
        number = min(set(range(len(taken) + 1)) - set(taken))
        reader = f"{'a.x' if pattern == MAPPED else pattern}#{number}"
        process.subscriptions.append(Subscription(pattern, process.lives.open(pattern), reader, number))
        if at_once:
            self.confirm(-1)

    @rule(which=ANY)
    def confirm(self, which: int) -> None:
        """Let the server confirm a subscription; what has waited is judged."""
        process = self.processes[-1]
        waiting = [one for one in process.subscriptions if not one.is_confirmed]
        if not waiting:
            return
        subscription = waiting[which % len(waiting)]
        name, kind = subscription.reader, kind_of(subscription.reader)
        if name not in process.inherited:
            process.inherited[name] = set()
        if not subscription.life.is_born:
            given = [each.handed[one] for each in self.processes for one in each.handed if kind_of(one) == kind]
            process.inherited[name] |= set().union(*given) - process.handed[name]
            born = process.floors[name] = self.local + SKEW
            process.passed[name] = -inf
            if self.journal is not None:
                on_disk = self.born_on_disk.setdefault(kind, born)
                others = {one.reader for one in process.subscriptions if kind_of(one.reader) == kind} - {name}
                process.floors[name] = max(on_disk, born) if others else on_disk
        at_once(process.lives.bear(subscription.life))
        subscription.is_confirmed = True
        for captured, subject in subscription.waiting:
            self.judge(process, subscription, captured, subject)
        subscription.waiting.clear()

    @rule(pattern=PATTERNS, seconds=st.sampled_from([0.0, 1.0, 7.0]), signer=WITHIN, reader=WITHIN)
    def take_over(self, pattern: str, seconds: float, signer: float, reader: float) -> None:
        """Start a new process; the older one is given a message until the new one is confirmed, and goes then."""
        self.restart(goes_on=True)
        self.subscribe(pattern, at_once=False)
        self.now += seconds
        self.signer = signer
        self.send(next(iter(WRITERS)), "a.x", 0.0)
        self.processes[-1].subscriptions[-1].waiting.clear()  # the server has yet to hear of it
        self.end_older()
        self.reader = reader
        self.confirm(-1)
        self.replay(0, mapped=False)

    @rule(which=ANY, seconds=st.sampled_from([0.0, 1.0, 9.0, 20.0]), new=st.booleans())
    def resubscribe(self, which: int, seconds: float, new: bool) -> None:  # noqa: FBT001
        """Close a subscription and open its like; then replay what it was given, or send something new."""
        subscriptions = self.processes[-1].subscriptions
        if subscriptions:
            pattern = subscriptions[which % len(subscriptions)].pattern
            self.unsubscribe(which)
            self.now += seconds
            self.subscribe(pattern, at_once=True)
        if new:
            self.send(next(iter(WRITERS)), "a.x", 0.0)
        else:
            self.replay_all()

    @rule(which=ANY)
    def unsubscribe(self, which: int) -> None:
        """Close a subscription, with what waits."""
        process = self.processes[-1]
        if process.subscriptions:
            subscription = process.subscriptions.pop(which % len(process.subscriptions))
            process.lives.close(subscription.life, subscription.pattern)

    # Messages

    @rule(
        principal=st.sampled_from(list(WRITERS)),
        subject=st.sampled_from(SUBJECTS),
        delay=st.sampled_from([0, 0, PROMPT]),
    )
    def send(self, principal: str, subject: str, delay: float) -> None:
        """Let an honest message arrive; its sender's clock is within the skew."""
        self.publish(self.sign(principal, subject, delay), subject)

    @rule(principal=st.sampled_from(list(WRITERS)), subject=st.sampled_from(SUBJECTS))
    def hold(self, principal: str, subject: str) -> None:
        """Let the attacker capture a message and hold it up."""
        self.sign(principal, subject, 0.0)

    def sign(self, principal: str, subject: str, delay: float) -> Captured:
        """Sign a message that was ``delay`` seconds on its way."""
        number, issued_at = len(self.captured), floor(self.now - delay + self.signer)
        message = Message(channel=Channel("nats", "prod", subject), value=b"v")
        signed = press(message, key=WRITERS[principal], principal=principal, c6=issued_at, c7=number.to_bytes(16))
        ident = principal, number
        self.captured.append(Captured(ident, subject, issued_at, signed.headers, self.now - delay))
        return self.captured[-1]

    @rule(which=ANY, mapped=st.booleans())
    def replay(self, which: int, mapped: bool) -> None:  # noqa: FBT001
        """Publish a captured message again, or for the first time; maybe on the subject of the alias."""
        if self.captured:
            captured = self.captured[-1 - which % len(self.captured)]
            self.publish(captured, MAPPED if mapped else captured.subject)

    @rule()
    def replay_all(self) -> None:
        """Publish all that was captured lately again."""
        for captured in self.captured[-8:]:
            self.publish(captured, captured.subject)

    def publish(self, captured: Captured, subject: str) -> None:
        """Give a message to whatever is subscribed."""
        for process in self.processes:
            for subscription in process.subscriptions:
                if matches(subscription.pattern, subject):
                    if subscription.is_confirmed:
                        self.judge(process, subscription, captured, subject)
                    else:
                        subscription.waiting.append((captured, subject))

    def judge(self, process: Process, subscription: Subscription, captured: Captured, subject: str) -> None:
        """Judge a message for one subscription, and hold the verdict against all that ever happened."""
        name, ident = subscription.reader, captured.ident
        message = Message(
            channel=Channel("nats", "prod", subject),
            value=b"v",
            headers=captured.headers,
            reader=subscription.life.name,
            exclusive=True,
        )
        process.lives.compare_clocks(self.local, self.now - self.lost)
        (verdict,) = at_once(process.verifier.verify_many([message]))
        known = process.handed[name] | process.unjudged[name]
        inherited = process.inherited[name]
        passed = process.passed[name] = max(process.passed[name], self.local)
        if isinstance(verdict, VerifiedMessage):
            assert ident not in known, "handed over twice"
            assert ident not in inherited, "one before it was given it"
            process.handed[name].add(ident)
        elif isinstance(verdict, Unavailable):
            assert self.keys.down
            process.verifier.remember_unjudged(message)
            process.unjudged[name].add(ident)
        elif verdict.reason == "replayed":
            before = inherited if self.journal is None else self.known_on_disk(name)
            assert ident in known | before, "falsely accused"
        elif verdict.reason == "wrong_channel":
            assert subject == MAPPED != captured.subject != "a.x"
        else:
            assert verdict.reason == "stale"
            if captured.issued_at > process.floors[name]:
                assert captured.issued_at < passed - HORIZON, "stale without a floor"  # which no clock sets back
                assert self.now - captured.sent_at > PROMPT, "honest and lost"

    def known_on_disk(self, name: str) -> set[Ident]:
        """Return what any process was given as this reader, or as another one of its pattern."""
        return set().union(
            *[
                process.handed[one] | process.unjudged[one]
                for process in self.processes
                for one in {*process.handed, *process.unjudged}
                if kind_of(one) == kind_of(name)
            ]
        )

    # Time

    @rule(seconds=WAITS)
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(which=ANY, age=AGES)
    def wait_for_age(self, which: int, age: float) -> None:
        """Let time pass until a message is just as old as matters."""
        if self.captured:
            captured = self.captured[-1 - which % len(self.captured)]
            self.now += max(0.0, captured.issued_at + age - self.local)

    @rule(reader=WITHIN, signer=WITHIN)
    def step_clocks(self, reader: float, signer: float) -> None:
        """Let clocks step, within the skew."""
        self.reader, self.signer = reader, signer

    @rule(down=st.booleans())
    def fail_keys(self, down: bool) -> None:  # noqa: FBT001
        """Let the key source fail, or answer again."""
        self.keys.down = down

    @rule(seconds=st.sampled_from([2.5, 3.0, 5.0]), principal=st.sampled_from(list(WRITERS)))
    def set_machine_back(self, seconds: float, principal: str) -> None:
        """Give the machine a message and set it back to before that, disk and all; its wall clock is set right."""
        process = self.processes[-1]
        self.end_older()
        process.lives.compare_clocks(self.local, self.now - self.lost)
        kept = deepcopy(process.store.__dict__), deepcopy(self.journal.__dict__) if self.journal is not None else {}
        down, self.keys.down = self.keys.down, False
        self.send(principal, "a.x", 0.0)
        self.keys.down = down
        self.now += seconds
        self.lost += seconds
        process.store.__dict__.update(kept[0])
        if self.journal is not None:
            self.journal.__dict__.update(kept[1])
        process.lives.compare_clocks(self.local, self.now - self.lost)
        for floors in (process.floors, self.born_on_disk):
            floors.update(dict.fromkeys(floors, self.local + SKEW))

    @invariant()
    def memory_is_bounded(self) -> None:
        """No more is kept than what open subscriptions need, and those that were closed within a window."""
        for process in self.processes:
            needed = {f"{one.life.name}#" for one in process.subscriptions if one.life.is_born}
            assert needed <= set(process.store._logs)

    def teardown(self) -> None:
        """Replay everything in the end, to a new process too; and see that what was closed long ago is forgotten."""
        if not self.processes:
            return
        self.keys.down = False
        self.replay_all()
        while any(not one.is_confirmed for one in self.processes[-1].subscriptions):
            self.confirm(0)
        self.restart(goes_on=False)
        for pattern in ("a.x", "a.x", "a.*", ">", MAPPED):
            self.subscribe(pattern, at_once=True)
        self.replay_all()
        while self.processes[-1].subscriptions:
            self.unsubscribe(0)
        self.now += WINDOW + 2 * SKEW + 1
        self.subscribe("a.y", at_once=True)
        assert set(self.processes[-1].store._logs) == {"sub:a.y#0#"}
        assert -inf < self.processes[-1].lives.floor_ends_at < self.local + SKEW + 1.001


TestCoreReaders: Any = pytest.mark.slow(CoreReaders.TestCase)
TestCoreReaders.__doc__ = "Promise (A43, A46, N1): one reader, one memory, over resubscriptions and restarts."
TestCoreReaders.settings = settings(max_examples=200, stateful_step_count=40)
