"""A21: a flood is folded into counts, and the counts are logged when it stops or the reader does."""

import asyncio
import logging

import pytest

from tests.integration.kafka.world import World
from tests.support.folded import FLOOD, logged
from tests.support.patience import PATIENCE
from tests.support.raw_kafka import Batch, Raw, RawClient
from watchword import Watchword

pytestmark = pytest.mark.needs_kafka("raw_batches")


@pytest.mark.parametrize("stops", ["the flood", "the flood beside another thread", "the reader"])
async def test_a21_no_count_is_lost(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stops: str
) -> None:
    """Promise: a log read later shows how many messages an attack had."""
    caplog.set_level(logging.WARNING, "watchword")
    if stops != "the reader":
        monkeypatch.setattr("watchword.audit.PERIOD", 0.5)
    topic, reader = await world.make_topic(), world.reader()
    async with RawClient(world.bootstrap) as raw:
        await raw.send(topic, Batch(records=[Raw(value=b"x")] * FLOOD))
    async with world.consumer(reader, topic) as consumer, asyncio.timeout(PATIENCE):
        if stops == "the flood beside another thread":  # as of the control log, which shares the audit
            await asyncio.to_thread(asyncio.run, _connected(world, reader))
        while reader.audit.counts["unsigned"] < FLOOD or (stops != "the reader" and logged(caplog) < FLOOD):
            await consumer.getmany(timeout_ms=100)
    assert logged(caplog) == FLOOD


async def _connected(world: World, agent: Watchword) -> None:
    async with world.consumer(agent):
        await asyncio.sleep(0)  # aiokafka's own stop() raises before its tasks have begun
