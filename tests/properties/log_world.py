"""A log with its clocks, its honest writers and its attacker, and a naive memory of what a reader passed in it.

Nothing here shares a formula with the product: the floors are those that docs/replay.md states, written out again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import floor, inf
from typing import Final, TypeAlias

from tests.unit.core.world import ALICE, ALICE_KEY, BOB, BOB_KEY, MALLORY, MALLORY_KEY, ed_key, press, public
from watchword import Policy, SigningKey
from watchword.message import Header
from watchword.spi import Channel, Message, Position
from watchword.testing import KeyDirectory

START: Final = 1_000_000
SKEW: Final = 2.0
HORIZON: Final = 6.0
WINDOW: Final = 8.0
POLICY: Final = Policy(max_age=4.0, max_skew=SKEW, max_lag=10_000.0)

LOG: Final = "group#tasks/0"
WRITERS: Final = {ALICE: ALICE_KEY, BOB: BOB_KEY, MALLORY: MALLORY_KEY}
STRANGER: Final = ed_key(9, kid=b"stranger")

Place: TypeAlias = tuple[int, float | None]
Ident: TypeAlias = tuple[str, int]


@dataclass(eq=False)
class Record:
    """One record; ``stamp`` is the broker's time, or the producer's on a log that the broker does not stamp.

    ``known`` tells whether it bears a key id that a key source may know, ``genuine`` whether it is as it was signed,
    ``prompt`` whether an honest writer's message went into the log at once, and for the first time.
    """

    offset: int
    stamp: float
    appended: float
    ident: Ident
    issued_at: int
    headers: tuple[Header, ...]
    value: bytes = b"v"
    known: bool = True
    genuine: bool = True
    prompt: bool = False
    gone: str = ""


class Keys(KeyDirectory):
    """A key source that knows all writers."""

    def __init__(self) -> None:
        super().__init__(public(key, name) for name, key in WRITERS.items())


@dataclass
class World:
    """The log, true time, and how far each clock is from it; within the skew that is half of it at most."""

    stamped: bool
    now: float = float(START)
    broker: float = 0.0
    reader: float = 0.0
    signer: float = 0.0
    records: list[Record] = field(default_factory=list)
    start: int = 0
    ever: list[Record] = field(default_factory=list)
    """Everything that was ever written: what the attacker has."""

    @property
    def local(self) -> float:
        """What the reader's clock shows."""
        return self.now + self.reader

    @property
    def clock(self) -> float:
        """What the clock shows that reference times are taken from."""
        return self.now + (self.broker if self.stamped else self.reader)

    def write(self, principal: str, delay: float = 0.0, *, known: bool = True) -> Record:
        """Write a new message that took ``delay`` from its signing to the log; under a stranger's key, if not known.

        A negative one is from a signer whose clock is wrong.
        """
        issued_at, number = floor(self.now - delay + self.signer), len(self.ever)
        headers = self._signed(WRITERS[principal] if known else STRANGER, principal, number, issued_at)
        prompt = known and 0 <= delay <= 1.0
        record = Record(0, issued_at, 0, (principal, number), issued_at, headers, known=known, prompt=prompt)
        return self._append(record)

    def copy(self, record: Record, shift: float = 0.0) -> Record:
        """Write a captured record again; the attacker chooses the time, where the broker does not."""
        return self._append(replace(record, stamp=record.stamp + shift, prompt=False, gone=""))

    def alter(self, record: Record) -> Record:
        """Write a captured record with another value."""
        return self._append(replace(record, value=b"forged", genuine=False, prompt=False, gone=""))

    def disown(self, record: Record) -> Record:
        """Write the claims of a captured record under a key that nobody knows."""
        headers = self._signed(STRANGER, *record.ident, record.issued_at)
        return self._append(replace(record, headers=headers, known=False, prompt=False, gone=""))

    def _signed(self, key: SigningKey, principal: str, number: int, issued_at: int) -> tuple[Header, ...]:
        message = self._message(b"v")
        return press(message, key=key, principal=principal, c6=issued_at, c7=number.to_bytes(16)).headers

    def _append(self, record: Record) -> Record:
        record.offset = len(self.records)
        record.appended = self.now
        if self.stamped:
            record.stamp = self.now + self.broker
        self.records.append(record)
        self.ever.append(record)
        return record

    def retained(self, until: int) -> Iterator[Record]:
        """Return what can still be read, up to an offset."""
        return iter(self.records[self.start : until])

    def at(self, offset: int) -> Record | None:
        """Return the record at an offset, if it can be read."""
        return self.records[offset] if self.start <= offset < len(self.records) else None

    def cut(self, offset: int) -> None:
        """Let retention take everything before an offset."""
        for record in self.records[:offset]:
            record.gone = record.gone or "cut"
        self.start = max(self.start, offset)

    def truncate(self, offset: int) -> None:
        """Lose everything from an offset on, as an unclean election does."""
        for record in self.records[offset:]:
            record.gone = "lost"
        del self.records[offset:]

    def recreate(self) -> None:
        """Recreate the topic: its offsets begin again."""
        self.truncate(0)
        for record in self.ever:
            record.gone = "lost"
        self.start = 0

    def place(self, record: Record) -> Place:
        """Return where the broker put a record."""
        return record.offset, record.stamp if self.stamped else None

    def read(
        self, record: Record, between: tuple[float, float], *, delivered_by: tuple[str, str] | None = None
    ) -> Message:
        """Return the record as an adapter hands it to the verifier: stamped, or appended between two times."""
        return replace(
            self._message(record.value),
            headers=record.headers,
            position=Position("tasks/0", record.offset),
            appended_at=record.stamp if self.stamped else None,
            appended_between=None if self.stamped else between,
            created_at=None if self.stamped else record.stamp,
            delivered_by=delivered_by,
        )

    @staticmethod
    def _message(value: bytes) -> Message:
        return Message(
            channel=Channel("kafka", "prod", "tasks"), value=value, partition=0, reader="group", exclusive=True
        )


