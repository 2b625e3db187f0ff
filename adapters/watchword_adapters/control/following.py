"""Follows the control log: reads operators' statements, verifies and merges them, and stores them for restarts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword import Policy, Reason, Rejected, Unavailable
from watchword.control import Issued
from watchword.endings import delay_after
from watchword.keys import thumbprint
from watchword.spi import MemoryReplayStore, Verifier
from watchword.statements import CONTENT_TYPE, Verb, parse_statement
from watchword.verifier import Authentic
from watchword_adapters.control.log import TOGETHER
from watchword_adapters.control.state import Place
from watchword_adapters.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from watchword import VerificationKey
    from watchword.control import Control, Operator, OperatorKey
    from watchword.message import Header
    from watchword.spi import Audit, KeySource, Message
    from watchword.statements import Statement
    from watchword_adapters.control.log import ControlLog, End
    from watchword_adapters.control.state import StateFile

CHECK_EVERY: Final = 5.0
"""Seconds between two checks of the operators' own keys and of the log's end."""

TICK: Final = 0.5
MOST_MISSING: Final = 256
"""Most unknown keys in operators' names that are looked up again; strangers may invent more."""

WAIT_FOR_KEYS: Final = 1.0
SHORTEST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
"""Longest pause in seconds between two tries to reach the log; each is twice as long as the one before."""


