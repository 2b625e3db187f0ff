"""What a lone message pays, end to end, on a bus that is idle otherwise, by clients of every kind in turns."""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .buses import Kafka, Nats
from .pair import Pair
from .primitives import at_pace
from .stages import EQUAL, OURS, OURS_IN_PYTHON, PLAIN, kinds

if TYPE_CHECKING:
    from collections.abc import Mapping

QUANTILES: Final = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999}


class Pace(NamedTuple):
    """So many messages a second, for so long in each turn, so many turns of each kind."""

    per_second: int
    seconds: float
    turns: int


PACES: Final = (Pace(50, 1.5, 10), Pace(1000, 1.0, 10))
SMALL: Final = (Pace(50, 0.1, 1), Pace(1000, 0.05, 1))
LONE: Final = PACES[0].per_second
THE_BUS: Final = "nats"
"""Where the report's own ``added_p50`` and ``added_p99`` come from: the quicker bus hides least."""

_BUSES: Final[Mapping[str, type[Kafka | Nats]]] = {"kafka": Kafka, "nats": Nats}
_WARM_UP: Final = 20
_ALONE: Final = "ed25519"


def measure(bus: str, address: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report: microseconds by bus and pace.

    What Watchword adds to a quantile is the difference of both kinds' quantiles. ``ed25519_p50`` is what the algorithm
    alone takes at that pace, a signature and its check.
    """
    with ExitStack() as stack:
        pairs = {
            kind: stack.enter_context(Pair(_BUSES[bus](address, kind, batch=1), engine))
            for kind, engine in kinds().items()
        }
        for pair in pairs.values():
            pair.latencies(2 if small else _WARM_UP, LONE)
        paces = {str(pace.per_second): _at(pairs, pace) for pace in (SMALL if small else PACES)}
    lone = paces[str(LONE)]
    added = {name: lone[name] for name in ("added_p50", "added_p99")} if bus == THE_BUS else {}
    ratios = {
        f"{bus}_added_p50_over_ed25519_at_{pace}{suffix}": found[f"added_p50_over_ed25519{suffix}"]
        for pace, found in paces.items()
        for suffix in ("", "_python")
    }
    return {"latency_us": added | {bus: paces}, "ratios": ratios}


def _at(pairs: Mapping[str, Pair], pace: Pace) -> dict[str, Any]:
    count = int(pace.per_second * pace.seconds)
    turns: list[dict[str, list[float]]] = []
    for _ in range(pace.turns):
        turn = {kind: pair.latencies(count, pace.per_second) for kind, pair in pairs.items()}
        turns.append(turn | {_ALONE: at_pace(count, pace.per_second)})
    found = {kind: _quantiles([took for turn in turns for took in turn[kind]]) for kind in turns[0]}
    alone, plain, equal, ours = (found[kind] for kind in (_ALONE, PLAIN, EQUAL, OURS))
    in_python = found.get(OURS_IN_PYTHON, ours)
    in_turns = [median(turn[OURS]) - median(turn[PLAIN]) for turn in turns]
    return {
        "samples": count * pace.turns,
        "ed25519_p50": alone["p50"],
        **{kind: quantiles for kind, quantiles in found.items() if kind != _ALONE},
        **{f"added_{name}": ours[name] - plain[name] for name in QUANTILES},
        **{f"added_{name}_with_equal_header": ours[name] - equal[name] for name in QUANTILES},
        **{f"added_{name}_python": in_python[name] - plain[name] for name in QUANTILES},
        "added_p50_over_ed25519": (ours["p50"] - plain["p50"]) / alone["p50"],
        "added_p50_over_ed25519_python": (in_python["p50"] - plain["p50"]) / alone["p50"],
        "added_p50_of_turns": {"least": min(in_turns), "greatest": max(in_turns)},
    }


def _quantiles(latencies: list[float]) -> dict[str, float]:
    ranked = sorted(latencies)
    return {name: ranked[min(len(ranked) - 1, int(share * len(ranked)))] for name, share in QUANTILES.items()}
