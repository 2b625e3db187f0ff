"""Core NATS from ``publish`` to the callback, publisher and subscriber in processes of their own, in turns."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from .buses import ROOM, Nats
from .core import SIZE
from .figures import take_turns
from .pair import KINDS, Pair

REPEATS: Final = 7
MESSAGES: Final = 20_000


def measure(address: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    count, repeats = (200, 1) if small else (MESSAGES, REPEATS)
    with Pair(Nats(address)) as pair:
        figures = take_turns({kind: partial(pair.rate, kind, count) for kind in KINDS}, repeats)
    report = {
        "messages": count,
        "repeats": repeats,
        "value_bytes": SIZE,
        "subscription": ROOM,
        "figures": [{"what": "publish to callback", "kind": kind} | one.to_json() for kind, one in figures.items()],
    }
    return {
        "nats": report,
        "ratios": {"nats_core_signed_over_plain": figures["watchword"].over(figures["plain"])},
    }
