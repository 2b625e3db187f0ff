"""Tests without a broker: for those who write agents, plug-ins and adapters; never for production.

A handler's unit test takes what the handler is given from ``verified_msg`` or ``verified_record``. With
``pytest_plugins = ["watchword.testing"]`` a test has the fixtures ``watchword_agent``, ``memory_bus`` and ``attacker``.
``contracts`` holds the suites that a plug-in or an adapter of one's own must pass.

(PYTEST_DONT_REWRITE: there is no assertion here, and a conftest.py may import this before it names it as a plug-in.)
"""

from watchword.extras import told

try:
    from watchword_adapters import contract as contracts
    from watchword_adapters.testing import (
        Agents,
        Attacker,
        Clock,
        KeyDirectory,
        MemoryBus,
        MemoryProducer,
        SharedMemoryStore,
        answers_to,
        attacker,
        memory_bus,
        observed_msg,
        observed_record,
        verified_msg,
        verified_record,
        watchword_agent,
    )
except ModuleNotFoundError as error:
    raise told(error) from None

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
    "contracts",
    "memory_bus",
    "observed_msg",
    "observed_record",
    "verified_msg",
    "verified_record",
    "watchword_agent",
]
