"""The verifying subscription to a core subject of an in-memory bus."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from watchword import Mode, Rejected, Unavailable
from watchword.agent import require
from watchword.extras import told
from watchword.patterns import Patterns
from watchword.policy import ChannelRule
from watchword.spi import Channel

try:
    from watchword_adapters.testing.messages import handed_over, message_of, raw_msg
except ModuleNotFoundError as error:
    raise told(error) from None

if TYPE_CHECKING:
    from watchword import Watchword
    from watchword.spi import Message
    from watchword_adapters.nats.message import ObservedMsg, VerifiedMsg
    from watchword_adapters.testing.bus import MemoryBus


class MemorySubscription:
    """One subscription, which receives what is published while it is open; created by ``MemoryBus.subscribe``.

    ``dropped`` holds the verdicts on messages that were not delivered, in order, including those that could not be
    judged, since the bus never redelivers.
    """

    def __init__(self, bus: MemoryBus, agent: Watchword, subject: str) -> None:
        require(agent, reads=True)
        self.dropped: Final[list[Rejected | Unavailable]] = []
        self._agent = agent
        self._subject = subject
        rule = ChannelRule(Channel("nats", bus.realm, subject).uri, Mode.ENFORCE)  # rejects an invalid pattern
        self._pattern = Patterns([(rule.match, rule)])
        self._waiting: deque[Message] = deque()
        self._life = agent.lives.open(subject)
        # Every reader of this bus is newer than the bus, so it cannot have received anything before.
        agent.verifier.begin(self._life.log, floor=-inf)
        self._end = bus.listen(self._hear)

    async def take(self, most: int | None = None) -> list[VerifiedMsg | ObservedMsg]:
        """Return at most ``most`` of the received messages that can be handed over."""
        taken: list[VerifiedMsg | ObservedMsg] = []
        while self._waiting and (most is None or len(taken) < most):
            found = self._waiting.popleft()
            raw = raw_msg(found, self._agent)
            message = message_of(found, raw, self._life.name)
            try:
                delivered = await self._agent.admit(message)
            except (Rejected, Unavailable) as verdict:
                if isinstance(verdict, Unavailable):
                    self._agent.verifier.remember_unjudged(message)
                self.dropped.append(verdict)
            else:
                taken.append(handed_over(raw, delivered))
        return taken

    def restart(self) -> None:
        """Restart as a new process without a journal: pending messages are lost, and those issued by now are stale.

        Since clocks differ, this includes messages issued within the policy's ``max_skew`` from now.
        """
        self._waiting.clear()
        self._agent.verifier.begin(self._life.log, floor=self._agent.lives.floor_now())

    def close(self) -> None:
        """Close the subscription."""
        self._end()
        self._agent.lives.close(self._life, self._subject)

    def _hear(self, message: Message) -> None:
        if any(self._pattern.covering(message.channel.uri)):
            self._waiting.append(message)
