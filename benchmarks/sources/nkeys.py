"""Users of a NATS account, by the tokens in a directory."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.sources.files import KEPT, Looks, looked_at
from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, outage, seconds_until
from tests.support import nats_tokens
from watchword import VerificationKey
from watchword.keys import thumbprint_id
from watchword_adapters.keys.files import UNKNOWN_COOLDOWN, FileKeys
from watchword_adapters.nkeys.source import UserTokens

if TYPE_CHECKING:
    from tests.support.nats_tokens import Holder


def measure() -> Figures:
    """Take a quarter of a minute."""
    with TemporaryDirectory(prefix="watchword-nkeys-") as directory, looked_at() as looks:
        tokens = Path(directory) / "jwt"
        tokens.mkdir()
        return asyncio.run(_measure(tokens, looks))


async def _measure(directory: Path, looks: Looks) -> Figures:
    account, old, new = nats_tokens.account(), nats_tokens.user(), nats_tokens.user()

    def write(name: str, token: str) -> None:
        beside = directory / f"{name}.new"
        beside.write_text(token)
        beside.replace(directory / f"{name}.jwt")

    write("account", account.says("account", account))
    write("old", account.says("user", old, "planner", iat=1000))
    kind = UserTokens(accounts=[account.public], principal="agent://bench/{user_name}")
    source = FileKeys([directory], max_staleness=KEPT, clock=looks.clock, kind=kind)
    write("new", account.says("user", new, "planner", iat=2000))
    learnt = await seconds_until(source, _key_of(new), known=True)
    write("account", account.says("account", account, revocations={"*": 1000}))
    revoked = await seconds_until(source, _key_of(old), known=False)
    await asyncio.sleep(UNKNOWN_COOLDOWN)  # else the flood could be over before anyone may look
    asked = await flood(source, PRINCIPAL, lambda: looks.count)
    await asyncio.to_thread(shutil.rmtree, directory)
    await asyncio.sleep(UNKNOWN_COOLDOWN)
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=await outage(source, _key_of(new), looks.pass_time),
        lookups_for_100000_unknown_ids=asked,
        measured_with="check_every of 5 s, just after a look; revoked by the account's token",
    )


def _key_of(user: Holder) -> VerificationKey:
    public = user.private.public_key()
    return VerificationKey.from_public_key(public, principal=PRINCIPAL, key_id=thumbprint_id(public))
