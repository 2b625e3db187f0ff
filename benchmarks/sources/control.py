"""Keys that operators give and revoke on a control log, on a real NATS server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from benchmarks.brokers import server
from benchmarks.sources.measuring import Figures, flood, outage, seconds_until
from benchmarks.trust.world import PLANNER, READERS, World
from tests.support.delaying import far_away
from watchword import Reason, load
from watchword.nats import connect
from watchword_adapters.nats.control_log import NatsControlLog

if TYPE_CHECKING:
    from watchword import VerificationKey, Watchword

KEPT: Final = 5
"""Seconds for which the reader continues without the log."""


def measure() -> Figures:
    """Take half a minute."""
    with server("nats", None) as broker, TemporaryDirectory(prefix="watchword-control-") as directory:
        return asyncio.run(_measure(Path(directory), broker.address))


class _Judged:
    """Keys as a reader's verifier takes them."""

    def __init__(self, agent: Watchword) -> None:
        self._verifier = agent.verifier

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        source = self._verifier.keys.source
        found = None if source is None else await source.find(principal, key_id)
        judged = self._verifier._as_limited(Reason.UNKNOWN_KEY if found is None else found)  # noqa: SLF001 - what is measured
        return None if isinstance(judged, Reason) else judged


async def _measure(directory: Path, address: str) -> Figures:
    reads, really = 0, NatsControlLog.read

    def counted(*arguments: Any) -> Any:
        nonlocal reads
        reads += 1
        return really(*arguments)

    name = f"sources-{time.time_ns()}"
    async with far_away(address) as proxy, World.on(directory, "nats", address, name) as world:
        settings = directory / f"{READERS[0]}.toml"
        text = settings.read_text().replace(address, f"nats://{proxy.address}")
        settings.write_text(text.replace("[control]\n", f'[control]\nmax_staleness = "{KEPT}s"\n'))
        with patch.object(NatsControlLog, "read", counted):
            agent = await asyncio.to_thread(load, settings, telemetry=False)
            client = await connect(address, watchword=agent)
        source = _Judged(agent)
        await world.give("planner")
        key = world.keys["planner"].verification_key(PLANNER)
        learnt = await seconds_until(source, key, known=True)
        asked = await flood(source, PLANNER, lambda: reads)
        await world.types("key", "revoke", key.key_id.decode(), "--yes")
        revoked = await seconds_until(source, key, known=False)
        await world.give("planner")
        key = world.keys["planner"].verification_key(PLANNER)
        await seconds_until(source, key, known=True)
        proxy.stall()
        word = await outage(source, key, lambda: time.sleep(2 * KEPT))
        proxy.go_on()
        await client.close()
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=word,
        lookups_for_100000_unknown_ids=asked,
        measured_with=f"from the return of the operator's command; max_staleness of {KEPT} s",
    )
