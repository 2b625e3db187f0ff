"""Who takes part: agents that sign, workers whose clock and key source can be disturbed, and their audit trail."""

from __future__ import annotations

import time
from collections import deque
from contextvars import ContextVar
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaos.evidence import COPY, DELIVERED, REFUSED, UNAVAILABLE, Writer, place
from chaos.plan import READER, REALM
from chaos.stores import journal_of, open_store
from watchword import MemoryKeys, Rejected, SigningKey, Unavailable, VerificationKey, Watchword
from watchword.spi import Audit, Message, Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.plan import Plan


_LEAP_SECONDS: Final = 2.0
HAND: Final[ContextVar[str]] = ContextVar("hand", default="")
"""Which part of a worker is judging: see chaos.evidence."""


def speaker(plan: Plan, principal: str) -> Watchword:
    """Return an agent that signs."""
    keys = [_key(plan, who).verification_key(who) for who in {principal, READER}]
    return Watchword(realm=REALM, principal=principal, key=_key(plan, principal), keys=keys, policy=plan.policy)


def impostor(plan: Plan) -> Signer:
    """Return what signs in a speaker's name, with a key that is not the speaker's."""
    return Signer(realm=REALM, principal=plan.speakers()[0], key=SigningKey.generate(), clock=time.time)


class Worker:
    """One life of a worker: ``name`` is ``<worker>.<life>``; what its guard refuses is written down.

    ``wishes`` are the driver's, for the worker to fulfil between two reads: "seek" so many records, "lag" so many
    seconds.
    """

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        self.name = name
        self.number = int(name.partition(".")[0])
        self.clock = _Clock()
        self.store_clock = _Clock(self.clock)
        self.keys = _Keys(plan)
        self.delivered = Writer(plan.directory, f"{DELIVERED}{name}")
        self.wishes: deque[tuple[str, float]] = deque()

    def begins_again(self, *logs: str) -> None:
        """Write down that these logs are read from a place of the bus's, or of the worker's own choice."""
        self.delivered.tell(*(("", log, "", "", "") for log in logs))

    async def watchword(self) -> Watchword:
        """Open the store, and return what plugs into the client."""
        plan = self.plan
        replay = await open_store(plan, self.store_clock)
        journal = journal_of(plan, self.number, self.clock) if plan.scene.store == "journal" else None
        return Watchword(
            realm=REALM,
            principal=READER,
            key=_key(plan, READER),
            keys=self.keys,
            policy=plan.policy,
            replay=replay,
            journal=journal,
            clock=self.clock,
            audit=_Ledger(self),
        )


class _Clock:
    """The time of another clock, ``offset`` seconds wrong."""

    def __init__(self, other: Callable[[], float] = time.time) -> None:
        self.offset = 0.0
        self._other = other
        self._leap = (0.0, 0.0)

    def leap(self, seconds: float) -> None:
        """Jump ahead, and come back a little later."""
        self._leap = (time.monotonic() + _LEAP_SECONDS, seconds)

    def __call__(self) -> float:
        until, ahead = self._leap
        return self._other() + self.offset + (ahead if time.monotonic() < until else 0.0)


class _Keys:
    """The speakers' keys; until ``down_until`` (of the monotonic clock) there is no answer."""

    def __init__(self, plan: Plan) -> None:
        self._keys = MemoryKeys(_key(plan, who).verification_key(who) for who in plan.speakers())
        self.down_until = 0.0

    async def find(self, principal: str, key_id: bytes) -> VerificationKey | None:
        """See ``KeySource.find``."""
        if time.monotonic() < self.down_until:
            raise ConnectionError("the key source is down")
        return await self._keys.find(principal, key_id)


class _Ledger(Audit):
    """An audit trail that forgets nothing."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(clock=worker.clock)
        self._writer = Writer(worker.plan.directory, f"{REFUSED}{worker.name}")
        self._asked = worker.plan.scene.shape == "requests"

    def refused(self, message: Message, verdict: Rejected | Unavailable, *, observed: bool = False) -> None:
        """See Audit."""
        super().refused(message, verdict, observed=observed)
        reason = str(verdict.reason) if isinstance(verdict, Rejected) else UNAVAILABLE
        name = (message.value or b"").decode(errors="replace")
        mark = message.reply_to
        if self._asked:  # each request has a reply subject
            mark = (dict(message.headers).get(COPY) or b"").decode()
        self._writer.tell((name, place(message.position, mark), reason, HAND.get()))


def _key(plan: Plan, principal: str) -> SigningKey:
    """Derive a key that every process of the run can derive: none has to be handed round."""
    secret = sha256(f"{plan.seed}/{plan.channel}/{principal}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(secret))
