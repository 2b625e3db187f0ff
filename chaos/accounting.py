"""From what was written down to figures: nothing here knows what was meant to happen."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, fields
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from chaos.evidence import ORIGINAL, REPLAYED, UNAVAILABLE
from chaos.excuses import Excuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.evidence import Delivery, Evidence


@dataclass(kw_only=True)
class Figures:
    """The account of one run.

    ``honest_sent`` were acknowledged by the bus; of these ``honest_lost`` never reached a handler. On core NATS two
    kinds of loss are counted beside it, for it offers nothing twice: ``honest_lost_by_bus`` reached no worker, or one
    that was killed before it could hand them (or a copy of them) over; ``honest_lost_unavailable`` could not be judged
    while a store was down. ``replays_offered`` are copies that the bus took (on core NATS: handed to a subscriber);
    ``replays_delivered`` reached a handler beside the message itself: each message may be delivered at one position,
    on core NATS once. ``copies_came_first`` were delivered at a copy's position instead, and the original was refused
    for it: several readers of one stream do not judge in its order. ``honest_refused`` counts, by reason, originals
    that a guard refused for good, and ``replays_refused`` copies.

    ``forged_offered`` are records that no honest sender wrote; ``forged_delivered`` reached a handler, and
    ``aborted_delivered`` did so although their transaction was aborted. Two more figures hold a handler's word against
    the log: ``delivered_elsewhere`` came with a position at which the log has no such record, and
    ``delivered_out_of_turn`` came behind a later one of its log although the worker had not begun again: so a copy
    that passes for its original at the original's own position is found. ``deliveries_late_ms`` is the 99th
    percentile, over the messages, of the time from the append (or the issue, where the bus stamps nothing) to the
    first delivery.

    ``answers_wrong`` reached a requester although they answer another request. ``honest_lost_behind_cut`` were taken by
    the stream's limits or a purge before a reader had them, or are stale for a memory that had to start over.
    ``excused`` lists the messages of this, of ``honest_lost_by_bus`` and of ``copies_came_first`` by the event that
    excuses them; ``unexcused`` are those without such an event.
    """

    honest_sent: int = 0
    honest_lost: int = 0
    honest_rejected_as_replay: int = 0
    replays_offered: int = 0
    replays_delivered: int = 0
    redeliveries: int = 0
    kills: int = 0
    broker_restarts: int = 0
    honest_lost_by_bus: int = 0
    honest_lost_unavailable: int = 0
    honest_lost_behind_cut: int = 0
    answers_wrong: int = 0
    unexcused: int = 0
    copies_came_first: int = 0
    forged_offered: int = 0
    forged_delivered: int = 0
    aborted_delivered: int = 0
    delivered_elsewhere: int = 0
    delivered_out_of_turn: int = 0
    deliveries_late_ms: int = 0
    honest_refused: dict[str, int] = field(default_factory=dict)
    replays_refused: dict[str, int] = field(default_factory=dict)
    deeds: dict[str, int] = field(default_factory=dict)
    excused: dict[str, list[str]] = field(default_factory=dict)

    def excuse(self, names: Iterable[str], why: Callable[[str], str | None]) -> None:
        """Put down what excuses each of these."""
        for name in sorted(names):
            event = why(name)
            if event is None:
                self.unexcused += 1
            self.excused.setdefault(event or "NOTHING", []).append(name)

    @property
    def holds(self) -> bool:
        """Whether exactly the honest messages were delivered."""
        return not any(getattr(self, name) for name in MUST_BE_ZERO)


MUST_BE_ZERO: Final = (
    "honest_lost",
    "honest_rejected_as_replay",
    "replays_delivered",
    "forged_delivered",
    "aborted_delivered",
    "delivered_elsewhere",
    "delivered_out_of_turn",
    "answers_wrong",
    "unexcused",
)


def account(evidence: Evidence) -> Figures:
    """Count."""
    of_readers = [_on_core(one) if one.log is None else _on_log(one, one.log) for one in evidence.readers] or [
        Figures()
    ]
    figures = _together(of_readers)
    figures.replays_offered, figures.forged_offered = of_readers[0].replays_offered, of_readers[0].forged_offered
    figures.honest_sent = len(evidence.acked)
    figures.forged_delivered = sum(one.name not in evidence.sent for one in evidence.deliveries)
    figures.answers_wrong = sum(text != f"re:{name}" for name, text in evidence.answers)
    figures.deliveries_late_ms = max(map(_lateness, evidence.readers), default=0)
    deeds = Counter(event.deed for event in evidence.events)
    figures.kills = deeds["kill"]
    figures.broker_restarts = deeds["restart"]
    figures.deeds = dict(deeds)
    return figures


def _together(parts: list[Figures]) -> Figures:
    """Add up what each reader's account says."""
    total = Figures()
    for one in parts:
        for name in (each.name for each in fields(Figures)):
            value: Any = getattr(one, name)
            if isinstance(value, int):
                setattr(total, name, getattr(total, name) + value)
                continue
            into: dict[str, Any] = getattr(total, name)
            for key, what in value.items():
                into[key] = into[key] + what if key in into else what
    return total


