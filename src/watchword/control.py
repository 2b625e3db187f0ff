"""Keys, revocations and containments that operators publish on the control log, merged into the state in force.

Operators sign statements (``statements.py``), but the log itself is not protected: anyone who may write there can copy
or reorder statements or leave some out, and an operator's key may be stolen. So the state depends only on the set of
statements that arrived, never on their order or on a clock. For each entry (a key, a public key's revocation, or a
containment), each operator's key has one deciding statement. The best of these, over the keys in authority now, holds:

- for a key or a containment, the statement with the highest rank; at equal ranks a containment beats a release, then
  an earlier end beats a later one, and last the greater digest beats the lesser;
- for a revocation, the earliest time; no statement can undo it.

When a key loses its authority, all its statements lose effect, because a thief chooses times and ranks at will. The
other operators' statements on the same entries are still stored, and take effect again.

Statements come in already verified. This module does no I/O: fetching the log and storing its state is done elsewhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from watchword.keys import thumbprint, thumbprint_id
from watchword.principals import PrincipalIndex, covers
from watchword.statements import (
    Contain,
    Entry,
    GiveKey,
    Head,
    Release,
    Revoke,
    Statement,
    Unknown,
    Verb,
    digest_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from watchword.keys import VerificationKey
    from watchword.message import Message
    from watchword.statements import Saying

MOST: Final[Mapping[str, int]] = {"key": 100_000, "revoke": 1_000_000, "contain": 10_000}
"""The most statements stored per kind, so that no kind can crowd out another."""

MAX_NOTICES: Final = 1000
"""The most notices that wait to be logged; beyond that the oldest are dropped."""

PATIENCE: Final = 10.0
"""Seconds after which a number missing from a chain is reported: statements out of order arrive sooner."""

_REMEMBERED: Final = 1024
"""The fewest links of a chain that are remembered, to detect forks."""

REMEMBERED_KEYS: Final = 10_000

_MOST_AWAITED: Final = 1024
"""The most operators' keys that are known only from heads: the writer of a head may invent them."""

_ATTENDED: Final = 12
"""The most operators' keys whose progress a head reports; with the longest names they fit in a statement."""

OperatorKey: TypeAlias = tuple[str, str]
"""Principal and thumbprint."""

Notice: TypeAlias = tuple[str, dict[str, str | float | None]]
"""Event and fields, for the audit trail."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A principal whose statements count: the verbs it ``may`` use, ``over`` principals that match these patterns."""

    principal: str
    may: frozenset[Verb]
    over: tuple[str, ...]

    def is_over(self, who: str) -> bool:
        """Return True if this operator is over every principal that ``who``, a principal or a pattern, matches."""
        return any(covers(pattern, who) for pattern in self.over)


class Issued(NamedTuple):
    """A statement that verified, the key that signed it, the digest of its claims and the original message.

    ``said_at`` (seconds) is the latest time at which it can have been made: its issue time with the skew, or when it
    was appended.
    """

    by: OperatorKey
    digest: bytes
    statement: Statement
    message: Message | None = None
    appended_at: float = 0.0
    said_at: float = 0.0


class Link(NamedTuple):
    """How far a key's chain is known: the highest number, its digest, and the number up to which it has no gap."""

    number: int
    digest: str
    whole: int


class Containment(NamedTuple):
    """A containment of the principal or pattern ``who``: its end (seconds; infinite for good), why, and by whom."""

    who: str
    until: float
    why: str
    by: str
    since: float = inf
    """Since when (seconds) it has been known here and in force without a break; infinite if that is not known."""


