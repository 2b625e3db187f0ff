"""Registers the fixtures that every kind of test may use."""

from xdist.workermanage import NodeManager  # type: ignore[import-untyped]  # it has no types

pytest_plugins = ["tests.brokers.plugin"]

# On a busy machine a process that has run its tests takes longer than ten seconds to write down what they covered.
NodeManager.EXIT_TIMEOUT = 120
