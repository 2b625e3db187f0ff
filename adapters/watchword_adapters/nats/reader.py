"""Judges the messages of one NATS subscription or queue group before any of them reaches a handler."""

from __future__ import annotations

import asyncio
from itertools import takewhile
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from nats.js.errors import NotFoundError

from watchword import Rejected, Unavailable, VerifiedMessage
from watchword.agent import require
from watchword.errors import Pending, Shed
from watchword.message import channel_of, make_message, verdict_of
from watchword.spi import Expected, ObservedMessage, Position
from watchword_adapters.nats.deliveries import Deliveries
from watchword_adapters.nats.gate import Gate
from watchword_adapters.nats.headers import block_of
from watchword_adapters.nats.look_ups import LookUp, LookUps
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
"""The verdict on a message; None for a status line of the server, which is not judged."""

_ANYTHING: Final = Expected()
_ANSWERS: Final = Expected(only_replies=True)


MOST_PARKED: Final = 256
"""Most messages of one reader that wait for keys; beyond that, messages of unknown keys are Unavailable."""

_CROWDED: Final = Unavailable("keys", f"{MOST_PARKED} messages wait for their keys")


class Judged(NamedTuple):
    """A message and its verdict, as of ``at`` (seconds of the event loop's clock)."""

    raw: Msg
    verdict: Verdict
    at: float


