"""What the scenario needs of a bus: three agents' clients and an attacker's, with Watchword or without."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from watchword import MemoryKeys, MemoryReplayStore, Policy, Signer, SigningKey, Verifier, Watchword

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from watchword import VerificationKey
    from watchword.message import Scheme
    from watchword_adapters.demo.attacks import Raw

Handler: TypeAlias = "Callable[[bytes | None], Awaitable[None]]"

REALM: Final = "demo"
PLANNER: Final = "agent://acme/planner"
CONTROLLER: Final = "agent://acme/cloud-controller"
AUDITOR: Final = "agent://acme/auditor"
POLICY: Final = Policy(max_age=2.0, max_skew=1.0)
"""A short window, so that the demo can show a replay after it."""


class Stage(Protocol):
    """One act's clients on one bus, from ``open`` to ``close``; ``heard`` is set whenever the attacker captures."""

    commands: str
    reports: str
    captured: list[Raw]
    heard: asyncio.Event

    @property
    def bus(self) -> Scheme:
        """Which bus this is."""
        ...

    async def open(self) -> None:
        """Connect planner, controller and attacker; the attacker begins to capture."""
        ...

    async def send(
        self, name: str, value: bytes, *, key: bytes, headers: dict[str, str], recipient: str | None
    ) -> None:
        """Send a message as the planner."""
        ...

    async def attack(self, raw: Raw) -> None:
        """Put a message on the bus as the attacker."""
        ...

    async def revive(self) -> None:
        """Connect the controller anew, as an operator would after it died."""
        ...

    async def ask(self) -> bytes | None:
        """Let the planner ask for the status while the attacker answers first; None where the bus has no requests."""
        ...

    async def close(self) -> None:
        """End every client."""
        ...


@dataclass(frozen=True, slots=True)
class Cast:
    """The agents' own Watchwords, and the planner's public key, which is no secret."""

    planner: Watchword
    controller: Watchword
    planner_key: VerificationKey


def cast() -> Cast:
    """Make keys for the agents and let each know the others'."""
    private = {name: SigningKey.generate() for name in (PLANNER, CONTROLLER, AUDITOR)}
    public = MemoryKeys([key.verification_key(name) for name, key in private.items()])

    def agent(name: str) -> Watchword:
        verifier = Verifier(
            realm=REALM,
            principal=name,
            keys=public,
            replay=MemoryReplayStore(horizon=POLICY.horizon),
            policy=POLICY,
            clock=time.time,
        )
        return Watchword(
            verifier=verifier, signer=Signer(realm=REALM, principal=name, key=private[name], clock=time.time)
        )

    return Cast(agent(PLANNER), agent(CONTROLLER), private[PLANNER].verification_key(PLANNER))
