"""Key sources that take their time, and agents whose keys nobody has given out."""

import asyncio
from typing import Any

from tests.integration.nats.world import CLOUD, World
from watchword import SigningKey, VerificationKey, Watchword
from watchword_adapters.nats import WatchwordClient


class SlowKeys:
    """A source that takes ``seconds`` for a key that it does not know or is ``slow`` with, or until ``held`` is set."""

    def __init__(self, world: World, seconds: float) -> None:
        self._keys = world.keys
        self._seconds = seconds
        self.held: asyncio.Event | None = None
        self.slow: set[str] = set()

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        found = await self._keys.find(principal, key_id)
        if found is None or principal in self.slow:
            if self.held is not None:
                await self.held.wait()
            else:
                await asyncio.sleep(self._seconds)
        return found


def slow_agent(world: World, seconds: float, **options: Any) -> tuple[SlowKeys, Watchword]:
    """Return an agent with such a source."""
    keys, known = SlowKeys(world, seconds), world.keys
    world.keys = keys  # type: ignore[assignment]  # as much of it as an agent needs
    guard = world.agent(CLOUD, **options)
    world.keys = known
    return keys, guard


async def slow(world: World, seconds: float, **options: Any) -> tuple[SlowKeys, WatchwordClient]:
    """Connect an agent with such a source."""
    keys, guard = slow_agent(world, seconds, **options)
    return keys, await world.client(guard)


async def stranger(world: World, number: int) -> WatchwordClient:
    """Connect someone whose key nobody has given out."""
    key, name = SigningKey.generate(), f"agent://acme/stranger-{number}"
    world.signing[name] = key
    return await world.client(world.agent(name))