class Heard(NamedTuple):
    """An entry of the log: its author and statement, if known, and ``why`` it does not count; None if it does."""

    message: Message
    by: OperatorKey | None = None
    statement: Statement | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The dependencies of a follower.

    ``root`` finds operators' own keys, and ``open_log`` connects to the log. After ``max_staleness`` seconds without
    proof that nothing is withheld, nothing is judged any more; None for no limit. ``clock`` is in seconds. ``listen``
    receives each entry that is read, before it takes effect.
    """

    realm: str
    control: Control
    operators: tuple[Operator, ...]
    root: KeySource
    open_log: Callable[[], ControlLog]
    state: StateFile | None
    clock: Callable[[], float]
    audit: Audit
    max_staleness: float | None = None
    listen: Callable[[Heard], None] | None = None


class Following:
    """One follower, in one event loop. ``is_known`` once everything in the log at the start has been merged, or loaded.

    ``is_current`` while it is connected and has read everything that was in the log when it connected. Failures are
    retried forever; ``error`` holds the last one until it succeeds. ``changed`` is called after each change.
    """

    def __init__(self, parts: Parts, changed: Callable[[], None] = lambda: None) -> None:
        self.parts: Final = parts
        self.control: Final = parts.control
        self.is_known = False
        self.is_current = False
        self.error: Exception | None = None
        self.log: ControlLog | None = None
        self.place: Place | None = None
        self._changed = changed
        self._operators = parts.operators
        keys = _OperatorsKeys(parts.root, lambda: self._operators, self._is_missing)
        self._verifier, self._unrevoked = (
            Verifier(
                realm=parts.realm,
                keys=source,
                replay=MemoryReplayStore(horizon=None),
                policy=Policy(),
                clock=parts.clock,
            )
            for source in (keys, _Unrevoked(keys))
        )
        self._check = Threads()
        self._keys: dict[OperatorKey, bytes] = {}
        self._gone: set[OperatorKey] = set()
        self._missing: dict[tuple[str, bytes], None] = {}
        self._unsure: Place | None = None
        self._current_at: float | None = None
        self._end: End | None = None
        self._told: str | None = None
        self._again = asyncio.Event()

    async def run(self) -> None:
        """Follow until this is cancelled."""
        beside = asyncio.get_running_loop().create_task(self._keep())
        try:
            failures, is_loaded = 0, False
            while True:
                try:
                    if not is_loaded:
                        await self._load()
                        is_loaded = True
                    async with self.parts.open_log() as log:
                        self.log = log
                        await self._follow(log)
                        failures = 0
                except Exception as error:  # noqa: BLE001 - retried, whatever a client raises
                    self._failed(error)
                    await asyncio.sleep(delay_after(failures, SHORTEST_PAUSE, LONGEST_PAUSE))
                    failures += 1
                finally:
                    self.log, self.is_current = None, False
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)

    def switch(self, operators: tuple[Operator, ...]) -> None:
        """Judge the whole log again with other operators; must be called in this event loop."""
        self._operators = operators
        self.control.switch(operators)
        self._read_again()

    def _read_again(self) -> None:
        """Reread the log from its beginning."""
        self.place = self._unsure = None
        self._missing.clear()
        self._again.set()
        self._changed()

    async def _load(self) -> None:
        """Judge the stored statements; those that no longer verify lapse. ConfigurationError for a foreign file."""
        if self.parts.state is None:
            return
        known = self.parts.state.load()
        lapsed = 0
        for first in range(0, len(known.messages), TOGETHER):
            heard = await self._hear(known.messages[first : first + TOGETHER])
            lapsed += len(known.messages[first : first + TOGETHER]) - len(heard)
        for by, link in known.links.items():
            self.control.resume(by, link)
        if lapsed:
            self.parts.audit.warn("control.lapsed", statements=lapsed, why="their keys no longer have authority")
        if known.place is not None:
            self.place = known.place
            self._known()

    async def _follow(self, log: ControlLog) -> None:
        await log.check()
        self._end = end = await log.end()
        position = self._begin(end)
        self._again.clear()
        reading = log.read(position)
        again = asyncio.ensure_future(self._again.wait())
        coming: asyncio.Future[tuple[Sequence[Message], int]] = asyncio.ensure_future(anext(reading))
        try:
            self._passed(end, position)
            while True:
                await asyncio.wait((coming, again), return_when=asyncio.FIRST_COMPLETED)
                if again.done():
                    return
                messages, behind = coming.result()
                heard = await self._hear(messages)
                self._passed(end, behind)
                self._keep_statements(heard)
                coming = asyncio.ensure_future(anext(reading))
        finally:
            again.cancel()
            coming.cancel()
            await asyncio.gather(again, coming, return_exceptions=True)
            await reading.aclose()

    def _begin(self, end: End) -> int:
        """Return the position to read from; a log that lacks known entries is logged, and nothing is rolled back."""
        known = self.place
        if known is None:
            return end.first
        if known.identity != end.identity or known.position > end.next:
            self.parts.audit.warn(
                "control.log_shorter",
                known=known.position,
                found=end.next,
                remedy="nothing is rolled back; find out who deleted or recreated the log",
            )
            return end.first
        return max(end.first, known.position)

    def _passed(self, end: End, position: int) -> None:
        self.place = Place(end.identity, position)
        if position >= end.next:
            self._known()
            self.is_current = True
            self._current_at = self.parts.clock()
            self.error = self._told = None

    def _known(self) -> None:
        self.is_known = True
        self._changed()

    async def _hear(self, messages: Sequence[Message]) -> list[Issued]:
        """Verify and merge statements; return those that count. Waits for a key source that is down."""
        counting: list[Issued] = []
        left = list(messages)
        while left:
            verdicts = await self._verifier.authenticate(left, check=self._check)
            for message, verdict in zip(left, verdicts, strict=False):
                if isinstance(verdict, Authentic):
                    issued = self._issued(message, verdict)
                    if issued is not None and self.control.hear(issued):
                        counting.append(issued)
                elif isinstance(verdict, Rejected):
                    self.parts.audit.refused(message, verdict)
                    if self.parts.listen is not None:
                        self.parts.listen(await self._as_it_was(message, verdict))
            failed = verdicts[-1] if isinstance(verdicts[-1], Unavailable) else None
            del left[: len(verdicts) - (failed is not None)]
            if failed is not None:
                self._failed(failed)
                await asyncio.sleep(WAIT_FOR_KEYS)
        if messages:
            self._changed()
            await asyncio.sleep(0)
        return counting

    def _issued(self, message: Message, found: Authentic) -> Issued | None:
        by = found.key.principal, thumbprint(found.key.public)
        try:
            statement = _statement(message, found.headers)
        except ValueError as error:
            self.parts.audit.warn("control.malformed", operator=by[0], operator_key=by[1][:16], detail=str(error))
            self._tell_listener(Heard(message, by, why=str(error)))
            return None
        self._tell_listener(Heard(message, by, statement, self.control.objection(by, statement)))
        self._keys[by] = found.key.key_id
        appended_at = message.appended_at or 0.0
        said_at = min(appended_at, found.issued_at + self._verifier.policy.max_skew)
        return Issued(by, found.digest, statement, message, appended_at, said_at)

    async def _as_it_was(self, message: Message, verdict: Rejected) -> Heard:
        """Return a rejected message for the listener; with its statement if only its key was revoked."""
        why = f"{verdict.reason}: {verdict.detail}"
        if verdict.reason is Reason.KEY_REVOKED:
            (found,) = await self._unrevoked.authenticate([message])
            if isinstance(found, Authentic):
                with suppress(ValueError):
                    by = found.key.principal, thumbprint(found.key.public)
                    return Heard(message, by, _statement(message, found.headers), why)
        return Heard(message, why=why)

    def _tell_listener(self, heard: Heard) -> None:
        if self.parts.listen is not None:
            self.parts.listen(heard)

    def _is_missing(self, principal: str, key_id: bytes) -> None:
        """Record that no source knows a key in an operator's name: it may be new, and not published yet.

        Until it is known, a restart resumes before the entries that it signed.
        """
        if len(self._missing) < MOST_MISSING:
            self._missing[principal, key_id] = None
        self._unsure = self._unsure or self.place

    def _keep_statements(self, heard: Iterable[Issued]) -> None:
        """Append new statements to the state file; a failure is logged, since a restart would know less."""
        state = self.parts.state
        if state is None:
            return
        new = [one for one in heard if one.statement.entry is not None]
        try:
            state.append(
                _messages(new),
                self._unsure or self.place,
                {by: self.control.link(by) for by in {one.by for one in heard}},
            )
            if state.is_bloated(self.control.held):
                self._rewrite(state)
        except OSError as error:
            self.parts.audit.warn("control.state_unwritten", detail=f"{state.path}: {error.strerror}")

    def _rewrite(self, state: StateFile) -> None:
        links = {by: self.control.link(by) for by in self.control.speakers}
        state.write(_messages(self.control.deciding()), self._unsure or self.place, links)

    def _failed(self, error: Exception) -> None:
        self.error = error
        told = f"{type(error).__name__}: {error}"
        if told != self._told:
            self._told = told
            self.parts.audit.warn("control.unavailable", detail=told, remedy="the statements read so far stay in force")
        self._changed()

    # Concurrently with the reading

    async def _keep(self) -> None:
        """Handle what depends on the time, whether or not there are entries and sources answer."""
        loop = asyncio.get_running_loop()
        looked, checking = -inf, loop.create_task(self._check_keys_and_end())
        try:
            while True:
                self.control.look(self.parts.clock())
                self._tell()
                if checking.done() and loop.time() - looked >= CHECK_EVERY:
                    looked, checking = loop.time(), loop.create_task(self._check_keys_and_end())
                self.control.stale = self._is_stale()
                self._changed()
                await asyncio.sleep(TICK)
        finally:
            checking.cancel()
            await asyncio.gather(checking, return_exceptions=True)

    async def _check_keys_and_end(self) -> None:
        await self._check_keys()
        with suppress(Exception):  # the reading reports it as well
            await self._check_end()

    def _tell(self) -> None:
        while self.control.notices:
            event, fields = self.control.notices.popleft()
            self.parts.audit.warn(event, **fields)

    async def _check_keys(self) -> None:
        """Lapse the statements of keys that are revoked or no longer known; reread the log if a key is known again."""
        for by in (*self.control.speakers, *self._gone):
            try:
                key = await self.parts.root.find(by[0], self._keys[by])
            except Exception:  # noqa: BLE001, S112 - a source that is down revokes no authority
                continue
            if self._in_authority(by, key):
                if by in self._gone:
                    self._gone.discard(by)
                    self.control.restore(by)
                    self._read_again()
            elif by not in self._gone:
                self._gone.add(by)
                self.control.lapse(by)
                if self.parts.state is not None:
                    with suppress(OSError):  # it is judged again when it is loaded
                        self._rewrite(self.parts.state)
                self._changed()

        for principal, key_id in tuple(self._missing):
            with suppress(Exception):  # as above
                if (key := await self.parts.root.find(principal, key_id)) is not None and key.principal == principal:
                    self._read_again()
                    break

    def _in_authority(self, by: OperatorKey, key: VerificationKey | None) -> bool:
        if key is None or (key.principal, thumbprint(key.public)) != by:
            return False
        return key.revoked_at is None or self.parts.clock() < key.revoked_at

    async def _check_end(self) -> None:
        """Check that the log is still the same, and whether all of it has been read."""
        log, place = self.log, self.place
        if log is None or place is None:
            return
        end = await log.end()
        if end.identity != place.identity:
            self._again.set()
        elif self.place is not None and self.place.position >= end.next:
            self._current_at = self.parts.clock()

    def _is_stale(self) -> bool:
        most = self.parts.max_staleness
        if most is None:
            return False
        expects_heads = any(one.may == {Verb.HEAD} for one in self._operators)
        last = self.control.last_head if expects_heads else self._current_at
        return last is None or self.parts.clock() - last > most


class _OperatorsKeys:
    """Looks up only operators' keys, so that a flood of others costs no look-up."""

    def __init__(
        self, root: KeySource, operators: Callable[[], Iterable[Operator]], missing: Callable[[str, bytes], None]
    ) -> None:
        self._root = root
        self._operators = operators
        self._missing = missing

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if not any(one.principal == principal for one in self._operators()):
            return None
        key = await self._root.find(principal, key_id)
        if key is None or key.principal != principal:
            self._missing(principal, key_id)
        return key


class _Unrevoked:
    """Returns keys as they were before their revocation, to show their statements, which do not count."""

    def __init__(self, source: KeySource) -> None:
        self._source = source

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        key = await self._source.find(principal, key_id)
        return None if key is None else replace(key, revoked_at=None)


def _messages(heard: Iterable[Issued]) -> list[Message]:
    return [one.message for one in heard if one.message is not None]


def _statement(message: Message, headers: Sequence[Header]) -> Statement:
    """Return the statement in a message; ValueError if it is not one."""
    if not any(name.lower() == "content-type" and value == CONTENT_TYPE.encode() for name, value in headers):
        raise ValueError(f"its covered content-type is not {CONTENT_TYPE}")
    return parse_statement(message.value or b"")
