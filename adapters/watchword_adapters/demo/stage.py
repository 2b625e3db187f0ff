"""The interface of a bus to the scenario: three agents' clients and an attacker's, with Watchword or without."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from watchword_adapters.cli.init import Wanted, run_init
from watchword_adapters.config import load
from watchword_adapters.keys.public_files import read_keys

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterator

    from watchword import Watchword
    from watchword.message import Scheme
    from watchword.spi import Signer
    from watchword_adapters.demo.attacks import Raw

Handler: TypeAlias = "Callable[[bytes | None], Awaitable[None]]"

REALM: Final = "demo"
PLANNER: Final = "agent://acme/planner"
CONTROLLER: Final = "agent://acme/cloud-controller"
AUDITOR: Final = "agent://acme/auditor"
EARLIER: Final = 3600.0
"""Seconds since the attacker began to record what agents say."""


class Stage(Protocol):
    """One act's clients on one bus, from ``open`` to ``close``; ``heard`` is set whenever the attacker captures."""

    commands: str
    reports: str
    captured: list[Raw]
    heard: asyncio.Event

    @property
    def bus(self) -> Scheme:
        """The bus."""
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
        """Restart the controller, as an operator would after a crash, or for a new release."""
        ...

    async def ask(self) -> bytes | None:
        """Let the planner request the status while the attacker answers first; None if the bus has no requests."""
        ...

    async def close(self) -> None:
        """Close every client."""
        ...


class Cast:
    """The agents' own Watchwords, on default settings, as ``watchword init`` has made them in a directory.

    ``planner_key`` is public, so the attacker has it too.
    """

    def __init__(self, directory: Path) -> None:
        self._paths = {name: directory / f"{name.rpartition('/')[2]}.toml" for name in (PLANNER, CONTROLLER, AUDITOR)}
        for name, path in self._paths.items():
            run_init(Wanted(path, REALM, name), as_json=True)
        known, _ = read_keys([directory / "agents.jwks"])
        self.planner_key: Final = next(key for key in known if key.principal == PLANNER)
        self.planner = load(self._paths[PLANNER])
        self._controllers = [load(self._paths[CONTROLLER])]

    @property
    def controller(self) -> Watchword:
        """The running controller's Watchword."""
        return self._controllers[-1]

    def restart_controller(self) -> None:
        """Load the controller's settings again, as its next process does."""
        self._controllers.append(load(self._paths[CONTROLLER]))

    @property
    def earlier(self) -> Signer:
        """The signer of the planner's messages when the attacker began to record them."""
        return load(self._paths[PLANNER], clock=lambda: time.time() - EARLIER).signer

    def counts(self) -> Counter[str]:
        """Return what the agents' audit trails have counted."""
        return sum((agent.audit.counts for agent in (self.planner, *self._controllers)), Counter())


@contextmanager
def cast() -> Iterator[Cast]:
    """Create the agents in a temporary directory."""
    with TemporaryDirectory(prefix="watchword-demo-") as directory:
        yield Cast(Path(directory))
