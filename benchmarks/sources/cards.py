"""Signed A2A agent cards, imported by the command into the file that a reader looks at."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import rfc8785

from benchmarks.sources.files import KEPT, Looks, looked_at
from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, outage, seconds_until
from tests.support.key_server import Answer, KeyServer, authority, serving
from watchword import SigningKey
from watchword.jwk import to_jwk
from watchword.strict import base64url
from watchword_adapters.keys.agent_card import WELL_KNOWN
from watchword_adapters.keys.files import UNKNOWN_COOLDOWN, FileKeys

_CARD: Final[dict[str, Any]] = {"name": "Planner", "description": "plans", "version": "1.0"}
_SET: Final = "/jwks.json"


def measure() -> Figures:
    """Take a quarter of a minute."""
    with (
        authority() as ca,
        serving(ca.server_side("127.0.0.1")) as host,
        TemporaryDirectory(prefix="watchword-cards-") as directory,
        looked_at() as looks,
    ):
        return asyncio.run(_measure(host, ca.path, Path(directory) / "planner.jwks", looks))


async def _measure(host: KeyServer, ca: Path, path: Path, looks: Looks) -> Figures:
    first, second, third = (SigningKey.generate() for _ in range(3))
    await _import(host, ca, path, first)
    source = FileKeys([path], max_staleness=KEPT, clock=looks.clock)
    await _import(host, ca, path, second)
    learnt = await seconds_until(source, second.verification_key(PRINCIPAL), known=True)
    await _import(host, ca, path, third)
    revoked = await seconds_until(source, second.verification_key(PRINCIPAL), known=False)
    await asyncio.sleep(UNKNOWN_COOLDOWN)  # else the flood could be over before anyone may look
    asked = await flood(source, PRINCIPAL, lambda: looks.count + len(host.asked))
    await asyncio.to_thread(path.unlink)
    await asyncio.sleep(UNKNOWN_COOLDOWN)
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=await outage(source, third.verification_key(PRINCIPAL), looks.pass_time),
        lookups_for_100000_unknown_ids=asked,
        measured_with="check_every of 5 s, from the end of the import, which replaces the file; then that file is gone",
    )


async def _import(host: KeyServer, ca: Path, path: Path, key: SigningKey) -> None:
    """Have the agent's host serve a card that this key signed, and type the command."""
    jku = host.url(_SET, host="127.0.0.1")
    protected = base64url(json.dumps({"alg": "EdDSA", "kid": "key-1", "jku": jku}).encode())
    signature = base64url(await key.sign(f"{protected}.{base64url(rfc8785.dumps(_CARD))}".encode()))
    card = {**_CARD, "signatures": [{"protected": protected, "signature": signature}]}
    host.answers[WELL_KNOWN] = _answer(card)
    host.answers[_SET] = _answer({"keys": [to_jwk(key.verification_key(PRINCIPAL)) | {"kid": "key-1"}]})
    command = ["key", "import-card", host.url("", host="127.0.0.1"), "--principal", PRINCIPAL, "--jku", jku]
    command += ["--output", str(path), "--allow-private", "--ca", str(ca)]
    done = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "watchword_adapters.cli", *command, stdout=DEVNULL
    )
    assert await done.wait() == 0  # noqa: S101 - the premise


def _answer(document: dict[str, Any]) -> Answer:
    return Answer(json.dumps(document).encode(), headers={"Content-Type": "application/json"})
