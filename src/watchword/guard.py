"""The guard of logs that one process reads alone: used ids in memory, forgotten in log time (docs/replay.md)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, final

from watchword.hashing import Hashing
from watchword.packed import LEAST, OPEN, Bucket
from watchword.policy import Policy
from watchword.quota import UNVERIFIED, Bounds, Quota
from watchword.replay import Admission

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from watchword.quota import Warned
    from watchword.replay import Claim, Claimed

SLICES: Final = 32
"""Into how many buckets the horizon is cut; an id leaves at most one bucket's length after it might."""

DEFAULT_BOUNDS: Final = Bounds.within(Policy().memory)

MAX_RAISED: Final = 1024
"""Keys without a verdict whose floors are kept apart in one log; the others share one."""

MAX_PROVEN: Final = 1 << 14
"""Keys that are kept apart because something verified under them; to forget them costs nothing but that."""

_LONG: Final = 3600

_FIRST: Final = Admission.FIRST  # nearly every answer; Python 3.11 searches for a member each time

_Pair: TypeAlias = tuple[str, bytes]


class _Pin(NamedTuple):
    """An id that may come again however late."""

    mark: int
    owner: int
    issued_at: int
    keep_until: float


@dataclass(slots=True)
class _Log:
    """What is known of one log.

    ``start`` is the floor that it began with. ``unverified`` are kept by their claims, ``ahead`` is up to when others
    that are so kept were issued. ``raised`` are the floors of single keys, of which something could not be
    remembered; keys under which nothing has verified and that found no room in it share ``unproven``.
    """

    start: float = -inf
    highest: float = -inf
    slices: list[int] = field(default_factory=list)
    lowest: dict[int, int] = field(default_factory=dict)
    buckets: dict[int, Bucket] = field(default_factory=dict)
    pins: dict[int, _Pin] = field(default_factory=dict)
    unverified: int = 0
    ahead: int = 0
    raised: dict[_Pair, float] = field(default_factory=dict)
    unproven: float = -inf


