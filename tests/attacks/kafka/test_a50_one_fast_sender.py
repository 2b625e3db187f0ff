"""A50: one honest principal that sends much, with the settings that a user gets who sets none."""

import asyncio
from collections import Counter

import pytest

from tests.integration.kafka.world import REALM, World
from tests.support.patience import PATIENCE
from watchword import Watchword

MANY = 260_000
"""What 5,000 messages a second make in less than a minute; the window is five."""


@pytest.mark.usefixtures("not_traced")
async def test_a50_nothing_is_over_quota(world: World) -> None:
    """All messages of one principal within one window are delivered."""
    topic = await world.make_topic()
    async with world.producer(linger_ms=5, max_batch_size=1 << 18) as producer:
        for number in range(MANY):
            await producer.send(topic, b"%d" % number, partition=0)
            if number % 10_000 == 0:
                await asyncio.sleep(0)
        await producer.flush()
    reader = Watchword(realm=REALM, keys=world.keys)
    delivered = 0
    async with world.consumer(reader, topic) as consumer:
        while (judged := sum(reader.audit.counts.values())) < MANY:
            async with asyncio.timeout(PATIENCE):  # to judge one more, at whatever pace
                while sum(reader.audit.counts.values()) == judged:
                    for records in (await consumer.getmany(timeout_ms=1_000, max_records=5_000)).values():
                        delivered += len(records)
    assert Counter(reader.audit.counts) == Counter(delivered=MANY)
    assert delivered == MANY
