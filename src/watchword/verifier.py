"""The verifier: nine checks in one fixed order, the cheap ones first (docs/spec.md, section "Verification").

It takes a ``Message`` as an adapter read it and returns a ``VerifiedMessage``, or raises ``Rejected`` or
``Unavailable``. It calls the key source, the replay store and the journal that it was given, and does no other I/O. It
also rebuilds the replay memory from messages that were read before (``recall``). Counting and logging are left to
``agent``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from heapq import merge
from itertools import count, repeat
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from watchword import engine
from watchword.checks import HeaderCoverage, in_force, reference_time, the_envelope, unaltered
from watchword.engine import Runnable
from watchword.errors import MAX_CLAIMED, ConfigurationError, Pending, Reason, Rejected, Shed, Unavailable
from watchword.key_budget import KeyBudget
from watchword.keys import listed
from watchword.message import (
    SERVERS_SUBJECTS,
    Expected,
    Message,
    Request,
    VerifiedMessage,
    check_realm,
    is_principal,
)
from watchword.plugged import answer
from watchword.rates import IssueRates, RateLimiter
from watchword.reader import LearningReader, NativeReader
from watchword.replay import OpenedStore, SharedReplayStore, told_of
from watchword.replay_check import ReplayCheck
from watchword.signatures import SignatureChecker, find_key
from watchword.stretch import NO_SENDER, Stretch, cut, in_order, is_representative, parted
from watchword.trust import Demerits, Fact, Trust
from watchword.verification import Verification

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Awaitable, Callable, Iterable

    from watchword_native import Run

    from watchword.control import Control
    from watchword.envelope import Common
    from watchword.guard import MemoryReplayStore, Note
    from watchword.journal import Journal
    from watchword.keys import KeySource, VerificationKey
    from watchword.message import Header
    from watchword.policy import Policy
    from watchword.quota import Warned
    from watchword.replay import ReplayStore
    from watchword.signatures import CheckRunner, Job

Verdict: TypeAlias = VerifiedMessage | Rejected | Unavailable


class Authentic(NamedTuple):
    """An authentic message: its key, the digest of its claims, the covered headers, and the issue time in seconds."""

    key: VerificationKey
    digest: bytes
    headers: tuple[Header, ...]
    issued_at: int


_PANICKED: Final = "the native engine failed and the Python engine took over: report this to Watchword's developers"


class _Pass(NamedTuple):
    """One pass over messages: the parameters of the checks, and the results so far.

    ``run`` is the native engine's, which handles the messages of one sender together. ``cases`` are the messages that
    are judged one by one, by index. ``representatives`` has the first message of each sender in the run: the result of
    its checks 1 to 5 holds for all of that sender's. ``keys`` has the results of look-ups. One that is Pending stays so
    for the whole pass, because otherwise a sender's later messages would overtake the first.
    """

    messages: Sequence[Message]
    expected: Expected
    now: float
    recalled: bool
    run: Run | None
    cases: dict[int, Verification]
    keys: dict[tuple[str, bytes], VerificationKey | Reason | Pending]
    representatives: dict[int, Verification]


_ANYTHING: Final = Expected()
SEVERAL: Final = 2
"""The fewest messages for which a run is worth its cost."""

_FACTS: Final = {
    Reason.NOT_PERMITTED: Fact.NOT_PERMITTED,
    Reason.RATE_LIMITED: Fact.RATE_LIMITED,
    Reason.CONTAINED: Fact.CONTAINED,
}


class Verifier:
    """Judges the messages of one realm for one process; ``verify`` returns a VerifiedMessage or raises.

    ``principal`` is this process's own: without it, a message that has a recipient is rejected. Without ``keys``
    nothing verifies. ``clock`` returns seconds since the epoch. If ``replay`` is a ``SharedReplayStore``, shared by
    all readers, a Kafka message needs no signed partition. The ids of logs that this process reads alone
    (``Message.exclusive``) are stored in its own memory in any case. ``journal`` preserves, over restarts, the ids of
    messages that no broker retains. ``trust`` is the evidence against principals, by default empty.
    """

    def __init__(
        self,
        *,
        realm: str,
        keys: KeySource | None,
        replay: ReplayStore,
        policy: Policy,
        clock: Callable[[], float],
        principal: str | None = None,
        journal: Journal | None = None,
        trust: Trust | None = None,
    ) -> None:
        if principal is not None and not is_principal(principal):
            raise ConfigurationError(f"principal {principal[:128]!r}: 1 to 255 bytes of UTF-8, no control characters")
        self.realm: Final = check_realm(realm)
        self.principal: Final = principal
        self.policy = policy
        self.replay: Final = replay
        self.shared_replay: Final = isinstance(replay, SharedReplayStore)
        self.clock: Final = clock
        self._native = engine.native()
        self._envelopes: LearningReader | NativeReader = LearningReader()
        if self._native is not None:
            self._envelopes = NativeReader(self._native)
        self._signatures = SignatureChecker()
        self._coverage = HeaderCoverage()
        self.journal: Final = journal
        self._replay_check = ReplayCheck(replay, policy=policy, clock=clock, journal=journal)
        self._guard: Final = self._replay_check.guard
        self._keys: Final = KeyBudget(keys, clock=clock, warnings=self._guard.warnings)
        self._rates = RateLimiter()
        self._issued = IssueRates()
        self.trust: Final = Trust(Demerits(clock)) if trust is None else trust
        self._rules_since = clock()
        self._control: Control | None = None
        self._opening: Callable[[], Awaitable[None]] | None = None
        self._switched = 0

    def obey(self, control: Control, opening: Callable[[], Awaitable[None]] | None = None) -> None:
        """Apply operators' statements too; ``opening`` waits until they are known, before anything is judged."""
        self._control, self._opening = control, opening

    @property
    def control(self) -> Control | None:
        """What operators have said; None if this process reads no control log."""
        return self._control

    @property
    def changes(self) -> int:
        """A number that changes when messages that verified may no longer verify: they must be judged again."""
        return self._switched + (0 if self._control is None else self._control.changes)

    @property
    def keys(self) -> KeyBudget:
        """Looks keys up, within budgets; it stays the same object when its source changes."""
        return self._keys

    @property
    def known_keys(self) -> tuple[VerificationKey, ...]:
        """The keys that the source can list."""
        return listed(self._keys.source)

    @property
    def ids_held(self) -> int:
        """How many ids this process remembers in its own memory."""
        return len(self._guard)

    @property
    def has_keys(self) -> bool:
        """Whether there is a source of keys."""
        return self._keys.source is not None

    def switch(self, policy: Policy, keys: KeySource | None) -> None:
        """Judge by another policy and other keys from now on; ids, floors and what is used up of rates are kept."""
        if (policy.allow, policy.contained) != (self.policy.allow, self.policy.contained):
            self._rules_since = self.clock()
        self.policy = policy
        self._rates.switch(policy.allow)
        self._switched += 1
        if keys is not self._keys:
            self._keys.source = keys

    @property
    def warnings(self) -> deque[Warned]:
        """Warnings of its own memory, for the caller to log and remove."""
        return self._guard.warnings

    async def verify(self, message: Message, expected: Expected = _ANYTHING) -> VerifiedMessage:
        """Run the nine checks in order; Rejected is final, after Unavailable the message must be offered again."""
        (verdict,) = await self.verify_many((message,), expected)
        if not isinstance(verdict, VerifiedMessage):
            raise verdict
        return verdict

    async def _verdict(self, message: Message, expected: Expected, keys: KeySource | None) -> Verdict:
        """Judge one message in few steps: a processor's caches are cold after the wait for a single message."""
        case, now = Verification(message), self.clock()
        try:
            self._read(case, expected, now)  # 1 to 4
            key = self._as_limited(await find_key(keys or self._keys, case.claim.principal, case.claim.key_id))
            case.key = in_force(key, case.claim.key_id, case.claim.reference, now)  # 5
            case.keyed = True
            self._check_proof(case)  # 6 and 7
        except Rejected as verdict:
            case.reject(verdict)
        except Unavailable as verdict:
            if case.ahead is None:
                case.verdict = verdict
            else:
                case.reject(case.ahead)
        except BaseException as error:
            if not self._falls_back_after(error):
                raise
            return await self._verdict(message, expected, keys)
        await self._replay_check.admit((case,), floor=expected.floor, was_passed=expected.was_passed)  # 8
        return self._conclude(case)  # 9

    async def verify_many(
        self,
        messages: Iterable[Message],
        expected: Expected = _ANYTHING,
        *,
        check: CheckRunner | None = None,
        enough: Callable[[], bool] | None = None,
        keys: KeySource | None = None,
    ) -> list[Verdict]:
        """Judge messages as ``verify`` would one after the other, and return their verdicts in order.

        It ends with the first that is Unavailable, except for one that a journal could not store or that is Pending, as
        are then all later ones of the same key; messages after that are not judged. Once ``enough`` returns True, it
        also ends before a message that needs another key than those before it. ``check`` runs checks of signatures,
        preferably in parallel and off the event loop. ``keys`` replaces the key source, for a caller that does not
        preserve order: then a message that is Shed does not end it either.
        """
        given = messages if isinstance(messages, Sequence) else list(messages)
        if 0 < len(given) < SEVERAL:
            return [await self._verdict(given[0], expected, keys)]
        units = await self._authenticated(given, expected, check, enough=enough, keys=keys)
        judged = await self._replay_check.admit(units, floor=expected.floor, was_passed=expected.was_passed)  # 8
        verdicts: list[Verdict] = []
        for unit in judged:
            if isinstance(unit, Stretch) and self._all_permitted(unit):  # 9
                verdicts += unit.accept()
                continue
            verdicts += [self._conclude(case) for case in unit.cases()]  # 9
        return verdicts

    async def reverify(
        self, messages: Sequence[Message], *, check: CheckRunner | None = None
    ) -> list[Rejected | Unavailable | None]:
        """Judge again messages that verified and were not handed over yet: None for each that is still valid.

        Meanwhile a key may have been revoked, a principal contained, or a message expired. Ids and rates are not
        checked again. It ends with the first that is Unavailable.
        """
        held: list[Rejected | Unavailable | None] = []
        for unit in await self._authenticated(messages, _ANYTHING, check):
            if isinstance(unit, Stretch) and self._all_permitted(unit, first=False):
                held += repeat(None, len(unit))
                continue
            for case in unit.cases():
                if case.verdict is None:
                    case.first = False
                    try:
                        self._check_permission(case)
                    except Rejected as verdict:
                        case.reject(verdict)
                held.append(None if isinstance(case.verdict, VerifiedMessage) else case.verdict)
        return held

    async def _authenticated(
        self,
        messages: Sequence[Message],
        expected: Expected,
        check: CheckRunner | None,
        *,
        recalled: bool = False,
        enough: Callable[[], bool] | None = None,
        keys: KeySource | None = None,
    ) -> list[Verification | Stretch]:
        """Run checks 1 to 7 up to the first message that is Unavailable; each message that fails has a verdict.

        Messages that are ``recalled`` passed before and may have expired since. If there is a run, the first message of
        each sender is judged here; if nothing is wrong with it, the sender's other messages are left to the run.
        """
        now = self.clock()
        found = _Pass(messages, expected, now, recalled, None, {}, {}, {})
        try:
            run = self._run_of(messages, now, recalled=recalled)
            return await self._passed(
                found._replace(run=run, cases={}, keys={}, representatives={}), check, enough, keys
            )
        except BaseException as error:
            if not self._falls_back_after(error):
                raise
        return await self._passed(found, check, enough, keys)

    def _falls_back_after(self, error: BaseException) -> bool:
        """Return True if the native engine failed, and the Python one, which now replaces it, must judge again.

        That is safe because checks 1 to 7 remember nothing.
        """
        if self._native is None or not engine.has_panicked(error):
            return False
        self._native, self._envelopes = None, LearningReader()
        self.warnings.append(("engine.panicked", {"remedy": _PANICKED}))
        return True

    async def _passed(
        self,
        found: _Pass,
        check: CheckRunner | None,
        enough: Callable[[], bool] | None,
        keys: KeySource | None,
    ) -> list[Verification | Stretch]:
        given, now, run = found.messages, found.now, found.run
        cases, found_keys = found.cases, found.keys
        passable = Pending if keys is None else (Pending, Shed)
        keys = keys or self._keys
        order = zip(count(), repeat(NO_SENDER, len(given)), strict=False) if run is None else iter(run.firsts())
        while (place := next(order, None)) is not None:
            at, sender = place
            cases[at] = case = Verification(given[at])
            try:
                self._read(case, found.expected, now, recalled=found.recalled)  # 1 to 4
                pair = (case.claim.principal, case.claim.key_id)
                key = found_keys.get(pair)
                if key is None:
                    if found_keys and enough is not None and enough():
                        del cases[at]
                        cut(run, at)
                        break
                    key = found_keys[pair] = await self._found(keys, *pair)
                case.key = in_force(key, case.claim.key_id, case.claim.reference, now)  # 5
                case.keyed = True
            except Rejected as verdict:
                case.reject(verdict)
            except Unavailable as verdict:
                if case.ahead is not None:
                    case.reject(case.ahead)
                else:
                    case.verdict = verdict
                    if not isinstance(verdict, passable):
                        cut(run, at)
                        break
            if run is not None and sender != NO_SENDER:
                if is_representative(case):
                    run.key(sender, id(case.key), case.key.not_before, case.key.not_after, case.key.revoked_at)
                    found.representatives[sender] = cases.pop(at)
                else:
                    order = merge(order, zip(run.release(sender), repeat(NO_SENDER), strict=False))
        return await self._signed_and_unaltered(found, check)  # 6 and 7

    async def _found(self, keys: KeySource, principal: str, key_id: bytes) -> VerificationKey | Reason | Pending:
        try:
            return self._as_limited(await find_key(keys, principal, key_id))
        except Pending as pending:
            return pending

    async def _signed_and_unaltered(self, found: _Pass, check: CheckRunner | None) -> list[Verification | Stretch]:
        """Run checks 6 and 7, and all remaining checks up to these for the messages of a run."""
        cases, run, signatures = found.cases, found.run, self._signatures
        asked: list[Job] = []
        if run is not None:
            asked = [(found.representatives[job[0]].key, *job[1:]) for job in run.jobs()]  # 5
            self._add_cases(run, found)
        if asked or len(cases) > 1:
            holds = await signatures.check_together([*cases.values()], check, asked)
            if run is not None:
                run.settle(holds)  # 6 and 7
                self._add_cases(run, found)
        for _, case in sorted(cases.items()) if run is not None else cases.items():
            if case.verdict is None:
                self._check_proof(case)
        return (
            [*cases.values()]
            if run is None
            else in_order(run, found.messages, cases, found.representatives, self.policy.longest)
        )

    def _check_proof(self, case: Verification) -> None:
        """Run checks 6 and 7."""
        try:
            self._signatures.signed(case)  # 6
            case.headers = unaltered(case, self.policy.max_skew, self._coverage)  # 7
        except Rejected as verdict:
            case.reject(verdict)
        else:
            if case.lesson is not None:
                self._envelopes.learn(case, case.lesson)
            if case.ahead is not None:
                case.reject(case.ahead)

    def _conclude(self, case: Verification) -> Verdict:
        """Return the verdict, after check 9 if there is none yet."""
        if case.verdict is None:
            try:
                self._check_permission(case)
                case.accept()
            except Rejected as verdict:
                self._replay_check.reject(case, verdict)
                self._note(case, verdict.reason)
        assert case.verdict is not None  # noqa: S101 - for the type checker: accepted or rejected
        return case.verdict

    def _run_of(self, messages: Sequence[Message], now: float, *, recalled: bool) -> Run | None:
        """Return the native engine's run over messages; None if there is no such engine, or nothing to gain."""
        native = self._native
        if native is None or len(messages) < SEVERAL:
            return None
        max_age, max_skew = self.policy.max_age, self.policy.max_skew
        if isinstance(messages, Runnable):
            return messages.run(native, now, max_age, max_skew, recalled=recalled)
        return native.Run([*messages], now, max_age, max_skew, recalled)

    def _add_cases(self, run: Run, found: _Pass) -> None:
        """Make a case of each message that a run has given back; the run's result for its signature is used."""
        for at, signed in run.taken_back():
            found.cases[at] = case = Verification(found.messages[at])
            case.signed = signed
            try:
                self._read(case, found.expected, found.now, recalled=found.recalled)  # 1 to 4
                key = found.keys[case.claim.principal, case.claim.key_id]
                case.key = in_force(key, case.claim.key_id, case.claim.reference, found.now)  # 5
                case.keyed = True
            except Rejected as verdict:
                case.reject(verdict)

    def _read(self, case: Verification, expected: Expected, now: float, *, recalled: bool = False) -> None:
        """Run checks 1 to 4."""
        header = the_envelope(case.message)  # 1
        self._envelopes.open(case, header)  # 2
        case.read = True
        case.request = self._check_destination(case.message, case.common, expected)  # 3
        reference = reference_time(case, now, self.policy, recalled=recalled)  # 4
        case.open(reference, case.issued_at + self.policy.longest)

    async def authenticate(
        self, messages: Sequence[Message], *, check: CheckRunner | None = None
    ) -> list[Authentic | Rejected | Unavailable]:
        """Run checks 1 to 3 and 5 to 7 on messages of any age, up to the first that is Unavailable.

        The key must have been valid when the message was appended and must not be revoked now; a message that was from
        the future when appended is rejected. Nothing is remembered. ConfigurationError if ``appended_at`` is missing.
        """
        stamped = [
            replace(message, appended_at=None, appended_between=(message.appended_at, message.appended_at))
            for message in messages
            if message.appended_at is not None
        ]
        if len(stamped) < len(messages):
            raise ConfigurationError("authenticate(): give each message its appended_at, when the broker appended it")
        found: list[Authentic | Rejected | Unavailable] = []
        for case in parted(await self._authenticated(stamped, _ANYTHING, check, recalled=True)):
            if isinstance(case.verdict, Rejected | Unavailable):
                found.append(case.verdict)
            else:
                found.append(Authentic(case.key, case.leaf, case.headers, case.issued_at))
        return found

    async def start(self) -> None:
        """Open the replay store if need be; ConfigurationError if it cannot be trusted, Unavailable if it is down."""
        if self._opening is not None:
            await self._opening()
        if isinstance(self.replay, OpenedStore):
            try:
                await answer(self.replay.start())
            except ConfigurationError:
                raise
            except Exception as error:
                raise Unavailable("replay", told_of(error)) from error

    def begin(self, log: str, *, floor: float) -> None:
        """Restart the memory of a log (see ``log_name``) empty; messages issued before ``floor`` seconds are stale."""
        self._guard.begin(log, floor=floor)

    async def resume(self, log: str, *, floor: float, notes: Iterable[Note] = (), noted: str | None = None) -> None:
        """Restart the memory of a log from a journal's notes, and note further ids for that journal.

        They are noted under the name ``noted``, which several logs may share. No message of this log may be judged
        before it returns: it waits for nothing, but gives the event loop turns.
        """
        self._guard.begin(log, floor=floor)
        await self._guard.restore(log, notes)
        self._guard.note(log, noted or log)

    def raise_floor(self, log: str, floor: float) -> None:
        """Treat messages issued before ``floor`` seconds as stale in this log from now on; ids stay known."""
        self._guard.raise_floor(log, floor)

    async def recall(self, message: Message, *, unacked: bool = False) -> None:
        """Remember a message from before the position where reading resumes; Unavailable if it cannot be judged.

        A message that fails for its age or its key is remembered too, by its claims: it may have been delivered.
        ``unacked`` is as in Claim.
        """
        (case,) = parted(await self._authenticated((message,), _ANYTHING, None, recalled=True))
        self._recall(case, unacked=unacked)

    async def recall_many(self, messages: Sequence[Message], *, unacked: bool = False, check: CheckRunner) -> int:
        """Recall messages in order up to the first that is Unavailable, and return how many were recalled."""
        done = 0
        for unit in await self._authenticated(messages, _ANYTHING, check, recalled=True):
            if isinstance(unit, Stretch) and self._recall_all(unit, unacked=unacked):
                done += len(unit)
                continue
            for case in unit.cases():
                try:
                    self._recall(case, unacked=unacked)
                except Unavailable:
                    return done
                done += 1
        return done

    async def times_of_issue(self, messages: Sequence[Message], *, check: CheckRunner) -> list[int]:
        """Return the issue times of the messages that pass checks 1 to 7; nothing is remembered.

        Unavailable if a message cannot be judged and none before it has passed.
        """
        cases = parted(await self._authenticated(messages, _ANYTHING, check, recalled=True))
        times = [case.issued_at for case in cases if case.verdict is None]
        last = cases[-1].verdict if cases else None
        if not times and isinstance(last, Unavailable):
            raise last
        return times

    def memory(self, log: str) -> LogMemory:
        """Return the memory of a log that this process reads alone (see ``log_name``)."""
        return LogMemory(self, self._guard, log)

    def _recall(self, case: Verification, *, unacked: bool) -> None:
        if isinstance(case.verdict, Unavailable):
            raise case.verdict
        self._replay_check.look(case.message)
        if case.verdict is None:
            # Copied only if it differs: copying takes a tenth of the time of a rebuild.
            self._guard.recall(case.claim if case.claim.unacked == unacked else replace(case.claim, unacked=unacked))
        else:
            self._replay_check.remember_unknown(case, unacked=unacked)

    def remember_unjudged(self, message: Message, *, comes_again: bool = True) -> None:
        """Remember a message that ended ``Unavailable`` and will not be judged: elsewhere its claims are a replay.

        They are remembered however late the message is offered again, unless it never ``comes_again``. If it does come
        again, a shared store decides whether to deliver it, because another reader may have claimed a copy.
        """
        if comes_again and not self._replay_check.guards(message):
            return
        with suppress(Rejected):
            case = Verification(message)
            self._envelopes.open(case, the_envelope(message))
            reference = self.clock() if message.appended_at is None else message.appended_at
            case.open(reference, case.issued_at + self.policy.longest)
            case.claim = replace(case.claim, unacked=case.claim.unacked and comes_again)
            self._replay_check.remember_unjudged(case)

    def acknowledge_at(self, log: str, offset: int) -> None:
        """Let the ids of the unacked delivery at this offset expire as others do."""
        self._guard.acknowledge_at(log, offset)

    def forget(self, log: str) -> None:
        """Drop the state of a log that is no longer read."""
        self._rates.forget(log)
        self._issued.forget(log)
        self._guard.forget(log)

    def _check_destination(self, message: Message, common: Common, expected: Expected) -> Request | None:
        """Check 3: channel, partition, reply subject, recipient, request and consumer are those expected here.

        Return the request that the message answers, if any.
        """
        channel = message.channel
        if not self.policy.accepts(channel, common.channel) or channel.realm != self.realm:
            signed = repr(common.channel[:MAX_CLAIMED])
            raise Rejected(Reason.WRONG_CHANNEL, f"signed for {signed}; a moved channel needs [[policy.aliases]]")
        if common.partition != message.partition or (common.partition is None and channel.scheme == "kafka"):
            unbound = common.partition is None and self.shared_replay and not message.exclusive
            if not unbound:
                raise Rejected(Reason.WRONG_PARTITION, _partition_detail(common.partition, message.partition))
        if common.reply_to is not None:
            at_stream = channel.scheme == "nats" and message.position is not None
            if common.reply_to.startswith(SERVERS_SUBJECTS) or (common.reply_to != message.reply_to and not at_stream):
                raise Rejected(
                    Reason.WRONG_REPLY_TO, "its reply subject is not the one that was signed, or belongs to the server"
                )
        if common.recipient is not None and common.recipient != self.principal:
            we = f"this is {self.principal!r}" if self.principal else "this process has no principal in its settings"
            raise Rejected(Reason.WRONG_RECIPIENT, f"addressed to {common.recipient[:MAX_CLAIMED]!r}; {we}")
        request = None if common.request_id is None else expected.requests.get(common.request_id)
        if request is None and (common.request_id is not None or expected.only_replies):
            what = "answers no open request: it came too late, or is forged"
            if common.request_id is None:
                what = "is not an answer to a request: answer with msg.respond(); or it is forged"
            raise Rejected(Reason.WRONG_REQUEST, what)
        if expected.consumer is not None and message.delivered_by != expected.consumer:
            where = " of ".join(repr(name[:64]) for name in reversed(message.delivered_by or ("?", "?")))
            raise Rejected(Reason.WRONG_DELIVERY, f"delivered by {where}, a consumer that was not bound here")
        return request

    def _check_permission(self, case: Verification) -> None:
        """Check 9: the principal may send here, at this rate, is not contained, and is trusted enough.

        An answer must come from the recipient of its request; if that had none, from a principal that may send on the
        request's channel.
        """
        request, policy, claim, principal = case.request, self.policy, case.claim, case.claim.principal
        channel = case.message.channel if request is None else request.channel
        addressee = None if request is None else request.recipient
        rule = policy.rule_for(principal, channel) if policy.allow else None
        permitted = principal == addressee if addressee is not None else rule is not None or not policy.allow
        if not permitted:
            remedy = "no [[policy.allow]] lets this principal send here"
            if addressee is not None:
                remedy = "the request that it answers was addressed to another principal"
            raise Rejected(Reason.NOT_PERMITTED, remedy)
        if case.first and rule is not None and rule.rate is not None:
            case.too_fast = self._issued.is_over(rule, principal, claim.log, claim.issued_at)
            passed = claim.reference if claim.appended_after is None else claim.appended_after
            if not self._rates.spend(rule, principal, claim.log, at=claim.reference, passed=passed):
                raise Rejected(Reason.RATE_LIMITED, f"over the rate of this principal's [[policy.allow]], {rule.rate}")
        if (entry := policy.containing(principal)) is not None:
            what = "its principal" if entry == principal else repr(entry)
            raise Rejected(Reason.CONTAINED, f"{what} is in [policy] contained")
        contained = None if self._control is None else self._control.containment(principal, self.clock)
        if contained is not None:
            why = contained.why or "no reason given"
            raise Rejected(Reason.CONTAINED, f"{contained.by} contains {contained.who!r}: {why}")
        if rule is not None and rule.min_trust and not self.trust.admits(principal, rule.min_trust):
            score = self.trust.score.score(principal)
            raise Rejected(
                Reason.NOT_TRUSTED, f"trust {score:.2f}, and its [[policy.allow]] has {_bar_text(rule.min_trust)}"
            )

    def _all_permitted(self, stretch: Stretch, *, first: bool = True) -> bool:
        """Run check 9 for messages of one sender at once; return False if each of them must be judged separately."""
        rule = self.policy.rule_for(stretch.key.principal, stretch.channel) if self.policy.allow else None
        if first and rule is not None and rule.rate is not None:
            return False
        case = stretch.case(stretch.begin)
        case.first = first
        try:
            self._check_permission(case)
        except Rejected:
            return False
        return True

    def _recall_all(self, stretch: Stretch, *, unacked: bool) -> bool:
        """Recall messages of one sender at once; return False, having done nothing, if each must be recalled alone."""
        return self._replay_check.guards(stretch.message) and self._guard.recall_all(stretch, unacked=unacked)

    def _as_limited(self, key: VerificationKey | Reason) -> VerificationKey | Reason:
        """Return a key as operators have limited it; Unavailable if their statements may not all have arrived."""
        if self._control is None:
            return key
        if self._control.stale:
            raise Unavailable("control", "no sign of life from the control log for longer than its max_staleness")
        return key if isinstance(key, Reason) else self._control.limited(key)

    def _note(self, case: Verification, reason: Reason) -> None:
        """Note a rejection as a fact against the principal, if only that principal can have caused it.

        Others could cause it by resending or copying a message, so it must be the first sight, and not found through an
        alias. An operator could cause it by a change of rules or a containment, so a message sent before that does not
        count. For the rate, others could hold messages back and release them at once, so the times of signing must
        exceed it; and the broker must have stamped the message, because otherwise our own pace of reading decides.
        """
        fact, message, signed, skew = _FACTS.get(reason), case.message, case.common, self.policy.max_skew
        if fact is None or not case.first:
            return
        if (signed.channel, signed.partition) != (message.channel.uri, message.partition):
            return
        if case.issued_at - skew < self._forbidden_since(fact, signed.issuer):
            return
        if fact is Fact.RATE_LIMITED and (message.appended_at is None or not case.too_fast):
            return
        self.trust.note(signed.issuer, fact, bars=self.policy.bars_of(signed.issuer))

    def _forbidden_since(self, fact: Fact, principal: str) -> float:
        """Return since when (seconds) what the fact is about has been forbidden here."""
        if fact is not Fact.CONTAINED or self._control is None or principal in self.policy.contained:
            return self._rules_since
        return self._control.contained_since(principal, self.clock)


