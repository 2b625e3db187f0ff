"""The in-memory replay store, for logs that one process reads alone: it answers whether an id was used before.

It keeps the ids of each log until log time has passed them, within bounds of memory; docs/replay.md has the model. It
stores nothing on disk, but takes notes from which a successor can be restored. Checks of authenticity come before it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import nlargest
from math import ceil, inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

from watchword.hashing import Hashing
from watchword.key_floors import MAX_PROVEN, KeyFloors, ProvenKeys
from watchword.packed import LEAST, OPEN
from watchword.pins import Pins
from watchword.policy import Policy
from watchword.quota import UNVERIFIED, Bounds, Quota
from watchword.replay import Admission
from watchword.slices import AT_ONCE, Slices
from watchword.turns import others_turn

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterable

    from watchword_native import Entries

    from watchword.key_floors import Pair
    from watchword.quota import Warned
    from watchword.replay import Claim

SLICES: Final = 32
"""The number of buckets that the horizon is divided into; an id is dropped at most one bucket's length late."""

DEFAULT_BOUNDS: Final = Bounds.within(Policy().memory)

AT_A_TIME: Final = 512
"""Notes restored, in some 3 ms, before the event loop gets a turn."""

_PAID: Final = 20
"""Ids that may be scanned for each id offered. All ids are at most four times as many as one principal may hold, so a
principal on its way from four fifths of its bound to the bound itself pays for scanning all of them."""

_LONG: Final = 3600

_FIRST: Final = Admission.FIRST  # nearly every answer; Python 3.11 looks an enum member up each time


class Sights(Protocol):
    """Consecutive messages of one sender; see ``stretch.Stretch``."""

    claim: Claim
    least: int
    most: int
    passed: float
    speaks: bool | None
    keep: float

    def __len__(self) -> int: ...
    def entries(self, hashing: Hashing) -> Entries: ...  # noqa: D102 - see Stretch
    def ids(self) -> list[bytes]: ...  # noqa: D102 - see Stretch
    def digests(self) -> list[bytes]: ...  # noqa: D102 - see Stretch


class Kind(IntEnum):
    """What a note records: a used id, claims that were not judged, or up to when a key's messages are stale."""

    ID = 0
    CLAIMS = 1
    RAISED = 2


class Note(NamedTuple):
    """An entry that a log's guard has remembered and its successor must know; ``data`` is an id or a digest."""

    log: str
    kind: Kind
    principal: str
    key_id: bytes
    issued_at: int
    data: bytes


@dataclass(slots=True)
class _Log:
    """The state of one log.

    ``start`` is the floor that it began with. ``highest`` is its log time. ``latest`` has, where the broker does not
    stamp messages, the latest issue time of each principal's messages that passed. ``unverified`` counts the entries
    kept by claims that were not verified; verified entries kept by claims were issued up to ``ahead``. If ``noted`` is
    set, notes are taken of all that the log remembers, under that name.
    """

    ids: Slices
    key_floors: KeyFloors
    noted: str | None = None
    start: float = -inf
    highest: float = -inf
    latest: dict[str, int] = field(default_factory=dict)
    pins: Pins = field(default_factory=Pins)
    unverified: int = 0
    ahead: int = -1

    def speak(self, claim: Claim) -> None:
        """Record the issue time of a principal's verified message, on a log that the broker does not stamp."""
        if claim.issued_at > self.latest.get(claim.principal, -inf):
            self.latest[claim.principal] = claim.issued_at


