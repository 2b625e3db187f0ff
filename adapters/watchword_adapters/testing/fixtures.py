"""Fixtures for pytest; they come with ``pytest_plugins = ["watchword.testing"]``."""

from __future__ import annotations

import pytest

from watchword_adapters.testing.agents import Agents
from watchword_adapters.testing.attacking import Attacker
from watchword_adapters.testing.bus import MemoryBus


@pytest.fixture
def memory_bus() -> MemoryBus:
    """Give a bus of this test, with a clock that it may move."""
    return MemoryBus()


@pytest.fixture
def watchword_agent(memory_bus: MemoryBus) -> Agents:
    """Make agents that know one another, by the clock of ``memory_bus``: ``watchword_agent(principal)`` is one."""
    return Agents(realm=memory_bus.realm, clock=memory_bus.clock)


@pytest.fixture
def attacker(memory_bus: MemoryBus) -> Attacker:
    """Give an attacker on ``memory_bus``."""
    return Attacker(memory_bus)
