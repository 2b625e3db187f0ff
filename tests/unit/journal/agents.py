"""Processes of one principal with a journal, and what they hand over; run as a program, it is one of them."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.unit.core.claims import claim
from tests.unit.core.world import in_turns
from watchword import Policy
from watchword.spi import Admission, MemoryReplayStore
from watchword_adapters.stores.journal import FileJournal

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.journal import Recalled

POLICY: Final = Policy()
LOG: Final = "nats://prod/tasks#0"
PLANNER: Final = "agent://acme/planner"
NOW: Final = 1_763_928_000.0


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = NOW

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now


class Agent:
    """One process: a guard and the journal from which it begins."""

    def __init__(
        self,
        directory: Path,
        clock: Callable[[], float],
        *,
        policy: Policy = POLICY,
        realm: str = "prod",
        principal: str | None = PLANNER,
        required: bool = True,
    ) -> None:
        self.policy, self.clock, self.warned = policy, clock, list[tuple[str, dict[str, object]]]()
        self.guard = MemoryReplayStore(horizon=policy.horizon)
        self.journal = FileJournal(
            directory,
            realm=realm,
            principal=principal,
            policy=policy,
            clock=clock,
            warn=lambda event, **fields: self.warned.append((event, fields)),
            required=required,
        )

    def open(self, log: str = LOG) -> Recalled:
        """Begin to read, as a core NATS reader does after the server's PONG."""
        (recalled,) = self.journal.recall([log], birth=self.clock() + self.policy.max_skew)
        self.guard.begin(log, floor=recalled.floor)
        in_turns(self.guard.restore(log, recalled.notes))
        self.guard.note(log)
        return recalled

    def offer(self, ident: int, issued_at: float, log: str = LOG) -> bool:
        """Judge a message; return True if it is handed over, which it never is before it is written down."""
        now, policy = self.clock(), self.policy
        if not now - policy.horizon <= int(issued_at) <= now + policy.max_skew:
            return False
        raw = ident.to_bytes(16)
        offered = claim(log=log, id=raw, digest=raw * 2, place=None, issued_at=int(issued_at), reference=now)
        admission = self.guard.admit(offered)
        self.journal.write(self.guard.take_notes())
        return admission is Admission.FIRST

    def close(self) -> None:
        """Stop in good order."""
        self.journal.close()

    def kill(self, graves: list[Any]) -> None:
        """End without a word: what is open stays as it is, but for the lock, which the kernel drops."""
        opened, self.journal._opened = self.journal._opened, None
        if opened is not None:
            assert self.journal._closing is not None
            self.journal._closing.detach()
            opened._mark.close()
            graves.append(opened)


@dataclass
class Graveyard:
    """What killed processes held open."""

    graves: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Close it, and with it what only this process, not the killed one, would mind."""
        for opened in self.graves:
            with contextlib.suppress(Exception):
                opened._database.close()


def main(directory: str, issued: str, *idents: str) -> None:
    """Hand over messages that were all issued then, say 1 for each and 0 for what is dropped; wait for the end."""
    agent = Agent(Path(directory), time.time)
    agent.open()
    sys.stdout.write("".join(str(int(agent.offer(int(ident), float(issued)))) for ident in idents) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    agent.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