@final
class MemoryReplayStore:
    """Ids in memory, for logs that this process reads alone (one consumer of a partition, one subscription).

    The floor of a log is the highest reference time that passed in it less ``horizon`` seconds (max_age + max_skew), or
    the one that it began with. An id is forgotten only below the floor, and whatever was issued below it is TOO_OLD; so
    nothing forgotten can come back. ``horizon`` None forgets nothing. Memory is bounded by refusing, never by
    forgetting; see ``Quota`` for the bounds. An id is kept as 64 bits (see ``Hashing``).
    """

    def __init__(
        self,
        *,
        horizon: float | None,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> None:
        self._horizon: Final = inf if horizon is None else horizon
        self._width: Final = _LONG if horizon is None else max(1, ceil(horizon / SLICES))
        self._hashing: Final = Hashing(kept=MAX_PROVEN)
        self._quota: Final = Quota(bounds)
        self._logs: dict[str, _Log] = {}
        self._room = OPEN
        self._proven: set[_Pair] = set()

    def __len__(self) -> int:
        return len(self._quota)

    @property
    def warnings(self) -> deque[Warned]:
        """What somebody should log, and take away."""
        return self._quota.warnings

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        return self.admit(claim)

    def admit(self, claim: Claimed) -> Admission:
        """Answer as ``claim`` does; atomic, for it never waits."""
        log = self._logs.get(claim.log)
        if log is None:
            log = self._opened(claim.log, _Log())
        passed = claim.reference if claim.appended_after is None else claim.appended_after
        if passed > log.highest:
            self._pass_time(log, passed)
        issued_at = claim.issued_at
        key, mark = self._hashing.key(claim.principal, claim.id, issued_at), self._hashing.mark(claim)
        has_late = log.unverified or log.ahead
        late_key = self._hashing.late_key(claim) if has_late else key
        if issued_at < self._floor(log, claim.solicited) and not (key in log.pins or late_key in log.pins):
            return Admission.TOO_OLD
        known = self._find(log, issued_at, key)
        if known is not None:
            return Admission.REDELIVERED if claim.place is not None and known == mark else Admission.REPLAYED
        late = self._find(log, issued_at, late_key) if has_late else None
        if late is not None and (claim.place is None or late != mark):
            return Admission.REPLAYED
        pair = (claim.principal, claim.key_id)
        if pair not in self._proven:
            self._prove(pair)
        owner = self._quota.take(claim.principal)
        if owner is None:
            self._raise_floor(log, claim)
            return Admission.OVER_QUOTA
        if late is None and issued_at <= self._raised(log, pair):
            self._quota.release(owner)
            return Admission.TOO_OLD
        self._keep(log, claim, key, mark, owner)
        if late is not None:
            self._settle(log, late_key)  # it is known by its id from now on
        return _FIRST

    def begin(self, log: str, *, floor: float) -> None:
        """Start a log's guard anew: nothing is known but that whatever was issued below ``floor`` is too old."""
        self.forget(log)
        self._opened(log, _Log(start=floor))

    def recall(self, claim: Claimed) -> None:
        """Remember a verified message that passed in this log before the guard began; of one id, the first sight."""
        log = self._logs.get(claim.log) or self._opened(claim.log, _Log())
        if (pair := (claim.principal, claim.key_id)) not in self._proven:
            self._prove(pair)
        key, mark = self._hashing.key(claim.principal, claim.id, claim.issued_at), self._hashing.mark(claim)
        if self._is_over(log, claim) or self._find(log, claim.issued_at, key) is not None:
            return
        has_late = log.unverified or log.ahead
        if has_late and self._find(log, claim.issued_at, self._hashing.late_key(claim)) not in {None, mark}:
            return  # its first sight was elsewhere, and passed without a verdict
        owner = self._quota.take(claim.principal)
        if owner is None:
            self._raise_floor(log, claim)
        else:
            self._keep(log, claim, key, mark, owner)

    def pass_over(self, claim: Claimed) -> None:
        """Remember a message that passed without a verdict on its key, by its claims: elsewhere they are a replay."""
        log = self._logs.get(claim.log) or self._opened(claim.log, _Log())
        late_key = self._new_late_key(log, claim)
        if late_key is not None and not self._keep_unverified(log, claim, late_key):
            self._raise_floor(log, claim)

    def pass_ahead(self, claim: Claimed, *, verified: bool) -> None:
        """Remember a message from the future by its claims: elsewhere they are a replay, when its time has come.

        One that was not ``verified`` raises no floor where there is no room: anybody could write it.
        """
        log = self._logs.get(claim.log) or self._opened(claim.log, _Log())
        late_key = self._new_late_key(log, claim)
        if late_key is None:
            return
        if not verified:
            self._keep_unverified(log, claim, late_key)
        elif (owner := self._quota.take(claim.principal)) is None:
            self._raise_floor(log, claim)
        else:
            log.ahead = max(log.ahead, claim.issued_at)
            self._keep(log, claim, late_key, self._hashing.mark(claim), owner)

    def pass_time(self, log: str, time: float) -> None:
        """Note that a record was judged, whatever came of it, that was appended at ``time`` or later."""
        known = self._logs.get(log)
        if known is not None and time > known.highest:
            self._pass_time(known, time)

    def floor(self, log: str) -> float:
        """Return the highest floor in force in a log, whoever signed."""
        known = self._logs.get(log)
        return -inf if known is None else self._floor(known)

    def lowest_needed(self, log: str) -> int | None:
        """Return an offset below which no id stands that is at or above the floor; None if no id is known."""
        known = self._logs.get(log)
        return None if known is None else min(known.lowest.values(), default=None)

    def settle(self, log: str, principal: str, message_id: bytes, issued_at: int) -> None:
        """Let an unsettled id age like any other."""
        known = self._logs.get(log)
        if known is not None:
            self._settle(known, self._hashing.key(principal, message_id, issued_at))

    def drop(self, claim: Claimed) -> None:
        """Let what is known of an unsettled message age, if that is the one at this place."""
        log = self._logs.get(claim.log)
        if log is not None and log.pins:
            mark = self._hashing.mark(claim)
            for key in (self._hashing.key(claim.principal, claim.id, claim.issued_at), self._hashing.late_key(claim)):
                if key in log.pins and log.pins[key].mark == mark:
                    self._settle(log, key)

    def forget(self, log: str) -> None:
        """Drop a log that is no longer read."""
        known = self._logs.pop(log, None)
        if known is not None:
            for bucket in known.buckets.values():
                self._release(known, bucket.owners())
            self._release(known, (pin.owner for pin in known.pins.values()))

    def _opened(self, name: str, log: _Log) -> _Log:
        self._logs[name] = log
        self._room = max(LEAST, OPEN // len(self._logs))
        return log

    def _floor(self, log: _Log, solicited: bool = False) -> float:  # noqa: FBT001, FBT002 - hot
        passed = log.highest - self._horizon
        return passed if solicited or passed > log.start else log.start

    def _pass_time(self, log: _Log, reference: float) -> None:
        log.highest = max(log.highest, reference)
        floor = log.highest - self._horizon
        while log.slices and (log.slices[0] + 1) * self._width <= floor:
            number = heappop(log.slices)
            log.lowest.pop(number, None)
            self._release(log, log.buckets.pop(number).owners())
            log.raised = {pair: raised for pair, raised in log.raised.items() if raised >= floor}
            if log.ahead < floor:
                log.ahead = 0
        # In order of arrival, so the oldest come first; one that outstays its neighbours only delays their leaving.
        while log.pins:
            key, pin = next(iter(log.pins.items()))
            if pin.keep_until >= log.highest:
                break
            del log.pins[key]
            self._release(log, (pin.owner,))

    def _release(self, log: _Log, owners: Iterable[int]) -> None:
        for owner, count in Counter(owners).items():
            self._quota.release(owner, count)
            if owner == UNVERIFIED:
                log.unverified -= count

    def _new_late_key(self, log: _Log, claim: Claimed) -> int | None:
        """Return what claims are kept under that nobody judged; None where they need not be, or are known."""
        key = self._hashing.key(claim.principal, claim.id, claim.issued_at)
        late_key = self._hashing.late_key(claim)
        if self._is_over(log, claim) or any(
            self._find(log, claim.issued_at, known) is not None for known in (key, late_key)
        ):
            return None
        return late_key

    def _keep_unverified(self, log: _Log, claim: Claimed, late_key: int) -> bool:
        """Keep claims; return False if there is no room for more that nobody has verified."""
        if self._quota.is_full_of_unverified():
            return False
        log.unverified += 1
        self._keep(log, claim, late_key, self._hashing.mark(claim), self._quota.take_unverified())
        return True

    def _settle(self, log: _Log, key: int) -> None:
        pin = log.pins.pop(key, None)
        if pin is not None:
            number = pin.issued_at // self._width
            bucket = log.buckets.get(number) or self._new_bucket(log, number)
            bucket.put(key, pin.mark, pin.owner, self._room)
            self._pass_time(log, log.highest)

    def _find(self, log: _Log, issued_at: int, key: int) -> int | None:
        if log.pins and key in log.pins:
            return log.pins[key].mark
        bucket = log.buckets.get(issued_at // self._width)
        return None if bucket is None else bucket.find(key)

    def _keep(self, log: _Log, claim: Claimed, key: int, mark: int, owner: int) -> None:
        if claim.unsettled:
            log.pins[key] = _Pin(mark, owner, claim.issued_at, claim.keep_until)
            return
        number = claim.issued_at // self._width
        bucket = log.buckets.get(number)
        if bucket is None:
            bucket = self._new_bucket(log, number)
        if claim.place is not None:
            offset = claim.place[0].offset
            if offset < log.lowest.get(number, inf):
                log.lowest[number] = offset
        bucket.put(key, mark, owner, self._room)

    def _new_bucket(self, log: _Log, number: int) -> Bucket:
        for other in log.buckets.values():  # little comes to them now
            other.seal()
        bucket = log.buckets[number] = Bucket()
        heappush(log.slices, number)
        return bucket

    def _prove(self, pair: _Pair) -> None:
        """Keep this key's floors apart, for something verified under it: what nobody verified raises them no more."""
        if len(self._proven) >= MAX_PROVEN:
            self._proven.clear()
        self._proven.add(pair)
        for log in self._logs.values():
            if log.unproven > log.raised.get(pair, -inf):
                log.raised[pair] = log.unproven

    def _raised(self, log: _Log, pair: _Pair) -> float:
        """Return up to when whatever this key signed is too old in this log."""
        if not log.raised and log.unproven == -inf:
            return -inf
        raised = log.raised.get(pair, -inf)
        return raised if pair in self._proven else max(raised, log.unproven)

    def _is_over(self, log: _Log, claim: Claimed) -> bool:
        """Tell whether it need not be remembered: it is too old here, or its first sight may have found no room."""
        return claim.issued_at < self._floor(log) or claim.issued_at <= self._raised(
            log, (claim.principal, claim.key_id)
        )

    def _raise_floor(self, log: _Log, claim: Claimed) -> None:
        """Take what could not be remembered for seen: whatever this key signed up to then is too old.

        A flood under invented keys raises no floor of a key that is known.
        """
        pair = (claim.principal, claim.key_id)
        if pair in self._proven or pair in log.raised or len(log.raised) < MAX_RAISED:
            log.raised[pair] = max(log.raised.get(pair, -inf), claim.issued_at)
        else:
            log.unproven = max(log.unproven, claim.issued_at)
