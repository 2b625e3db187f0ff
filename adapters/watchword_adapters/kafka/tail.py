"""Follows a topic without a group and without commits, for ``watchword tail``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiokafka.structs import TopicPartition

from watchword import ConfigurationError
from watchword_adapters.kafka._seam import partitions_at_the_broker
from watchword_adapters.kafka.consumer import VerifyingConsumer
from watchword_adapters.kafka.records import ObservedRecord
from watchword_adapters.kafka.redrive import COMMITTED, opened
from watchword_adapters.redriving import onlooker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from watchword import Watchword
    from watchword.spi import Message


async def tail(
    topic: str, *, watchword: Watchword, from_start: bool, ready: Callable[[], None], **options: Any
) -> AsyncGenerator[Message]:
    """Yield the messages of a topic as they arrive, or all of them if ``from_start``, unverified.

    ``ready`` is called once no further message will be missed. ``options`` are aiokafka's connection options.
    ConfigurationError if the topic is missing; the client's errors.
    """
    async with opened(VerifyingConsumer(watchword=onlooker(watchword), **(COMMITTED | options))) as consumer:
        tps = [TopicPartition(topic, number) for number in await partitions_at_the_broker(consumer, topic)]
        if not tps:
            raise ConfigurationError(f"topic {topic!r} does not exist on the broker, or this user may not see it")
        consumer.assign(tps)
        await (consumer.seek_to_beginning(*tps) if from_start else consumer.seek_to_end(*tps))
        ready()
        async for record in consumer:
            if isinstance(record, ObservedRecord):
                yield record.message
