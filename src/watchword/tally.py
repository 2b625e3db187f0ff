"""Counts by channel, with a bounded number of names: subjects may be an attacker's choice, and each is a series."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER: Final = "_OTHER"
"""What channels are called that have no name of their own here."""

MAX_CHANNELS: Final = 64
"""With some 25 verdicts each they stay below the 2,000 series of a metric that OpenTelemetry's SDK keeps apart."""


class Tally:
    """Counts verdicts by channel.

    The first ``MAX_CHANNELS`` have a name. A NATS subject gets its name by a message that verified there, for whoever
    may publish below a subscription's wildcard could use the names up; a Kafka topic is the reader's own choice.
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
        """Yield bus, name of the channel, verdict and count; another thread may ask."""
        for uri, counts in dict(self._named).items():
            bus, _, rest = uri.partition("://")
            for verdict, count in dict(counts).items():
                yield bus, rest.partition("/")[2], verdict, count
        for bus, counts in self._others.items():
            for verdict, count in dict(counts).items():
                yield bus, OTHER, verdict, count
