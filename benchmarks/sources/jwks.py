"""A key set over HTTPS, from a server on this machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from benchmarks.sources.measuring import PRINCIPAL, Figures, flood, new_key, outage, seconds_until
from tests.support.key_server import Answer, KeyServer, authority, serving
from watchword.jwk import to_jwks
from watchword_adapters.boot_clock import since_boot
from watchword_adapters.keys.https import Https
from watchword_adapters.keys.jwks import COOL_DOWN, KEEP, JwksKeys

if TYPE_CHECKING:
    from watchword import VerificationKey

MAX_AGE: Final = 10
"""Seconds for which the server calls its set fresh."""


def measure() -> Figures:
    """Take half a minute."""
    with authority() as ca, serving(ca.server_side("127.0.0.1")) as server:
        return asyncio.run(_measure(server, Https(ca=ca.path, allow_private=True)))


class _Later:
    """The clock, which can be put forward for what would take an hour."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return since_boot() + self.ahead

    def pass_time(self) -> None:
        """Put it forward beyond the time for which a set is kept."""
        self.ahead += KEEP + 1


async def _measure(server: KeyServer, fetch: Https) -> Figures:
    clock, old, new = _Later(), new_key(), new_key()
    source = JwksKeys(server.url(host="127.0.0.1"), principals=[PRINCIPAL], https=fetch, clock=clock)
    _publish(server, old)
    await source.find(PRINCIPAL, old.key_id)  # the worst moment: the set has just been fetched
    _publish(server, old, new)
    learnt = await seconds_until(source, new, known=True)
    _publish(server, new)
    revoked = await seconds_until(source, old, known=False)
    await asyncio.sleep(COOL_DOWN)  # else the flood would be over before anybody may ask
    asked = await flood(source, PRINCIPAL, server.count)
    server.refuses = True
    await asyncio.sleep(COOL_DOWN)
    await seconds_until(source, new, known=True, patience=0)  # somebody has to ask for the outage to be noticed
    return Figures(
        seconds_to_new_key=learnt,
        seconds_to_revocation=revoked,
        under_outage=await outage(source, new, clock.pass_time),
        lookups_for_100000_unknown_ids=asked,
        measured_with=f"max-age={MAX_AGE} of the server, cool_down of {COOL_DOWN:g} s, just after a fetch",
    )


def _publish(server: KeyServer, *keys: VerificationKey) -> None:
    headers = {"Content-Type": "application/jwk-set+json", "Cache-Control": f"max-age={MAX_AGE}"}
    server.answers["/agents.jwks"] = Answer(to_jwks(keys).encode(), headers=headers)
