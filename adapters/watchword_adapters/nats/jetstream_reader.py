"""Judges the deliveries of one JetStream consumer by their stream position, and acknowledges rejected ones."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from json import dumps
from math import inf
from typing import TYPE_CHECKING, Final

from nats.errors import Error

from watchword import Rejected, Unavailable, VerifiedMessage, endings
from watchword.audit import UNDETERMINED
from watchword.endings import Outage
from watchword.errors import Forgotten
from watchword.message import verdict_of
from watchword.spi import Expected
from watchword_adapters.nats._seam import listened_at
from watchword_adapters.nats.gate import Gate
from watchword_adapters.nats.message import delivery_at, sequence_of
from watchword_adapters.nats.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from watchword import Watchword
    from watchword.errors import Pending
    from watchword.signatures import CheckRunner
    from watchword.spi import Delivered, Message
    from watchword_adapters.copies import Copies
    from watchword_adapters.nats.jetstream_rebuild import StreamMemory
    from watchword_adapters.nats.message import Delivery, ObservedMsg, VerifiedMsg
    from watchword_adapters.nats.reader import Judged, Verdict

FIRST_DELAY: Final = 0.5
"""Seconds until a message that could not be judged is redelivered; doubled per attempt, up to LAST_DELAY."""

LAST_DELAY: Final = 30.0

MAX_ACK_PENDING: Final = 1000
"""The server's default limit of unacknowledged messages of a consumer."""

_SHARE: Final = 4
"""Rejected messages waiting for their copies use at most 1/_SHARE of that limit."""

_BOUND: Final = 8

_NOBODY: Final = Expected(consumer=("", ""))
"""Matches no consumer: the message came from elsewhere."""


