"""Tools for testing agents, plug-ins and adapters without a broker; never for production.

``verified_msg`` and ``verified_record`` make the argument for a handler's unit test. With
``pytest_plugins = ["watchword.testing"]`` a test has the fixtures ``watchword_agent``, ``memory_bus`` and ``attacker``.
``contracts`` has the test suites that your own plug-in or adapter must pass.

(PYTEST_DONT_REWRITE: there are no assertions here, and a conftest.py may import this before it names it as a plug-in.)
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
