"""The replay store against a naive model that remembers everything it was told."""

from dataclasses import dataclass, field
from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.core.world import at_once
from watchword import Admission, Claim, MemoryReplayStore, Position

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
    place: object
    settled: bool
    keep_until: float


@dataclass
class Log:
    """Everything seen in one log, in order, whether or not the store may have forgotten it."""

    seen: list[Seen] = field(default_factory=list)
    highest: float = -inf
    start: float = -inf
    raised: dict[str, int] = field(default_factory=dict)

    @property
    def floor(self) -> float:
        """Below it everything is too old."""
        return max(self.start, self.highest - HORIZON)

    def pass_time(self, reference: float) -> None:
        """Let time pass: settled ids below the floor are over, unsettled ones from the front past their time."""
        self.highest = max(self.highest, reference)
        waiting = [seen for seen in self.seen if not seen.settled]
        over = [seen for seen in self.seen if seen.settled and seen.issued_at < self.highest - HORIZON]
        for seen in waiting:
            if seen.keep_until >= self.highest:
                break
            over.append(seen)
        self.seen = [seen for seen in self.seen if seen not in over]

    def find(self, claim: Claim) -> Seen | None:
        """Look everywhere for the id, the slow way."""
        mine = (claim.principal, claim.id, claim.issued_at)
        return next((seen for seen in self.seen if (seen.principal, seen.id, seen.issued_at) == mine), None)


class Replay(RuleBasedStateMachine):
    """Claims in any order of times, with settling, logs begun anew and forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryReplayStore(horizon=HORIZON, per_principal=PER_PRINCIPAL, in_all=IN_ALL)
        self.logs: dict[str, Log] = {}
        self.admitted: set[tuple[str, str, bytes, int]] = set()

    def held(self) -> list[Seen]:
        """Return what the store must hold."""
        return [seen for log in self.logs.values() for seen in log.seen]

    def full_for(self, principal: str) -> bool:
        """Tell whether the quota refuses the principal."""
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
        unsettled=st.booleans(),
        kept=st.integers(0, 30),
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
        unsettled: bool,
        kept: int,
    ) -> None:
        """Offer an id, fresh or late, and hold the answer against the model's."""
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
            unsettled=unsettled,
        )
        model = self.logs.setdefault(log, Log())
        model.pass_time(claim.reference)
        seen = model.find(claim)
        if issued_at < model.floor and (seen is None or seen.settled):
            expected = Admission.TOO_OLD
        elif seen is not None:
            same = place is not None and (seen.digest, seen.place) == (digest, place)
            expected = Admission.REDELIVERED if same else Admission.REPLAYED
        elif self.full_for(principal):
            expected = Admission.OVER_QUOTA
            model.raised[principal] = max(model.raised.get(principal, issued_at), issued_at)
        elif issued_at <= model.raised.get(principal, -1):
            expected = Admission.TOO_OLD
        else:
            expected = Admission.FIRST
            model.seen.append(Seen(principal, message_id, issued_at, digest, place, not unsettled, claim.keep_until))
        answer = at_once(self.store.claim(claim))
        assert answer is expected
        if answer is Admission.FIRST:
            use = (log, principal, message_id, issued_at)
            assert use not in self.admitted, "an id was admitted twice"
            self.admitted.add(use)

    @rule(log=LOGS, principal=PRINCIPALS, message_id=IDS, issued_at=TIMES)
    def settle(self, log: str, principal: str, message_id: bytes, issued_at: int) -> None:
        """Acknowledge a delivery, or one that never was."""
        self.store.settle(log, principal, message_id, issued_at)
        model = self.logs.get(log)
        mine = (principal, message_id, issued_at, False)
        for seen in [] if model is None else model.seen:
            if (seen.principal, seen.id, seen.issued_at, seen.settled) == mine:
                seen.settled = True
                assert model is not None
                model.pass_time(model.highest)
                break

    @rule(log=LOGS, floor=TIMES)
    def begin(self, log: str, floor: int) -> None:
        """Begin anew: nothing is known but the floor."""
        self.store.begin(log, floor=float(floor))
        self.logs[log] = Log(start=float(floor))
        self.admitted = {use for use in self.admitted if use[0] != log}

    @rule(log=LOGS)
    def forget(self, log: str) -> None:
        """Drop the log with all that is known of it."""
        self.store.forget(log)
        self.logs.pop(log, None)
        self.admitted = {use for use in self.admitted if use[0] != log}

    @invariant()
    def holds_exactly_what_it_must(self) -> None:
        """Nothing above the floor is forgotten, nothing below it kept, and the count is exact."""
        assert len(self.store) == len(self.held())
        assert sum(self.store._quota.held().values()) == len(self.store)
        assert self.store._quota.held().keys() == {seen.principal for seen in self.held()}
        assert len(self.store) <= 2 * IN_ALL


TestReplay = Replay.TestCase
TestReplay.__doc__ = "Promise: the store answers as a memory of everything would, and holds no more than it must."
TestReplay.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)
