"""Check 8: is this the first use of an id in its scope, or an honest redelivery? Our memory or a shared store decides.

It takes the cases after checks 1 to 7. Those that passed are rejected if they are replays, or if their ids may have
been forgotten; of those that failed, the memory keeps what a later check needs. It also writes the guard's notes to the
journal.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Final

from watchword.errors import Forgotten, Reason, Rejected, Unavailable
from watchword.guard import MemoryReplayStore
from watchword.message import log_name
from watchword.plugged import answer
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

_ONE_BY_ONE: Final = 4
"""The size up to which a stretch that is not all first sights is admitted one by one."""

_AHEAD: Final = 1.0
"""Seconds, besides the skew, by which a floor may be ahead of the clock, as that of a new reader is."""

_WARN_AGAIN: Final = 60.0
"""Seconds by which a floor must exceed the last one warned of, for another warning."""

_REMEDY: Final = (
    "set the clocks right and restart this process; a core NATS reader's floor is in the journal too: stop its readers"
    " and delete the journal in the directory that [replay] state names"
)

_REFUSED: Final = {
    Admission.REPLAYED: (Reason.REPLAYED, "its id was used before, elsewhere: a copy, or its sender sent it twice"),
    Admission.TOO_OLD: (Reason.STALE, "issued before the floor of this memory, which may have forgotten its id"),
    Admission.OVER_QUOTA: (
        Reason.OVER_QUOTA,
        "no room for more ids of its principal: raise [replay] memory",
    ),
}


_OLDER: Final = "issued before the store knew this reader, or longer ago than it keeps ids"
_OLDER_THAN_ITS_KEY: Final = "issued before the floor of its sender or key in this memory"


class ReplayCheck:
    """Offers claims to ``store``, or to its own ``guard`` for logs that this process reads alone.

    The guard's notes are written to the ``journal`` before a message is handed over. Where a store is shared, this
    process itself remembers the messages that it received and could not judge.
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
        """Return True if our own memory decides about this message, and not a shared store."""
        return message.exclusive or self._store is self.guard

    async def admit(
        self, units: Sequence[Verification | Stretch], *, floor: float, was_passed: bool = False
    ) -> list[Verification | Stretch]:
        """Run check 8 in order; return the units judged, up to the first message that cannot be judged."""
        guard, own = self.guard, self._store is self.guard
        judged: list[Verification | Stretch] = []
        shared: list[Claim] = []
        if not own:
            units = [case for unit in units for case in ([unit] if unit.message.exclusive else unit.cases())]
            shared = self._shared_claims([case for case in units if not isinstance(case, Stretch)], floor)
        answers = iter(await self._asked(shared) if shared else ())
        first = Admission.FIRST  # Python 3.11 looks an enum member up each time
        for case in self._split(units, floor):
            judged.append(case)
            if isinstance(case, Stretch):
                continue
            if case.verdict is not None:
                self.ended(case)
            elif case.issued_at < floor and case.request is None:
                self.reject(case, Rejected(Reason.STALE, "issued before this reader began to remember ids"))
            elif own or case.message.exclusive:
                admission = guard.admit(case.claim)
                if admission is first:
                    case.first = True
                elif was_passed and admission is Admission.TOO_OLD:
                    case.verdict = Forgotten()
                    return self._write_notes(judged)
                else:
                    self._admitted(case, admission, self._why_too_old(case) if admission is Admission.TOO_OLD else "")
            elif not self._admitted(case, next(answers, None)):
                return self._write_notes(judged)
        return self._write_notes(judged)

    def _split(self, units: Sequence[Verification | Stretch], floor: float) -> Iterator[Verification | Stretch]:
        """Yield, in order, stretches that the guard admitted whole, and all other messages one by one.

        A stretch that is not all first sights is halved, so that a copy slows down few of its neighbours.
        """
        waiting = deque(units)
        while waiting:
            unit = waiting.popleft()
            if not isinstance(unit, Stretch):
                yield unit
            elif self.guard.admit_all(unit, floor):
                unit.first = True
                yield unit
            elif len(unit) > _ONE_BY_ONE:
                waiting.extendleft(reversed(unit.halves()))
            else:
                yield from unit.cases()

    def remember_unjudged(self, case: Verification) -> None:
        """Remember, by its claims, a message that will not be judged; our own memory also notes it for a successor."""
        if not self.guards(case.message):
            self._unjudged.remember(case.claim)
            return
        self.guard.remember_unjudged(case.claim)
        self._write_notes([])

    def _write_notes(self, units: list[Verification | Stretch]) -> list[Verification | Stretch]:
        """Write the guard's notes to the journal; if that fails, their messages become Unavailable."""
        notes = self.guard.take_notes()
        if not notes or self._journal is None:
            return units
        try:
            self._journal.write(notes)
        except Exception as error:  # noqa: BLE001 - after any failure a successor would not know these ids
            names = {note.log for note in notes}
            cases = parted(units)
            for case in cases:
                if case.verdict is None and self.guard.noted_as(case.claim.log) in names:
                    case.verdict = Unavailable("replay", f"journal: {type(error).__name__}")
                    case.verdict.__cause__ = error
            return [*cases]
        return units

    def _shared_claims(self, cases: list[Verification], floor: float) -> list[Claim]:
        """Return the claims to ask the store about; messages that passed without a verdict before are decided here."""
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
        """Return True if a rejected message has no verdict on its key, and a shared store decides about it."""
        return case.opened and not case.keyed and case.ahead is None and not self.guards(case.message)

    def ended(self, case: Verification) -> None:
        """Update the memory for a message that an earlier check rejected."""
        if isinstance(case.verdict, Rejected):
            self.look(case.message)
            self.remember_unknown(case)
            self._drop(case)

    def look(self, message: Message) -> None:
        """Advance log time by the reader's observations of the log's end; the message need not verify."""
        between = message.appended_between
        if between is not None and message.appended_at is None and self.guards(message):
            self.guard.look(log_name(message), between[0])

    def remember_unknown(self, case: Verification, *, unacked: bool = False) -> None:
        """Remember a message that may verify later: one without a verdict on its key, or from the future.

        A rejection is final, so the message is not offered again; but a recalled one may still be ``unacked``.
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
        """Reject a message that passed the earlier checks."""
        case.reject(verdict)
        self._drop(case)

    def _drop(self, case: Verification) -> None:
        if case.opened and case.claim.unacked:
            self.guard.drop(case.claim)  # it will not be acknowledged

    async def _asked(self, claims: list[Claim]) -> list[object]:
        """Ask the store; if it raised an exception, that is the last answer."""
        answers: list[object] = []
        try:
            if isinstance(self._store, BulkStore) and len(claims) > 1:
                answers += await answer(self._store.claim_many(claims))
            else:
                for claim in claims:
                    answers.append(await answer(self._store.claim(claim)))
        except Exception as error:  # noqa: BLE001 - after any failure the message is not judged
            answers.append(error)
        return answers

    def _why_too_old(self, case: Verification) -> str:
        """Return why our own memory may have forgotten a message's id; warn if a clock was ahead."""
        floor = self.guard.floor(case.claim.log)
        if case.issued_at >= floor:
            return _OLDER_THAN_ITS_KEY
        now = self._clock()
        if floor > now + self._ahead and floor > self._told + _WARN_AGAIN:
            self._told = floor
            self.guard.warnings.append(
                (
                    "replay.clock_was_ahead",
                    {
                        "log": case.claim.log,
                        "since": shown_time(now),
                        "until": shown_time(floor),
                        "cost": "messages issued before then are stale: a clock was ahead, or this one is behind",
                        "remedy": _REMEDY,
                    },
                )
            )
        return f"issued before {shown_time(floor)}, and this memory may have forgotten ids up to then"

    def _admitted(self, case: Verification, admission: object, why: str = _OLDER) -> bool:
        """Apply the store's answer; return False if it is not an Admission: the message must be offered again."""
        if admission is Admission.FIRST:
            case.first = True
        elif isinstance(admission, BaseException):
            case.verdict = Unavailable("replay", told_of(admission))
            case.verdict.__cause__ = admission
        elif not isinstance(admission, Admission):  # "first" would equal FIRST, and yet not be it
            case.verdict = Unavailable("replay", "the replay store did not return an Admission")
        elif admission in _REFUSED:
            reason, detail = _REFUSED[admission]
            self.reject(case, Rejected(reason, why if admission is Admission.TOO_OLD else detail))
        else:
            # Without a place there are no redeliveries, so this very copy was claimed before and the answer was lost.
            case.first = case.claim.arrival is not None
        return isinstance(admission, Admission)


def shown_time(time: float) -> str:
    """Return a time as operators read it; in seconds since the epoch if it is outside the calendar."""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"{time:g}"
