"""The guard of a log that the broker does not stamp, against a memory of everything that was ever offered."""

from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.core.world import at_once
from watchword.quota import Bounds
from watchword.spi import Admission, Claim, MemoryReplayStore, Position

HORIZON: Final = 40.0
WIDTH: Final = 2
BOUNDS: Final = Bounds(per_principal=6, in_all=10, unverified=3)
LOG: Final = "log"

PRINCIPALS = st.sampled_from(["alice", "bob", "carol", "dave"])
IDS = st.integers(0, 5)
TIMES = st.integers(0, 240)
LEAPS = st.sampled_from([0, 0, 0, 1, 5, 30, 60])


@dataclass
class Known:
    """What was first seen under an id, or under claims that nobody judged."""

    place: int
    issued_at: int
    digest: bytes
    principal: str


@dataclass
class Everything:
    """Every sight, and the floors as docs/replay.md states them; nothing is ever forgotten."""

    start: float = -inf
    passed: float = -inf
    latest: dict[str, int] = field(default_factory=dict)
    first: dict[tuple[str, int, int], Known] = field(default_factory=dict)
    undetermined: dict[bytes, Known] = field(default_factory=dict)
    raised: dict[str, int] = field(default_factory=dict)
    lies: list[tuple[int, int]] = field(default_factory=list)
    """Offset and issue time of all that a successor has to know of."""

    @property
    def floor(self) -> float:
        """What was issued below it is too old, no matter who signed it."""
        return max(self.start, self.passed - HORIZON)

    def floor_of(self, principal: str) -> float:
        """Return the floor of one principal."""
        return max(self.floor, self.latest.get(principal, -inf) - HORIZON)


