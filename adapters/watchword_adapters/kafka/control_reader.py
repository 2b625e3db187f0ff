"""Follows a topic of one partition from an offset on: every entry once, in order, no matter who wrote it.

Batches are fetched as stored, so that the end of each is known: transaction markers and compacted records yield no
entries and are skipped. The contents of a batch are its publisher's claim, and what the client cannot decode has been
replaced before it is read (``poison.py``). Entries are decoded as they are returned, since a small batch may hold
millions.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiokafka.record.memory_records import MemoryRecords

from watchword import Unavailable
from watchword.message import channel_of
from watchword.spi import Message, Position
from watchword_adapters.control.log import TOGETHER
from watchword_adapters.kafka.control_broker import OFFSET_OUT_OF_RANGE, LookAgainError, identity
from watchword_adapters.kafka.poison import without_poison
from watchword_adapters.kafka.records import stamp_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from watchword.spi import Channel
    from watchword_adapters.kafka.control_broker import ControlBroker
    from watchword_adapters.kafka.topic_ids import Fetched, Topic


class TopicFollower:
    """Reads one topic for one caller; ``known`` is the topic's identity, if the caller knows it.

    Unavailable if the topic was recreated, if it ends before the position, and if a batch is corrupt.
    """

    def __init__(self, broker: ControlBroker, realm: str, position: int, known: str | None) -> None:
        self._broker: Final = broker
        self._channel: Final = channel_of("kafka", realm, broker.topic_name)
        self._position = position
        self._known = known
        self._topic: Topic | None = None
        self._entries: Iterator[tuple[Message | None, int]] = iter(())

    async def next(self) -> tuple[Sequence[Message], int]:
        """Wait for entries; return at most TOGETHER, and the position after them."""
        before = self._position
        while True:
            entries = self._take()
            if self._position > before:
                return entries, self._position
            found = await self._broker.patiently(self._fetch)
            if found.records:
                self._entries = entries_of(await _sound(found), self._channel, self._position)

    def _take(self) -> list[Message]:
        """Decode fetched entries and move the position past them."""
        taken: list[Message] = []
        for entry, behind in self._entries:
            self._position = max(self._position, behind)
            if entry is not None:
                taken.append(entry)
                if len(taken) == TOGETHER:
                    break
        return taken

    async def _fetch(self) -> Fetched:
        topic, self._topic = self._topic or await self._look(), None
        found = await self._broker.fetch(topic, self._position)
        if found.error == OFFSET_OUT_OF_RANGE:
            await self._find_position(topic)
        self._topic = topic  # after a failure it is looked up again
        return found

    async def _look(self) -> Topic:
        topic = await self._broker.look()
        found = identity(topic)
        self._known = self._known or found
        if found != self._known:
            raise Unavailable("control", f"topic {self._broker.topic_name!r} was deleted and recreated")
        return topic

    async def _find_position(self, topic: Topic) -> None:
        """Continue at the first offset of the topic, if the position is below it."""
        end = await self._broker.end()
        if end.identity != identity(topic) or end.first <= self._position <= end.next:
            raise LookAgainError(f"position {self._position} is in the topic, but could not be read")
        if self._position > end.next:
            raise Unavailable("control", f"the log ends before position {self._position}, at {end.next}")
        self._position = end.first


async def _sound(found: Fetched) -> bytes:
    """Return batches that the client can decode; Unavailable if memory runs out."""
    steps = without_poison(found.records, found.end)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            sound: bytes = done.value
            return sound
        except MemoryError as shortage:
            raise Unavailable("control", "not enough memory to decompress a batch") from shortage
        await asyncio.sleep(0)


def entries_of(batches: bytes, channel: Channel, position: int) -> Iterator[tuple[Message | None, int]]:
    """Yield the entries from a position on with the position after each, and None with the end of each batch.

    Unavailable if a batch's checksum fails, and if the batches end at or before the position.
    """
    records: Any = MemoryRecords(batches)
    log, reached = f"{channel.name}/0", position
    while (batch := records.next_batch()) is not None:
        if not batch.validate_crc():
            raise Unavailable("control", f"the checksum of the batch at {batch.base_offset} fails")
        for record in () if batch.is_control_batch else batch:
            if record.offset >= position:
                yield _message(record, channel, log), record.offset + 1
        reached = max(reached, batch.next_offset)
        yield None, reached
    if reached == position:
        raise Unavailable("control", f"the broker returned nothing beyond position {position}")


def _message(record: Any, channel: Channel, log: str) -> Message:
    return Message(
        channel=channel,
        value=record.value,
        key=record.key,
        headers=tuple(record.headers),
        partition=0,
        position=Position(log, record.offset),
        appended_at=stamp_of(record),
    )