class Reader:
    """One reader of core NATS subjects: a queue group or one subscription.

    ``name`` is the scope in which an id is accepted once. A reader that is ``exclusive`` keeps its memory in this
    process, and its ``log`` is forgotten when it closes. ``expected`` returns what a subject may deliver; ``admitted``
    is called with each verified message. Nothing is judged while the ``gate`` is held. A message that waits for its key
    returns to the queue ``waiting`` once the key is found. Readers of streams set ``has_places``. ConfigurationError if
    the agent cannot verify.
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
        self._look_ups: Final = LookUps(watchword.verifier.keys, self._overtakes, self._come_back)
        self._in_hand: Msg | None = None
        self._copies = copies
        self._expected = expected or (lambda _: _ANYTHING)
        self._admitted = admitted
        self.resetting = False
        self._busy = 0
        self._closed = False

    @property
    def log(self) -> str:
        """The name of this reader's log in the replay store."""
        return f"{self.name}#"

    @property
    def looks_ahead(self) -> bool:
        """True if messages may be judged before they are requested; not with rate limits, which depend on the time.

        On core NATS no other reader receives them afterwards, and the time of judging is the only time of arrival.
        """
        return not self.watchword.verifier.policy.has_rates

    async def judge(self, raw: Msg) -> Msg | None:
        """Return the message for the handler; None if it was refused (and audited) or is only a status."""
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
                    if not (self.has_places and self.forgets(delivered)):  # observe mode would deliver that verdict
                        return self.deliver(raw, delivered)
                except Pending as pending:
                    if self.waiting is not None:
                        return await self.park(raw, message, pending)
                    await asyncio.wait((look_up_of(pending).task,))
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
        """Return the messages for the handler, in order; each is treated as ``judge`` would treat it.

        After an Unavailable message, the others are judged one by one until one is determined, so that an outage costs
        no more than their number.
        """
        self._start_work()
        try:
            delivered: list[Msg | None] = []
            at, outage = 0, False
            while at < len(raws):
                if outage and not self.exclusive:  # a shared store has no order to keep: wait concurrently
                    delivered += await asyncio.gather(*map(self.judge, raws[at:]))
                    break
                try:
                    judged = await self.judge_first(raws[at : at + 1] if outage else raws[at:], check)
                except NotFoundError:  # the next one cannot be judged: its consumer is gone
                    if all(msg is None for msg in delivered):
                        raise
                    break  # if it is recreated, they are redelivered, since they were not acknowledged
                delivered += [await self.conclude(one) for one in judged]
                at, outage = at + len(judged), is_undetermined(judged[-1].verdict)
            return [msg for msg in delivered if msg is not None]
        finally:
            self._end_work()

    async def judge_first(self, raws: Sequence[Msg], check: CheckRunner, *, patience: float = inf) -> list[Judged]:
        """Judge the first of ``raws``, and in bulk those after it, up to one that is Unavailable.

        After ``patience`` seconds of look-ups, no further key is looked up. The verdicts are not acted on: call
        ``conclude`` for each, in order.
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
        """Reverify messages whose verdict is too old, up to one that is Unavailable; failures are audited."""
        verified = [one for one in judged if verified_of(one.verdict) is not None]
        messages = Deliveries(self, [one.raw for one in verified])
        verdicts = await self.watchword.verifier.reverify(messages, check=check)
        now = asyncio.get_running_loop().time()  # after the look-ups, or a slow source would make every verdict too old
        renewed = iter([self._renewed(one, verdict, now) for one, verdict in zip(verified, verdicts, strict=False)])
        return [one if verified_of(one.verdict) is None else next(renewed, one) for one in judged]

    async def conclude(self, judged: Judged) -> Msg | None:
        """Return the message for the handler, or act on its rejection and return None."""
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
        """Set a message aside until its key is found, and let others pass; then return it to the front of its queue.

        If too many wait, a message whose key the source has, or had, is waited for. Any other is Unavailable; in
        observe mode it is delivered as such. On its last chance it still waits, and later messages wait until there is
        space.
        """
        look_up, queue, look_ups = look_up_of(pending), self.waiting, self._look_ups
        observed, is_crowded = self.watchword.observes(message.channel), look_ups.parked >= MOST_PARKED
        is_known = is_crowded and look_ups.knows(look_up)
        if queue is None or (is_crowded and not is_known and (observed or not self.is_last_chance(message))):
            self.watchword.audit.refused(message, _CROWDED, observed=observed)
            if observed:
                return self.deliver(raw, ObservedMessage(message, _CROWDED))
            await self.refused(raw, message, _CROWDED)
            return None
        queue.hold_back(raw)
        look_up = look_ups.park(look_up, raw)
        if is_known:
            await asyncio.wait((look_up.task,))
            return None
        attempts = 0
        while look_ups.parked > MOST_PARKED:
            if not await self.holds(message, _CROWDED, attempts):
                look_ups.give_up(look_up, raw)
                queue.task_done()
                self.watchword.audit.refused(message, _CROWDED, observed=False)
                await self.refused(raw, message, _CROWDED)
                break
            attempts += 1
        return None

    def _overtakes(self) -> bool:
        """Return True if the message being judged would overtake one that has returned to the queue since."""
        return self.waiting is not None and self._in_hand is not None and self.waiting.has_earlier(self._in_hand)

    def _come_back(self, raw: Msg) -> None:
        if self.waiting is not None:
            self.waiting.come_back(raw)

    async def ready_for(self, raw: Msg) -> None:  # noqa: ARG002 - streams look at the message
        """Wait until the memory is complete up to ``raw``."""
        if not self.gate.is_open:
            await self.gate.opened()

    def where(self, raw: Msg) -> Delivery | None:  # noqa: ARG002 - streams look at the message
        """Return the position of ``raw`` in a stream; None if it came from none."""
        return None

    def message(self, raw: Msg) -> Message:
        """Return ``raw`` as a Message of the core."""
        channel, block = channel_of("nats", self.watchword.realm, raw.subject), block_of(raw)
        delivery = self.where(raw) if self.has_places else None
        reply_to = position = appended_at = delivered_by = arrival = None
        pairs, exclusive = block.pairs, self.exclusive
        if delivery is None:
            reply_to = raw.reply or None
            # Without headers a message is unsigned, so its arrival does not matter.
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
        """Return what this reader expects on the subject of ``raw``."""
        return self._expected(raw.subject)

    def deliver(self, raw: Msg, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
        """Return the message for the handler, after reporting it to ``admitted`` if verified."""
        verified = delivered if isinstance(delivered, VerifiedMessage) else verified_of(delivered)
        if verified is not None and self._admitted is not None:
            self._admitted(verified)
        return delivered_msg(raw, delivered)

    async def refused(
        self,
        raw: Msg,  # noqa: ARG002 - streams acknowledge it
        message: Message,
        verdict: Rejected | Unavailable,
    ) -> None:
        """Offer a copy to the quarantine and drop the message: core NATS does not redeliver."""
        if isinstance(verdict, Rejected):
            self.offer(message, verdict)
            return
        self.watchword.verifier.remember_unjudged(message, comes_again=False)
        if not self.offer(message, verdict, self._given_up):
            await self._given_up(kept=False)

    def is_last_chance(self, message: Message) -> bool:  # noqa: ARG002 - streams look at the message
        """Return True if a message is not redelivered, but can be judged again later."""
        return False

    async def holds(self, message: Message, verdict: Unavailable, attempts: int) -> bool:  # noqa: ARG002 - as above
        """Wait and return True if the message is to be judged again, after ``attempts`` failures."""
        return False

    def forgets(self, verdict: Verdict) -> bool:
        """Return True if rereading the stream may change a verdict."""
        raise NotImplementedError

    async def begin_again(self, raw: Msg) -> None:
        """Reread the stream that ``raw`` came from."""
        raise NotImplementedError

    def offer(self, message: Message, verdict: Rejected | Unavailable, then: Then | None = None) -> bool:
        """Offer an undelivered message to the quarantine without waiting; see ``Copies.offer``."""
        return self._copies is not None and self._copies.offer(message, verdict, then)

    async def _given_up(self, kept: bool) -> None:  # noqa: FBT001 - as Copies calls it
        """Count a message that could not be judged, by whether its copy was stored."""
        if kept:
            self.watchword.audit.undetermined()
        elif self._copies is not None:
            self.watchword.audit.left_out()

    def close(self) -> None:
        """Forget an exclusive reader's ids once no message is being judged: no copy can reach it any more."""
        self._closed = self._closed or not self.resetting
        self.watchword.audit.flush()
        self._forget()

    def _forget(self) -> None:
        if self.exclusive and self._closed and not self._busy:
            self.watchword.verifier.forget(self.log)

    def _start_work(self) -> None:
        """Keep the memory in use, even if the reader is closed, until ``_end_work``."""
        self._busy += 1

    def _end_work(self) -> None:
        self._busy -= 1
        self._forget()

    async def _verdicts(self, raws: Sequence[Msg], check: CheckRunner, until: float) -> Sequence[Verdict]:
        """Judge in bulk the first of ``raws`` and those directly after it with the same expectation."""
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
        """Return the outcome of reverifying a message, audited if it failed."""
        if verdict is None:
            return judged._replace(at=now)
        message = self.message(judged.raw)
        observed = isinstance(judged.verdict, ObservedMessage)
        self.watchword.audit.refused(message, verdict, observed=observed)
        return judged._replace(verdict=ObservedMessage(message, verdict) if observed else verdict)


def only_answer_to(request: Request) -> Callable[[str], Expected]:
    """Return an expectation of answers to one request, and nothing else."""
    expected = Expected(requests={request.id: request}, only_replies=True)
    return lambda _: expected


def only_answers(_: str) -> Expected:
    """Return the expectation of answers to an unsigned request: observed, but never verified."""
    return _ANSWERS


def look_up_of(pending: Pending) -> LookUp:
    """Return the look-up that a message waits for."""
    assert isinstance(pending.found, LookUp)  # noqa: S101 - for the type checker: ours raises it
    return pending.found


def verified_of(verdict: Verdict) -> VerifiedMessage | None:
    """Return the verified message of a verdict; None if there is none."""
    found = None if verdict is None else verdict_of(verdict)
    return found if isinstance(found, VerifiedMessage) else None


def is_undetermined(verdict: Verdict) -> bool:
    """Return True if a message could not be judged and the look-up of its key is over."""
    found = None if verdict is None else verdict_of(verdict)
    return isinstance(found, Unavailable) and not isinstance(found, Pending | Shed)
