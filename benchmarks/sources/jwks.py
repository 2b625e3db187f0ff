"""A key set, and a Web Bot Auth directory, over HTTPS, from a server on this machine."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, new_key, outage, seconds_until
from tests.support.key_server import Answer, KeyServer, authority, serving
from watchword import SigningKey, VerificationKey
from watchword.jwk import to_jwk, to_jwks
from watchword.keys import thumbprint
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.keys.https import Https
from watchword_adapters.keys.jwks import COOL_DOWN, KEEP, JwksKeys

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_AGE: Final = 10
"""Seconds for which the server calls its set fresh."""


class _Kind(NamedTuple):
    """Where a set stands, and how it is written."""

    path: str
    media_type: str
    key: Callable[[], VerificationKey]
    text: Callable[[tuple[VerificationKey, ...]], str]


def measure() -> Figures:
    """Take half a minute."""
    return _run(_Kind("/agents.jwks", "application/jwk-set+json", new_key, to_jwks))


def measure_directory() -> Figures:
    """Take half a minute."""
    path = "/.well-known/http-message-signatures-directory"
    return _run(_Kind(path, "application/http-message-signatures-directory+json", _bots_key, _directory_of))


def _bots_key() -> VerificationKey:
    public = SigningKey.generate().public
    return VerificationKey.from_public_key(public, principal=PRINCIPAL, key_id=thumbprint(public).encode())


def _directory_of(keys: tuple[VerificationKey, ...]) -> str:
    entries = [{**to_jwk(key), "use": "sig"} for key in keys]
    for entry in entries:
        del entry["principal"]  # a bot's directory knows no such member
    return json.dumps({"keys": entries})


def _run(kind: _Kind) -> Figures:
    with authority() as ca, serving(ca.server_side("127.0.0.1")) as server:
        return asyncio.run(_measure(server, Https(ca=ca.path, allow_private=True), kind))


class _Later:
    """The clock, which can be put forward for what would take an hour."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return since_boot() + self.ahead

    def pass_time(self) -> None:
        """Put it forward beyond the time for which a set is kept."""
        self.ahead += KEEP + 1


async def _measure(server: KeyServer, fetch: Https, kind: _Kind) -> Figures:
    clock, old, new = _Later(), kind.key(), kind.key()

    def publish(*keys: VerificationKey) -> None:
        headers = {"Content-Type": kind.media_type, "Cache-Control": f"max-age={MAX_AGE}"}
        server.answers[kind.path] = Answer(kind.text(keys).encode(), headers=headers)

    source = JwksKeys(server.url(kind.path, host="127.0.0.1"), owner=PRINCIPAL, https=fetch, clock=clock)
    publish(old)
    await source.find(PRINCIPAL, old.key_id)  # the worst moment: the set has just been fetched
    publish(old, new)
    learnt = await seconds_until(source, new, known=True)
    publish(new)
    revoked = await seconds_until(source, old, known=False)
    await asyncio.sleep(COOL_DOWN)  # else the flood would be over before anyone may ask
    asked = await flood(source, PRINCIPAL, lambda: server.count(kind.path))
    server.refuses = True
    await asyncio.sleep(COOL_DOWN)
    await seconds_until(source, new, known=True, patience=0)  # someone has to ask for the outage to be noticed
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=await outage(source, new, clock.pass_time),
        lookups_for_100000_unknown_ids=asked,
        measured_with=f"max-age={MAX_AGE} of the server, cool_down of {COOL_DOWN:g} s, just after a fetch",
    )
