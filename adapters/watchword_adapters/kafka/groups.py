"""The readers of each event loop by group, so that a producer's transaction commits only what they have judged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, WeakSet

from aiokafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    from aiokafka.structs import TopicPartition

    from watchword_adapters.kafka.fetcher import VerifiedFetcher

_READING: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, WeakSet[VerifiedFetcher]]] = WeakKeyDictionary()


def join(reader: VerifiedFetcher) -> None:
    """Register a reader for the producers of this event loop, until it leaves or is garbage-collected."""
    _READING.setdefault(asyncio.get_running_loop(), WeakSet()).add(reader)


def leave(reader: VerifiedFetcher) -> None:
    """Remove a closed reader; the group's next reader starts at its commit."""
    for readers in _READING.values():
        readers.discard(reader)


def for_transaction(
    offsets: dict[TopicPartition, OffsetAndMetadata], group: str, client: Any
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return the offsets with the metadata of the group's readers in this event loop.

    ``client`` is the producer's; only readers of the same brokers count. ConfigurationError for offsets beyond what
    they have judged.
    """
    told = dict(offsets)
    brokers = _brokers(client)
    for reader in _READING.get(asyncio.get_running_loop(), ()):
        if reader.group == group and brokers & _brokers(reader.client):
            reader.require_judged({tp: one.offset for tp, one in offsets.items()})
            for tp, one in offsets.items():
                if not one.metadata:
                    told[tp] = OffsetAndMetadata(one.offset, reader.metadata(tp, one.offset) or told[tp].metadata)
    return told


def _brokers(client: Any) -> set[tuple[str, int]]:
    return {(broker.host, broker.port) for broker in client.cluster.brokers()}
