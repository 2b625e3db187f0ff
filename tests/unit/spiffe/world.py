"""What the tests of sources and signers share."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.support.board import Board
from tests.support.patience import PATIENCE
from tests.support.workload_api import Svid
from watchword import SigningKey, VerificationKey, Watchword
from watchword.keys import thumbprint_id
from watchword_adapters.spiffe.announcing import HEADERS, to_value

PLANNER, CLOUD = "spiffe://acme.example/planner", "spiffe://acme.example/cloud"


class Warnings(list[tuple[str, dict[str, Any]]]):
    """What was warned of."""

    def __call__(self, event: str, **fields: Any) -> None:
        """Note it."""
        self.append((event, fields))

    @property
    def events(self) -> list[str]:
        """The names."""
        return [event for event, _ in self]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def key_id(svid: Svid) -> bytes:
    """Return the id of an SVID's key."""
    return thumbprint_id(svid.private.public_key())  # type: ignore[arg-type]  # of the kinds that sign


async def show(
    board: Board, svid: Svid, principal: str = PLANNER, *, by: Any = None, chain: list[bytes] | None = None
) -> None:
    """Announce an SVID, by its own key or another's."""
    agent = Watchword(realm="prod", principal=principal, key=SigningKey(by or svid.private), clock=board.clock)
    async with board.open(agent) as channel:
        await channel.announce(to_value(svid.der if chain is None else chain), HEADERS)


def is_key_of(found: VerificationKey | None, svid: Svid) -> bool:
    """Return True if this is the key of an SVID."""
    return found is not None and found.key_id == key_id(svid)
