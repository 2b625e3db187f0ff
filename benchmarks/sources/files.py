"""A key set in a file, and keys in a directory of files."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, new_key, outage, seconds_until
from watchword.jwk import to_jwks
from watchword_adapters.keys import files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from watchword import VerificationKey

KEPT: Final = 3600.0


class Looks:
    """How often files were looked at, and a clock that can be put forward for what would take an hour."""

    def __init__(self) -> None:
        self.count = 0
        self._ahead = 0.0

    def clock(self) -> float:
        """Return seconds."""
        return time.monotonic() + self._ahead

    def pass_time(self) -> None:
        """Put the clock forward beyond the time for which keys are kept."""
        self._ahead += KEPT + 1


@contextmanager
def looked_at() -> Iterator[Looks]:
    """Count the looks at all key files."""
    looks, really = Looks(), files._read_if_changed  # noqa: SLF001 - what is counted

    def counted(*arguments: Any) -> Any:
        looks.count += 1
        return really(*arguments)

    with patch.object(files, "_read_if_changed", counted):
        yield looks


def measure() -> Figures:
    """Take ten seconds."""
    with TemporaryDirectory(prefix="watchword-files-") as directory, looked_at() as looks:
        return asyncio.run(_measure(Path(directory) / "agents.jwks", looks))


def measure_directory() -> Figures:
    """Take ten seconds."""
    with TemporaryDirectory(prefix="watchword-files-") as directory, looked_at() as looks:
        return asyncio.run(_measure(Path(directory), looks))


async def _measure(path: Path, looks: Looks) -> Figures:
    old, new = new_key(), new_key()
    _publish(path, old)
    source = files.FileKeys([path], max_staleness=KEPT, clock=looks.clock)
    _publish(path, old, new)
    learnt = await seconds_until(source, new, known=True)
    _publish(path, new)
    revoked = await seconds_until(source, old, known=False)
    await asyncio.sleep(files.UNKNOWN_COOLDOWN)  # else the flood could be over before anyone may look
    asked = await flood(source, PRINCIPAL, lambda: looks.count)
    _publish(path)
    await asyncio.sleep(files.UNKNOWN_COOLDOWN)
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=await outage(source, new, looks.pass_time),
        lookups_for_100000_unknown_ids=asked,
        measured_with="check_every of 5 s, just after a look; a file that is gone",
    )


def _publish(path: Path, *keys: VerificationKey) -> None:
    """Have exactly these keys stand there: a set of them in the file, or a PEM of each in the directory; or nothing."""
    if path.is_dir():
        for old in path.iterdir():
            old.unlink()
        for key in keys:
            pem = key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
            _replace(path / f"{key.key_id.hex()}.pem", f"Principal: {key.principal}\n{pem}")
    elif keys:
        _replace(path, to_jwks(keys))
    else:
        path.unlink()


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
