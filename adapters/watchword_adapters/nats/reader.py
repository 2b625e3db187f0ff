"""Judges what one NATS subscription reads, before anything of it reaches a handler."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from nats.js.errors import NotFoundError

from watchword import Rejected, Unavailable, VerifiedMessage
from watchword.agent import require
from watchword.errors import Pending, Shed
from watchword.message import channel_of, make_message
from watchword.spi import Expected, ObservedMessage, Position
from watchword_adapters.nats.deliveries import Deliveries
from watchword_adapters.nats.gate import Gate
from watchword_adapters.nats.headers import block_of
from watchword_adapters.nats.look_ups import LookUps
from watchword_adapters.nats.message import delivered_msg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.msg import Msg

    from watchword import Watchword
    from watchword.signatures import CheckRunner
    from watchword.spi import Delivered, Message, Request
    from watchword_adapters.copies import Copies, Then
    from watchword_adapters.nats.message import Delivery, ObservedMsg, VerifiedMsg
    from watchword_adapters.nats.waiting import WaitingQueue

Verdict: TypeAlias = "Delivered | Rejected | Unavailable | None"
"""What judging came to; None for a status line of the server, which nobody judges."""

_ANYTHING: Final = Expected()
_ANSWERS: Final = Expected(only_replies=True)


MOST_PARKED: Final = 256
"""Messages of one reader that wait for their keys; others of unknown keys cannot be judged meanwhile."""

_CROWDED: Final = Unavailable("keys", f"{MOST_PARKED} messages wait for their keys")


class Judged(NamedTuple):
    """A message and its verdict, as of ``at`` (seconds of the event loop's clock)."""

    raw: Msg
    verdict: Verdict
    at: float


class Reader:
    """One reader of core NATS subjects: a queue group, or one subscription.

    One that reads a stream ``has_places``. ``name`` is the scope in which an id is used once. A reader that is
    ``exclusive`` remembers in this process, and its ``log`` is forgotten when it closes. ``expected`` tells what is
    waited for on a subject; ``admitted`` hears of each verified message. While its ``gate`` is held nothing is judged.
    What waits for its key comes back into the queue ``waiting`` when that is found. ConfigurationError where nothing
    could verify.
    """

    has_places = False

    def __init__(
        self,
        watchword: Watchword,
        name: str,
        *,
        exclusive: bool = True,
        expected: Callable[[str], Expected] | None = None,
        admitted: Callable[[VerifiedMessage], None] | None = None,
        copies: Copies | None = None,
    ) -> None:
        require(watchword, reads=True)
        self.watchword: Final = watchword
        self.name: Final = name
        self.exclusive: Final = exclusive
        self.gate = Gate()
        self.waiting: WaitingQueue | None = None
        self._parked: Final[dict[asyncio.Future[object], list[Msg]]] = {}
        self._look_ups: Final = LookUps(watchword.verifier.keys, self._parked, self._overtakes)
        self._in_hand: Msg | None = None
        self._copies = copies
        self._expected = expected or (lambda _: _ANYTHING)
        self._admitted = admitted
        self.resetting = False
        self._busy = 0
        self._closed = False

    @property
    def log(self) -> str:
        """The replay store's name for the run of messages that this reader reads."""
        return f"{self.name}#"

    @property
    def looks_ahead(self) -> bool:
        """Whether a message may be judged before its turn: not where a rate is spent as time goes by.

        On core NATS nobody else is given it afterwards, and nothing tells when it came but the moment of its judging.
        """
        return not self.watchword.verifier.policy.has_rates

    async def judge(self, raw: Msg) -> Msg | None:
        """Return what the handler may have of ``raw``; None when it was refused (and audited) or is a status only."""
        if block_of(raw).status is not None:
            return None
        attempts, self._in_hand = 0, raw
        self._start_work()
        try:
            while True:
                if self.gate.holds or self.has_places:
                    await self.ready_for(raw)
                message = self.message(raw)
                try:
                    with self.gate:
                        delivered = await self.watchword.admit(message, self.expect(raw), keys=self._look_ups)
                    if not (self.has_places and self.forgets(delivered)):  # an observer is given that verdict
                        return self.deliver(raw, delivered)
                except Pending as pending:
                    if self.waiting is not None:
                        return await self.park(raw, message, pending)
                    await asyncio.wait((found_of(pending),))
                    continue
                except (Rejected, Unavailable) as verdict:
                    if isinstance(verdict, Unavailable) and await self.holds(message, verdict, attempts):
                        attempts += 1
                        continue
                    if not (self.has_places and self.forgets(verdict)):
                        await self.refused(raw, message, verdict)
                        return None
                await self.begin_again(raw)
        finally:
            self._end_work()

    async def judge_many(self, raws: Sequence[Msg], check: CheckRunner) -> list[Msg]:
        """Return what the handler may have of ``raws``, in their order; each is treated as ``judge`` would.

        Behind one that is Unavailable the others are judged without the bulk until something is determined again: so
        an outage costs no more than they are many.
        """
        self._start_work()
        try:
            delivered: list[Msg | None] = []
            at, outage = 0, False
            while at < len(raws):
                if outage and not self.exclusive:  # a store that is shared sees no order anyway: they may wait together
                    delivered += await asyncio.gather(*map(self.judge, raws[at:]))
                    break
                try:
                    judged = await self.judge_first(raws[at : at + 1] if outage else raws[at:], check)
                except NotFoundError:  # nobody can judge the next one: its consumer is gone
                    if all(msg is None for msg in delivered):
                        raise
                    break  # if it is made again, they come again, for nobody acknowledged them
                delivered += [await self.conclude(one) for one in judged]
                at, outage = at + len(judged), is_undetermined(judged[-1].verdict)
            return [msg for msg in delivered if msg is not None]
        finally:
            self._end_work()

    async def judge_first(self, raws: Sequence[Msg], check: CheckRunner, *, patience: float = inf) -> list[Judged]:
        """Judge the first of ``raws``, and what can be judged in bulk with it, up to one that is Unavailable.

        Once look-ups have taken ``patience`` seconds no other key is looked for. Nothing is done about the verdicts:
        that is to be done for each in its turn, by ``conclude``.
        """
        self._in_hand = raws[0]
        await self.ready_for(raws[0])
        self._start_work()
        try:
            with self.gate:
                begun = asyncio.get_running_loop().time()
                verdicts = await self._verdicts(raws, check, begun + patience)
            return [Judged(raw, verdict, begun) for raw, verdict in zip(raws, verdicts, strict=False)]
        finally:
            self._end_work()

    async def renew(self, judged: Sequence[Judged], check: CheckRunner) -> list[Judged]:
        """Judge once more what verified too long ago, up to one that is Unavailable: what does not hold is audited."""
        verified = [one for one in judged if verified_of(one.verdict) is not None]
        messages = Deliveries(self, [one.raw for one in verified])
        verdicts = await self.watchword.verifier.reverify(messages, check=check)
        now = asyncio.get_running_loop().time()  # from behind the look-ups: a slow source must not hold all up
        renewed = iter([self._renewed(one, verdict, now) for one, verdict in zip(verified, verdicts, strict=False)])
        return [one if verified_of(one.verdict) is None else next(renewed, one) for one in judged]

    async def conclude(self, judged: Judged) -> Msg | None:
        """Return what the handler may have; do what is to be done about a message that it may not."""
        raw, verdict, _ = judged
        if isinstance(verdict, VerifiedMessage | ObservedMessage):
            return self.deliver(raw, verdict)
        if verdict is None:
            return None
        message = self.message(raw)
        if isinstance(verdict, Pending) and self.waiting is not None:
            return await self.park(raw, message, verdict)
        if isinstance(verdict, Unavailable) and self.is_last_chance(message):
            return await self.judge(raw)
        self._start_work()
        try:
            await self.refused(raw, message, verdict)
        finally:
            self._end_work()
        return None

    async def park(self, raw: Msg, message: Message, pending: Pending) -> Msg | None:
        """Let a message wait for its key, and others go on; then it comes back to the front of its queue.

        Where too many wait it cannot be judged, and is returned if it is only observed. If this was its last chance, it
        waits among them, and what comes behind it waits for room.
        """
        task, queue = found_of(pending), self.waiting
        observed = self.watchword.observes(message.channel)
        if queue is None or (self._parks(MOST_PARKED) and (observed or not self.is_last_chance(message))):
            self.watchword.audit.refused(message, _CROWDED, observed=observed)
            if observed:
                return self.deliver(raw, ObservedMessage(message, _CROWDED))
            await self.refused(raw, message, _CROWDED)
            return None
        queue.hold_back(raw)
        if task in self._parked:
            self._parked[task].append(raw)
        else:
            self._parked[task] = [raw]
            task.add_done_callback(self._unpark)
        attempts = 0
        while self._parks(MOST_PARKED + 1):
            if not await self.holds(message, _CROWDED, attempts):
                held = self._parked.get(task, [])
                self._parked[task] = [one for one in held if one is not raw]
                queue.task_done()
                self.watchword.audit.refused(message, _CROWDED, observed=False)
                await self.refused(raw, message, _CROWDED)
                break
            attempts += 1
        return None

    def _overtakes(self) -> bool:
        """Tell whether what was taken off the queue would pass something that has come back since."""
        return self.waiting is not None and self._in_hand is not None and self.waiting.has_earlier(self._in_hand)

    def _parks(self, count: int) -> bool:
        return sum(map(len, self._parked.values())) >= count

    def _unpark(self, task: asyncio.Future[object]) -> None:
        for raw in reversed(self._parked.pop(task)):
            if self.waiting is not None:
                self.waiting.come_back(raw)

    async def ready_for(self, raw: Msg) -> None:  # noqa: ARG002 - streams look at the message
        """Wait until the memory knows all that it must know before ``raw``."""
        if not self.gate.is_open:
            await self.gate.opened()

    def where(self, raw: Msg) -> Delivery | None:  # noqa: ARG002 - streams look at the message
        """Return where a stream has ``raw``; None where it was read from none."""
        return None

    def message(self, raw: Msg) -> Message:
        """Return ``raw`` as the core sees it."""
        channel, block = channel_of("nats", self.watchword.realm, raw.subject), block_of(raw)
        delivery = self.where(raw) if self.has_places else None
        reply_to = position = appended_at = delivered_by = arrival = None
        pairs, exclusive = block.pairs, self.exclusive
        if delivery is None:
            reply_to = raw.reply or None
            # A message without headers has no arrival of its own; and none that counts, for it is not signed.
            arrival = block.arrival if pairs and not exclusive else None
        else:
            delivered_by, appended_at = delivery.by, delivery.stamp / 1e9
            position = Position(delivered_by[0], delivery.sequence)
        made: Message = make_message(
            channel, raw.data, None, pairs, None, reply_to, position, appended_at, None, self.name, delivered_by,
            exclusive, None, arrival, block.fault,
        )  # fmt: skip
        return made

    def expect(self, raw: Msg) -> Expected:
        """Return what this reader waits for where ``raw`` was found."""
        return self._expected(raw.subject)

    def deliver(self, raw: Msg, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
        """Return what the handler gets."""
        verified = delivered if isinstance(delivered, VerifiedMessage) else verified_of(delivered)
        if verified is not None and self._admitted is not None:
            self._admitted(verified)
        return delivered_msg(raw, delivered)

    async def refused(
        self,
        raw: Msg,  # noqa: ARG002 - streams answer it
        message: Message,
        verdict: Rejected | Unavailable,
    ) -> None:
        """Hand a copy over, and drop the message: core NATS offers nothing again."""
        if isinstance(verdict, Rejected):
            self.offer(message, verdict)
            return
        self.watchword.verifier.remember_unjudged(message, comes_again=False)
        if not self.offer(message, verdict, self._given_up):
            await self._given_up(kept=False)

    def is_last_chance(self, message: Message) -> bool:  # noqa: ARG002 - streams look at the message
        """Return True for what can be judged again later, though nobody offers it again."""
        return False

    async def holds(self, message: Message, verdict: Unavailable, attempts: int) -> bool:  # noqa: ARG002 - as above
        """Wait, and return True, for what is to be judged again; ``attempts`` were in vain."""
        return False

    def forgets(self, verdict: Verdict) -> bool:
        """Return True for a verdict that another look at the stream may change."""
        raise NotImplementedError

    async def begin_again(self, raw: Msg) -> None:
        """Take another look at what ``raw`` was read from."""
        raise NotImplementedError

    def offer(self, message: Message, verdict: Rejected | Unavailable, then: Then | None = None) -> bool:
        """Hand over what is not delivered for quarantine, without waiting; see ``Copies.offer``."""
        return self._copies is not None and self._copies.offer(message, verdict, then)

    async def _given_up(self, kept: bool) -> None:  # noqa: FBT001 - as Copies calls it
        """Count a message that nobody could judge, by what became of its copy."""
        if kept:
            self.watchword.audit.undetermined()
        elif self._copies is not None:
            self.watchword.audit.left_out()

    def close(self) -> None:
        """Forget the ids of a reader that reads alone, once nothing is being judged: none can come back to them."""
        self._closed = self._closed or not self.resetting
        self._forget()

    def _forget(self) -> None:
        if self.exclusive and self._closed and not self._busy:
            self.watchword.verifier.forget(self.log)

    def _start_work(self) -> None:
        """Keep the memory of a reader that is closed meanwhile, until nothing is asked of it any more."""
        self._busy += 1

    def _end_work(self) -> None:
        self._busy -= 1
        self._forget()

    async def _verdicts(self, raws: Sequence[Msg], check: CheckRunner, until: float) -> Sequence[Verdict]:
        """Judge the first of ``raws``, and of what stands behind it what has its expectation, in bulk."""
        first, expect = raws[0], self.expect
        if block_of(first).status is not None:
            return [None]
        expected, now = expect(first), asyncio.get_running_loop().time
        alike = [first, *takewhile(lambda raw: block_of(raw).status is None and expect(raw) is expected, raws[1:])]
        messages = Deliveries(self, alike)
        return await self.watchword.admit_many(
            messages, expected, check=check, enough=lambda: now() >= until, keys=self._look_ups
        )

    def _renewed(self, judged: Judged, verdict: Rejected | Unavailable | None, now: float) -> Judged:
        """Account for what judging once more came to."""
        if verdict is None:
            return judged._replace(at=now)
        message = self.message(judged.raw)
        observed = isinstance(judged.verdict, ObservedMessage)
        self.watchword.audit.refused(message, verdict, observed=observed)
        return judged._replace(verdict=ObservedMessage(message, verdict) if observed else verdict)


def only_answer_to(request: Request) -> Callable[[str], Expected]:
    """Return an expectation that one request is answered, and nothing else."""
    expected = Expected(requests={request.id: request}, only_replies=True)
    return lambda _: expected


def only_answers(_: str) -> Expected:
    """Return the expectation of answers to what bore no number: observed, and never verified."""
    return _ANSWERS


def found_of(pending: Pending) -> asyncio.Future[object]:
    """Return what is done when the key has been found."""
    assert isinstance(pending.found, asyncio.Future)  # noqa: S101 - for the type checker: look-ups of ours say so
    return pending.found


def verified_of(verdict: Verdict) -> VerifiedMessage | None:
    """Return what verified; None where nothing did."""
    found = verdict.verdict if isinstance(verdict, ObservedMessage) else verdict
    return found if isinstance(found, VerifiedMessage) else None


def is_undetermined(verdict: Verdict) -> bool:
    """Return True if a message could not be judged, though its key was looked for, and is not any more."""
    found = verdict.verdict if isinstance(verdict, ObservedMessage) else verdict
    return isinstance(found, Unavailable) and not isinstance(found, Pending | Shed)
