"""The consumer that verifies: aiokafka's, of which every way in is covered."""

from __future__ import annotations

import asyncio
import contextlib
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import ConsumerStoppedError, KafkaError, RecordTooLargeError
from aiokafka.structs import TopicPartition
from aiokafka.util import commit_structure_validate

from watchword import ConfigurationError, Unavailable
from watchword_adapters.kafka.intake import Intake
from watchword_adapters.kafka.quarantine import KafkaQuarantine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

    from aiokafka.structs import OffsetAndMetadata

    from watchword import Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.kafka.records import Record


class VerifyingConsumer(AIOKafkaConsumer):
    """An ``AIOKafkaConsumer`` that hands on verified records only.

    The constructor is aiokafka's plus ``watchword``. Records come as ``VerifiedRecord``, deserialized after they
    verified; in observe mode as ``ObservedRecord``. What does not verify is counted, logged and passed over.

    - ``Unavailable`` (a key source or replay store is down) is raised by ``getone`` and ``getmany`` when nothing else
      can be returned; ``position`` stays at the record, nothing is lost, and the next call tries again, after a delay
      that grows to 5 s. ``async for`` tries again by itself.
    - ``DeserializationError`` is raised for a verified record on which a deserializer failed; the position is past it.
    - ``enable_auto_commit`` commits what was handed over before the latest call of ``getone`` or ``getmany``, never a
      record that the caller may still be working on; so does a rebalance, and ``stop()``. Leaving ``async with``
      without an error says that all is handled. Tasks that share a consumer commit by hand instead.
    - ``commit()`` commits all that was handed over or rejected; ``commit(offsets)`` refuses to go beyond it.
    - ``quarantine`` gets copies of what is not delivered; without one, the topic that ``[quarantine]`` names, if any.
    """

    def __init__(
        self, *topics: str, watchword: Watchword, quarantine: Quarantine | None = None, **options: Any
    ) -> None:
        super().__init__(*topics, **options)
        self._adopt(watchword, quarantine)

    def _adopt(self, watchword: Watchword, quarantine: Quarantine | None = None) -> None:
        """Take over from the base: deserializers, commits, the listener, and a look at fetched bytes."""
        self._watchword = watchword
        self._quarantine = KafkaQuarantine.from_settings(watchword) if quarantine is None else quarantine
        if isinstance(self._quarantine, KafkaQuarantine):
            self._quarantine.attach(self)
        self._intake = Intake(
            self,
            watchword,
            take=super().getmany,
            seek=super().seek,
            key_deserializer=self._key_deserializer,
            value_deserializer=self._value_deserializer,
            quarantine=self._quarantine,
        )
        self._key_deserializer = self._value_deserializer = None
        self._commits = bool(self._enable_auto_commit) and self._group_id is not None
        self._committer: asyncio.Task[None] | None = None
        self._enable_auto_commit = False
        self._subscription._listener = _Listener(self, self._subscription.listener)  # noqa: SLF001
        send: Any = self._client.send

        async def tapped(node_id: Any, request: Any, **options: Any) -> Any:
            response = await send(node_id, request, **options)
            self._intake.sieve.tap(request, response)
            return response

        self._client.send = tapped  # type: ignore[method-assign] # the one place that sees bytes before they are decoded

    async def start(self) -> None:
        """See aiokafka; ConfigurationError where the replay store cannot be trusted, Unavailable where it is down."""
        try:
            await self._watchword.verifier.start()
        except BaseException:
            await self.stop()
            raise
        await super().start()
        self._started()

    def _started(self) -> None:
        self._intake.partitions()
        if self._commits and self._committer is None:
            self._committer = asyncio.get_running_loop().create_task(self._commit_regularly())

    async def stop(self) -> None:
        """Commit what the caller is done with, if ``enable_auto_commit``, and close.

        The records of the latest call come again at the next start, for nobody can know here whether they were
        handled: commit them, or leave ``async with`` without an error.
        """
        if self._closed:
            return
        if self._committer is not None:
            self._committer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._committer
            await self._commit_handled()
        await self._intake.close()
        if isinstance(self._quarantine, KafkaQuarantine):
            await self._quarantine.close()
        await super().stop()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is None:
            self._intake.handled()
        await self.stop()

    # Ways in

    async def getone(self, *partitions: TopicPartition) -> Record:
        """Return the next verified record; see aiokafka for the arguments."""
        self._check(partitions)
        record = self._intake.at_hand(partitions)
        if record is None:
            ((record,),) = (await self._intake.next(partitions, deadline=None, most=1, one=True)).values()
        return record

    async def getmany(  # type: ignore[override] # aiokafka promises its own record class, of which ours is one
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """Return verified records by partition; see aiokafka for the arguments.

        Waits out ``timeout_ms`` until something verified, then returns {}.
        """
        self._check(partitions)
        if max_records is not None and max_records < 1:
            raise ValueError("max_records: give a positive number")
        deadline = asyncio.get_running_loop().time() + timeout_ms / 1000
        most = max_records or self._max_poll_records
        try:
            return await self._intake.next(partitions, deadline=deadline, most=most, one=False)
        except ConsumerStoppedError:  # closed while waiting: aiokafka returns nothing then
            return {}

    def __aiter__(self) -> Self:
        if self._closed:
            raise ConsumerStoppedError
        return self

    async def __anext__(self) -> Record:
        while True:
            try:
                return await self.getone()
            except ConsumerStoppedError:
                raise StopAsyncIteration from None
            except Unavailable:  # counted and logged; the intake delays the next try
                continue
            except RecordTooLargeError as error:  # aiokafka's own iterator goes on as well
                self._watchword.audit.warn("kafka.record_too_large", detail=str(error.args[:1]))

    def _check(self, partitions: tuple[object, ...]) -> None:
        if self._closed:
            raise ConsumerStoppedError
        if partitions and not all(isinstance(partition, TopicPartition) for partition in partitions):
            raise TypeError("partitions must be TopicPartition namedtuples")
        self._require_start()

    def _require_start(self) -> None:
        if self._coordinator is None:
            raise ConfigurationError("the consumer is not started: await consumer.start(), or use 'async with'")

    # Where it stands

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be handed over or judged."""
        position: int = await super().position(partition)
        return self._intake.judged().get(partition, position)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See aiokafka; what was taken from this partition and not handed over is dropped."""
        self._require_start()
        self._intake.put_back([partition])
        super().seek(partition, offset)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> bool:
        """See aiokafka."""
        return await self._seek_to(super().seek_to_beginning, partitions)

    async def seek_to_end(self, *partitions: TopicPartition) -> bool:
        """See aiokafka."""
        return await self._seek_to(super().seek_to_end, partitions)

    async def _seek_to(self, move: Any, partitions: tuple[TopicPartition, ...]) -> bool:
        self._require_start()
        tps = partitions or tuple(self.assignment())
        self._intake.put_back(tps)
        moved: bool = await move(*partitions)
        return moved

    async def seek_to_committed(self, *partitions: TopicPartition) -> dict[TopicPartition, int | None]:
        """Seek to the committed offsets, where there are any, and return them."""
        tps = partitions or tuple(self.assignment())
        committed = {tp: await self.committed(tp) for tp in tps}
        for tp, offset in committed.items():
            if offset is not None:
                self.seek(tp, offset)
        return committed

    # Commits

    async def commit(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit what was handed over or rejected; or these offsets, none of which may be beyond that."""
        judged = self._intake.judged()
        if offsets is None:
            await super().commit(judged or None)
            self._intake.committed(judged)
            return
        for tp, (offset, _) in commit_structure_validate(dict(offsets)).items():
            if offset > judged.get(tp, offset):
                raise ConfigurationError(
                    f"commit of {tp.topic}/{tp.partition} at {offset}: only {judged[tp]} is reached, and what lies"
                    " between nobody has judged; commit at most the offset of the last record you got, plus one"
                )
        await super().commit(dict(offsets))

    async def _commit_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._auto_commit_interval_ms / 1000)
            await self._commit_handled()

    async def _commit_handled(self) -> None:
        offsets = self._intake.to_commit()
        if not offsets:
            return
        try:
            async with asyncio.timeout(self._request_timeout_ms / 1000):  # aiokafka tries for ever
                await super().commit(offsets)
        except (KafkaError, TimeoutError) as error:  # they come again, or the next round commits them
            self._watchword.audit.warn("kafka.commit_failed", error=type(error).__name__)
        else:
            self._intake.committed(offsets)

    # Subscription

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """See aiokafka; ``listener`` is called as there, before our own commit at a revocation."""
        if listener is None or isinstance(listener, ConsumerRebalanceListener):
            listener = _Listener(self, listener)
        super().subscribe(topics=topics, pattern=pattern, listener=listener)

    async def _revoked(self) -> None:
        if self._commits:
            await self._commit_handled()


class _Listener(ConsumerRebalanceListener):
    """Commits at a revocation, after the caller's own listener."""

    def __init__(self, consumer: VerifyingConsumer, listener: ConsumerRebalanceListener | None) -> None:
        self._consumer = consumer
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            if self._listener is not None:
                answer = self._listener.on_partitions_revoked(revoked)
                if isawaitable(answer):
                    await answer
        finally:
            await self._consumer._revoked()  # noqa: SLF001 - one class in two parts

    async def on_partitions_assigned(self, assigned: Any) -> None:
        if self._listener is not None:
            answer = self._listener.on_partitions_assigned(assigned)
            if isawaitable(answer):
                await answer
