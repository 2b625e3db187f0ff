"""From what was written down to figures: nothing here knows what was meant to happen."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.evidence import ORIGINAL, REPLAYED, UNAVAILABLE

if TYPE_CHECKING:
    from chaos.evidence import Evidence


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
    copies_came_first: int = 0
    honest_refused: dict[str, int] = field(default_factory=dict)
    replays_refused: dict[str, int] = field(default_factory=dict)
    deeds: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether exactly the honest messages were delivered."""
        return not (self.honest_lost or self.replays_delivered or self.honest_rejected_as_replay)


def account(evidence: Evidence) -> Figures:
    """Count."""
    figures = _on_log(evidence, evidence.log) if evidence.log is not None else _on_core(evidence)
    figures.honest_sent = len(evidence.acked)
    figures.kills = evidence.deeds["kill"]
    figures.broker_restarts = evidence.deeds["restart"]
    figures.deeds = dict(evidence.deeds)
    return figures


def _on_log(evidence: Evidence, log: list[tuple[str, str]]) -> Figures:
    """Account where the bus gives positions: a message may be delivered at one of them, be it again and again."""
    originals: dict[str, str] = {}
    for name, position in log:
        originals.setdefault(name, position)
    delivered = [(one.name, one.position) for one in evidence.deliveries]
    places: defaultdict[str, set[str]] = defaultdict(set)
    for name, position in delivered:
        places[name].add(position)
    overtaken = {name for name, found in places.items() if len(found) == 1 and originals.get(name) not in found}
    refused = [one for one in evidence.refusals if one.reason != UNAVAILABLE]
    honest = [one for one in refused if originals.get(one.name) == one.position]
    reasons = Counter(one.reason for one in honest)
    return Figures(
        honest_lost=len(evidence.acked.keys() - places.keys()),
        honest_rejected_as_replay=len({one.name for one in honest if one.reason == REPLAYED} - overtaken),
        replays_offered=sum(originals[name] != position for name, position in log),
        replays_delivered=sum(len(found) - 1 for found in places.values()),
        redeliveries=len(delivered) - len(set(delivered)),
        copies_came_first=len(overtaken),
        honest_refused=dict(reasons),
        replays_refused=dict(Counter(one.reason for one in refused) - reasons),
    )


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
    return Figures(
        honest_lost=len((lost & came) - excused),
        honest_rejected_as_replay=len(called_replays - delivered.keys() - excused),
        copies_came_first=len(called_replays & delivered.keys()),
        honest_lost_by_bus=len((lost - came - undetermined) | ((lost & in_dead_hands) - undetermined)),
        honest_lost_unavailable=len(lost & undetermined),
        replays_offered=sum(position != ORIGINAL for _, position in evidence.witnessed),
        replays_delivered=sum(delivered.values()) - len(delivered),
        honest_refused=dict(honest),
        replays_refused=dict(Counter(one.reason for one in refused) - honest),
    )
