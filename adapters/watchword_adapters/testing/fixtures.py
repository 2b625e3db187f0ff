"""Fixtures for pytest; enabled by ``pytest_plugins = ["watchword.testing"]``."""

from __future__ import annotations

import pytest

from watchword_adapters.testing.agents import Agents
from watchword_adapters.testing.attacking import Attacker
from watchword_adapters.testing.bus import MemoryBus


@pytest.fixture
def memory_bus() -> MemoryBus:
    """Return a bus for this test, with a clock that it can move."""
    return MemoryBus()


@pytest.fixture
def watchword_agent(memory_bus: MemoryBus) -> Agents:
    """Return a factory of agents that know one another's keys, with the clock of ``memory_bus``."""
    return Agents(realm=memory_bus.realm, clock=memory_bus.clock)


@pytest.fixture
def attacker(memory_bus: MemoryBus) -> Attacker:
    """Return an attacker on ``memory_bus``."""
    return Attacker(memory_bus)
