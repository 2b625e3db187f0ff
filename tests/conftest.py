"""Registers the fixtures that every kind of test may use."""

from collections.abc import Iterator

import coverage
import pytest
from xdist.workermanage import NodeManager  # type: ignore[import-untyped]  # it has no types

pytest_plugins = ["tests.brokers.plugin", "tests.custody.plugin"]

# On a busy machine a process that has run its tests takes longer than ten seconds to write down what they covered.
NodeManager.EXIT_TIMEOUT = 120


@pytest.fixture
def not_traced() -> Iterator[None]:
    """Count no lines meanwhile: a load takes three times as long where they are, and covers nothing that is new."""
    counting = coverage.Coverage.current()
    if counting is None:
        yield
        return
    counting.stop()
    try:
        yield
    finally:
        counting.start()
