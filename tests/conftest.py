"""Registers the fixtures that every kind of test may use."""

from collections.abc import Iterator

import coverage
import pytest
from xdist.workermanage import NodeManager  # type: ignore[import-untyped]  # it has no types

from watchword_adapters.control.thread import FollowerThread

pytest_plugins = ["tests.brokers.plugin"]

# On a busy machine a process that has run its tests takes longer than ten seconds to write down what they covered.
NodeManager.EXIT_TIMEOUT = 120


@pytest.fixture(autouse=True)
def no_follower_outlives_its_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what follows a control log: trying a broker that is gone, it draws random numbers amid other tests."""
    begun: list[FollowerThread] = []
    begin = FollowerThread.begin

    def noted(thread: FollowerThread) -> None:
        begun.append(thread)
        begin(thread)

    monkeypatch.setattr(FollowerThread, "begin", noted)
    yield
    for thread in begun:
        thread.close()


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
