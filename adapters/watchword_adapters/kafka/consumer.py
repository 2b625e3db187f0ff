"""The verifying consumer: aiokafka's own, with a fetcher that returns verified records only."""

from __future__ import annotations

from contextlib import suppress
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Unpack, cast

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from aiokafka.util import commit_structure_validate

from watchword import ConfigurationError, Unavailable
from watchword.agent import require
from watchword_adapters.background import call_later
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
    """An ``AIOKafkaConsumer`` that delivers verified records only.

    The constructor is aiokafka's plus ``watchword``. Records arrive as ``VerifiedRecord``, deserialized after they were
    verified; in observe mode as ``ObservedRecord``. A record that fails verification is counted, logged and skipped.
    Type hints are those of enforce mode; a program that runs in both modes takes a ``DeliveredRecord``.

    - ``Unavailable`` (a key source or replay store is down), which is a ``KafkaError`` here, is raised by ``getone``
      and ``getmany`` if nothing else can be returned. ``position`` stays at the record, nothing is lost, and the next
      call retries, after a delay that grows to 5 s. ``async for`` retries by itself, and so do the others with
      ``on_unavailable="wait"``.
    - ``DeserializationError`` is raised for a verified record whose deserializer failed; the position is past it. If
      the function ``on_deserialization_error`` is set, it receives the error instead.
    - ``enable_auto_commit`` commits what was returned before the latest call of ``getone`` or ``getmany``, never a
      record that the caller may still be handling; a rebalance and ``stop()`` do the same. Leaving ``async with``
      without an error marks all records as handled. Tasks that share a consumer must commit manually instead.
    - ``commit()`` commits everything that was returned or rejected; ``commit(offsets)`` refuses to go beyond that. In a
      transaction, commit what ``offsets_for_transaction()`` returns.
    - ``quarantine`` receives copies of rejected records; its default is the topic named in ``[quarantine]``, if any.
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
        if iscoroutinefunction(on_deserialization_error):  # it would never be awaited
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
        """Take over the base class's fetches, deserializers, automatic commits and rebalance listener."""
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
        """Replace the client's fetcher, from which all its methods read."""
        return self._verified if vars(self).get(_seam.HELD) is not None else None

    @_fetcher.setter
    def _fetcher(self, fetcher: Any) -> None:
        vars(self)[_seam.HELD] = fetcher
        if fetcher is not None:
            self._verified.use(fetcher)

    async def start(self) -> None:
        """See aiokafka; ConfigurationError if the replay store cannot be trusted, Unavailable if it is down."""
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
            self._watchword.audit.later = call_later
            self._watchword.connected("kafka")
        except ConfigurationError:
            with suppress(AttributeError, TypeError):  # an incompatible client may fail to stop, too
                await self.stop()
            raise

    def _wrapped(self) -> None:
        """Take over a consumer that was started before it was wrapped."""
        self._fetcher = vars(self).pop("_fetcher")
        positions = self._inside.start_over()
        self._verified.started()
        for tp, position in positions.items():  # the application has read up to there, whatever is committed
            self._verified.seek_to(tp, position)

    async def stop(self) -> None:
        """Commit what the caller has handled, if ``enable_auto_commit`` is on, and close.

        The records of the latest call are delivered again after the next start, since it is not known here whether they
        were handled: commit them, or leave ``async with`` without an error.
        """
        try:
            await self._verified.finish()
            if isinstance(self._quarantine, KafkaQuarantine):
                await self._quarantine.close()
        finally:
            self._watchword.audit.flush()
            await super().stop()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is None:
            self._verified.all_handled()
        await self.stop()

    # Reading: aiokafka's own methods, on our fetcher

    async def getone(self, *partitions: TopicPartition) -> VerifiedRecord:
        """Return the next verified record; see aiokafka for the arguments."""
        self._check(partitions)
        record: Any = await super().getone(*partitions)
        return record  # type: ignore[no-any-return]  # the fetcher returns our class

    async def getmany(  # type: ignore[override] # aiokafka promises its own record class, of which ours is one
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[VerifiedRecord]]:
        """Return verified records by partition; see aiokafka for the arguments.

        Waits up to ``timeout_ms`` for a verified record, then returns {}.
        """
        self._check(partitions)
        found = await super().getmany(*partitions, timeout_ms=timeout_ms, max_records=max_records)
        return cast("dict[TopicPartition, list[VerifiedRecord]]", found)

    async def __anext__(self) -> VerifiedRecord:
        while True:
            try:
                record: Any = await super().__anext__()
            except Unavailable:  # counted and logged; retried after a delay
                continue
            return record  # type: ignore[no-any-return]  # as above

    def _check(self, partitions: tuple[object, ...]) -> None:
        if partitions and not all(isinstance(partition, TopicPartition) for partition in partitions):
            raise TypeError("partitions must be TopicPartition namedtuples")
        self._verified.require_open()

    # Positions

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that will be returned or rejected."""
        position: int = await super().position(partition)
        return self._verified.judged().get(partition, position)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See aiokafka; fetched records of this partition that were not returned are dropped."""
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
        """Commit everything that was returned or rejected, or these offsets, none of which may be beyond that.

        The commit's metadata tells the next reader what this one remembers; the caller's own metadata is not changed.
        """
        told = None if offsets is None else commit_structure_validate(dict(offsets))
        self._inside.require_commits(told)
        wanted = {tp: (offset, "") for tp, offset in self._verified.committable().items()}
        if told is not None:
            wanted = {tp: (one.offset, one.metadata) for tp, one in told.items()}
        self._verified.require_judged({tp: offset for tp, (offset, _) in wanted.items()})
        await self._verified.commit(wanted)

    async def offsets_for_transaction(self) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the judged offsets, for ``producer.send_offsets_to_transaction(offsets, group_id)``.

        Judged means returned or rejected. If the quarantine's producer is transactional,  copies join it; those not
        ready within a second join the next transaction.
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
        """See aiokafka; ``listener`` is called as usual, before our own commit when partitions are revoked."""
        if listener is None or isinstance(listener, ConsumerRebalanceListener):
            listener = _Listener(self._verified, listener)
        super().subscribe(topics=topics, pattern=pattern, listener=listener)


class _Listener(ConsumerRebalanceListener):
    """Commits when partitions are revoked, after the caller's own listener."""

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