@final
class MemoryReplayStore:
    """Ids in memory, for logs that this process reads alone (one consumer of a partition, one subscription).

    The floor of a log is its log time less ``horizon`` seconds (max_age + max_skew), or the floor that it began with.
    Log time is the broker's highest stamp. Where the broker does not stamp messages, it is the earliest time at which,
    by the reader's own observations of the log's end, the last message can have been appended. That stands still while
    a reader works through a backlog from a time when it did not observe. So there each principal also has a floor of
    its own: the latest issue time of its messages that passed, less the horizon.

    An id is forgotten only below a floor, and every message issued below a floor is TOO_OLD; so a forgotten id cannot
    be used again. A ``horizon`` of None forgets nothing. When memory is full, new ids are refused, and no others are
    forgotten; see ``Quota`` for the bounds. An id is stored as 64 bits (see ``Hashing``). Ids below the log's floor are
    dropped as it rises, those below a principal's floor when room is needed.
    """

    def __init__(self, *, horizon: float | None, bounds: Bounds = DEFAULT_BOUNDS) -> None:
        self._horizon: Final = inf if horizon is None else horizon
        self._width: Final = _LONG if horizon is None else max(1, ceil(horizon / SLICES))
        self._hashing: Final = Hashing(kept=MAX_PROVEN)
        self._quota: Final = Quota(bounds)
        self._logs: dict[str, _Log] = {}
        self._room = OPEN
        self._proven: Final = ProvenKeys()
        self._notes: list[Note] = []
        self._offered = self._paid = 0

    def __len__(self) -> int:
        return len(self._quota)

    @property
    def warnings(self) -> deque[Warned]:
        """Warnings for the caller to log and remove."""
        return self._quota.warnings

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        return self.admit(claim)

    def admit(self, claim: Claim) -> Admission:
        """Return what ``claim`` returns; atomic, because it never waits."""
        log = self._logs.get(claim.log) or self._opened(claim.log)
        passed = claim.reference if claim.appended_after is None else claim.appended_after
        if passed > log.highest:
            self._pass_time(log, passed)
        issued_at = claim.issued_at
        key, mark = self._hashing.key(claim.principal, claim.id, issued_at), self._hashing.mark(claim)
        has_late = log.unverified or log.ahead >= 0
        late_key = self._hashing.late_key(claim) if has_late else key
        pins = log.pins.by_key
        if issued_at < self._floor(log, claim) and not (key in pins or late_key in pins):
            return Admission.TOO_OLD
        known = self._find(log, issued_at, key) if pins else log.ids.find(issued_at, key)
        if known is not None:
            return Admission.REDELIVERED if claim.place is not None and known == mark else Admission.REPLAYED
        late = self._find(log, issued_at, late_key) if has_late else None
        if late is not None and (claim.place is None or late != mark):
            return Admission.REPLAYED
        pair = (claim.principal, claim.key_id)
        if pair not in self._proven:
            self._prove(pair)
        self._offered += 1
        owner = self._quota.take(claim.principal)
        if owner is None or self._quota.crossed:
            owner = self._make_room(log, claim, owner)
            if owner is None:
                self._raise_floor(log, claim)
                return Admission.OVER_QUOTA
        if late is None and issued_at <= log.key_floors.of(pair):
            self._quota.release(owner)
            return Admission.TOO_OLD
        self._remember(log, claim, key, mark, owner)
        if late is not None:
            self._acknowledged(log, late_key)  # from now on it is known by its id
        return _FIRST

    def admit_all(self, stretch: Sights, floor: float) -> bool:
        """Admit messages of one sender if all are first sights, and issued at ``floor`` or later unless solicited.

        Return False, and change nothing, if any of them may be something else.
        """
        log, passed = self._known(stretch.claim.log), stretch.passed
        begun = -inf if stretch.claim.solicited else max(floor, log.start)
        entries = self._first_sights(log, stretch, max(begun, max(log.highest, passed) - self._horizon))
        owner = None if entries is None else self._quota.take_all(stretch.claim.principal, len(stretch))
        if entries is None or owner is None:
            return False
        self._open(stretch.claim.log, log)
        if passed > log.highest:
            self._pass_time(log, passed)
        self._remember_all(log, stretch, entries, owner, unacked=stretch.claim.unacked)
        return True

    def recall_all(self, stretch: Sights, *, unacked: bool) -> bool:
        """Recall messages of one sender if all are first sights; otherwise return False and change nothing.

        With ``unacked`` they are kept until they are acknowledged; their own ``unacked`` is ignored.
        """
        log = self._known(stretch.claim.log)
        looked = max(log.highest, stretch.passed) if stretch.speaks else log.highest
        begun = -inf if stretch.claim.solicited else log.start
        entries = self._first_sights(log, stretch, max(begun, looked - self._horizon))
        owner = None if entries is None else self._quota.take_all(stretch.claim.principal, len(stretch))
        if entries is None or owner is None:
            return False
        self._open(stretch.claim.log, log)
        if looked > log.highest:
            self._pass_time(log, looked)
        self._remember_all(log, stretch, entries, owner, unacked=unacked)
        return True

    def look(self, log: str, appended_after: float) -> None:
        """Advance log time to ``appended_after``, as observed at the log's end; no record need verify for that."""
        known = self._logs.get(log) or self._opened(log)
        if appended_after > known.highest:
            self._pass_time(known, appended_after)

    def begin(self, log: str, *, floor: float) -> None:
        """Restart a log with no ids, and with ``floor``: every message issued before it is too old."""
        self.forget(log)
        self._opened(log).start = floor

    def raise_floor(self, log: str, floor: float) -> None:
        """Treat every message issued before ``floor`` as too old from now on; ids stay known."""
        known = self._logs.get(log) or self._opened(log)
        known.start = max(known.start, floor)

    def note(self, log: str, name: str | None = None) -> None:
        """Take notes of everything that this log remembers from now on, under ``name`` or its own."""
        (self._logs.get(log) or self._opened(log)).noted = name or log

    def noted_as(self, log: str) -> str | None:
        """Return the name under which a log's notes are taken; None if no notes are taken."""
        known = self._logs.get(log)
        return None if known is None else known.noted

    def take_notes(self) -> list[Note]:
        """Return the notes taken since the last call, and forget them."""
        notes, self._notes = self._notes, []
        return notes

    async def restore(self, log: str, notes: Iterable[Note]) -> None:
        """Remember the notes of an earlier guard of this log; a note for which there is no room raises its key's floor.

        This log must not be used before it returns: it waits for nothing, but gives the event loop turns.
        """
        known = self._logs.get(log) or self._opened(log)
        others: list[Note] = []
        for done, note in enumerate(notes, 1):
            if not done % AT_A_TIME:
                await others_turn()
            if note.issued_at < known.start:
                continue
            if note.kind is not Kind.ID:
                others.append(note)  # after the ids: only then is it known which keys are proven and not invented
                continue
            if (pair := (note.principal, note.key_id)) not in self._proven:
                self._prove(pair)
            key = self._hashing.key(note.principal, note.data, note.issued_at)
            self._restore(known, note, key, is_id=True)
        for done, note in enumerate(others, 1):
            if not done % AT_A_TIME:
                await others_turn()
            if note.kind is Kind.RAISED:
                known.key_floors.rise((note.principal, note.key_id), note.issued_at)
            else:
                self._restore(known, note, self._hashing.digest_key(note.data), is_id=False)

    def floor(self, log: str) -> float:
        """Return a log's floor; a guard that begins with it and recalls from ``lowest_needed`` on knows as much.

        It leaves out the floors of single principals and keys: the messages that raised these are recalled too.
        """
        known = self._logs.get(log)
        return -inf if known is None else max(known.start, known.highest - self._horizon)

    def lowest_needed(self, log: str) -> int | None:
        """Return an offset before which this log has no id that is still needed; None if it has no ids.

        It may be lower than necessary, because it is recorded per slice of issue time.
        """
        known = self._logs.get(log)
        if known is None:
            return None
        lowest = min(known.ids.lowest, known.pins.lowest)
        return None if lowest == inf else int(lowest)

    def recall(self, claim: Claim) -> None:
        """Remember a verified message from before the guard began; if an id comes twice, its first sight."""
        log = self._logs.get(claim.log) or self._opened(claim.log)
        if (pair := (claim.principal, claim.key_id)) not in self._proven:
            self._prove(pair)
        key, mark = self._hashing.key(claim.principal, claim.id, claim.issued_at), self._hashing.mark(claim)
        if self._is_over(log, claim) or self._find(log, claim.issued_at, key) is not None:
            return
        has_late = log.unverified or log.ahead >= 0
        if has_late and self._find(log, claim.issued_at, self._hashing.late_key(claim)) not in {None, mark}:
            return  # it was first seen elsewhere, and passed over without a verdict
        owner = self._take(log, claim)
        if owner is None:
            self._raise_floor(log, claim)
        else:
            self._remember(log, claim, key, mark, owner)

    def remember_unjudged(self, claim: Claim) -> None:
        """Remember, by its claims, a message passed over without a verdict on its key: elsewhere they are a replay."""
        log = self._logs.get(claim.log) or self._opened(claim.log)
        if not claim.unacked:
            self.drop(claim)  # it may have been pinned by an earlier attempt
        late_key = self._new_late_key(log, claim)
        if late_key is not None and not self._remember_unverified(log, claim, late_key):
            self._raise_floor(log, claim)

    def remember_ahead(self, claim: Claim, *, verified: bool) -> None:
        """Remember a message from the future by its claims: once its time has come, they are a replay elsewhere.

        If there is no room, one that is not ``verified`` raises no floor: anyone could have written it.
        """
        log = self._logs.get(claim.log) or self._opened(claim.log)
        late_key = self._new_late_key(log, claim)
        if late_key is None:
            return
        if not verified:
            if not self._remember_unverified(log, claim, late_key):
                log.ids.note(claim.issued_at, _offset(claim))
        elif (owner := self._quota.take(claim.principal)) is None:
            self._raise_floor(log, claim)
        else:
            log.ahead = max(log.ahead, claim.issued_at)
            self._put_claims(log, claim, late_key, owner)

    def acknowledge_at(self, log: str, offset: int) -> None:
        """Let all unacked ids at this offset expire as others do."""
        known = self._logs.get(log)
        if known is not None:
            for key in known.pins.at(offset):
                self._acknowledged(known, key)

    def drop(self, claim: Claim) -> None:
        """Let the entries of an unacked message expire as others do, if they are for this very place."""
        log = self._logs.get(claim.log)
        if log is not None and log.pins.by_key:
            mark = self._hashing.mark(claim)
            for key in (self._hashing.key(claim.principal, claim.id, claim.issued_at), self._hashing.late_key(claim)):
                if log.pins.mark(key) == mark:
                    self._acknowledged(log, key)

    def forget(self, log: str) -> None:
        """Drop the state of a log that is no longer read."""
        known = self._logs.pop(log, None)
        if known is not None:
            self._release(known, known.ids.owners())
            self._release(known, Counter(known.pins.owners()))

    def _opened(self, name: str) -> _Log:
        log = _Log(Slices(self._width), KeyFloors(self._proven))
        self._open(name, log)
        return log

    def _known(self, name: str) -> _Log:
        """Return a log, or an empty one that is not stored yet."""
        return self._logs.get(name) or _Log(Slices(self._width), KeyFloors(self._proven))

    def _open(self, name: str, log: _Log) -> None:
        if name not in self._logs:
            self._logs[name] = log
            self._room = max(LEAST, OPEN // len(self._logs))

    # Floors

    def _floor(self, log: _Log, claim: Claim) -> float:
        floor = log.highest - self._horizon
        if log.start > floor and not claim.solicited:
            floor = log.start
        if log.latest:
            floor = max(floor, log.latest.get(claim.principal, -inf) - self._horizon)
        return floor

    def _pass_time(self, log: _Log, reference: float) -> None:
        log.highest = max(log.highest, reference)
        floor = log.highest - self._horizon
        gone = log.ids.leave(floor)
        if gone is not None:
            self._release(log, gone)
            log.key_floors.forget(floor)
            log.latest = {principal: at for principal, at in log.latest.items() if at > log.highest}
            if log.ahead < floor:
                log.ahead = -1
        if log.pins.by_key:
            self._expire_pins(log)

    def _expire_pins(self, log: _Log) -> None:
        for owner in log.pins.pop_over(log.highest):
            self._release(log, Counter((owner,)))

    def _is_over(self, log: _Log, claim: Claim) -> bool:
        """Return True if it is too old to be remembered, or there may have been no room at its first sight."""
        if claim.issued_at < self._floor(log, claim):
            return True
        if claim.issued_at > log.key_floors.of((claim.principal, claim.key_id)):
            return False
        log.ids.note(claim.issued_at, _offset(claim))  # a successor does not know that floor
        return True

    def _raise_floor(self, log: _Log, claim: Claim) -> None:
        """Count an id that could not be remembered as used: all that its key signed up to then is too old."""
        rises = log.key_floors.rise((claim.principal, claim.key_id), claim.issued_at)
        log.ids.note(claim.issued_at, _offset(claim))
        if rises and log.noted:
            self._notes.append(Note(log.noted, Kind.RAISED, claim.principal, claim.key_id, claim.issued_at, b""))

    def _prove(self, pair: Pair) -> None:
        self._proven.prove(pair, (log.key_floors for log in self._logs.values()))

    # Room

    def _take(self, log: _Log, claim: Claim) -> int | None:
        """Take room for one more id and return the number of its owner; None if there is no room."""
        self._offered += 1
        owner = self._quota.take(claim.principal)
        return self._make_room(log, claim, owner) if owner is None or self._quota.crossed else owner

    def _make_room(self, log: _Log, claim: Claim, owner: int | None) -> int | None:
        """Make room if there is none, or soon will be none; return the id's owner, or None if all is still full."""
        quota = self._quota
        while owner is None and log.ids.holds_below(log.highest - self._horizon):  # they are not all dropped at once
            self._pass_time(log, log.highest)
            owner = quota.take(claim.principal)
        if owner is None and claim.appended_after is not None:
            crowded = quota.is_crowded(claim.principal)
            log.speak(claim)  # its own older ids may be what takes the room
            self._let_go(log)
            owner = quota.take(claim.principal)
            if owner is None and crowded and self._raise_log(log, claim.log) <= claim.issued_at:
                owner = quota.take(claim.principal)
        if quota.crossed:
            self._let_go(log)
            quota.warn()
        return owner

    def _raise_log(self, log: _Log, name: str) -> float:
        """Take the second latest issue time of all principals for log time; return the floor that follows.

        The latest would let a single principal raise the floor for all.
        """
        second = min(nlargest(2, log.latest.values())) if len(log.latest) > 1 else -inf
        floor = second - self._horizon
        if log.ids.holds_below(floor):
            cost = f"messages issued before {floor:.0f} are stale: raise memory in [replay]"
            self._quota.warnings.append(("replay.floor_raised", {"log": name, "cost": cost}))
            self._pass_time(log, second)
        return floor

    def _let_go(self, first: _Log) -> None:
        """Forget ids below the floors of their principals, as long as the ids offered pay for the scan."""
        if self._offered < self._paid:
            return
        seen = 0
        for log in (first, *(log for log in self._logs.values() if log is not first)):
            owners = ((self._quota.number(principal), at) for principal, at in log.latest.items())
            floors = {owner: at - self._horizon for owner, at in owners if owner is not None}
            for count, gone in log.ids.let_go(floors):
                seen += count
                self._release(log, gone)
                if seen >= AT_ONCE:
                    break
        self._paid = self._offered + ceil(seen / _PAID)

    def _release(self, log: _Log, owners: Counter[int]) -> None:
        """Give back the room of as many ids as counted for each owner."""
        for owner, count in owners.items():
            self._quota.release(owner, count)
        log.unverified -= owners[UNVERIFIED]

    # Ids

    def _restore(self, log: _Log, note: Note, key: int, *, is_id: bool) -> None:
        if log.ids.find(note.issued_at, key) is not None:
            return
        owner = self._quota.take(note.principal) if is_id else self._unverified_owner()
        if owner is None:
            log.key_floors.rise((note.principal, note.key_id), note.issued_at)
            return
        log.unverified += not is_id
        log.ids.put(note.issued_at, key, 0, owner, inf, self._room)

    def _find(self, log: _Log, issued_at: int, key: int) -> int | None:
        mark = log.pins.mark(key)
        return log.ids.find(issued_at, key) if mark is None else mark

    def _remember(self, log: _Log, claim: Claim, key: int, mark: int, owner: int) -> None:
        """Remember a message that passed, by its id."""
        if claim.appended_after is not None:
            log.speak(claim)
        self._put(log, claim, key, mark, owner)
        if log.noted is not None:
            self._notes.append(Note(log.noted, Kind.ID, claim.principal, claim.key_id, claim.issued_at, claim.id))

    def _first_sights(self, log: _Log, stretch: Sights, floor: float) -> Entries | None:
        """Return the messages' entries; None unless all are first sights, and were issued at ``floor`` or later."""
        if stretch.speaks is None or ((log.unverified or log.ahead >= 0) and self._holds_claims(log, stretch)):
            return None
        claim, least = stretch.claim, stretch.least
        latest, pair = log.latest.get(claim.principal, -inf), (claim.principal, claim.key_id)
        if stretch.speaks:
            latest = max(latest, stretch.most)
        if least < max(floor, latest - self._horizon) or least <= log.key_floors.of(pair):
            return None
        entries = stretch.entries(self._hashing)
        if entries.has_twins or (log.pins.by_key and log.pins.holds_any({*entries.keys()})):
            return None
        return None if log.ids.holds_any(entries, stretch.least, stretch.most) else entries

    def _holds_claims(self, log: _Log, stretch: Sights) -> bool:
        """Return True if any of the messages is remembered by its claims."""
        keys = {*map(self._hashing.digest_key, stretch.digests())}
        return log.pins.holds_any(keys) or log.ids.holds_key(keys, stretch.least, stretch.most)

    def _remember_all(self, log: _Log, stretch: Sights, entries: Entries, owner: int, *, unacked: bool) -> None:
        """Remember messages that passed, by their ids."""
        principal, key_id = pair = stretch.claim.principal, stretch.claim.key_id
        if pair not in self._proven:
            self._prove(pair)
        self._offered += len(entries)
        if stretch.speaks:
            log.latest[principal] = max(log.latest.get(principal, -1), stretch.most)
        if unacked:
            log.pins.put_all(entries.rows(), owner, stretch.keep)
        else:
            log.ids.put_all(entries, stretch.least, stretch.most, owner, self._room)
        if log.noted is not None:
            self._notes += [
                Note(log.noted, Kind.ID, principal, key_id, entry[0], message_id)
                for entry, message_id in zip(entries.rows(), stretch.ids(), strict=True)
            ]

    def _remember_unverified(self, log: _Log, claim: Claim, late_key: int) -> bool:
        """Remember claims that were not verified; return False if there is no room for more of them."""
        owner = self._unverified_owner()
        if owner is None:
            return False
        log.unverified += 1
        self._put_claims(log, claim, late_key, owner)
        self._quota.warn()
        return True

    def _unverified_owner(self) -> int | None:
        return None if self._quota.is_full_of_unverified() else self._quota.take_unverified()

    def _put_claims(self, log: _Log, claim: Claim, late_key: int, owner: int) -> None:
        """Remember a message by its claims."""
        self._put(log, claim, late_key, self._hashing.mark(claim), owner)
        if log.noted is not None:
            note = Note(log.noted, Kind.CLAIMS, claim.principal, claim.key_id, claim.issued_at, claim.digest)
            self._notes.append(note)

    def _new_late_key(self, log: _Log, claim: Claim) -> int | None:
        """Return the key to store unjudged claims under; None if there is no need to, or they are known."""
        key = self._hashing.key(claim.principal, claim.id, claim.issued_at)
        late_key = self._hashing.late_key(claim)
        if self._is_over(log, claim) or any(
            self._find(log, claim.issued_at, known) is not None for known in (key, late_key)
        ):
            return None
        return late_key

    def _acknowledged(self, log: _Log, key: int) -> None:
        pin = log.pins.pop(key)
        if pin is not None:
            issued_at, _, mark, offset = pin.entry
            log.ids.put(issued_at, key, mark, pin.owner, inf if offset is None else offset, self._room)
            if issued_at < log.highest - self._horizon:  # only its pin has kept it
                self._pass_time(log, log.highest)
            else:
                self._expire_pins(log)  # those after it may have been waiting for it

    def _put(self, log: _Log, claim: Claim, key: int, mark: int, owner: int) -> None:
        place = claim.place
        if claim.unacked:
            entry = claim.issued_at, key, mark, None if place is None else place[0].offset
            log.pins.put(entry, owner, claim.keep_until)
        else:
            offset = inf if place is None else place[0].offset
            log.ids.put(claim.issued_at, key, mark, owner, offset, self._room)


def _offset(claim: Claim) -> float:
    return inf if claim.place is None else claim.place[0].offset
