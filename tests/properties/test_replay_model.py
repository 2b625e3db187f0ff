"""The guard, claim by claim, against a naive model: what it holds, to the id, and what it answers at its bounds."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.core.world import at_once
from watchword.guard import DEFAULT_BOUNDS
from watchword.spi import Admission, Claim, MemoryReplayStore, Position

pytestmark = pytest.mark.usefixtures("not_traced")

HORIZON = 10.0
PER_PRINCIPAL = 6
IN_ALL = 10

LOGS = st.sampled_from(["log a", "log b"])
PRINCIPALS = st.sampled_from(["alice", "bob", "mallory"])
IDS = st.integers(0, 7).map(lambda number: number.to_bytes(16))
DIGESTS = st.sampled_from([b"d" * 32, b"e" * 32])
PLACES = st.none() | st.tuples(
    st.builds(Position, st.just("log"), st.integers(0, 2)), st.sampled_from([None, 1.0, 2.0])
)
TIMES = st.integers(0, 40)


@dataclass
class Seen:
    """One id as first seen; ``settled`` in time, or not yet."""

    principal: str
    id: bytes
    issued_at: int
    digest: bytes
    place: tuple[Position, float | None] | None
    settled: bool
    keep_until: float


@dataclass
class Log:
    """What is held of one log, its floors, and the keys of which something found no room."""

    start: float = -inf
    seen: list[Seen] = field(default_factory=list)
    highest: float = -inf
    raised: dict[str, int] = field(default_factory=dict)

    @property
    def floor(self) -> float:
        """Below it everything is too old."""
        return max(self.start, self.highest - HORIZON)

    def pass_time(self, reference: float) -> None:
        """Let time pass: settled ids below the floor are over, unacked ones from the front past their time."""
        self.highest = max(self.highest, reference)
        over = [seen for seen in self.seen if seen.settled and seen.issued_at < self.highest - HORIZON]
        for seen in self.seen:
            if seen.settled:
                continue
            if seen.keep_until >= self.highest:
                break
            over.append(seen)
        self.seen = [seen for seen in self.seen if seen not in over]

    def find(self, claim: Claim) -> Seen | None:
        """Look everywhere for the id, the slow way."""
        wanted = claim.principal, claim.id, claim.issued_at
        return next((seen for seen in self.seen if (seen.principal, seen.id, seen.issued_at) == wanted), None)

    def raise_floor(self, claim: Claim) -> None:
        """Take what found no room for seen, and all that its key signed before."""
        self.raised[claim.principal] = max(claim.issued_at, self.raised.get(claim.principal, claim.issued_at))


class Replay(RuleBasedStateMachine):
    """Claims in any order of times, with settling, guards that start over and are rebuilt, and forgotten logs."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryReplayStore(
            horizon=HORIZON, bounds=replace(DEFAULT_BOUNDS, per_principal=PER_PRINCIPAL, in_all=IN_ALL)
        )
        self.logs: dict[str, Log] = {}

    def held(self) -> list[Seen]:
        """Return what the store must hold."""
        return [seen for log in self.logs.values() for seen in log.seen]

    def full_for(self, principal: str) -> bool:
        """Return True if the quota refuses the principal."""
        held = self.held()
        mine = sum(seen.principal == principal for seen in held)
        share = IN_ALL // max(1, len({seen.principal for seen in held}))
        return mine >= PER_PRINCIPAL or (len(held) >= IN_ALL and mine >= share) or len(held) >= 2 * IN_ALL

    @rule(
        log=LOGS,
        principal=PRINCIPALS,
        message_id=IDS,
        digest=DIGESTS,
        place=PLACES,
        issued_at=TIMES,
        age=st.integers(-3, 12),
        unacked=st.booleans(),
        kept=st.integers(0, 30),
        recall=st.sampled_from([False, False, True]),
    )
    def claim(
        self,
        *,
        log: str,
        principal: str,
        message_id: bytes,
        digest: bytes,
        place: tuple[Position, float | None] | None,
        issued_at: int,
        age: int,
        unacked: bool,
        kept: int,
        recall: bool,
    ) -> None:
        """Offer an id, fresh or late, and hold the answer against the model's; or recall it."""
        claim = Claim(
            scope="scope",
            log=log,
            principal=principal,
            key_id=b"key",
            id=message_id,
            digest=digest,
            place=place,
            issued_at=issued_at,
            reference=float(issued_at + age),
            keep_until=float(issued_at + HORIZON + kept),
            unacked=unacked,
        )
        model = self.logs.setdefault(log, Log())
        if recall:
            self.recall(model, claim)
            return
        model.pass_time(claim.reference)
        seen = model.find(claim)
        if issued_at < model.floor and (seen is None or seen.settled):
            expected = Admission.TOO_OLD
        elif seen is not None:
            same = place is not None and (seen.digest, seen.place) == (digest, place)
            expected = Admission.REDELIVERED if same else Admission.REPLAYED
        elif self.full_for(principal):
            expected = Admission.OVER_QUOTA
            model.raise_floor(claim)
        elif issued_at <= model.raised.get(principal, -inf):
            expected = Admission.TOO_OLD
        else:
            expected = Admission.FIRST
            self.remember(model, claim)
        assert at_once(self.store.claim(claim)) is expected

    def recall(self, model: Log, claim: Claim) -> None:
        """Let a rebuild see it."""
        self.store.recall(claim)
        over = claim.issued_at < model.floor or claim.issued_at <= model.raised.get(claim.principal, -inf)
        if not over and model.find(claim) is None:
            if self.full_for(claim.principal):
                model.raise_floor(claim)
            else:
                self.remember(model, claim)

    @staticmethod
    def remember(model: Log, claim: Claim) -> None:
        """Hold an id."""
        settled = not claim.unacked
        given = claim.principal, claim.id, claim.issued_at, claim.digest, claim.place, settled, claim.keep_until
        model.seen.append(Seen(*given))

    @rule(log=LOGS, offset=st.integers(0, 2))
    def acknowledge(self, log: str, offset: int) -> None:
        """Acknowledge what was delivered of a place, or what never was."""
        self.store.acknowledge_at(log, offset)
        model = self.logs.get(log, Log())
        for seen in list(model.seen):
            if not seen.settled and seen.place is not None and seen.place[0].offset == offset:
                seen.settled = True
                model.pass_time(model.highest)

    @rule(log=LOGS, floor=TIMES)
    def begin(self, log: str, floor: int) -> None:
        """Start over: an assignment, a start, a seek."""
        self.store.begin(log, floor=float(floor))
        self.logs[log] = Log(start=float(floor))

    @rule(log=LOGS)
    def forget(self, log: str) -> None:
        """Drop the log with all that is known of it."""
        self.store.forget(log)
        self.logs.pop(log, None)

    @invariant()
    def holds_exactly_what_it_must(self) -> None:
        """Nothing above the floor is forgotten, nothing below it kept, and the count is exact."""
        held = self.held()
        assert len(self.store) == len(held)
        assert self.store._quota.held() == Counter(seen.principal for seen in held)
        assert len(self.store) <= 2 * IN_ALL


TestReplay = pytest.mark.slow(Replay.TestCase)
TestReplay.__doc__ = "Promise: the store answers as a memory of everything would, and holds no more than it must."
TestReplay.settings = settings(max_examples=300, stateful_step_count=60)
