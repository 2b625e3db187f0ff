"""A21: a flood is folded into counts, and the counts are logged when it stops or the reader does."""

import asyncio
import logging

import pytest

from tests.integration.nats.world import CLOUD, World
from tests.support.folded import FLOOD, logged
from tests.support.patience import PATIENCE
from watchword import Watchword
from watchword_adapters.nats import connect


@pytest.mark.parametrize("stops", ["the flood", "the flood beside another thread", "the reader"])
async def test_a21_no_count_is_lost(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stops: str
) -> None:
    """Promise: a log read later shows how many messages an attack had."""
    caplog.set_level(logging.WARNING, "watchword")
    if stops != "the reader":
        monkeypatch.setattr("watchword.audit.PERIOD", 0.5)
    reader = world.agent(CLOUD)
    client, attacker = await world.client(reader), await world.plain()
    reading = await client.subscribe("tasks.folded", cb=_nothing)
    await client.flush()
    if stops == "the flood beside another thread":  # as of the control log, which shares the audit
        await asyncio.to_thread(asyncio.run, _connected(reader, world.url))
    for _ in range(FLOOD):
        await attacker.publish("tasks.folded", b"x")
    async with asyncio.timeout(PATIENCE):
        while reader.audit.counts["unsigned"] < FLOOD or (stops != "the reader" and logged(caplog) < FLOOD):  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
    await reading.unsubscribe()
    assert logged(caplog) == FLOOD


async def _connected(agent: Watchword, url: str) -> None:
    await (await connect(url, watchword=agent)).close()


async def _nothing(_: object) -> None:
    raise AssertionError
