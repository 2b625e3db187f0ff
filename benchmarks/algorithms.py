"""What each signature algorithm costs by batch size: processor time with both engines, and characters on the wire."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import cramjam

from watchword import Algorithm, SigningKey
from watchword.spi import Signer

from . import cast
from .core import REPEATS, SIZE
from .figures import Run, async_rate, on_one_core, take_turns
from .stages import Stage, engines, ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword.spi import Message, Verifier

BATCHES: Final = (1, 64, 256)
WHATS: Final = ("sign", "verify")
_CLOCK: Final = time.process_time
"""All of it is this process's own work, on one CPU: so it is no matter who else is at work there."""

_MESSAGES: Final = 2048
_ALONE: Final = 256
"""Messages with a signature each: those of ML-DSA take some time."""


class Case(NamedTuple):
    """What is measured: by whose signatures, and how many messages share one."""

    algorithm: str
    what: str
    batch: int


def measure(*, small: bool) -> dict[str, Any]:
    """Measure, and return what goes into the report."""
    cpu = on_one_core()
    with ExitStack() as stack:
        stages = {engine: stack.enter_context(Stage(_runs, small, engine=engine)) for engine in engines()}
        found = take_turns(ready(stages), 1 if small else REPEATS)
    rows: dict[str, list[dict[str, Any]]] = {engine: [] for engine in stages}
    for (engine, case), figure in found.items():
        rows[engine].append(case._asdict() | figure.to_json())
    return {"algorithms": {"cpu": cpu, "value_bytes": SIZE, "figures": rows, "characters": asyncio.run(_characters())}}


def signer(key: SigningKey, batch: int) -> Signer:
    """Return the speaker's signer by a key of some algorithm."""
    return Signer(realm=cast.REALM, principal=cast.principal(), key=key, clock=cast.clock, batch=batch)


def _runs(small: bool) -> dict[Case, Run]:  # noqa: FBT001 - by position
    """Return what each engine does."""
    runs: dict[Case, Run] = {}
    for algorithm in Algorithm:
        key = SigningKey.generate(algorithm)
        for batch in BATCHES:
            count = max(BATCHES) if small else _MESSAGES if batch > 1 else _ALONE
            bare = cast.messages(SIZE, count)
            made = asyncio.run(cast.signed(signer(key, batch), [*cast.messages(SIZE, cast.CHUNK), *bare]))
            runs[Case(algorithm.label, "sign", batch)] = _signing(key, batch, bare)
            runs[Case(algorithm.label, "verify", batch)] = _verifying(key, made)
    return runs


def _signing(key: SigningKey, batch: int, bare: Sequence[Message]) -> Run:
    return lambda: async_rate(len(bare), lambda: signer(key, batch).sign_many(bare), _CLOCK)


def _verifying(key: SigningKey, made: Sequence[Message]) -> Run:
    known = [key.verification_key(cast.principal())]

    def run() -> float:
        judge: Verifier = cast.verifier(known)  # a fresh one each time, as in the core's own part
        asyncio.run(cast.verify_in_bulk(judge, made[: cast.CHUNK]))
        return async_rate(len(made) - cast.CHUNK, lambda: cast.verify_in_bulk(judge, made[cast.CHUNK :]), _CLOCK)

    return run


async def _characters() -> dict[str, dict[str, int]]:
    """Measure the header's value, and what of it is left where a bus compresses a whole batch (zstd)."""
    found: dict[str, dict[str, int]] = {}
    for algorithm in Algorithm:
        key, row = SigningKey.generate(algorithm), found.setdefault(algorithm.label, {})
        for batch in BATCHES:
            several = max(batch, 64)
            headers = [one.header[1] or b"" for one in await signer(key, batch).sign_many(cast.messages(SIZE, several))]
            row[f"batch{batch}"] = max(map(len, headers))
            row[f"batch{batch}_zstd"] = len(bytes(cramjam.zstd.compress(b"".join(headers)))) // several
    return found