def _on_log(evidence: Evidence, log: list[tuple[str, str]]) -> Figures:
    """Account where the bus gives positions: a message may be delivered at one of them, be it again and again."""
    originals = _originals(evidence, log)
    honest_records = [(name, position) for name, position in log if name in evidence.sent]
    delivered = [(one.name, one.position) for one in evidence.deliveries]
    places: defaultdict[str, set[str]] = defaultdict(set)
    for name, position in delivered:
        places[name].add(position)
    overtaken = {
        name for name, found in places.items() if len(found) == 1 and originals.get(name, "") not in found | {""}
    }
    refused = [one for one in evidence.refusals if one.reason != UNAVAILABLE]
    honest = [one for one in refused if originals.get(one.name) == one.position]
    reasons = Counter(one.reason for one in honest)
    there = set(log)
    excuses, lost = Excuses(evidence), evidence.acked.keys() - places.keys()
    taken = {name for name in lost if excuses.lost_on_log(name)}
    figures = Figures(
        honest_lost=len(lost - taken),
        honest_lost_behind_cut=len(taken),
        honest_rejected_as_replay=len({one.name for one in honest if one.reason == REPLAYED} - overtaken),
        replays_offered=sum(originals.get(name) != position for name, position in honest_records),
        replays_delivered=sum(len(found) - 1 for found in places.values()),
        redeliveries=len(delivered) - len(set(delivered)),
        copies_came_first=len(overtaken),
        forged_offered=len(log) - len(honest_records),
        aborted_delivered=sum(one in evidence.aborted for one in delivered),
        delivered_elsewhere=sum(one not in there for one in delivered),
        delivered_out_of_turn=_out_of_turn(evidence.deliveries),
        honest_refused=dict(reasons),
        replays_refused=dict(Counter(one.reason for one in refused) - reasons),
    )
    figures.excuse(taken, excuses.lost_on_log)
    deliveries: defaultdict[str, list[Delivery]] = defaultdict(list)
    for one in evidence.deliveries:
        deliveries[one.name].append(one)
    figures.excuse(overtaken, lambda name: excuses.overtaken(name, originals[name], deliveries[name]))
    return figures


def _originals(evidence: Evidence, log: list[tuple[str, str]]) -> dict[str, str]:
    """Return where each message stands: where its sender's acknowledgement says, else where the log has it first.

    What was sent in a transaction that is not known to be committed may stand there for nobody: it has no original.
    """
    originals: dict[str, str] = {}
    for name, position in log:
        if name in evidence.sent and name not in evidence.unsettled:
            originals.setdefault(name, position)
    return originals | evidence.acked


def _out_of_turn(deliveries: list[Delivery]) -> int:
    count = 0
    latest: dict[tuple[str, str, int], int] = {}
    for one in deliveries:
        if one.turn:
            stretch = one.worker, one.log, one.turn
            count += one.offset <= latest.get(stretch, -1)
            latest[stretch] = max(one.offset, latest.get(stretch, -1))
    return count


def _lateness(evidence: Evidence) -> int:
    first: dict[str, int] = {}
    # What core NATS lost, or a kill, may be delivered by a copy: how late that is, the attacker decides.
    came = {one.name for one in evidence.arrivals if one.position == ORIGINAL and one.worker not in evidence.killed}
    for one in evidence.deliveries:
        late = one.late
        if evidence.log is None:  # the bus stamps nothing, and issue times are seconds
            if one.name not in came or one.name not in evidence.sent:
                continue
            late = round(1000 * (one.at - evidence.sent[one.name]))
        first[one.name] = min(late, first.get(one.name, late))
    ascending = sorted(first.values())
    return ascending[ceil(0.99 * len(ascending)) - 1] if ascending else 0


def _on_core(evidence: Evidence) -> Figures:
    """Account where there are no positions: any delivery after the first is a replay's."""
    delivered = Counter(one.name for one in evidence.deliveries)
    refused = [one for one in evidence.refusals if one.reason != UNAVAILABLE]
    undetermined = {one.name for one in evidence.refusals if one.reason == UNAVAILABLE}
    judged = {(one.worker, one.name, one.position) for one in evidence.refusals}
    # A worker that was killed may have claimed an id, of the message or of a copy, and had no time to hand it over.
    in_dead_hands = {one.name for one in evidence.arrivals if one.worker in evidence.killed and one not in judged}
    excused = undetermined | in_dead_hands
    lost = evidence.acked.keys() - delivered.keys()
    # What came to a worker that lived on was in Watchword's hands; the rest the server or the kill took.
    came = {one.name for one in evidence.arrivals if one.position == ORIGINAL and one.worker not in evidence.killed}
    called_replays = {one.name for one in refused if one.reason == REPLAYED and one.position == ORIGINAL}
    honest = Counter(one.reason for one in refused if one.position == ORIGINAL)
    by_bus = (lost - came - undetermined) | ((lost & in_dead_hands) - undetermined)
    figures = Figures(
        honest_lost=len((lost & came) - excused),
        honest_rejected_as_replay=len(called_replays - delivered.keys() - excused),
        copies_came_first=len(called_replays & delivered.keys()),
        honest_lost_by_bus=len(by_bus),
        honest_lost_unavailable=len(lost & undetermined),
        replays_offered=sum(name in evidence.sent and at != ORIGINAL for name, at in evidence.witnessed),
        replays_delivered=sum(delivered.values()) - len(delivered),
        honest_refused=dict(honest),
        replays_refused=dict(Counter(one.reason for one in refused) - honest),
        forged_offered=sum(name not in evidence.sent for name, _ in evidence.witnessed),
    )
    excuses = Excuses(evidence)
    deliveries: defaultdict[str, list[Delivery]] = defaultdict(list)
    for one in evidence.deliveries:
        deliveries[one.name].append(one)
    unanswered = evidence.sent.keys() - evidence.acked.keys() if evidence.answers else set()
    figures.excuse(by_bus | unanswered, excuses.lost_on_core)
    figures.excuse(called_replays & delivered.keys(), lambda name: excuses.overtaken(name, ORIGINAL, deliveries[name]))
    return figures