class Control:
    """The statements of operators, and the state that they result in.

    One thread may change it while others read: each answer is consistent. ``clock`` (seconds since the epoch) dates
    when a containment became known here. Without a clock, no message counts as sent in knowledge of a containment.
    """

    def __init__(
        self,
        operators: Iterable[Operator],
        *,
        most: Mapping[str, int] = MOST,
        clock: Callable[[], float] = lambda: inf,
    ) -> None:
        self.notices: Final[deque[Notice]] = deque(maxlen=MAX_NOTICES)
        self.changes = 0
        """A counter that grows with each change after which messages that verified may no longer verify."""
        self.stale = False
        """Whether so many statements may be withheld that no message can be judged."""
        self._most = most
        self._clock = clock
        self._operators = {one.principal: one for one in operators}
        self._chains: dict[OperatorKey, _Chain] = {}
        self._awaited: dict[OperatorKey, _Chain] = {}
        self._lapsed: dict[OperatorKey, None] = {}
        self._held: dict[str, int] = dict.fromkeys(most, 0)
        self._full: set[str] = set()
        self._owners: dict[bytes, dict[str, VerificationKey]] = {}
        self._revoked: dict[str, dict[str, int]] = {}
        self._contained: PrincipalIndex[Containment] = PrincipalIndex()
        self._limited: tuple[int, dict[VerificationKey, VerificationKey]] = 0, {}

    # Statements that arrived.

    def hear(self, issued: Issued) -> bool:
        """Take a statement that verified; return True if it counts. One that does not count is reported in a notice."""
        statement = issued.statement
        is_new = self._has_authority(issued.by) and self._join(issued)
        why = self.objection(issued.by, statement)
        if why is not None:
            self._add_notice("control.refused", issued.by, verb=statement.verb, why=why)
            return False
        chain = self._chain(issued.by)
        # A copy of an old head proves nothing, nor does a head that knows of statements that have not reached us.
        if isinstance(statement.saying, Head) and self._has_heard(statement.saying) and is_new:
            chain.head = max(issued.said_at, chain.head or 0.0)
        entry = statement.entry
        if entry is None:
            if isinstance(statement.saying, Unknown):
                self._add_notice("control.unknown_verb", issued.by, verb=statement.verb)
            return True
        held = chain.entries.get(entry)
        if held is None:
            kind = entry[0]
            if self._held[kind] >= self._most[kind]:
                if kind not in self._full:
                    self._full.add(kind)
                    self._add_notice("control.full", issued.by, kind=kind, most=self._most[kind])
                return False
            self._held[kind] += 1
        elif _order(held) >= _order(issued):
            return True
        chain.entries[entry] = issued
        self._update(entry)
        return True

    def _join(self, issued: Issued) -> bool:
        """Add a statement to its chain, whether it counts or not; return True if it is the last of the chain."""
        chain, number = self._chain(issued.by), issued.statement.number
        is_last = number > chain.link.number
        if not chain.join(issued):
            self._add_notice("control.forked", issued.by, number=number)
        return is_last

    def _chain(self, by: OperatorKey) -> _Chain:
        chain = self._chains.get(by)
        if chain is None:
            chain = self._chains[by] = self._awaited.pop(by, _Chain())
        return chain

    def _has_authority(self, by: OperatorKey) -> bool:
        return by[0] in self._operators and by not in self._lapsed

    def _has_heard(self, head: Head) -> bool:
        """Return True if every statement that a head knows of has arrived; ``look`` reports those that never do."""
        complete = True
        for name, number in head.of:
            principal, _, print_of_it = name.rpartition(" ")
            by = principal, print_of_it
            if not self._has_authority(by):
                continue
            chain = self._chains.get(by, self._awaited.get(by))
            if chain is None and len(self._awaited) < _MOST_AWAITED:
                chain = self._awaited[by] = _Chain()
            if chain is not None:
                chain.expect(number)
            complete = complete and self.link(by).number >= number
        return complete

    def attended(self) -> Head:
        """Return the head to publish for the statements that arrived here; if keys are many, for those heard first."""
        links = (
            (f"{principal} {print_of_it}", self.link((principal, print_of_it)).number)
            for principal, print_of_it in self._chains
        )
        return Head(tuple(islice((one for one in links if one[1]), _ATTENDED)))

    def objection(self, by: OperatorKey, statement: Statement) -> str | None:
        """Return why a statement by this key would not count; None if it would."""
        operator, saying, why = self._operators.get(by[0]), statement.saying, None
        if operator is None:
            why = "not an operator"
        elif by in self._lapsed:
            why = "its key no longer has authority"
        elif statement.verb not in operator.may and not isinstance(saying, Unknown):
            why = "its verb is not among those that this operator may use"
        elif isinstance(saying, GiveKey) and saying.key.principal in self._operators:
            why = "operators' keys come only from the sources in the settings"
        elif isinstance(saying, GiveKey | Contain | Release):
            who = saying.key.principal if isinstance(saying, GiveKey) else saying.who
            why = None if operator.is_over(who) else "not under this operator"
        return why

    def lapse(self, by: OperatorKey) -> int:
        """Drop all statements of a key, and refuse further ones; return how many deciding statements were dropped."""
        self._lapsed[by] = None
        self._awaited.pop(by, None)
        chain = self._chains.pop(by, None)
        if chain is None:
            return 0
        for entry in chain.entries:
            self._held[entry[0]] -= 1
            self._full.discard(entry[0])
            self._update(entry)
        if chain.entries:
            self._add_notice("control.lapsed", by, statements=len(chain.entries))
        return len(chain.entries)

    def restore(self, by: OperatorKey) -> None:
        """Accept statements of a lapsed key again; its earlier ones must be heard again."""
        self._lapsed.pop(by, None)

    def switch(self, operators: Iterable[Operator]) -> None:
        """Replace the operators, and apply all stored statements again."""
        self._operators = {one.principal: one for one in operators}
        chains, self._chains = self._chains, {}
        self._awaited.clear()
        for chain in chains.values():
            for entry in chain.entries:
                self._held[entry[0]] -= 1
        self._full.clear()
        for entry in {entry for chain in chains.values() for entry in chain.entries}:
            self._update(entry)
        for by, chain in chains.items():
            for issued in chain.entries.values():
                self.hear(issued)
            if by in self._chains:
                self._chains[by].resume(chain.link)

    # State to store, and to resume from.

    def deciding(self) -> Iterator[Issued]:
        """Yield the deciding statements, from which the state can be rebuilt."""
        for chain in self._chains.values():
            yield from chain.entries.values()

    def deciding_on(self, entry: Entry) -> Saying | None:
        """Return what holds for an entry; None if there is no statement about it."""
        best = max(self._statements_on(entry), key=_order, default=None)
        return None if best is None else best.statement.saying

    def standing(self, principal: str) -> list[Issued]:
        """Return the statements of this operator's keys that are in force: no other statement overrides them."""
        return [
            issued
            for by, chain in self._chains.items()
            for entry, issued in chain.entries.items()
            if by[0] == principal and (entry[0] == "revoke" or max(self._statements_on(entry), key=_order) is issued)
        ]

    @property
    def held(self) -> int:
        """How many deciding statements are stored."""
        return sum(self._held.values())

    @property
    def speakers(self) -> tuple[OperatorKey, ...]:
        """The keys in authority from which a statement has arrived."""
        return tuple(self._chains)

    @property
    def full(self) -> tuple[str, ...]:
        """The kinds for which no more statements can be stored."""
        return tuple(sorted(self._full))

    def link(self, by: OperatorKey) -> Link:
        """Return how far a key's chain is known."""
        chain = self._chains.get(by)
        return Link(0, "", 0) if chain is None else chain.link

    def resume(self, by: OperatorKey, link: Link) -> None:
        """Take a chain as known up to ``link``: only its deciding statements were stored."""
        if by in self._chains:
            self._chains[by].resume(link)

    def rank(self, entry: Entry) -> int:
        """Return the highest rank among an entry's statements; a new statement takes the next one."""
        return max((held.statement.rank for held in self._statements_on(entry)), default=0)

    def look(self, now: float) -> None:
        """Report numbers that have been missing for too long at ``now`` seconds; they change no verdict."""
        for by, chain in (*self._chains.items(), *self._awaited.items()):
            missing = chain.missing(now)
            if missing is not None:
                self._add_notice("control.gap", by, first=missing[0], last=missing[1])

    @property
    def last_head(self) -> float | None:
        """When (seconds) the latest head was made that confirms all statements that arrived; None without one."""
        return max((chain.head for chain in self._chains.values() if chain.head is not None), default=None)

    # The state in force.

    def find(self, key_id: bytes) -> VerificationKey | None:
        """Return the key with this id; None if its public key was given to two principals: it counts for neither."""
        owned = self._owners.get(key_id)
        return next(iter(owned.values())) if owned is not None and len(owned) == 1 else None

    @property
    def keys(self) -> tuple[VerificationKey, ...]:
        """The keys that operators gave, and that count."""
        return tuple(key for owned in list(self._owners.values()) if len(owned) == 1 for key in owned.values())

    def revoked_at(self, key: VerificationKey) -> int | None:
        """Return the time (seconds) from which operators have revoked this public key; None if they have not.

        An operator can revoke the keys of the principals it is over, but no operator's.
        """
        if not self._revoked or key.principal in self._operators:
            return None
        said, operators = self._revoked.get(thumbprint(key.public), {}), self._operators
        times = [at for name, at in said.items() if name in operators and operators[name].is_over(key.principal)]
        return min(times, default=None)

    def limited(self, key: VerificationKey) -> VerificationKey:
        """Return a key as limited by operators: the earliest of several ends, and of several revocations, holds.

        So an operator can give a key again with an end, and the key has that end whatever source it comes from.
        """
        if not self._revoked and not self._owners:
            return key
        changes, known = self._limited
        if changes != self.changes:  # the cache may be out of date; another thread changes it
            changes, known = self._limited = self.changes, {}
        found = known.get(key)
        if found is None:
            if len(known) >= REMEMBERED_KEYS:
                known.clear()
            given = self._owners.get(thumbprint_id(key.public), {}).get(key.principal)
            found = known[key] = replace(
                key,
                revoked_at=_earliest(key.revoked_at, self.revoked_at(key)),
                not_after=_earliest(key.not_after, None if given is None else given.not_after),
            )
        return found

    def containment(self, principal: str, clock: Callable[[], float]) -> Containment | None:
        """Return the longest containment of a principal in force by the clock (seconds); None without one."""
        if not len(self._contained):
            return None
        now = clock()
        found = [one for _, one in self._contained.find(principal) if now < one.until]
        return max(found, key=lambda one: one.until, default=None)

    def contained_since(self, principal: str, clock: Callable[[], float]) -> float:
        """Return when (seconds) the first of a principal's containments in force became known; infinite if none is."""
        now = clock()
        return min((one.since for _, one in self._contained.find(principal) if now < one.until), default=inf)

    def containments(self, now: float) -> list[Containment]:
        """Return all containments in force, in the order of their texts."""
        return sorted(one for _, one in self._contained.items() if now < one.until)

    # From statements to the state in force.

    def _statements_on(self, entry: Entry) -> Iterator[Issued]:
        for chain in self._chains.values():
            held = chain.entries.get(entry)
            if held is not None:
                yield held

    def _update(self, entry: Entry) -> None:
        """Update the state in force for one entry."""
        said = list(self._statements_on(entry))
        match entry:
            case ("key", name):
                self._update_key(name, said)
            case ("revoke", dead):
                times: dict[str, int] = {}
                for issued in said:
                    assert isinstance(issued.statement.saying, Revoke)  # noqa: S101 - for the type checker
                    name, at = issued.by[0], issued.statement.saying.at
                    times[name] = min(at, times.get(name, at))
                self._revoked[dead] = times
                if not times:
                    del self._revoked[dead]
            case _:
                who, best = entry[1], max(said, key=_order, default=None)
                if best is not None and isinstance(best.statement.saying, Contain):
                    saying = best.statement.saying
                    until = inf if saying.until is None else saying.until
                    self._contained.put(who, Containment(who, until, saying.why, best.by[0], self._since(who)))
                else:
                    self._contained.drop(who)
        self.changes += 1

    def _since(self, who: str) -> float:
        """Return since when ``who`` has been contained without a break; a containment that had ended starts again."""
        now, known = self._clock(), self._contained.get(who)
        return now if known is None or now >= known.until else min(known.since, now)

    def _update_key(self, name: str, said: list[Issued]) -> None:
        principal, _, print_of_it = name.rpartition(" ")
        key_id = print_of_it[:16].encode()
        owned = dict(self._owners.get(key_id, {}))  # another thread may be reading the old one
        best = max(said, key=_order, default=None)
        if best is None:
            owned.pop(principal, None)
        else:
            assert isinstance(best.statement.saying, GiveKey)  # noqa: S101 - for the type checker
            owned[principal] = best.statement.saying.key
            if len(owned) > 1:
                self._add_notice("control.key_of_two", best.by, key=print_of_it, owners=", ".join(sorted(owned)))
        self._owners[key_id] = owned
        if not owned:
            del self._owners[key_id]

    def _add_notice(self, event: str, by: OperatorKey, **fields: str | float | None) -> None:
        self.notices.append((event, {"operator": by[0], "operator_key": by[1][:16], **fields}))


