import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.journal.agents import Agent, Clock, Graveyard
from watchword_adapters.stores import journal_file


@pytest.fixture
def clock() -> Clock:
    """Return the clock of all agents of a test."""
    return Clock()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a directory that is not there yet."""
    return tmp_path / "state"


@pytest.fixture
def graves() -> Iterator[list[Any]]:
    """Return where killed processes lie."""
    yard = Graveyard()
    yield yard.graves
    yard.close()


@pytest.fixture
def start(state: Path, clock: Clock) -> Iterator[Callable[..., Agent]]:
    """Return a function that starts a process of the planner; in the end all are closed."""
    agents: list[Agent] = []

    def start(**options: Any) -> Agent:
        agents.append(Agent(state, options.pop("clock", clock), **options))
        return agents[-1]

    yield start
    for agent in agents:
        agent.close()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """Return the connections to SQLite files that are opened from now on."""
    made, connect = list[sqlite3.Connection](), sqlite3.connect

    def connected(*given: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(*given, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", connected)
    return made


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that starts the machine once more."""

    def boot(name: str) -> None:
        (tmp_path / "boot_id").write_text(f"{name}\n")

    boot("one")
    monkeypatch.setattr(journal_file, "BOOT_ID", tmp_path / "boot_id")
    return boot
