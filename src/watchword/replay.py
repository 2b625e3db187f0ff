"""Replay defence: tells whether this reader saw an id before, and where.

The port, and a store in memory for logs that one process reads alone. docs/spec.md, section "Replay", has the model.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, runtime_checkable

from watchword.message import Position

if TYPE_CHECKING:
    from collections.abc import Iterable


class Admission(StrEnum):
    """What a replay store answers."""

    FIRST = "first"
    REDELIVERED = "redelivered"
    REPLAYED = "replayed"
    TOO_OLD = "too_old"
    OVER_QUOTA = "over_quota"


Place: TypeAlias = tuple[Position, float | None]
"""A position and the broker's stamp with it, since offsets can be reused after a log is recreated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One use of an id, offered to a replay store after every check of authenticity.

    ``scope`` (channel and reader) is where an id may be used once; ``log`` names the run of messages whose reference
    times pass in order. ``digest`` is SHA-256 of the claims. Times are seconds since the epoch; an entry must live
    until ``keep_until``. ``unsettled`` asks to keep the id until it is settled, however long that takes.
    """

    scope: str
    log: str
    principal: str
    id: bytes
    digest: bytes
    place: Place | None
    issued_at: int
    reference: float
    keep_until: float
    unsettled: bool = False


class ReplayStore(Protocol):
    """Port: an atomic put-if-absent for ids."""

    async def claim(self, claim: Claim) -> Admission:
        """Remember the claim and answer FIRST; or say what is wrong with it, remembering nothing.

        REDELIVERED only for the same digest at the same place. Any exception makes the message ``Unavailable``.
        """
        ...


@runtime_checkable
class LogStore(Protocol):
    """A replay store that keeps ids by log, and so wants to hear what becomes of one."""

    def settle(self, log: str, principal: str, message_id: bytes) -> None:
        """Let an unsettled id age like any other."""
        ...

    def rewind(self, log: str) -> None:
        """Start the log's time anew: it is read from elsewhere now; ids that are held stay known."""
        ...

    def forget(self, log: str) -> None:
        """Drop a log that is no longer read."""
        ...


_Key: TypeAlias = tuple[str, bytes]
_Entry: TypeAlias = tuple[bytes, Place | None]


@dataclass(slots=True)
class _Log:
    """The ids of one log, found by their issue time and forgotten in log time."""

    highest: float = -inf
    times: list[int] = field(default_factory=list)
    issued: dict[int, dict[_Key, _Entry]] = field(default_factory=dict)
    unsettled: dict[_Key, tuple[int, float, _Entry]] = field(default_factory=dict)

    def find(self, issued_at: int, key: _Key) -> _Entry | None:
        held = self.unsettled.get(key)
        if held is not None:
            return held[2]
        return self.issued.get(issued_at, {}).get(key)

    def put(self, issued_at: int, key: _Key, entry: _Entry) -> None:
        bucket = self.issued.get(issued_at)
        if bucket is None:
            bucket = self.issued[issued_at] = {}
            heappush(self.times, issued_at)
        bucket[key] = entry


class MemoryReplayStore:
    """Ids in memory, for logs that this process reads alone (one consumer of a partition, one subscription).

    An id is forgotten only when it was issued below the floor, which is the highest reference time that passed in its
    log less ``horizon`` seconds (max_age + max_skew), and whatever was issued below the floor is TOO_OLD; so nothing
    forgotten can come back. ``horizon`` None forgets nothing. Memory is bounded by refusing, never by forgetting: a
    principal holds at most ``per_principal`` ids over all logs; once ``in_all`` are held, only principals below an
    equal share are served, and nobody once there are twice as many.
    """

    def __init__(self, *, horizon: float | None, per_principal: int = 250_000, in_all: int = 1_000_000) -> None:
        self._horizon: Final = inf if horizon is None else horizon
        self._per_principal: Final = per_principal
        self._in_all: Final = in_all
        self._logs: dict[str, _Log] = {}
        self._held: Counter[str] = Counter()
        self._total = 0

    def __len__(self) -> int:
        return self._total

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``; atomic, for it never waits."""
        log = self._logs.setdefault(claim.log, _Log())
        self._advance(log, claim.reference)
        key = (claim.principal, claim.id)
        entry = log.find(claim.issued_at, key)
        if entry is not None:
            same = claim.place is not None and entry == (claim.digest, claim.place)
            return Admission.REDELIVERED if same else Admission.REPLAYED
        if claim.issued_at < log.highest - self._horizon:
            return Admission.TOO_OLD
        if self._is_full_for(claim.principal):
            return Admission.OVER_QUOTA
        entry = (claim.digest, claim.place)
        if claim.unsettled:
            log.unsettled[key] = (claim.issued_at, claim.keep_until, entry)
        else:
            log.put(claim.issued_at, key, entry)
        self._held[claim.principal] += 1
        self._total += 1
        return Admission.FIRST

    def settle(self, log: str, principal: str, message_id: bytes) -> None:
        """See ``LogStore.settle``."""
        known = self._logs.get(log)
        held = None if known is None else known.unsettled.pop((principal, message_id), None)
        if known is not None and held is not None:
            known.put(held[0], (principal, message_id), held[2])
            self._advance(known, known.highest)

    def rewind(self, log: str) -> None:
        """See ``LogStore.rewind``."""
        if log in self._logs:
            self._logs[log].highest = -inf

    def forget(self, log: str) -> None:
        """See ``LogStore.forget``."""
        known = self._logs.pop(log, None)
        if known is not None:
            for bucket in known.issued.values():
                self._release(bucket)
            self._release(known.unsettled)

    def _advance(self, log: _Log, reference: float) -> None:
        log.highest = max(log.highest, reference)
        while log.times and log.times[0] < log.highest - self._horizon:
            self._release(log.issued.pop(heappop(log.times)))
        # In order of arrival, so the oldest come first; one that outstays its neighbours only delays their leaving.
        while log.unsettled:
            key, (_, keep_until, _) = next(iter(log.unsettled.items()))
            if keep_until >= log.highest:
                break
            del log.unsettled[key]
            self._release((key,))

    def _release(self, keys: Iterable[_Key]) -> None:
        for principal, _ in keys:
            self._total -= 1
            self._held[principal] -= 1
            if not self._held[principal]:
                del self._held[principal]

    def _is_full_for(self, principal: str) -> bool:
        held = self._held[principal]
        share = self._in_all // max(1, len(self._held))
        if self._total >= 2 * self._in_all:  # equal shares alone add up to in_all * (1 + 1/2 + 1/3 + ...)
            return True
        return held >= self._per_principal or (self._total >= self._in_all and held >= share)
