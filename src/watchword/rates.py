"""Rate limits of principals: token buckets that fill with the time of the log that holds the messages.

Memory is bounded by dropping only full buckets, which are the same as new ones: no sender, under however many names,
can make the spending of another be forgotten. A bucket counts as full by a time that no sender can move. ``IssueRates``
counts by issue time instead: that shows whether a principal itself has signed too fast.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from watchword.policy import Allow, Rate

MOST: Final = 1 << 18
"""The most buckets, some 300 bytes each. Beyond that, principals without one share a bucket per rule and log."""

_LEAST: Final = 1024
"""The number of buckets of a rule and log below which full ones are not searched for."""

_SHARED: Final = ""
"""No principal has this name."""


class RateLimiter:
    """Token buckets in reference time: a backlog is judged at the pace at which it was written.

    There is one bucket per rule, principal and log, because principals under one pattern must not use up each other's
    rate, and the logs' times do not advance in step. So a principal that writes to n partitions has its rate in each.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most: Final = most
        self._tables: dict[tuple[Allow, str], _Table] = {}
        self._held = 0

    def __len__(self) -> int:
        return self._held

    def spend(self, rule: Allow, principal: str, log: str, *, at: float, passed: float | None = None) -> bool:
        """Take one token of a principal at ``at`` seconds of reference time; False if there is none.

        ``passed`` is a time that this log has passed, whatever its senders claim; by default ``at``.
        """
        rate = rule.rate
        if rate is None:
            return True
        table = self._tables.get((rule, log))
        if table is None:
            table = self._tables[rule, log] = _Table()
        table.passed = max(table.passed, at if passed is None else passed)
        bucket = table.buckets.get(principal)
        if bucket is None:
            self._drop_full(table, rate)
            if self._held >= self._most:
                principal, bucket = _SHARED, table.buckets.get(_SHARED)
        full = float(rate.count)
        if bucket is None:
            # A dropped bucket was full by then, so its principal had all of its tokens, but no more than those.
            bucket = full, max(at, table.dropped)
            self._held += 1
        tokens, last = bucket
        tokens = min(full, tokens + max(0.0, at - last) * full / rate.seconds)
        spent = tokens >= 1.0
        table.buckets[principal] = (tokens - spent, max(at, last))
        return spent

    def forget(self, log: str) -> None:
        """Drop the buckets of a log that is no longer read."""
        self._keep({key: table for key, table in self._tables.items() if key[1] != log})

    def switch(self, rules: Iterable[Allow]) -> None:
        """Keep the buckets of ``rules``, and drop those of all other rules."""
        known = {rule: rule for rule in rules}
        self._keep({(known[rule], log): table for (rule, log), table in self._tables.items() if rule in known})

    def _keep(self, tables: dict[tuple[Allow, str], _Table]) -> None:
        self._tables = tables
        self._held = sum(len(table.buckets) for table in tables.values())

    def _drop_full(self, table: _Table, rate: Rate) -> None:
        """Drop full buckets, if there may be enough of them to be worth the search."""
        buckets, passed = table.buckets, table.passed
        waited = self._held >= self._most and passed >= table.dropped + rate.seconds
        if not (len(buckets) >= table.look_at or waited):
            return
        full = float(rate.count)
        pace = full / rate.seconds
        table.buckets = {
            name: bucket for name, bucket in buckets.items() if bucket[0] + (passed - bucket[1]) * pace < full
        }
        table.dropped = passed
        table.look_at = max(_LEAST, 2 * len(table.buckets))
        self._held -= len(buckets) - len(table.buckets)


class IssueRates:
    """Detects principals that sign too fast, by the issue times that they themselves have signed.

    Anyone who can hold messages back, or stall a connection, influences how fast they arrive and in which order; but
    only their writer decides their issue times. So messages are counted by issue time, per period of the rate: a bucket
    lets through at most twice its tokens in one period. Messages of an earlier period than the latest are not counted.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most: Final = most
        self._counted: dict[tuple[Allow, str, str], tuple[int, int]] = {}

    def is_over(self, rule: Allow, principal: str, log: str, issued_at: int) -> bool:
        """Count a message at first sight; return True if its writer alone has exceeded the rate."""
        rate = rule.rate
        if rate is None:
            return False
        seconds = ceil(rate.seconds)
        stretch, who = issued_at // seconds, (rule, principal, log)
        latest, count = self._counted.get(who, (stretch, 0))
        if stretch < latest:
            return False
        count = count + 1 if stretch == latest else 1
        if who not in self._counted and len(self._counted) >= self._most:
            self._counted.clear()  # that can only favour principals
        self._counted[who] = stretch, count
        return count > rate.count * (seconds / rate.seconds + 1)

    def forget(self, log: str) -> None:
        """Drop the counts of a log that is no longer read."""
        self._counted = {who: one for who, one in self._counted.items() if who[2] != log}


class _Table:
    """The buckets of one rule and log: tokens, and the time as of which they are counted, by principal."""

    __slots__ = ("buckets", "dropped", "look_at", "passed")

    def __init__(self) -> None:
        self.buckets: dict[str, tuple[float, float]] = {}
        self.passed = self.dropped = -inf
        self.look_at = _LEAST
