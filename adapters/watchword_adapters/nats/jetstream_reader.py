"""Judges what one JetStream consumer delivers: by position, held against the consumer that was bound."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from json import dumps
from typing import TYPE_CHECKING, Final

from nats.errors import Error

from watchword import Expected, Position, Reason, Rejected, Unavailable, VerifiedMessage
from watchword.audit import UNDETERMINED
from watchword.message import maker_of
from watchword.outage import Outage
from watchword_adapters.nats.message import Delivery
from watchword_adapters.nats.reader import Reader

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from watchword import Delivered, Message, Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.nats.message import ObservedMsg, VerifiedMsg

FIRST_DELAY: Final = 0.5
"""Seconds until a message that could not be judged comes again; doubled with each attempt, up to LAST_DELAY."""

LAST_DELAY: Final = 30.0

_BOUND: Final = 8

_make_position = maker_of(Position)


class StreamReader(Reader):
    """One consumer of one stream; ``name`` stays the same when an ordered consumer is made anew.

    ``acknowledged`` says that the server waits for an ack of each message: then a rejected one is terminated with its
    reason, and one that could not be judged is asked for again later.
    """

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
        quarantine: Quarantine | None,
    ) -> None:
        super().__init__(watchword, name, exclusive=exclusive, quarantine=quarantine)
        self.acknowledged: Final = acknowledged
        self.stream: Final = stream
        self._client = client
        self._outage = Outage(watchword.verifier.policy.max_hold)
        self._bound: dict[tuple[str, str] | None, Expected] = {}
        self.rebind(consumer)

    def rebind(self, consumer: str) -> None:
        """Expect deliveries of another consumer from now on; what its predecessors sent may still be read."""
        by = (self.stream, consumer)
        self._expectation = self._bound[by] = Expected(consumer=by)
        if len(self._bound) > _BOUND:
            del self._bound[next(iter(self._bound))]

    @property
    def log(self) -> str:
        """See Reader."""
        return f"{self.name}#{self.stream}"

    @property
    def looks_ahead(self) -> bool:
        """See Reader; what the memory has seen, and comes again because its turn did not, would pass for delivered."""
        return False

    def message(self, raw: Msg) -> Message:
        """See Reader; the position and the time of storing come from the ack subject."""
        delivery = Delivery.parse(raw.reply)
        if delivery is None:
            return super().message(raw)
        by = delivery.by
        return self._message(raw, None, _make_position(by[0], delivery.sequence), delivery.stamp / 1e9, by)

    def expect(self, raw: Msg, message: Message) -> Expected:  # noqa: ARG002 - the base's own signature
        """See Reader; only a consumer that was bound may deliver."""
        return self._bound.get(message.delivered_by, self._expectation)

    def deliver(self, raw: Msg, message: Message, delivered: Delivered) -> VerifiedMsg | ObservedMsg:
        """See Reader; what nobody acknowledges is settled at once."""
        verdict = delivered if isinstance(delivered, VerifiedMessage) else delivered.verdict
        if not self.acknowledged and isinstance(verdict, VerifiedMessage):
            self.watchword.verifier.acknowledge(message, verdict)
        return super().deliver(raw, message, delivered)

    async def refused(self, raw: Msg, message: Message, verdict: Rejected | Unavailable) -> None:
        """Keep a copy, then terminate, or ask again; never towards a consumer that is not ours.

        First the copy: on a WorkQueue stream terminating deletes. What cannot be kept is asked for again,
        unless it came too fast.
        """
        delivery = Delivery.parse(raw.reply)
        ours = delivery is not None and message.delivered_by in self._bound
        final = isinstance(verdict, Rejected)
        if not final:
            self.watchword.verifier.remember_unjudged(message)
        if final or not self._outage.holds(asyncio.get_running_loop().time()):
            try:
                kept = await self.keep(message, verdict)
            except Unavailable:  # what came too fast would be let in when it comes again: it is known then
                final = isinstance(verdict, Rejected) and verdict.reason is Reason.RATE_LIMITED
            else:
                if kept and not final:
                    self.watchword.audit.passed_over()
                final = final or kept
        if delivery is None or not ours or not self.acknowledged:
            return
        if final:
            answer = f"+TERM {verdict.reason if isinstance(verdict, Rejected) else UNDETERMINED}"
        else:
            delay = min(LAST_DELAY, FIRST_DELAY * 2 ** min(delivery.attempt - 1, 10))
            answer = f"-NAK {dumps({'delay': int(delay * 1e9)})}"
        with suppress(Error):  # not connected: the server offers it again, and it is judged again
            await self._client.publish(raw.reply, answer.encode())
