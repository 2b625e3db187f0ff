"""The replay stores: where each one lives, and how a worker opens it. The only place that knows their options."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.plan import READER, REALM
from tests.brokers import nats
from tests.brokers.start import start
from watchword import ConfigurationError
from watchword.replay import ReaderBirth, SharedReplayStore
from watchword.spi import Context
from watchword_adapters import plugins
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.plan import Plan, Scenario
    from tests.brokers.broker import Broker
    from watchword.spi import ReplayStore


@contextmanager
def home(scene: Scenario, directory: Path, channel: str) -> Iterator[tuple[dict[str, Any], Broker | None]]:
    """Provide what the store needs: yield its options, and its server where it has one of its own."""
    match scene.store:
        case "memory" | "journal":  # a journal lies beside what else a worker writes down
            yield {}, None
        case "sqlite":
            yield {"path": "replay.sqlite"}, None
        case "redis":
            directory.mkdir()
            with _running(start("redis", directory, required=False)[0]) as server:
                yield {"url": server.address, "prefix": f"{channel}:"}, server
        case "nats_kv":  # a server of its own, so that the store can go down while the bus is up
            settings = directory / "nats.conf"
            directory.mkdir()
            settings.write_text("jetstream { sync_interval: always }\n")
            with _running(nats.wheel(directory, "-c", str(settings))) as server:
                yield {"url": server.address, "bucket": channel, "durable": True}, server


async def open_store(plan: Plan, clock: Callable[[], float]) -> ReplayStore:
    """Open the scenario's store for one process, by the name that ``[replay] store`` has for it."""
    name = "memory" if plan.scene.store == "journal" else plan.scene.store
    factory = plugins.find(plugins.REPLAY_STORES, name, where="replay.store")
    context = Context(realm=REALM, directory=Path(plan.directory), clock=clock, policy=plan.policy, warn=_silent)
    store: Any = factory(plan.store, context)
    while hasattr(store, "start"):
        try:
            await store.start()
            break
        except ConfigurationError:
            raise
        except Exception:  # noqa: BLE001 - its server is just being restarted; each client has errors of its own
            await asyncio.sleep(0.2)
    return store  # type: ignore[no-any-return] # the entry point of a replay store makes one


async def initialise(plan: Plan, *readers: str) -> None:
    """Tell the scenario's store, or the workers' journals, that these readers have never read: as an operator does."""
    if plan.scene.store == "journal":
        for number in range(plan.workers):
            journal = journal_of(plan, number, time.time)
            journal.initialise()
            journal.close()
        return
    store: Any = await open_store(plan, time.time)
    if isinstance(store, SharedReplayStore):
        for reader in readers:
            await store.admit_reader(reader, ReaderBirth(floor=-inf))
    if hasattr(store, "close"):
        await store.close()


def journal_of(plan: Plan, number: int, clock: Callable[[], float]) -> FileJournal:
    """Return the journal of one worker, which is on a machine of its own."""
    directory = Path(plan.directory, f"state-{number}")
    return FileJournal(directory, realm=REALM, principal=READER, policy=plan.policy, clock=clock, warn=_silent)


@contextmanager
def _running(server: Broker) -> Iterator[Broker]:
    try:
        yield server
    finally:
        server.stop()


def _silent(event: str, **fields: str | float | None) -> None:
    """Leave warnings about the set-up unsaid: each life of a worker would repeat them."""
