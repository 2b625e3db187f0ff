"""Reads one partition of a bus in memory, and verifies."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from watchword import Rejected, Unavailable
from watchword.agent import require
from watchword.extras import told
from watchword.replay_check import PASSED
from watchword.spi import Expected, ObservedMessage, ReaderBirth, SharedReplayStore

try:
    from watchword_adapters.testing.records import handed_over, message_of, raw_record
except ModuleNotFoundError as error:
    raise told(error) from None

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from watchword import Watchword
    from watchword.spi import Delivered, Message
    from watchword_adapters.kafka.records import Deserializer, ObservedRecord, VerifiedRecord
    from watchword_adapters.testing.bus import MemoryBus


class MemoryConsumer:
    """The one reader of a partition; made by ``MemoryBus.consumer``.

    ``position`` is the offset of the next record, ``committed`` where it goes on after a restart. ``dropped`` holds the
    verdicts on what was not handed over, in order.
    """

    def __init__(
        self,
        bus: MemoryBus,
        agent: Watchword,
        topic: str,
        *,
        partition: int,
        group: str,
        from_end: bool,
        key_deserializer: Deserializer | None,
        value_deserializer: Deserializer | None,
    ) -> None:
        require(agent, reads=True)
        self.dropped: Final[list[Rejected]] = []
        self._agent = agent
        self._records = bus.log(topic, partition)
        self.position = self.committed = len(self._records) if from_end else 0
        self._reader = f"kafka:{group}"
        self._log = f"{self._reader}#{topic}/{partition}"
        self._deserializers = (key_deserializer, value_deserializer)
        self._exclusive = not agent.verifier.shared_replay
        self._remembers = False
        self._judged = 0

    async def take(self, most: int | None = None) -> list[VerifiedRecord | ObservedRecord]:
        """Return what can be handed over of the next records, ``most`` of them at most.

        Unavailable where the first of them cannot be judged; the next call tries again. DeserializationError where
        there is one; the next call goes on behind that record.
        """
        taken: list[VerifiedRecord | ObservedRecord] = []
        while self.position < len(self._records) and (most is None or len(taken) < most):
            raw = raw_record(self._records[self.position])
            try:
                delivered = await self._judge(raw)
            except Unavailable:
                if taken:
                    break
                raise
            except Rejected as verdict:
                self.dropped.append(verdict)
                self._go_on()
            else:
                self._go_on()
                taken.append(handed_over(raw, delivered, *self._deserializers))
        return taken

    def commit(self) -> None:
        """Say that whatever was handed over is done with: a restart goes on behind it."""
        self.committed = self.position

    def redeliver(self) -> None:
        """Go back to what was committed, as after a handler that failed: what came since comes again."""
        self.position = self.committed

    def restart(self) -> None:
        """Be a new process, which knows nothing but what the log tells it, and goes on at what was committed."""
        self.position = self.committed
        self._remembers = False

    def _go_on(self) -> None:
        self.position += 1
        self._judged = max(self._judged, self.position)

    async def _judge(self, raw: ConsumerRecord[Any, Any]) -> Delivered:
        while True:
            if not self._remembers:
                await self._remember()
            expected = Expected(was_passed=self._exclusive and self.position < self._judged)
            try:
                delivered = await self._agent.admit(self._message(raw), expected)
            except Unavailable as verdict:
                if verdict.detail != PASSED:
                    raise
            else:
                observed = delivered.verdict if isinstance(delivered, ObservedMessage) else None
                if not isinstance(observed, Unavailable) or observed.detail != PASSED:
                    return delivered
            self._remembers = False  # log time has passed what comes again, so nothing is known of it any more

    async def _remember(self) -> None:
        """Learn which ids may have been handed over below the position, where a record stands."""
        verifier, store = self._agent.verifier, self._agent.verifier.replay
        if self._exclusive:
            *below, coming = [self._message(raw_record(record)) for record in self._records[: self.position + 1]]
            anchor = coming.appended_at or 0.0
            verifier.begin(self._log, floor=verifier.policy.floor_at(anchor))
            for message in below:
                if (message.appended_at or 0.0) >= anchor - verifier.policy.window:
                    await verifier.recall(message)
        elif isinstance(store, SharedReplayStore) and await store.birth(self._reader) is None:
            # Whoever reads this bus was made after it, so nobody has read before the store knew of it.
            await store.admit_reader(self._reader, ReaderBirth(floor=-inf))
        self._remembers, self._judged = True, self.position

    def _message(self, raw: ConsumerRecord[Any, Any]) -> Message:
        return message_of(raw, self._agent.realm, self._reader, exclusive=self._exclusive)
