"""Workloads by their SVIDs, announced over a real NATS server.

The Workload API is a stand-in on a unix socket of this machine. A new key is known once a reader that did not ask for
it before finds it, from the moment when the Workload API gave it to the agent.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from benchmarks.brokers import server
from benchmarks.sources.measuring import Figures, flood, outage, seconds_until
from tests.support.identities import PLANNER, Identities
from watchword import Policy, VerificationKey
from watchword.keys import thumbprint_id
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.nats.presence import NatsPresence
from watchword_adapters.spiffe.bundles import FileBundles
from watchword_adapters.spiffe.source import FRESH, SpiffeKeys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from watchword import Watchword
    from watchword.spi import Message

KEPT: Final = 3600.0


def measure() -> Figures:
    """Take a quarter of a minute."""
    with server("nats", None) as broker, TemporaryDirectory(prefix="watchword-spiffe-") as directory:
        return asyncio.run(_measure(Path(directory), broker.address))


class _Counted(NatsPresence):
    """The presence channel, whose readings are counted, and which can be out of reach."""

    reads = 0
    down = False

    async def read(self, *, since: float, listen: float) -> AsyncGenerator[Message]:
        """See ``NatsPresence``."""
        if _Counted.down:
            raise ConnectionError
        _Counted.reads += 1
        async for message in super().read(since=since, listen=listen):
            yield message


class _Later:
    """The clock, which can be put forward."""

    ahead = 0.0

    def __call__(self) -> float:
        return since_boot() + self.ahead

    def pass_time(self) -> None:
        """Put it forward beyond the time for which bundles are kept."""
        self.ahead += KEPT + 1


def _ignore(event: str, **_: object) -> None:
    assert event  # noqa: S101 - nobody listens


async def _measure(directory: Path, address: str) -> Figures:
    clock, name = _Later(), f"sources-{time.time_ns()}"
    async with Identities.on(directory, "nats", address, name) as realm:

        def opened(agent: Watchword) -> NatsPresence:
            return _Counted(f"{name}.presence", watchword=agent, servers=[address])

        await realm.agent("planner")
        source = SpiffeKeys(
            realm="prod",
            bundles=FileBundles(
                {"acme.example": directory / "bundle.pem"}, max_staleness=KEPT, warn=_ignore, clock=clock
            ),
            open_presence=opened,
            policy=Policy(),
            warn=_ignore,
            clock=clock,
        )
        await source.find(PLANNER, b"unknown")
        public = realm.rotate().private.public_key()
        key = VerificationKey.from_public_key(public, principal=PLANNER, key_id=thumbprint_id(public))  # type: ignore[arg-type]  # P-256
        learnt = await seconds_until(source, key, known=True)
        await asyncio.sleep(FRESH)  # else the flood could be over before anyone may look
        asked = await flood(source, PLANNER, lambda: _Counted.reads)
        _Counted.down = True
        bundle = directory / "bundle.pem"
        kept = bundle.read_bytes()
        bundle.unlink()

        def is_failing() -> bool:
            reading = source._reading  # noqa: SLF001 - what finds out that it cannot be read
            return reading is not None and reading.failure is not None

        while not is_failing():  # noqa: ASYNC110 - a thread finds out
            await asyncio.sleep(0.05)
        word = await outage(source, key, clock.pass_time)
        _Counted.down = False
        bundle.write_bytes(kept)
        while source._bundles.is_stale or is_failing():  # noqa: ASYNC110, SLF001 - as above
            await asyncio.sleep(0.05)
        await source.find(PLANNER, b"unknown")
        realm.trust(type(realm.root)(name="another"))
        revoked = await seconds_until(source, key, known=False)
        source.close()
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=word,
        lookups_for_100000_unknown_ids=asked,
        measured_with="check_every of 5 s; revoked by its authority leaving the bundle file",
    )