@dataclass
class Memory:
    """What one guard was shown, all of it, forever; and its stated floors."""

    start: float
    passed: float = -inf
    latest: dict[str, int] = field(default_factory=dict)
    first: dict[Ident, Place] = field(default_factory=dict)
    undetermined: dict[Ident, Place] = field(default_factory=dict)
    pinned: set[Ident] = field(default_factory=set)
    strange: set[Ident] = field(default_factory=set)
    """Of the undetermined, those first seen under a key that nobody knows."""

    passed_again: set[Ident] = field(default_factory=set)
    """Seen before, and passed without a verdict then."""

    doubted: set[tuple[str, bool]] = field(default_factory=set)
    """Under whose keys, known or not, something passed without a verdict."""

    def floor(self, principal: str) -> float:
        """Return below what everything of a principal is stale."""
        return max(self.start, self.passed - HORIZON, self.latest.get(principal, -inf) - HORIZON)

    def look(self, passed: float) -> None:
        """Let log time pass."""
        self.passed = max(self.passed, passed)

    def remember_unjudged(self, record: Record, place: Place, *, pin: bool) -> None:
        """Remember a first sight without a verdict."""
        self.doubted.add((record.ident[0], record.known))
        if self.seen_at(record.ident) is not None:
            self.passed_again.add(record.ident)
        elif record.issued_at >= self.floor(record.ident[0]):
            self.undetermined[record.ident] = place
            if not record.known:
                self.strange.add(record.ident)
            if pin:
                self.pinned.add(record.ident)

    def recall(self, record: Record, place: Place, *, pin: bool) -> None:
        """Remember a first sight before the guard began."""
        if self.seen_at(record.ident) in {None, place}:
            self.admit(record.ident, place, record.issued_at)
            if pin and record.issued_at >= self.start:
                self.pinned.add(record.ident)

    def seen_at(self, ident: Ident) -> Place | None:
        """Tell where an id was first seen."""
        return self.first.get(ident, self.undetermined.get(ident))

    def admit(self, ident: Ident, place: Place, issued_at: int) -> None:
        """Remember an id; where the broker stamps nothing it raises the floor of its principal."""
        self.first[ident] = place
        if place[1] is None:
            self.latest[ident[0]] = max(issued_at, self.latest.get(ident[0], issued_at))

    def claim(self, ident: Ident, place: Place, issued_at: int, *, pin: bool) -> str:
        """Remember a verified message; return what must become of it."""
        if issued_at < self.floor(ident[0]) and ident not in self.pinned:
            return "stale"
        if self.seen_at(ident) not in {None, place}:
            return "replayed"
        if ident not in self.first:
            self.admit(ident, place, issued_at)
            if pin:
                self.pinned.add(ident)
        return "delivered"


def stated_floor(anchor: float, cut: float | None) -> float:
    """Return the floor of a guard that begins: ``anchor`` less max_age and skew; and what retention took is stale."""
    begun = anchor - HORIZON
    return begun if cut is None else max(begun, floor(cut + SKEW) + 1)
