"""A reader of core NATS judges nothing until it knows since when it may believe its memory."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tests.unit.kafka.fakes import Keys, alone, watchword
from watchword import ConfigurationError, Mode, Watchword
from watchword.guard import AT_A_TIME, Kind, Note
from watchword.journal import Recalled
from watchword.lives import Life
from watchword.replay import ReaderBirth
from watchword.spi import Admission, Claim, MemoryReplayStore
from watchword_adapters.nats import core_reader
from watchword_adapters.nats.core_reader import Beginnings, CoreReader, SharedReader, SubscriptionReader


class Store:
    """A shared store that is down at first, and keeps births."""

    def __init__(self, *, failures: int = 0) -> None:
        self.births: dict[str, ReaderBirth] = {}
        self.failures = failures

    async def claim(self, claim: Claim) -> Admission:
        """See ReplayStore."""
        raise NotImplementedError

    async def birth(self, reader: str) -> ReaderBirth | None:
        """See SharedReplayStore."""
        if self.failures:
            self.failures -= 1
            raise OSError
        return self.births.get(reader)

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """See SharedReplayStore."""
        assert not replace
        return self.births.setdefault(reader, birth)


def sharing(store: Any) -> tuple[Watchword, list[tuple[str, dict[str, Any]]]]:
    """Return an agent whose store is this one, and what it warns of."""
    agent, warned = watchword(Keys()), list[tuple[str, dict[str, Any]]]()
    agent.verifier.replay = store  # type: ignore[misc] # the test's
    agent.audit.warn = lambda event, **fields: warned.append((event, fields))  # type: ignore[method-assign]  # to listen
    return agent, warned


async def test_a46_a_queue_group_that_a_store_does_not_know_begins_with_a_floor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits for a store that is down, and says so; the floor is announced with what makes it unneeded."""
    monkeypatch.setattr(core_reader, "FIRST_DELAY", 0.001)
    store = Store(failures=2)
    agent, warned = sharing(store)
    reader = SharedReader(agent, "tasks", queue="workers", client_name=None)
    assert [reader.gate.is_open] == [False]
    reader.begin()
    await reader.begun()
    assert reader.gate.is_open
    assert [event for event, _ in warned] == ["replay.reader_not_begun", "replay.reader_not_begun", "replay.floor"]
    assert warned[-1][1]["remedy"] == "before the first start, type: watchword store init queue:workers:tasks"
    assert store.births["queue:workers:tasks"].floor >= agent.clock()
    again = SharedReader(agent, "tasks", queue="workers", client_name=None)
    again.begin()
    await again.begun()
    assert len(warned) == 3