def _earliest(*times: int | None) -> int | None:
    return min((time for time in times if time is not None), default=None)


class _Chain:
    """The statements of one key: the deciding one of each entry, and the links of the chain."""

    def __init__(self) -> None:
        self.entries: dict[Entry, Issued] = {}
        self.head: float | None = None
        self._digests: dict[int, str] = {}
        self._previous: dict[int, str] = {}
        self._highest = 0
        self._expected = 0
        self._last = ""
        self._whole = 0
        self._noticed: float | None = None
        self._told = 0

    @property
    def link(self) -> Link:
        return Link(self._highest, self._last, self._whole)

    def resume(self, link: Link) -> None:
        self._whole = max(self._whole, link.whole)
        self._told = max(self._told, link.whole)
        if link.number > self._highest:
            self._highest, self._last = link.number, link.digest
            self._digests[link.number] = link.digest
        self._advance()

    def join(self, issued: Issued) -> bool:
        """Add a statement to the chain; return False on a fork: a number or a predecessor that differs."""
        number, digest = issued.statement.number, digest_text(issued.digest)
        known = self._digests.setdefault(number, digest)
        self._previous.setdefault(number, issued.statement.previous)
        fits = (
            known == digest
            and self._digests.get(number - 1, issued.statement.previous) == issued.statement.previous
            and self._previous.get(number + 1, digest) == digest
        )
        if number > self._highest:
            self._highest, self._last = number, digest
        self._advance()
        return fits

    def _advance(self) -> None:
        if len(self._digests) > 2 * _REMEMBERED:
            for number in sorted(self._digests)[:_REMEMBERED]:
                del self._digests[number]
                self._previous.pop(number, None)
                self._whole = max(self._whole, number)
        while self._whole + 1 in self._digests:
            self._whole += 1
            self._noticed = None

    def expect(self, number: int) -> None:
        """Note that a statement with this number exists: another reader has it."""
        self._expected = max(self._expected, number)

    def missing(self, now: float) -> tuple[int, int] | None:
        """Return the first gap, as first and last number, that has lasted too long; each gap is returned once."""
        last = max(self._highest, self._expected)
        if self._whole >= last:
            return None
        if self._noticed is None:
            self._noticed = now
        if now - self._noticed < PATIENCE or self._told > self._whole:
            return None
        self._told = self._whole + 1
        behind = [number for number in self._digests if number > self._whole]
        return self._whole + 1, min(behind, default=last + 1) - 1


def _order(issued: Issued) -> tuple[float, bool, float, bytes]:
    """Return the sort key of statements on one entry: the greatest one holds."""
    rank, saying = issued.statement.rank, issued.statement.saying
    if isinstance(saying, Revoke):
        return -saying.at, False, 0.0, issued.digest
    if isinstance(saying, Contain):
        return rank, True, -inf if saying.until is None else -saying.until, issued.digest
    return rank, False, 0.0, issued.digest
