"""Check 8: the first use of an id in its scope, or an honest redelivery; by our own memory or a shared store."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Final

from watchword.errors import Reason, Rejected, Unavailable
from watchword.guard import MemoryReplayStore
from watchword.message import log_name
from watchword.quota import Bounds
from watchword.replay import Admission, BulkStore, told_of
from watchword.stretch import Stretch, parted
from watchword.unjudged import Unjudged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from watchword.journal import Journal
    from watchword.message import Message
    from watchword.policy import Policy
    from watchword.replay import Claim, Place, ReplayStore
    from watchword.verification import Verification

PASSED: Final = "log time has passed what was delivered again"
"""Why a memory cannot tell whether it met a message."""

_FEW: Final = 4
"""Messages that are looked at one by one, where not all of them are first sights."""

_AHEAD: Final = 1.0
"""Seconds by which a floor may be ahead of the clock, beside the skew: that of a beginning is, for so long."""

_ANEW: Final = 60.0
"""Seconds by which another floor is higher than what was warned of, if it is to be warned of as well."""

_REMEDY: Final = (
    "set the clocks right and start this process again; the floor of a core NATS reader stands in the journal too: stop"
    " its readers and delete the journal in the directory that [replay] state names"
)

_REFUSED: Final = {
    Admission.REPLAYED: (Reason.REPLAYED, "its id was used elsewhere before: a copy, or a sender that sent one twice"),
    Admission.TOO_OLD: (Reason.STALE, "issued before the floor of this memory, which may have forgotten its id"),
    Admission.OVER_QUOTA: (
        Reason.OVER_QUOTA,
        "no room for more ids of its principal: raise [replay] memory",
    ),
}


_OLDER: Final = "issued before what the store knows of this reader, or longer ago than it keeps ids"
_OLDER_THAN_ITS_KEY: Final = "issued before what this memory knows of its sender or key"


class ReplayCheck:
    """Offers claims to ``store``; those of what this process reads alone to its own ``guard``.

    What the guard takes notes of is in the ``journal`` before anything is handed over. Beside a store that others share
    this process remembers by itself what it was given and nobody judged.
    """

    def __init__(
        self, store: ReplayStore, *, policy: Policy, clock: Callable[[], float], journal: Journal | None = None
    ) -> None:
        self._store = store
        self._journal = journal
        self._clock = clock
        self._ahead = policy.max_skew + _AHEAD
        self._told = -inf
        self._unjudged = Unjudged(clock)
        self.guard: Final = (
            store
            if isinstance(store, MemoryReplayStore)
            else MemoryReplayStore(horizon=policy.horizon, bounds=Bounds.within(policy.memory))
        )

    def guards(self, message: Message) -> bool:
        """Tell whether our own memory answers for this message, and not a store that is shared."""
        return message.exclusive or self._store is self.guard

    async def admit(
        self, units: Sequence[Verification | Stretch], *, floor: float, was_passed: bool = False
    ) -> list[Verification | Stretch]:
        """Judge in order, and return what was judged: it ends with what has no verdict."""
        guard, own = self.guard, self._store is self.guard
        judged: list[Verification | Stretch] = []
        shared: list[Claim] = []
        if not own:
            units = [case for unit in units for case in ([unit] if unit.message.exclusive else unit.cases())]
            shared = self._shared_claims([case for case in units if not isinstance(case, Stretch)], floor)
        answers = iter(await self._asked(shared) if shared else ())
        first = Admission.FIRST  # Python 3.11 searches for a member each time
        for case in self._parted(units, floor):
            judged.append(case)
            if isinstance(case, Stretch):
                continue
            if case.verdict is not None:
                self.ended(case)
            elif case.issued_at < floor and case.request is None:
                self.reject(case, Rejected(Reason.STALE, "issued before this reader began to remember"))
            elif own or case.message.exclusive:
                admission = guard.admit(case.claim)
                if admission is first:
                    case.first = True
                elif was_passed and admission is Admission.TOO_OLD:
                    case.verdict = Unavailable("replay", PASSED)
                    return self._write_notes(judged)
                else:
                    self._admitted(case, admission, self._why(case) if admission is Admission.TOO_OLD else "")
            elif not self._admitted(case, next(answers, None)):
                return self._write_notes(judged)
        return self._write_notes(judged)

    def _parted(self, units: Sequence[Verification | Stretch], floor: float) -> Iterator[Verification | Stretch]:
        """Give, in order, what the guard admitted together, and whatever else by itself.

        A stretch of which not all are first sights is halved, so that a copy costs few of its neighbours.
        """
        waiting = deque(units)
        while waiting:
            unit = waiting.popleft()
            if not isinstance(unit, Stretch):
                yield unit
            elif self.guard.admit_all(unit, floor):
                unit.first = True
                yield unit
            elif len(unit) > _FEW:
                waiting.extendleft(reversed(unit.halves()))
            else:
                yield from unit.cases()

    def remember_unjudged(self, case: Verification) -> None:
        """Remember what will not be judged, by its claims; our own memory also for a process that comes after us."""
        if not self.guards(case.message):
            self._unjudged.remember(case.claim)
            return
        self.guard.remember_unjudged(case.claim)
        self._write_notes([])

    def _write_notes(self, units: list[Verification | Stretch]) -> list[Verification | Stretch]:
        """Keep what the guard took note of; where that fails, nothing is handed over that it stands for."""
        notes = self.guard.take_notes()
        if not notes or self._journal is None:
            return units
        try:
            self._journal.write(notes)
        except Exception as error:  # noqa: BLE001 - whatever it raised, a successor would not know these ids
            names = {note.log for note in notes}
            cases = parted(units)
            for case in cases:
                if case.verdict is None and self.guard.noted_as(case.claim.log) in names:
                    case.verdict = Unavailable("replay", f"journal: {type(error).__name__}")
                    case.verdict.__cause__ = error
            return [*cases]
        return units

    def _shared_claims(self, cases: list[Verification], floor: float) -> list[Claim]:
        """Return what the store is asked: not about what passed before without a verdict, in this very run as well."""
        claims: list[Claim] = []
        passed: dict[tuple[str, bytes], Place | None] = {}
        for case in cases:
            if case.verdict is not None:
                if isinstance(case.verdict, Rejected) and self._is_unjudged(case):
                    passed.setdefault((case.claim.reader, case.claim.digest), case.claim.place)
            elif not case.message.exclusive and (case.issued_at >= floor or case.request is not None):
                claim = case.claim
                found = self._unjudged.admission(claim)
                known = claim.reader, claim.digest
                if found is None and known in passed and (claim.place is None or claim.place != passed[known]):
                    found = Admission.REPLAYED
                if found is None:
                    claims.append(claim)
                else:
                    self._admitted(case, found, _OLDER_THAN_ITS_KEY)
        return claims

    def _is_unjudged(self, case: Verification) -> bool:
        """Tell whether what was rejected passed without a verdict on its key, and where a store is shared."""
        return case.opened and not case.keyed and case.ahead is None and not self.guards(case.message)

    def ended(self, case: Verification) -> None:
        """Take note of what was rejected by an earlier check."""
        if isinstance(case.verdict, Rejected):
            self.look(case.message)
            self.remember_unknown(case)
            self._drop(case)

    def look(self, message: Message) -> None:
        """Let log time pass where the reader's own looks tell it, whatever the message is."""
        between = message.appended_between
        if between is not None and message.appended_at is None and self.guards(message):
            self.guard.look(log_name(message), between[0])

    def remember_unknown(self, case: Verification, *, unacked: bool = False) -> None:
        """Remember what may verify later: what passes without a verdict on its key, or from the future.

        A rejection is final, so nobody offers the message again; but one that is recalled may still be ``unacked``.
        """
        if not case.opened:
            return
        if not self.guards(case.message):
            if self._is_unjudged(case):
                self._unjudged.remember(case.claim)
        elif case.ahead is not None:
            self.guard.remember_ahead(case.claim, verified=case.keyed)
        elif not case.keyed:
            self.guard.remember_unjudged(replace(case.claim, unacked=unacked))

    def reject(self, case: Verification, verdict: Rejected) -> None:
        """Reject what passed the checks before this one."""
        case.reject(verdict)
        self._drop(case)

    def _drop(self, case: Verification) -> None:
        if case.opened and case.claim.unacked:
            self.guard.drop(case.claim)  # nobody will acknowledge it

    async def _asked(self, claims: list[Claim]) -> list[object]:
        """Ask the store; the last answer is what it raised, if anything."""
        answers: list[object] = []
        try:
            if isinstance(self._store, BulkStore) and len(claims) > 1:
                answers += await self._store.claim_many(claims)
            else:
                for claim in claims:
                    answers.append(await self._store.claim(claim))
        except Exception as error:  # noqa: BLE001 - whatever it raised, the message was not judged
            answers.append(error)
        return answers

    def _why(self, case: Verification) -> str:
        """Say why our own memory cannot tell a message from one that it has forgotten."""
        floor = self.guard.floor(case.claim.log)
        if case.issued_at >= floor:
            return _OLDER_THAN_ITS_KEY
        now = self._clock()
        if floor > now + self._ahead and floor > self._told + _ANEW:
            self._told = floor
            self.guard.warnings.append(
                (
                    "replay.clock_was_ahead",
                    {
                        "log": case.claim.log,
                        "since": shown_time(now),
                        "until": shown_time(floor),
                        "cost": "what was issued before then is stale: a clock was ahead, or this one is behind",
                        "remedy": _REMEDY,
                    },
                )
            )
        return f"issued before {shown_time(floor)}, up to which this memory may have forgotten"

    def _admitted(self, case: Verification, admission: object, why: str = _OLDER) -> bool:
        """Take an answer; False if it is none, so that the message is to be offered again."""
        if admission is Admission.FIRST:
            case.first = True
        elif isinstance(admission, BaseException):
            case.verdict = Unavailable("replay", told_of(admission))
            case.verdict.__cause__ = admission
        elif not isinstance(admission, Admission):  # "first" would equal FIRST, and yet not be it
            case.verdict = Unavailable("replay", "the replay store gave no admission")
        elif admission in _REFUSED:
            reason, detail = _REFUSED[admission]
            self.reject(case, Rejected(reason, why if admission is Admission.TOO_OLD else detail))
        else:
            # Nothing comes again without a place. So this very copy was claimed before, and the answer was lost.
            case.first = case.claim.arrival is not None
        return isinstance(admission, Admission)


def shown_time(time: float) -> str:
    """Return a time as operators read it; in seconds since the epoch where no calendar has it."""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time:g}"
