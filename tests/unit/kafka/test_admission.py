"""A group and the store that its members share: nothing is handed over before the store knows the group."""

import asyncio
import time
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from tests.support.patience import PATIENCE
from tests.unit.kafka.conftest import Read
from tests.unit.kafka.fakes import P0, P1, REALM, SENDER, Keys, numbers
from watchword import ConfigurationError, Mode, Policy, Unavailable, Watchword
from watchword.replay import ReaderBirth
from watchword.spi import ObservedMessage
from watchword_adapters.kafka import ObservedRecord
from watchword_adapters.stores.sqlite import SqliteReplayStore

POLICY = Policy(max_skew=0.5)
ELSEWHERE = TopicPartition("a topic of last year", 7)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteReplayStore]:
    """Give a store that has just been made."""
    async with SqliteReplayStore(tmp_path / "ids.db", policy=POLICY, clock=time.time) as made:
        yield made


def member(store: SqliteReplayStore, *, mode: Mode = Mode.ENFORCE) -> Watchword:
    """Return an agent of the group."""
    policy = Policy(max_skew=0.5, mode=mode)
    return Watchword(realm=REALM, principal=SENDER, keys=Keys(), replay=store, policy=policy)


async def test_a_group_that_never_read_loses_nothing(store: SqliteReplayStore, read: Read) -> None:
    """What stood in the log before the store was made is delivered, and is known afterwards (A46)."""
    kafka = read(member(store), P0)
    await kafka.fill(*numbers(3))
    assert await kafka.values(3) == numbers(3)
    assert await store.birth("kafka:group") == ReaderBirth(floor=-inf)
    kafka.consumer.seek(P0, 0)
    assert (await kafka.one()).verified.redelivered


@pytest.mark.parametrize("place", [P0, P1, ELSEWHERE])
async def test_a_group_with_a_past_is_refused(store: SqliteReplayStore, read: Read, place: TopicPartition) -> None:
    """Whatever it has committed, the operator speaks first; the error has the numbers and what to type."""
    kafka = read(member(store), P0)
    kafka.logs[place] = kafka.logs.get(place) or type(kafka.logs[P0])()
    kafka.logs[place].end = 12
    kafka.coordinator.committed[place] = OffsetAndMetadata(5, "")
    await kafka.fill(b"backlog")
    for _ in range(2):  # as often as it is asked
        with pytest.raises(
            ConfigurationError, match=r"up to 5; backlog: \d+ records\).*watchword store init kafka:group"
        ):
            await kafka.one()
    assert await store.birth("kafka:group") is None
    assert not kafka.fetcher.taken
    await store.admit_reader("kafka:group", ReaderBirth(floor=-inf))
    kafka.consumer.seek(P0, 0)
    async with asyncio.timeout(PATIENCE):
        assert (await kafka.consumer.getmany(timeout_ms=10_000))[P0]


async def test_a_group_that_the_store_knows_goes_on(store: SqliteReplayStore, read: Read) -> None:
    """Its memory holds, whatever it has committed; a second member of a new group finds it known."""
    await store.admit_reader("kafka:group", ReaderBirth(floor=time.time() + 60))
    kafka = read(member(store), P0)
    kafka.coordinator.committed[P0] = OffsetAndMetadata(0, "")
    await kafka.fill(b"stale")
    assert await kafka.many(seconds=0.3) == {}
    assert kafka.consumer._watchword.audit.counts["stale"] == 1


@pytest.mark.parametrize("error", [16, 30, 14])
async def test_what_the_brokers_do_not_tell_is_no_past(store: SqliteReplayStore, read: Read, error: int) -> None:
    """A coordinator that moved, loads, or refuses to tell makes no group new; it is asked again."""
    kafka = read(member(store), P0)
    kafka.coordinator.committed[P0] = OffsetAndMetadata(0, "")
    kafka.coordinator.errors = [error]
    await kafka.fill(b"backlog")
    with pytest.raises(Unavailable, match="Error"):
        await kafka.one()
    with pytest.raises(ConfigurationError, match="has read before"):
        await kafka.one()


async def test_a_store_that_is_down_is_waited_for(
    store: SqliteReplayStore, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During the outage nothing is handed over or lost; with on_unavailable="wait" the caller gets no error."""

    async def down(_reader: str) -> ReaderBirth | None:
        raise OSError

    for options in ({}, {"on_unavailable": "wait"}):
        kafka = read(member(store), P0, **options)
        await kafka.fill(b"backlog")
        with monkeypatch.context() as patch:
            patch.setattr(store, "birth", down)
            if options:
                assert await kafka.many(seconds=0.2) == {}
            else:
                with pytest.raises(Unavailable, match="OSError"):
                    await kafka.one()
            assert not kafka.fetcher.taken
        assert (await kafka.one()).value == b"backlog"


async def test_a_consumer_that_stops_asks_no_more(
    store: SqliteReplayStore, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that does not answer does not hold up the end."""

    async def hang(_reader: str) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(store, "birth", hang)
    kafka = read(member(store), P0)
    assert await kafka.many(seconds=0.1) == {}
    async with asyncio.timeout(PATIENCE):  # much less than a request may take
        await kafka.consumer.stop()


async def test_a_group_that_observes_is_admitted_with_its_backlog(store: SqliteReplayStore, read: Read) -> None:
    """A trial run is refused nothing; enforcing later continues from it, and loses nothing of the backlog."""
    kafka = read(member(store, mode=Mode.OBSERVE), P0)
    kafka.coordinator.committed[P0] = OffsetAndMetadata(0, "")
    await kafka.fill(b"backlog")
    found = await kafka.one()
    assert isinstance(found, ObservedRecord | ObservedMessage)
    birth = await store.birth("kafka:group")
    assert birth is not None
    assert birth.accepted == {"topic/0": (0, birth.floor)}