def _bar_text(min_trust: float) -> str:
    return f"min_trust = {min_trust:g}: it is let in again at {(1 + min_trust) / 2:g}"


def _partition_detail(signed: int | None, found: int | None) -> str:
    if signed is None:
        return f"signed for no partition, found in {found}: send to a given partition, or use a shared replay store"
    return f"signed for {signed}, found in {found}: copied, or sent with a partitioner that the signer does not know"


class LogMemory:
    """The guard of one log; see ``partition.Memory``."""

    def __init__(self, verifier: Verifier, guard: MemoryReplayStore, log: str) -> None:
        self._verifier = verifier
        self._guard = guard
        self._log = log

    def begin(self, *, floor: float) -> None:
        """Forget everything; messages issued before ``floor`` are stale from now on."""
        self._guard.begin(self._log, floor=floor)

    def pass_time(self, time: float) -> None:
        """Advance log time: a record appended at ``time`` or later was judged, whatever the verdict."""
        self._guard.look(self._log, time)

    def floor(self) -> float:
        """Return the floor for all principals."""
        return self._guard.floor(self._log)

    def lowest_needed(self) -> int | None:
        """Return an offset before which there is no id that must still be remembered; None if no id is known."""
        return self._guard.lowest_needed(self._log)

    def remember_unjudged(self, message: Message) -> None:
        """Remember a message that is passed over without a verdict."""
        self._verifier.remember_unjudged(message)
