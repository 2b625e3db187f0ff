"""Gives judged records to the caller: in order, deserialized, and on fresh verdicts only."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from watchword_adapters.kafka.records import DeserializationError, Deserializer, Record, deserialized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiokafka.structs import TopicPartition

    from watchword_adapters.kafka.progress import Partition


class Handover:
    """Hands over, and remembers of which partitions; ``latest`` is the one of the latest record."""

    def __init__(self, key_deserializer: Deserializer | None, value_deserializer: Deserializer | None) -> None:
        self.read: Final[set[TopicPartition]] = set()
        self.latest: TopicPartition | None = None
        self._deserializers = (key_deserializer, value_deserializer)

    def many(
        self, partitions: Mapping[TopicPartition, Partition], tps: list[TopicPartition], most: int | None, now: float
    ) -> dict[TopicPartition, list[Record]]:
        """Give out what is ready of ``tps``, at most so many; DeserializationError where nothing comes before it."""
        found: dict[TopicPartition, list[Record]] = {}
        left = most
        for tp in tps:
            partition = partitions.get(tp)
            if partition is None or not partition.ready or left == 0 or not partition.is_fresh(now):
                continue
            try:
                records = self._given(tp, partition, left)
            except DeserializationError:
                if found:  # told at its turn
                    return found
                partition.hand_over()
                raise
            found[tp] = records
            left = None if left is None else left - len(records)
        return found

    def first(self, tp: TopicPartition, partition: Partition) -> Record:
        """Give out the first record of a partition that has some."""
        try:
            (record,) = self._given(tp, partition, 1)
        except DeserializationError:
            partition.hand_over()
            raise
        return record

    def _given(self, tp: TopicPartition, partition: Partition, most: int | None) -> list[Record]:
        """Hand over at most so many records, up to one on which a deserializer fails; raise if that is the first."""
        records: list[Record] = []
        for one in islice(partition.ready, most):
            try:
                records.append(deserialized(one.record, *self._deserializers))
            except DeserializationError:
                if not records:
                    raise
                break
        partition.hand_over(len(records))
        self.read.add(tp)
        self.latest = tp
        return records
