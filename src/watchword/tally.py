"""Counts per channel for a bounded number of channels: an attacker may choose subjects, and each is a time series."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = "_OTHER"
"""The name for all channels without their own."""

MAX_CHANNELS: Final = 64
"""With some 25 verdicts each they stay below the 2,000 series per metric that OpenTelemetry's SDK allows."""


class Tally:
    """Counts verdicts by channel.

    The first ``MAX_CHANNELS`` are counted by name. A NATS subject is named only after a message verified there, because
    anyone who may publish under a subscription's wildcard could use the names up; a Kafka topic is the reader's choice.
    """

    def __init__(self) -> None:
        self._named: dict[str, Counter[str]] = {}
        self._others: dict[str, Counter[str]] = {"kafka": Counter(), "nats": Counter()}

    def add(self, uri: str, verdict: str, count: int = 1, *, verified: bool = False) -> None:
        """Count ``verdict`` on the channel that has this ``uri``."""
        counts = self._named.get(uri)
        if counts is None:
            bus = uri.partition(":")[0]
            if (verified or bus == "kafka") and len(self._named) < MAX_CHANNELS:
                counts = self._named[uri] = Counter()
            else:
                counts = self._others[bus]
        counts[verdict] += count

    def counts(self) -> Iterator[tuple[str, str, str, int]]:
        """Yield bus, channel name, verdict and count; another thread may call this."""
        for uri, counts in dict(self._named).items():
            bus, _, rest = uri.partition("://")
            for verdict, count in dict(counts).items():
                yield bus, rest.partition("/")[2], verdict, count
        for bus, counts in self._others.items():
            for verdict, count in dict(counts).items():
                yield bus, OTHER, verdict, count
