"""Users of a NATS account, by the tokens in a directory; ``python -m benchmarks.sources.nkeys`` prints the figures."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

from benchmarks.sources.asking import flood, outage, seconds_until
from tests.support import nats_tokens
from watchword.keys import thumbprint_id
from watchword_adapters.keys import files
from watchword_adapters.nkeys.source import UserTokens

KEPT: Final = 3600.0
PRINCIPAL: Final = "agent://bench/planner"


def measure() -> dict[str, Any]:
    """Take a quarter of a minute."""
    with TemporaryDirectory(prefix="watchword-nkeys-") as directory:
        tokens = Path(directory) / "jwt"
        tokens.mkdir()
        return asyncio.run(_measure(tokens))


async def _measure(directory: Path) -> dict[str, Any]:
    account, old, new = nats_tokens.account(), nats_tokens.user(), nats_tokens.user()
    ahead, looks, really = 0.0, 0, files._read_if_changed  # noqa: SLF001 - what is counted

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return really(*arguments)

    def pass_time() -> None:
        nonlocal ahead
        ahead += KEPT + 1

    def write(name: str, token: str) -> None:
        beside = directory / f"{name}.new"
        beside.write_text(token)
        beside.replace(directory / f"{name}.jwt")

    with patch.object(files, "_read_if_changed", counted):
        write("account", account.says("account", account))
        write("old", account.says("user", old, "planner", iat=1000))
        kind = UserTokens(accounts=[account.public], principal="agent://bench/{user_name}")
        source = files.FileKeys([directory], max_staleness=KEPT, clock=lambda: time.monotonic() + ahead, kind=kind)
        ids = [thumbprint_id(one.private.public_key()) for one in (old, new)]
        write("new", account.says("user", new, "planner", iat=2000))
        learnt = await seconds_until(source, PRINCIPAL, ids[1], known=True)
        write("account", account.says("account", account, revocations={"*": 1000}))
        begun = time.perf_counter()
        while (found := await source.find(PRINCIPAL, ids[0])) is None or found.revoked_at is None:  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.01)
        revoked = round(time.perf_counter() - begun, 3)
        await asyncio.sleep(files.UNKNOWN_COOLDOWN)  # else the flood could be over before anybody may look
        asked = await flood(source, PRINCIPAL, lambda: looks)
        await asyncio.to_thread(shutil.rmtree, directory)
        await asyncio.sleep(files.UNKNOWN_COOLDOWN)
        word = await outage(source, PRINCIPAL, ids[1], pass_time)
    return {
        "seconds_to_new_key": learnt,
        "seconds_to_revocation": revoked,
        "under_outage": word,
        "lookups_for_100000_unknown_ids": asked,
        "measured_with": "check_every of 5 s, just after a look; revoked by the account's token",
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()) + "\n")
