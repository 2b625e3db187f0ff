"""Tests without a broker: messages as a handler receives them, and an in-memory bus with an attacker."""

from watchword_adapters.testing.agents import Agents
from watchword_adapters.testing.attacking import Attacker
from watchword_adapters.testing.bus import MemoryBus, MemoryProducer
from watchword_adapters.testing.clock import Clock
from watchword_adapters.testing.fixtures import attacker, memory_bus, watchword_agent
from watchword_adapters.testing.handled import (
    answers_to,
    observed_msg,
    observed_record,
    verified_msg,
    verified_record,
)
from watchword_adapters.testing.keys import KeyDirectory
from watchword_adapters.testing.shared_store import SharedMemoryStore

__all__ = [
    "Agents",
    "Attacker",
    "Clock",
    "KeyDirectory",
    "MemoryBus",
    "MemoryProducer",
    "SharedMemoryStore",
    "answers_to",
    "attacker",
    "memory_bus",
    "observed_msg",
    "observed_record",
    "verified_msg",
    "verified_record",
    "watchword_agent",
]
