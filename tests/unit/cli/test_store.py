import asyncio
from math import inf
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword_adapters.config import load


@pytest.fixture
def settings(config: Path) -> Path:
    """Return settings with a store that processes share."""
    config.write_text(config.read_text() + '[replay]\nstore = "sqlite"\npath = "ids.db"\n')
    return config


def birth(settings: Path, reader: str) -> ReaderBirth | None:
    """Return what the store knows of a reader."""
    store = load(settings).verifier.replay
    assert isinstance(store, SharedReplayStore)
    return asyncio.run(store.birth(reader))


@pytest.mark.parametrize("reader", ["queue:workers:tasks.*", "name:planner-1:tasks.>"])
def test_a_reader_of_core_nats_needs_no_word(run: Run, settings: Path, reader: str) -> None:
    """Made known ahead of the deployment it begins without a floor; said again, nothing changes."""
    ended = run("store", "init", reader, "--config", str(settings))
    assert (ended.code, ended.err) == (0, "")
    assert f"{reader} is known from now on, with no floor\n" in ended.out
    assert "for readers that never ran, or are stopped" in ended.out
    assert birth(settings, reader) == ReaderBirth(floor=-inf)
    again = run("store", "init", reader, "--config", str(settings))
    assert (again.code, again.out) == (0, f"{reader} is known, with no floor; nothing was changed\n")


@pytest.mark.parametrize("reader", ["js:ORDERS:worker", "kafka:group"])
def test_a_log_needs_a_word(run: Run, settings: Path, reader: str) -> None:
    """Without one the error explains both; with one it holds, and it replaces what was known."""
    ended = run("store", "init", reader, "--config", str(settings))
    assert (ended.code, ended.out) == (2, "")
    assert "--accept-backlog" in ended.err
    assert "--nothing-handled-before says that it has never read" in ended.err
    assert birth(settings, reader) is None
    said = run("store", "init", reader, "--config", str(settings), "--nothing-handled-before", "--json")
    assert said.lines == [{"reader": reader, "known": False, "changed": True, "floor": None, "accepted": {}}]
    assert run("store", "init", reader, "--config", str(settings), "--json").lines == [
        {"reader": reader, "known": True, "changed": False, "floor": None, "accepted": {}}
    ]
    told = run("store", "init", reader, "--config", str(settings), "--nothing-handled-before")
    assert f"{reader} is known from now on, with no floor, which replaces its previous entry\n" in told.out
    missing = run("store", "init", reader, "--config", str(settings), "--accept-backlog")
    assert (missing.code, missing.out) == (2, "")
    assert "--servers nats://localhost:4222, or localhost:9092" in missing.err


def test_a_floor_is_told_by_the_clock(run: Run, settings: Path) -> None:
    """A reader that began with a floor says until when, as people read time."""

    async def admit() -> None:
        store = load(settings).verifier.replay
        assert isinstance(store, SharedReplayStore)
        await store.admit_reader("js:S:d", ReaderBirth(floor=1_800_000_000.0))

    asyncio.run(admit())
    told = run("store", "init", "js:S:d", "--config", str(settings))
    assert told.out == "js:S:d is known, with a floor of 2027-01-15T08:00:00+00:00; nothing was changed\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["js:ORDERS"], "write js:STREAM:DURABLE, queue:QUEUE:SUBJECT, name:NAME:SUBJECT or kafka:GROUP"),
        (["kafka:"], "write js:STREAM:DURABLE"),
        (["queue::tasks"], "write js:STREAM:DURABLE"),
        (["topic:x:y"], "write js:STREAM:DURABLE"),
        (["js:S:d", "--accept-backlog", "--nothing-handled-before"], "which says the opposite"),
        (["queue:q:tasks", "--accept-backlog"], "core NATS stores no backlog; omit it for queue: readers"),
    ],
)
def test_mistakes_are_one_line(run: Run, settings: Path, arguments: list[str], complaint: str) -> None:
    """Wrong names and words that contradict each other say what to write."""
    ended = run("store", "init", *arguments, "--config", str(settings))
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert ended.err.count("\n") == 1


def test_a_store_that_nobody_shares_is_told(run: Run, config: Path) -> None:
    """The memory of one process has no readers to be made known."""
    ended = run("store", "init", "kafka:group", "--config", str(config))
    assert ended.code == 2
    assert 'write store = "sqlite", "redis" or "nats_kv"' in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(("reader", "servers"), [("js:S:d", "nats://127.0.0.1:1"), ("kafka:group", "127.0.0.1:1")])
def test_a_bus_that_is_down_is_told(run: Run, settings: Path, reader: str, servers: str) -> None:
    """Nothing is changed then, and the exit code says that it may be tried again."""
    ended = run("store", "init", reader, "--config", str(settings), "--accept-backlog", "--servers", servers)
    assert (ended.code, ended.out) == (3, "")
    assert "broker unavailable" in ended.err
    assert birth(settings, reader) is None


def test_the_bus_is_where_the_settings_say(run: Run, settings: Path) -> None:
    """Without --servers the tables of the bus are used."""
    settings.write_text(settings.read_text() + '[nats]\nservers = ["nats://127.0.0.1:1"]\n')
    ended = run("store", "init", "js:S:d", "--config", str(settings), "--accept-backlog")
    assert (ended.code, ended.out) == (3, "")
    assert "broker unavailable" in ended.err


def test_a_store_that_is_down_is_told(run: Run, config: Path) -> None:
    """The exit code says that it may be tried again."""
    config.write_text(config.read_text() + '[replay]\nstore = "redis"\nurl = "redis://127.0.0.1:1"\n')
    ended = run("store", "init", "queue:q:tasks", "--config", str(config))
    assert (ended.code, ended.out) == (3, "")
    assert "replay unavailable" in ended.err