class Unstamped(RuleBasedStateMachine):
    """Claims in any order of issue, from a backlog and after it; with floors, rebuilds and little room."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryReplayStore(horizon=HORIZON, bounds=BOUNDS)
        self.all = Everything()
        self.offset = 0
        self.rose = False
        self.now = 0

    def claim(self, principal: str, number: int, issued_at: int, claims: int, place: int) -> Claim:
        """Return a claim; log time has passed as far as looks tell."""
        digest = sha256(repr((principal, number, issued_at, claims)).encode()).digest()
        return Claim(
            scope="scope", log=LOG, principal=principal, key_id=principal.encode(), id=number.to_bytes(16),
            digest=digest, place=(Position("log", place), None), issued_at=issued_at,
            reference=float(max(issued_at, self.now)), keep_until=inf, appended_after=self.looked,
        )  # fmt: skip

    @property
    def looked(self) -> float:
        """When the last look was before which the record was not there: none, in a backlog."""
        return float(self.now) if self.now else -inf

    @rule(by=LEAPS)
    def look(self, by: int) -> None:
        """Let log time pass for certain."""
        self.now += by

    @rule(principal=PRINCIPALS, number=IDS, issued_at=TIMES, again=st.sampled_from([0, 0, 0, 1, 9]))
    def offer(self, principal: str, number: int, issued_at: int, again: int) -> None:
        """Offer a record: a new one, or another one at a place that was read some records ago."""
        place = max(0, self.offset - again)
        self.offset += not again
        self.judge(principal, number, issued_at, place)

    @rule(which=st.integers(0, 60), moved=st.sampled_from([True, True, False]))
    def copy(self, which: int, *, moved: bool) -> None:
        """Offer once more what was seen before, mostly where someone has copied it to."""
        if self.all.first:
            (principal, number, issued_at), known = list(self.all.first.items())[-1 - which % len(self.all.first)]
            self.judge(principal, number, issued_at, self.offset if moved else known.place)
            self.offset += moved

    @rule(principal=PRINCIPALS, number=IDS, by=st.integers(-1, 3))
    def offer_at_the_floor(self, principal: str, number: int, by: int) -> None:
        """Offer a record that is just as old as matters."""
        floor = self.all.floor_of(principal)
        if floor > 0:
            self.judge(principal, number, int(floor) + by, self.offset)
            self.offset += 1

    def judge(self, principal: str, number: int, issued_at: int, place: int) -> None:
        """Hold the answer to one claim against what must be answered."""
        claim = self.claim(principal, number, issued_at, number % 2, place)
        self.all.passed = max(self.all.passed, self.looked)
        full = self.may_be_full(principal)
        expected, answer = self.expected(claim), at_once(self.store.claim(claim))
        if self.floor_rose(principal, issued_at):
            assert answer in {expected, Admission.OVER_QUOTA}
        elif answer is Admission.OVER_QUOTA:
            assert expected is Admission.FIRST or issued_at <= self.all.raised.get(principal, -1)
            assert full
        else:
            assert answer is expected
        self.remember(claim, answer)

    def floor_rose(self, principal: str, issued_at: int) -> bool:
        """Return True if the floor rose for want of room: to what the second of all principals has passed."""
        raised = self.store.floor(LOG)
        if raised <= self.all.floor:
            return False
        latest = self.all.latest | {principal: max(issued_at, self.all.latest.get(principal, -1))}
        assert raised == sorted(latest.values())[-2] - HORIZON
        assert any(event == "replay.floor_raised" for event, _ in self.store.warnings)
        assert len(self.all.first) + len(self.all.undetermined) >= BOUNDS.in_all
        self.all.start, self.rose = raised, True
        return True

    def expected(self, claim: Claim) -> Admission:
        """Return what must be answered if there is room."""
        principal, issued_at, memory = claim.principal, claim.issued_at, self.all
        assert claim.place is not None
        place = claim.place[0].offset
        if issued_at < memory.floor_of(principal):
            return Admission.TOO_OLD
        ident = (principal, int.from_bytes(claim.id), issued_at)
        known, late = memory.first.get(ident), memory.undetermined.get(claim.digest)
        if known is not None:
            same = (known.place, known.digest) == (place, claim.digest)
            return Admission.REDELIVERED if same else Admission.REPLAYED
        if late is not None:
            return Admission.FIRST if late.place == place else Admission.REPLAYED
        return Admission.TOO_OLD if issued_at <= memory.raised.get(principal, -1) else Admission.FIRST

    def may_be_full(self, principal: str) -> bool:
        """Return True if room can have run out: counted as if only log time's floor let ids go."""
        known = [*self.all.first.values(), *self.all.undetermined.values()]
        held = [one.principal for one in known if one.issued_at >= self.all.floor - WIDTH]
        mine = held.count(principal)
        return mine >= BOUNDS.per_principal or len(held) >= BOUNDS.in_all

    def remember(self, claim: Claim, answer: Admission) -> None:
        """Remember a sight, and where it lies."""
        principal, issued_at, memory = claim.principal, claim.issued_at, self.all
        assert claim.place is not None
        place = claim.place[0].offset
        if answer is Admission.FIRST:
            memory.first[principal, int.from_bytes(claim.id), issued_at] = Known(
                place, issued_at, claim.digest, principal
            )
        if answer is Admission.TOO_OLD and issued_at >= memory.floor_of(principal):  # by its key's raised floor
            spoken = self.store._logs[LOG].latest.get(principal, -1)  # it counts if room was made for it
            memory.latest[principal] = max(spoken, memory.latest.get(principal, -1))
        if answer is Admission.OVER_QUOTA:
            memory.raised[principal] = max(issued_at, memory.raised.get(principal, -1))
        if answer in {Admission.FIRST, Admission.OVER_QUOTA}:
            memory.latest[principal] = max(issued_at, memory.latest.get(principal, -1))
            memory.lies.append((place, issued_at))

    @rule(principal=PRINCIPALS, number=IDS, issued_at=TIMES, verified=st.booleans())
    def remember_ahead(self, principal: str, number: int, issued_at: int, *, verified: bool) -> None:
        """Let a message pass that is from the future, as far as that is known."""
        claim = self.claim(principal, number, issued_at, number % 2, self.offset)
        self.offset += 1
        held, memory = self.store._quota._held[0] + len(self.store), self.all
        over, full = issued_at < memory.floor_of(principal), self.may_be_full(principal)
        self.store.remember_ahead(claim, verified=verified)
        ident = (principal, number, issued_at)
        if over or ident in memory.first:
            return
        if issued_at <= memory.raised.get(principal, -1) or claim.digest in memory.undetermined:
            return
        memory.lies.append((self.offset - 1, issued_at))
        kept = self.store._find(self.store._logs[LOG], issued_at, self.store._hashing.late_key(claim)) is not None
        assert kept or not verified or full
        assert kept or verified or held >= BOUNDS.unverified
        if kept:
            memory.undetermined[claim.digest] = Known(self.offset - 1, issued_at, claim.digest, principal)
        elif verified:
            memory.raised[principal] = max(issued_at, memory.raised.get(principal, -1))

    @rule(floor=TIMES)
    def begin(self, floor: int) -> None:
        """Start over with a floor that someone chose."""
        self.store.begin(LOG, floor=float(floor))
        self.all = Everything(start=float(floor))

    @invariant()
    def memory_is_bounded(self) -> None:
        """No more is held than allowed, and what is counted is what is there."""
        held = self.store._quota.held()
        assert all(count <= BOUNDS.per_principal for count in held.values())
        assert sum(held.values()) <= 2 * BOUNDS.in_all
        log = self.store._logs.get(LOG)
        if log is not None:
            owners = log.ids.owners()
            assert owners.pop(0, 0) == log.unverified == self.store._quota._held[0]
            assert owners.total() == len(self.store)

    @invariant()
    def a_successor_is_told_from_where_to_read(self) -> None:
        """Whatever lies in the log and is not below the floor lies at the lowest offset or behind, within a slice."""
        floor = self.store.floor(LOG)
        assert floor == self.all.floor
        told, lies = self.store.lowest_needed(LOG), self.all.lies
        lowest = inf if told is None else told
        needed = min((offset for offset, issued_at in lies if (issued_at // WIDTH + 1) * WIDTH > floor), default=inf)
        assert lowest <= needed
        assert lowest == needed or self.rose  # then what it rose for may lie below it


TestUnstamped = pytest.mark.slow(pytest.mark.usefixtures("not_traced")(Unstamped.TestCase))
TestUnstamped.__doc__ = "Promise (A12, A18, A20, A39): it answers as a memory of everything would, in bounded memory."
TestUnstamped.settings = settings(max_examples=300, stateful_step_count=60)
