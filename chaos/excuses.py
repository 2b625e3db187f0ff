"""What excuses a message that a bus lost, or a copy that came first: an event that was written down, or nothing.

An excuse is a line for the report; None means that there is none, and that the promise did not hold.
"""

from __future__ import annotations

from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from chaos.evidence import HERE, ORIGINAL, UNAVAILABLE, number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.evidence import Delivery, Evidence, Refusal

IN_FLIGHT: Final = 2.0
"""Seconds for which a message may be on its way between the server and a reader; no less than the skew and a second."""

SEVERAL_HANDS: Final = "several hands judged at once"

_LEAP: Final = 2.0 + IN_FLIGHT
"""Seconds from the moment at which a store's clock jumps ahead until what is issued is younger than its new birth."""

_DISTURBING: Final = frozenset(
    {
        "kill",
        "kill between handler and commit",
        "restart",
        "pause",
        "roll",
        "away",
        "recreate",
        "step down",
        "resubscribe",
    }
)
"""Deeds after which a server offers a message again that someone had, behind later ones."""

_AGAIN_AFTER: Final = 30.0
"""Seconds after such a deed in which a message may come again."""


class _Absence(NamedTuple):
    """A worker was given nothing, from ``since`` until ``until``; it may not have read what was sent after ``unread``.

    That is before ``since`` where it was killed: a busy machine leaves it no time to read what has come.
    """

    number: str
    why: str
    since: float
    until: float
    unread: float


class Excuses:
    """The events of one run, for one reader."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._origin = min(evidence.sent.values(), default=0.0)
        self._absences = list(_absences(evidence))
        self._numbers = {one.number for one in self._absences}
        self._killed_at = {event.detail: event.at for event in evidence.events if event.deed == "kill"}
        refusals: defaultdict[str, list[Refusal]] = defaultdict(list)
        for one in evidence.refusals:
            refusals[one.name].append(one)
        self._refusals = refusals

    def lost_on_core(self, name: str) -> str | None:
        """Return why core NATS gave a message to nobody, or to one that was killed: it offers nothing twice."""
        for arrival in self._arrivals_of(name):
            if arrival in self._killed_at:
                return self._told(f"kill of {arrival}", self._killed_at[arrival])
        sent = self._evidence.sent[name]
        acked = self._evidence.acked_at.get(name, sent + IN_FLIGHT)
        for one in self._absences:
            if one.since > -inf and one.unread - IN_FLIGHT <= acked and sent <= one.since + IN_FLIGHT:
                return self._told(f"{one.why}, worker {one.number}", one.since)
        away = [one for one in self._absences if one.since <= acked and sent <= one.until]
        if away and {one.number for one in away} == self._numbers:
            return self._told(f"{away[-1].why}, worker {away[-1].number}", away[-1].since)
        return None

    def lost_on_log(self, name: str) -> str | None:
        """Return why a stream has lost a message, or why a reader or a store that started over could not believe it."""
        position = self._evidence.acked[name]
        sequence = int(position.rpartition("@")[2])
        verdicts = [one for one in self._refusals[name] if one.position == position and one.reason != UNAVAILABLE]
        for first, _, at in self._evidence.retained:
            if not verdicts and first > sequence:
                return self._told("the stream had lost it", at)
        for verdict in verdicts:
            if verdict.reason != "stale":
                return None
            began = [one.at for one in self._evidence.presence if one.what == HERE and one.at <= verdict.at]
            for event in self._evidence.events:
                if (
                    event.deed == "leap"
                    and event.at - 1 <= verdict.at
                    and self._evidence.sent[name] <= event.at + _LEAP
                ):
                    return self._told("stale behind a leap of the store's clock", event.at)
            cuts = [min(at, verdict.at) for _, since, at in self._evidence.retained if began and since <= verdict.at]
            if cuts and self._evidence.sent[name] <= cuts[-1] + IN_FLIGHT:
                return self._told("stale behind a cut", cuts[-1])
        return None

    def overtaken(self, name: str, position: str, deliveries: list[Delivery]) -> str | None:
        """Return why a copy was delivered before the message itself was judged, which stands at ``position``."""
        refused = [one for one in self._refusals[name] if one.position == position]
        for verdict in refused:
            if verdict.reason == UNAVAILABLE:
                return self._told("it could not be judged", verdict.at)
        for verdict in refused:
            if any(verdict.hand and one.hand and verdict.hand != one.hand for one in deliveries):
                return SEVERAL_HANDS
            for event in self._evidence.events:
                if event.deed in _DISTURBING and event.at <= verdict.at <= event.at + _AGAIN_AFTER:
                    return self._told(f"{event.deed} {event.detail}".rstrip(), event.at)
        return None

    def _arrivals_of(self, name: str) -> list[str]:
        return [one.worker for one in self._evidence.arrivals if one.name == name]

    def _told(self, what: str, at: float) -> str:
        return f"{what}, {at - self._origin:.1f} s"


def _absences(evidence: Evidence) -> Iterator[_Absence]:
    moments: defaultdict[str, list[tuple[float, str, float]]] = defaultdict(list)
    for one in evidence.presence:
        moments[number_of(one.worker)].append((one.at, one.what, one.at))
    read = _read_up_to(evidence)
    for event in evidence.events:
        if event.deed == "kill" and number_of(event.detail) in moments:
            moments[number_of(event.detail)].append((event.at, "kill", min(event.at, read[event.detail])))
    for number, those in moments.items():
        away: tuple[float, str, float] | None = (-inf, "not there yet", -inf)
        for at, what, unread in sorted(those):
            if what == HERE and away is not None:
                yield _Absence(number, away[1], away[0], at, away[2])
                away = None
            elif what != HERE and away is None:
                away = (at, what, unread)
        if away is not None:
            yield _Absence(number, away[1], away[0], inf, away[2])


def _read_up_to(evidence: Evidence) -> defaultdict[str, float]:
    """Return when the latest message was sent that each life of a worker has read, or when it was there at last."""
    read: defaultdict[str, float] = defaultdict(lambda: -inf)
    for one in evidence.presence:
        if one.what == HERE:
            read[one.worker] = max(one.at, read[one.worker])
    for arrival in evidence.arrivals:
        if arrival.position == ORIGINAL and arrival.name in evidence.sent:
            read[arrival.worker] = max(evidence.sent[arrival.name], read[arrival.worker])
    return read
