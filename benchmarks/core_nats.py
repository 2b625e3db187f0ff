"""Core NATS from ``publish`` to the callback, publisher and subscriber of each kind in processes of their own."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from .buses import ROOM, Nats
from .core import BATCH, SIZE
from .figures import take_turns
from .pair import Pair
from .stages import kinds, ratios

REPEATS: Final = 7
MESSAGES: Final = 20_000


def measure(address: str, *, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    count, repeats = (200, 1) if small else (MESSAGES, REPEATS)
    with ExitStack() as stack:
        pairs = {
            kind: stack.enter_context(Pair(Nats(address, kind, BATCH), engine)) for kind, engine in kinds().items()
        }
        figures = take_turns({kind: partial(pair.rate, count) for kind, pair in pairs.items()}, repeats)
    report = {
        "messages": count,
        "repeats": repeats,
        "value_bytes": SIZE,
        "subscription": ROOM,
        "figures": [{"what": "publish to callback", "kind": kind} | one.to_json() for kind, one in figures.items()],
    }
    return {"nats": report, "ratios": ratios("nats_core_signed_over_plain", figures)}
