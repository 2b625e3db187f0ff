"""A world on the run's server."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.integration.nats.world import World, world_on


@pytest_asyncio.fixture
async def world(nats_url: str) -> AsyncIterator[World]:
    """Give a world of agents."""
    async with world_on(nats_url) as made:
        yield made