class StreamReader(Reader):
    """One consumer of one stream; ``name`` stays the same when an ordered consumer is recreated.

    ``acknowledged`` says that the server waits for an ack of each message: then a rejected one is terminated with its
    reason, and one that could not be judged is redelivered later, each at most ``most_deliveries`` times (0: no limit).
    The memory of one that ``is_lasting``, a durable, outlives its subscriptions. ``deletes`` says that terminating may
    delete the message; ``max_ack_pending`` is how many may be unacknowledged before the server stops sending, -1 for
    any number.
    """

    has_places = True

    def __init__(
        self,
        watchword: Watchword,
        client: Client,
        name: str,
        *,
        stream: str,
        consumer: str,
        acknowledged: bool,
        exclusive: bool,
        most_deliveries: int = 0,
        is_lasting: bool = False,
        copies: Copies | None,
        deletes: bool = True,
        max_ack_pending: int = MAX_ACK_PENDING,
    ) -> None:
        super().__init__(watchword, name, exclusive=exclusive, copies=copies)
        self.acknowledged: Final = acknowledged
        self.stream: Final = stream
        self.memory: StreamMemory | None = None
        self.life: Final = watchword.lives.open_stream(stream, consumer) if exclusive else None
        if self.life is not None:
            self.gate = self.life.gate = self.life.gate or Gate()
        self._most_deliveries = most_deliveries
        self._is_lasting = is_lasting
        self._client = client
        self._deletes = deletes
        self._room = max_ack_pending // _SHARE if max_ack_pending > 0 else MAX_ACK_PENDING
        self._held = 0
        self._outage = Outage(watchword.verifier.policy.max_hold)
        self._bound: dict[tuple[str, str] | None, Expected] = {}
        self._passed: dict[tuple[str, str] | None, Expected] = {}
        self.rebind(consumer)

    def rebind(self, consumer: str) -> None:
        """Expect deliveries of another consumer from now on; those of its predecessors are still accepted."""
        by, self.consumer = (self.stream, consumer), consumer
        self._expectation = self._bound[by] = Expected(consumer=by)
        self._passed[by] = Expected(consumer=by, was_passed=True)
        if len(self._bound) > _BOUND:
            oldest = next(iter(self._bound))
            del self._bound[oldest], self._passed[oldest]

    @property
    def log(self) -> str:
        """See Reader."""
        return f"{self.name}#{self.stream}"

    @property
    def looks_ahead(self) -> bool:
        """See Reader; a message judged ahead and redelivered before its turn would be taken for a replay."""
        return False

    def where(self, raw: Msg) -> Delivery | None:
        """See Reader; the position is in the ack subject."""
        return delivery_at(raw.reply)

    def expect(self, raw: Msg) -> Expected:
        """See Reader; only a bound consumer may deliver."""
        delivery, life = delivery_at(raw.reply), self.life
        by = None if delivery is None else delivery.by
        if life is not None:
            if not life.reads(raw.subject):
                return _NOBODY
            if delivery is not None and life.was_passed(delivery.sequence):
                return self._passed.get(by, self._expectation)
        return self._bound.get(by, self._expectation)

    def forgets(self, verdict: Verdict) -> bool:
        """See Reader; True if the log's time has passed the memory."""
        return verdict is not None and isinstance(verdict_of(verdict), Forgotten)

    async def begin_again(self, raw: Msg) -> None:
        """See Reader; afterwards ``raw`` counts as known in any case. NotFoundError if the consumer is gone."""
        assert self.memory is not None  # noqa: S101 - for the type checker: only a memory forgets
        assert self.life is not None  # noqa: S101 - as above
        self.watchword.audit.note("replay.set_back", log=self.log, position=sequence_of(raw))
        await self.memory.begin_again(sequence_of(raw))
        self.life.recalled([sequence_of(raw)])

    async def ready_for(self, raw: Msg) -> None:
        """See Reader; first reads missed messages before ``raw``, and those of a subject new to the consumer."""
        await super().ready_for(raw)
        delivery = delivery_at(raw.reply)
        if (
            self.memory is not None
            and self.life is not None
            and delivery is not None
            and not self.life.reads(raw.subject)
            and raw.subject != listened_at(raw)  # published there directly, not by the stream
        ):
            await self.memory.widen(raw.subject, delivery.sequence, delivery.number)
            await super().ready_for(raw)
        while (
            self.memory is not None
            and self.life is not None
            and delivery is not None
            and self.life.is_behind(delivery.sequence, delivery.number)
        ):
            await self.memory.catch_up(delivery.sequence, delivery.number, delivery.stamp / 1e9)
            await super().ready_for(raw)

    async def judge_first(self, raws: Sequence[Msg], check: CheckRunner, *, patience: float = inf) -> list[Judged]:
        """See Reader."""
        if self.life is not None:
            raws = raws[: self.life.together(map(_place_of, raws))]
            if not self.life.reads(raws[0].subject):
                raws = raws[:1]  # a message that may widen the memory is judged alone
        while True:
            judged = await super().judge_first(raws, check, patience=patience)
            if not self.forgets(judged[-1].verdict):
                return judged
            if len(judged) > 1:
                return judged[:-1]
            await self.begin_again(raws[0])

    async def park(self, raw: Msg, message: Message, pending: Pending) -> None:
        """See Reader; nothing is missed meanwhile: copies have the same key, and wait after it."""
        delivery = delivery_at(raw.reply)
        if delivery is not None and self.life is not None:
            self.life.judged(delivery.sequence, delivery.number, undetermined=True)
        await super().park(raw, message, pending)

    def deliver(self, raw: Msg, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
        """See Reader; a delivery that is not repeated counts as acknowledged at once."""
        verdict = verdict_of(delivered)
        delivery, life = delivery_at(raw.reply), self.life
        if delivery is not None and life is not None:
            life.judged(delivery.sequence, delivery.number, undetermined=isinstance(verdict, Unavailable))
            if not self._comes_again(delivery) and isinstance(verdict, VerifiedMessage):
                self.watchword.lives.settle(life, delivery.sequence)
        return super().deliver(raw, delivered)

    def close(self) -> None:
        """See Reader."""
        if self.life is not None and not self._closed and not self.resetting:
            self.watchword.lives.close_stream(self.life, for_good=not self._is_lasting)
        super().close()

    def _comes_again(self, delivery: Delivery) -> bool:
        """Return True if a delivery is repeated until it is acknowledged."""
        return self.acknowledged and not 0 < self._most_deliveries <= delivery.attempt

    def is_last_chance(self, message: Message) -> bool:
        """See Reader: a consumer without acknowledgements delivers once, but in stream order."""
        return not self.acknowledged and message.delivered_by in self._bound and not self._closed

    async def holds(self, message: Message, verdict: Unavailable, attempts: int) -> bool:
        """See Reader; a message that could not be judged for too long is dropped only once its copy is stored."""
        if not self.is_last_chance(message) or isinstance(verdict, Forgotten):
            return False
        is_over = not self._outage.holds(asyncio.get_running_loop().time())
        if is_over and self._copies is not None and await self._copies.ask(message, verdict):
            self.watchword.audit.undetermined()
            return False
        await asyncio.sleep(endings.delay_after(attempts))
        return not self._closed

    def _forget(self) -> None:
        """Keep the memory for the next subscription to this consumer; see ``Lives``."""

    async def refused(self, raw: Msg, message: Message, verdict: Rejected | Unavailable) -> None:
        """Terminate or redeliver, and offer a copy; never answers a consumer that is not ours.

        A rejected message is terminated at once. If that deletes it, its copy is written first, but it is terminated
        even if the copy fails. A message that could not be judged for too long is terminated only once its copy is
        stored.
        """
        delivery = delivery_at(raw.reply) if message.delivered_by in self._bound else None
        if delivery is not None and self.life is not None:
            self.life.judged(delivery.sequence, delivery.number, undetermined=isinstance(verdict, Unavailable))
        if isinstance(verdict, Rejected):
            self._let_age(message, verdict)
            await self._rejected(raw, message, verdict)
            return
        if delivery is None or not self._comes_again(delivery):
            self._let_age(message, verdict)
            if not self.acknowledged:  # it was held until a copy was stored or the reader closed
                return
        else:
            self.watchword.verifier.remember_unjudged(message)
        if self._outage.holds(asyncio.get_running_loop().time()):
            await self._ask_again(raw, message)
            return

        async def then(kept: bool) -> None:  # noqa: FBT001 - as Copies calls it
            if kept:
                self.watchword.audit.undetermined()
                self._let_age(message, verdict)
                await self._end(raw, message, f"+TERM {UNDETERMINED}")
            else:
                await self._ask_again(raw, message)

        if not self.offer(message, verdict, then):
            await then(kept=False)

    async def _rejected(self, raw: Msg, message: Message, verdict: Rejected) -> None:
        answer = f"+TERM {verdict.reason}"

        async def then(_: bool) -> None:  # noqa: FBT001 - as Copies calls it
            self._held -= 1
            await self._end(raw, message, answer)

        if self._deletes and self._held < self._room:
            self._held += 1
            if not self.offer(message, verdict, then):
                await then(_=False)
        else:
            self.offer(message, verdict)
            await self._end(raw, message, answer)

    async def _ask_again(self, raw: Msg, message: Message) -> None:
        delivery = delivery_at(raw.reply)
        attempt = 1 if delivery is None else delivery.attempt
        delay = endings.delay_after(attempt - 1, FIRST_DELAY, LAST_DELAY)
        await self._end(raw, message, f"-NAK {dumps({'delay': int(delay * 1e9)})}")

    async def _end(self, raw: Msg, message: Message, answer: str) -> None:
        """Acknowledge a delivery of ours, if the server waits for that."""
        if self.acknowledged and message.delivered_by in self._bound:
            with suppress(Error):  # not connected: the server redelivers it, and it is judged again
                await self._client.publish(raw.reply, answer.encode())

    def _let_age(self, message: Message, verdict: Rejected | Unavailable) -> None:
        """Let the id of a message expire that is not redelivered."""
        if isinstance(verdict, Unavailable):
            self.watchword.verifier.remember_unjudged(message, comes_again=False)
        if self.life is not None and message.position is not None:
            self.life.acknowledged(message.position.offset)


def _place_of(raw: Msg) -> tuple[int, int]:
    """Return a delivery's sequence and number; (0, 0), which has no effect, for any other message."""
    delivery = delivery_at(raw.reply)
    return (0, 0) if delivery is None else (delivery.sequence, delivery.number)
