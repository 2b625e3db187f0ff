"""Admits a consumer group to a shared replay store before anything is handed over, if it is known to be safe.

A store that does not know a group cannot tell what the group has read. If the group never committed an offset, it has
read nothing. Otherwise the operator must decide about its backlog, or copies of what it has read could be accepted.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import TopicPartition

from watchword import ConfigurationError, Unavailable
from watchword.replay import ReaderBirth, how_to_admit, told_of
from watchword_adapters.kafka.records import as_kafka_error, log_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from watchword.replay import SharedReplayStore


def reader_of(group: str) -> str:
    """Return the reader name of a group in a store."""
    return f"kafka:{group}"


async def committed_by(client: Any, group: str) -> dict[TopicPartition, int]:
    """Return all offsets that a group has committed, on any topic; raises the client's errors."""
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    answer = await client.send(node, OffsetFetchRequest(group, None), group=ConnectionGroup.COORDINATION)
    found: dict[TopicPartition, int] = {}
    errors = [answer.error_code]
    for topic, partitions in answer.topics:
        for number, offset, _, error in partitions:
            errors.append(error)
            found[TopicPartition(topic, number)] = offset
    for error in filter(None, errors):
        raise for_code(error)(f"the offsets of group {group}")
    return found


class GroupAdmission:
    """Ensures once, in a background task, that the store knows the group; until then nothing may be handed over.

    ``committed`` returns all commits of the group, ``ends`` the end offsets of logs; ``timeout`` (seconds) bounds each
    try. In observe mode, the backlog of a group that has read before is accepted as if the operator had done so: it is
    handed over anyway, and what comes later is known when enforcement begins.
    """

    def __init__(
        self,
        store: SharedReplayStore,
        group: str,
        *,
        observing: Callable[[], bool],
        floor: Callable[[], float],
        committed: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        ends: Callable[[Collection[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]],
        timeout: float,
    ) -> None:
        self._store: Final = store
        self._group: Final = group
        self._observing: Final = observing
        self._floor: Final = floor
        self._committed: Final = committed
        self._ends: Final = ends
        self._timeout: Final = timeout
        self._task: asyncio.Task[None] | None = None
        self.is_settled = False

    def ask(self, told: Callable[[], None]) -> Exception | None:
        """Start a try unless one is running, and call ``told`` when it ends; return the error of the last try."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._settle())
            self._task.add_done_callback(lambda _: told())
        elif self._task.done():
            task, self._task = self._task, None
            return self._explained(task.exception())
        return None

    async def close(self) -> None:
        """Cancel a running try."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _settle(self) -> None:
        reader = reader_of(self._group)
        async with asyncio.timeout(self._timeout):
            if await self._store.birth(reader) is None:
                committed = await self._committed()
                if committed and not self._observing():
                    raise await self._has_past(reader, committed)
                await self._store.admit_reader(reader, await self._born(committed))
        self.is_settled = True

    async def _born(self, committed: Mapping[TopicPartition, int]) -> ReaderBirth:
        """Return the store's first entry of a group: new, or with its backlog accepted."""
        if not committed:
            return ReaderBirth(floor=-inf)
        floor, ends = self._floor(), await self._ends(committed.keys())
        return ReaderBirth(floor=floor, accepted={log_of(tp): (end - 1, floor) for tp, end in ends.items() if end})

    async def _has_past(self, reader: str, committed: Mapping[TopicPartition, int]) -> ConfigurationError:
        """Return the error for a group that has read before, with its backlog in numbers."""
        ends = await self._ends(committed.keys())
        behind = sum(max(0, ends.get(tp, offset) - offset) for tp, offset in committed.items())
        tp, offset = min(committed.items())
        return ConfigurationError(
            f"group {self._group} has read before ({len(committed)} partitions, such as {tp.topic}/{tp.partition} up to"
            f" {offset}; backlog: {behind} records), but the replay store does not know it, so copies of what it read"
            f" could be accepted again: {how_to_admit(reader)}"
        )

    @staticmethod
    def _explained(error: BaseException | None) -> Exception | None:
        if error is None or isinstance(error, ConfigurationError):
            return error
        told = Unavailable("replay", told_of(error))
        told.__cause__ = error
        return as_kafka_error(told)


async def backlog_of(group: str, *, bootstrap_servers: str | list[str], **options: Any) -> dict[str, int]:
    """Return the last offset of every partition of the topics on which a group has committed; the client's errors.

    ``options`` are aiokafka's connection options. ConfigurationError for a group that has committed nothing.
    """
    client = AIOKafkaClient(bootstrap_servers=bootstrap_servers, **options)
    try:
        await client.bootstrap()
        committed = await committed_by(client, group)
    finally:
        await client.close()
    if not committed:
        at = bootstrap_servers if isinstance(bootstrap_servers, str) else ", ".join(bootstrap_servers)
        raise ConfigurationError(
            f"group {group} has committed nothing on {at}, so it has no backlog: check the name; a"
            " group that has never read needs no entry, since it is admitted when it starts"
        )
    topics = {tp.topic for tp in committed}
    async with AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap_servers, **options) as consumer:
        tps = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
        return {log_of(tp): end - 1 for tp, end in (await consumer.end_offsets(tps)).items()}
