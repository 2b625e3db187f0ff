"""The verifying consumer of one partition of an in-memory bus."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from watchword import Rejected, Unavailable
from watchword.agent import require
from watchword.errors import Forgotten
from watchword.extras import told
from watchword.message import verdict_of
from watchword.spi import Expected, ReaderBirth, SharedReplayStore

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
    """The only reader of a partition; created by ``MemoryBus.consumer``.

    ``position`` is the offset of the next record, ``committed`` where it continues after a restart. ``dropped`` holds
    the verdicts on rejected records, in order.
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
        """Return at most ``most`` of the next records that can be handed over.

        Unavailable if the first of them cannot be judged; the next call retries. DeserializationError if one cannot be
        deserialized; the next call continues after it.
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
        """Commit everything handed over: a restart continues after it."""
        self.committed = self.position

    def redeliver(self) -> None:
        """Return to the committed position, as after a failed handler: later records are delivered again."""
        self.position = self.committed

    def restart(self) -> None:
        """Restart as a new process, which knows only the log, and continues at the committed position."""
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
                if not isinstance(verdict_of(delivered), Forgotten):
                    return delivered
            except Forgotten:
                pass
            self._remembers = False

    async def _remember(self) -> None:
        """Rebuild the memory of ids that may have been handed over below the position."""
        verifier, store = self._agent.verifier, self._agent.verifier.replay
        if self._exclusive:
            *below, coming = [self._message(raw_record(record)) for record in self._records[: self.position + 1]]
            anchor = coming.appended_at or 0.0
            verifier.begin(self._log, floor=verifier.policy.floor_at(anchor))
            for message in below:
                if (message.appended_at or 0.0) >= anchor - verifier.policy.window:
                    await verifier.recall(message)
        elif isinstance(store, SharedReplayStore) and await store.birth(self._reader) is None:
            # Every reader of this bus is newer than the bus, so it cannot have read before.
            await store.admit_reader(self._reader, ReaderBirth(floor=-inf))
        self._remembers, self._judged = True, self.position

    def _message(self, raw: ConsumerRecord[Any, Any]) -> Message:
        return message_of(raw, self._agent.realm, self._reader, exclusive=self._exclusive)
