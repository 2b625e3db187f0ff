"""The consumer that verifies: aiokafka's own, which reads from a fetcher that gives verified records only."""

from __future__ import annotations

from contextlib import suppress
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Unpack, cast

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from aiokafka.util import commit_structure_validate

from watchword import ConfigurationError, Unavailable
from watchword.agent import require
from watchword_adapters.kafka import _seam
from watchword_adapters.kafka.fetcher import VerifiedFetcher
from watchword_adapters.kafka.quarantine import KafkaQuarantine
from watchword_adapters.kafka.typed import ConsumerBase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Literal

    from watchword import Watchword
    from watchword.quarantine import Quarantine
    from watchword_adapters.kafka.options import ConsumerOptions
    from watchword_adapters.kafka.records import DeserializationError, VerifiedRecord


class VerifyingConsumer(ConsumerBase):
    """An ``AIOKafkaConsumer`` that hands on verified records only.

    The constructor is aiokafka's plus ``watchword``. Records come as ``VerifiedRecord``, deserialized after they
    verified; in observe mode as ``ObservedRecord``. What does not verify is counted, logged and passed over. Types are
    those of enforce mode; a program that runs in both takes a ``DeliveredRecord``.

    - ``Unavailable`` (a key source or replay store is down), which is a ``KafkaError`` here, is raised by ``getone``
      and ``getmany`` when nothing else can be returned; ``position`` stays at the record, nothing is lost, and the next
      call tries again, after a delay that grows to 5 s. ``async for`` goes on by itself, and so do the others with
      ``on_unavailable="wait"``.
    - ``DeserializationError`` is raised for a verified record on which a deserializer failed; the position is past it.
      ``on_deserialization_error``, a function, gets it instead, if there is one.
    - ``enable_auto_commit`` commits what was handed over before the latest call of ``getone`` or ``getmany``, never a
      record that the caller may still be working on; so does a rebalance, and ``stop()``. Leaving ``async with``
      without an error says that all is handled. Tasks that share a consumer commit by hand instead.
    - ``commit()`` commits all that was handed over or rejected; ``commit(offsets)`` refuses to go beyond it. In a
      transaction commit what ``offsets_for_transaction()`` returns.
    - ``quarantine`` gets copies of what is not delivered; without one, the topic that ``[quarantine]`` names, if any.
    """

    def __init__(
        self,
        *topics: str,
        watchword: Watchword,
        quarantine: Quarantine | None = None,
        on_unavailable: Literal["raise", "wait"] = "raise",
        on_deserialization_error: Callable[[DeserializationError], None] | None = None,
        **options: Unpack[ConsumerOptions],
    ) -> None:
        if on_unavailable not in {"raise", "wait"}:
            raise ConfigurationError(f'on_unavailable={on_unavailable!r}: write "raise" or "wait"')
        if iscoroutinefunction(on_deserialization_error):  # nobody would await it
            raise ConfigurationError("on_deserialization_error: write a plain function, not one with 'async def'")
        require(watchword, reads=True, quarantine=quarantine)
        super().__init__(*topics, **options)
        try:
            self._adopt(
                watchword, quarantine, waits=on_unavailable == "wait", on_deserialization_error=on_deserialization_error
            )
        except BaseException:
            _seam.abandon(self)
            raise

    def _adopt(self, watchword: Watchword, quarantine: Quarantine | None = None, **options: Any) -> None:
        """Take over from the base: what it fetches, its deserializers, its commits, and the place of its listener."""
        inside = _seam.Inside(self)
        self._watchword = watchword
        self._quarantine = KafkaQuarantine.from_settings(watchword) if quarantine is None else quarantine
        if isinstance(self._quarantine, KafkaQuarantine):
            self._quarantine.attach(self)
        told = _seam.take_over(self)
        self._inside = inside
        self._verified = VerifiedFetcher(
            inside,
            watchword,
            quarantine=self._quarantine,
            key_deserializer=told.key_deserializer,
            value_deserializer=told.value_deserializer,
            auto_commit=told.auto_commit,
            interval=told.interval,
            timeout=told.timeout,
            **options,
        )
        inside.listen(_Listener(self._verified, inside.listener))

    @property
    def _fetcher(self) -> VerifiedFetcher | None:
        """Stand in for the client's fetcher, from which all its methods read."""
        return self._verified if vars(self).get(_seam.HELD) is not None else None

    @_fetcher.setter
    def _fetcher(self, fetcher: Any) -> None:
        vars(self)[_seam.HELD] = fetcher
        if fetcher is not None:
            self._verified.use(fetcher)

    async def start(self) -> None:
        """See aiokafka; ConfigurationError where the replay store cannot be trusted, Unavailable where it is down."""
        meter = self._watchword.audit.meter
        begun = meter.now()
        try:
            await self._watchword.verifier.start()
        except BaseException:
            await self.stop()
            raise
        try:
            await super().start()
            if self._fetcher is None:
                raise _seam.changed("_fetcher")
            self._verified.started()
            meter.started("kafka", meter.now() - begun)
            self._watchword.connected("kafka")
        except ConfigurationError:
            with suppress(AttributeError, TypeError):  # a client that was changed may not even stop
                await self.stop()
            raise

    def _wrapped(self) -> None:
        """Go on with a consumer that somebody else has started."""
        self._fetcher = vars(self).pop("_fetcher")
        positions = self._inside.start_over()
        self._verified.started()
        for tp, position in positions.items():  # it was read up to there, whatever the group has committed
            self._verified.seek_to(tp, position)

    async def stop(self) -> None:
        """Commit what the caller is done with, if ``enable_auto_commit``, and close.

        The records of the latest call come again at the next start, for nobody can know here whether they were
        handled: commit them, or leave ``async with`` without an error.
        """
        try:
            await self._verified.finish()
            if isinstance(self._quarantine, KafkaQuarantine):
                await self._quarantine.close()
        finally:
            await super().stop()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is None:
            self._verified.all_handled()
        await self.stop()

    # Ways in: aiokafka's own, for the fetcher is ours

    async def getone(self, *partitions: TopicPartition) -> VerifiedRecord:
        """Return the next verified record; see aiokafka for the arguments."""
        self._check(partitions)
        record: Any = await super().getone(*partitions)
        return record  # type: ignore[no-any-return]  # as above: of our own class

    async def getmany(  # type: ignore[override] # aiokafka promises its own record class, of which ours is one
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[VerifiedRecord]]:
        """Return verified records by partition; see aiokafka for the arguments.

        Waits out ``timeout_ms`` until something verified, then returns {}.
        """
        self._check(partitions)
        found = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        return cast("dict[TopicPartition, list[VerifiedRecord]]", found)

    async def __anext__(self) -> VerifiedRecord:
        while True:
            try:
                record: Any = await super().__anext__()
            except Unavailable:  # counted and logged; the next try comes after a delay
                continue
            return record  # type: ignore[no-any-return]  # as above

    def _check(self, partitions: tuple[object, ...]) -> None:
        if partitions and not all(isinstance(partition, TopicPartition) for partition in partitions):
            raise TypeError("partitions must be TopicPartition namedtuples")
        self._verified.require_open()

    # Where it stands

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be handed over or judged."""
        position: int = await super().position(partition)
        return self._verified.judged().get(partition, position)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See aiokafka; what was taken from this partition and not handed over comes again."""
        self._inside.require_start()
        super().seek(partition, offset)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> bool:
        """See aiokafka."""
        self._inside.require_start()
        return bool(await super().seek_to_beginning(*partitions))

    async def seek_to_end(self, *partitions: TopicPartition) -> bool:
        """See aiokafka."""
        self._inside.require_start()
        return bool(await super().seek_to_end(*partitions))

    # Commits

    async def commit(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str] | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit what was handed over or rejected; or these offsets, none of which may be beyond that.

        The metadata tells the next reader what this one remembers; metadata of the caller's own stays as it is.
        """
        told = None if offsets is None else commit_structure_validate(dict(offsets))
        self._inside.require_commits(told)
        wanted = {tp: (offset, "") for tp, offset in self._verified.committable().items()}
        if told is not None:
            wanted = {tp: (one.offset, one.metadata) for tp, one in told.items()}
        self._verified.require_judged({tp: offset for tp, (offset, _) in wanted.items()})
        await self._verified.commit(wanted)

    async def offsets_for_transaction(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what was handed over or rejected, for ``producer.send_offsets_to_transaction(offsets, group_id)``.

        Where the quarantine's producer is transactional, the copies of what was rejected go with the same transaction;
        those that are not ready within a second go with the next one.
        """
        if isinstance(self._quarantine, KafkaQuarantine) and self._quarantine.in_transactions:
            await self._verified.copied()
        offsets = self._verified.committable().items()
        return {tp: OffsetAndMetadata(offset, self._verified.metadata(tp, offset)) for tp, offset in offsets}

    # Subscription

    def subscribe(
        self,
        topics: Iterable[str] = (),
        pattern: str | None = None,
        listener: ConsumerRebalanceListener | None = None,
    ) -> None:
        """See aiokafka; ``listener`` is called as there, before our own commit at a revocation."""
        if listener is None or isinstance(listener, ConsumerRebalanceListener):
            listener = _Listener(self._verified, listener)
        super().subscribe(topics=topics, pattern=pattern, listener=listener)


class _Listener(ConsumerRebalanceListener):
    """Commits at a revocation, after the caller's own listener."""

    def __init__(self, verified: VerifiedFetcher, listener: ConsumerRebalanceListener | None) -> None:
        self._verified = verified
        self._listener = listener

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            if self._listener is not None:
                answer = self._listener.on_partitions_revoked(revoked)
                if isawaitable(answer):
                    await answer
        finally:
            await self._verified.revoked()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        if self._listener is not None:
            answer = self._listener.on_partitions_assigned(assigned)
            if isawaitable(answer):
                await answer
