"""A key set in a file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, new_key, outage, seconds_until
from watchword.jwk import to_jwks
from watchword_adapters.keys import files

if TYPE_CHECKING:
    from watchword import VerificationKey

KEPT: Final = 3600.0


def measure() -> Figures:
    """Take ten seconds."""
    with TemporaryDirectory(prefix="watchword-files-") as directory:
        return asyncio.run(_measure(Path(directory) / "agents.jwks"))


async def _measure(path: Path) -> Figures:
    ahead, looks, old, new = 0.0, 0, new_key(), new_key()
    really = files._read_if_changed  # noqa: SLF001 - what is counted

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return really(*arguments)

    def pass_time() -> None:
        nonlocal ahead
        ahead += KEPT + 1

    with patch.object(files, "_read_if_changed", counted):
        _publish(path, old)
        source = files.FileKeys([path], max_staleness=KEPT, clock=lambda: time.monotonic() + ahead)
        _publish(path, old, new)
        learnt = await seconds_until(source, new, known=True)
        _publish(path, new)
        revoked = await seconds_until(source, old, known=False)
        await asyncio.sleep(files.UNKNOWN_COOLDOWN)  # else the flood could be over before anybody may look
        asked = await flood(source, PRINCIPAL, lambda: looks)
        await asyncio.to_thread(path.unlink)
        await asyncio.sleep(files.UNKNOWN_COOLDOWN)
        return Figures(
            seconds_to_new_key=learnt,
            seconds_to_revocation=revoked,
            under_outage=await outage(source, new, pass_time),
            lookups_for_100000_unknown_ids=asked,
            measured_with="check_every of 5 s, just after a look",
        )


def _publish(path: Path, *keys: VerificationKey) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(to_jwks(keys))
    beside.replace(path)
