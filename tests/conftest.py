"""Registers the fixtures that every kind of test may use, and chooses the engine."""

import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

import coverage
import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.workermanage import NodeManager  # type: ignore[import-untyped]  # it has no types

from tests.support import stand_in
from watchword import engine, verifier
from watchword_adapters.background import Background

pytest_plugins = ["tests.brokers.plugin", "tests.custody.plugin", "tests.kinds"]

# On a busy machine a process that has run its tests takes longer than ten seconds to write down what they covered.
NodeManager.EXIT_TIMEOUT = 120

# Hypothesis's limits of time say how busy a machine is, and nothing about what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

RUNS = "--runs-of-one"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests that verify one message after the other be tests of runs."""
    parser.addoption(
        RUNS,
        action="store_true",
        help="the native engine judges messages that come alone as well; its stand-in does where it is not installed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take the engine that was asked for."""
    if config.getoption(RUNS):
        verifier.SEVERAL = 1  # type: ignore[misc] # for this process
        if engine.native() is None:
            sys.modules["watchword_native"] = stand_in
            engine.native.cache_clear()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which engine did the work."""
    runs = " in runs of one" if config.getoption(RUNS) else ""
    terminalreporter.write_line(f"engine: {engine.name()}{runs}")


@pytest.fixture(autouse=True)
def log_of_nobody_else() -> None:
    """Begin each test with a log that no other test has turned elsewhere, or off."""
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)
    log = logging.getLogger("watchword")
    log.setLevel(logging.NOTSET)
    log.disabled, log.propagate = False, True


@pytest.fixture(autouse=True)
def nothing_in_the_background(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End what a test leaves in threads: it would look for brokers and channels that are gone, beside other tests."""
    begun: list[Background] = []
    begin = Background.__init__

    def noted(self: Background, *given: Any) -> None:
        begin(self, *given)
        begun.append(self)

    monkeypatch.setattr(Background, "__init__", noted)
    yield
    for one in begun:
        one.close()


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


@pytest.fixture
def children_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count no lines in the processes that a test starts: they are slow with it, and other tests cover the same."""
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)