async def test_a_floor_that_is_over_is_not_announced() -> None:
    """Another process may have admitted the reader at the same time, and longer ago."""
    store = Store()
    agent, warned = sharing(store)

    async def admitted_before(reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        assert (reader, replace) == ("name:controller:tasks", False)
        return ReaderBirth(floor=birth.floor - 1000)

    store.admit_reader = admitted_before  # type: ignore[method-assign]  # the other process was first
    reader = SharedReader(agent, "tasks", queue="", client_name="controller")
    reader.begin()
    await reader.begun()
    assert not warned


async def test_subscriptions_of_a_named_client_are_numbered() -> None:
    """Two of one pattern are two readers; a number is free again when its subscription is closed, once."""
    agent = alone()  # whose store knows no births
    readers = [SharedReader(agent, "tasks", queue="", client_name="controller") for _ in range(2)]
    assert [reader.name for reader in readers] == ["name:controller:tasks", "name:controller:tasks#1"]
    readers[0].begin()
    await readers[0].begun()
    assert readers[0].gate.is_open
    readers[0].close()
    readers[0].close()
    assert SharedReader(agent, "tasks", queue="", client_name="controller").name == "name:controller:tasks"


async def test_a_reader_that_is_closed_before_it_began_never_begins() -> None:
    """Nothing waits for a confirmation that does not come; its number is free again."""
    agent, answered = watchword(Keys()), asyncio.Event()
    readers: list[CoreReader] = [
        SubscriptionReader(agent, "tasks", solicited=False),
        SharedReader(agent, "tasks", queue="workers", client_name=None),
    ]
    beginnings = Beginnings(agent, lambda: _wait(answered))
    for reader in readers:
        beginnings.add(reader)
    begun = [asyncio.create_task(reader.begun()) for reader in readers]
    await asyncio.sleep(0)
    for reader in readers:
        reader.close()
        reader.close()
    await asyncio.gather(*begun)
    answered.set()
    last = SubscriptionReader(agent, "tasks", solicited=False)
    beginnings.add(last)
    await last.begun()
    assert [reader.gate.is_open for reader in (*readers, last)] == [False, False, True]
    assert last.name == readers[0].name


async def test_one_pong_is_for_all_that_were_opened_before_it_was_asked_for() -> None:
    """Thousands of subscriptions cost a few round trips; none begins by a PONG that was asked for before it."""
    agent, pongs, asked = watchword(Keys()), list[asyncio.Event](), asyncio.Event()

    async def confirmed() -> None:
        pongs.append(asyncio.Event())
        asked.set()
        await pongs[-1].wait()

    beginnings = Beginnings(agent, confirmed)
    first, second = ([SubscriptionReader(agent, f"tasks.{n}", solicited=False) for n in range(9)] for _ in range(2))
    for reader in first:
        beginnings.add(reader)
    await asked.wait()
    for reader in second:
        beginnings.add(reader)
    asked.clear()
    pongs[0].set()
    await asked.wait()
    assert ({reader.gate.is_open for reader in first}, {reader.gate.is_open for reader in second}) == ({True}, {False})
    pongs[1].set()
    await asyncio.gather(*[reader.begun() for reader in second])
    assert len(pongs) == 2


async def test_a_client_that_closes_lets_nobody_begin() -> None:
    """A caller that waited for a PONG then waits no longer."""
    agent, never = watchword(Keys()), asyncio.Event()
    reader, beginnings = (
        SubscriptionReader(agent, "tasks", solicited=False),
        Beginnings(agent, lambda: _wait(never)),
    )
    beginnings.close()
    beginnings.add(reader)
    await asyncio.sleep(0)
    beginnings.close()
    reader.close()
    await reader.begun()
    assert not reader.gate.is_open


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_who_observes_is_the_reader_that_will_enforce() -> None:
    """What an observer was given is known when it enforces, and to members of its group that do already."""
    agent, _ = sharing(Store())
    observer = watchword(Keys(), mode=Mode.OBSERVE)
    for given in ({"queue": "workers", "client_name": None}, {"queue": "", "client_name": "me"}):
        enforced = SharedReader(agent, "tasks", **given)
        assert SharedReader(observer, "tasks", **given).name == enforced.name


async def test_a46_a_memory_that_cannot_begin_is_told_of_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a journal cannot be opened, a reader says so until it can, and never waits forever without a word."""
    monkeypatch.setattr(core_reader, "FIRST_DELAY", 0.001)
    agent, warned = sharing(MemoryReplayStore(horizon=None))
    bear, failures = agent.lives.bear, [ConfigurationError("state: the disk is full"), OSError()]

    async def fail(*lives: Life, solicited: bool = False) -> None:
        if failures:
            raise failures.pop(0)
        await bear(*lives, solicited=solicited)

    agent.lives.bear = fail  # type: ignore[method-assign]  # the test's
    reader = SubscriptionReader(agent, "tasks", solicited=False)
    reader.begin()
    await reader.begun()
    assert reader.gate.is_open
    told = [fields["detail"] for event, fields in warned if event == "replay.reader_not_begun"]
    assert told == ["state: the disk is full", "OSError"]


class Journal:
    """A journal that knows ``size`` ids of every reader."""

    def __init__(self, size: int) -> None:
        self.size = size

    def recall(self, logs: Sequence[str], *, birth: float) -> list[Recalled]:
        """See Journal."""
        (log,) = logs
        ids = (Note(log, Kind.ID, "agent://acme/planner", b"key", 2**32, at.to_bytes(16)) for at in range(self.size))
        return [Recalled(floor=birth - 1000, notes=ids)]


async def test_a_memory_is_restored_beside_the_traffic() -> None:
    """The event loop runs between its parts, so a ping is answered; nothing is judged before the whole."""
    agent = watchword(Keys())
    size = 20 * AT_A_TIME
    agent.verifier.journal = Journal(size)  # type: ignore[misc, assignment]  # the test's
    reader = SubscriptionReader(agent, "tasks", solicited=False)
    reader.begin()
    known = []
    while not reader.gate.is_open:
        known.append(agent.verifier.ids_held)
        await asyncio.sleep(0)
    steps = [after - before for before, after in zip(known, [*known[1:], size], strict=True)]
    assert max(steps) <= AT_A_TIME
    assert agent.verifier.ids_held == size


async def test_clocks_are_compared_though_a_journal_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next message says so, and is not handed over; what is looked for once a second is looked for again."""
    monkeypatch.setattr(core_reader, "COMPARED_EVERY", 0.001)
    agent, compared = watchword(Keys()), asyncio.Event()

    def fail(wall: float, boot: float) -> None:
        agent.lives.compare_clocks = lambda *_: compared.set()  # type: ignore[method-assign]  # the test's
        assert wall > boot
        raise ConfigurationError("state: it can neither be written nor deleted")

    agent.lives.compare_clocks = fail  # type: ignore[method-assign]  # the test's
    watching = asyncio.create_task(core_reader.watch_clocks(agent))
    async with asyncio.timeout(PATIENCE):
        await compared.wait()
    watching.cancel()
