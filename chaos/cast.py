"""Who takes part: agents that sign, workers whose clock and key source can be disturbed, and their audit trail."""

from __future__ import annotations

import time
from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaos.evidence import DELIVERED, REFUSED, UNAVAILABLE, Writer, place
from chaos.plan import READER, REALM
from chaos.stores import open_store
from watchword import (
    Audit,
    MemoryKeys,
    MemoryReplayStore,
    Message,
    Rejected,
    Signer,
    SigningKey,
    Unavailable,
    VerificationKey,
    Verifier,
    Watchword,
)

if TYPE_CHECKING:
    from chaos.plan import Plan


def speaker(plan: Plan, principal: str) -> Watchword:
    """Return an agent that signs."""
    clock, policy = time.time, plan.policy
    replay = MemoryReplayStore(horizon=policy.horizon)
    keys = MemoryKeys([_key(plan, principal).verification_key(principal)])
    return Watchword(
        verifier=Verifier(realm=REALM, principal=principal, keys=keys, replay=replay, policy=policy, clock=clock),
        signer=Signer(realm=REALM, principal=principal, key=_key(plan, principal), clock=clock),
    )


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
        self.keys = _Keys(plan)
        self.delivered = Writer(plan.directory, f"{DELIVERED}{name}")
        self.wishes: deque[tuple[str, float]] = deque()

    def begins_again(self, *logs: str) -> None:
        """Write down that these logs are read from a place of the bus's, or of the worker's own choice."""
        self.delivered.write(*(("", log, "", "") for log in logs))

    async def watchword(self) -> Watchword:
        """Open the store, and return what plugs into the client."""
        replay = await open_store(self.plan, self.clock)
        verifier = Verifier(
            realm=REALM,
            principal=READER,
            keys=self.keys,
            replay=replay,
            policy=self.plan.policy,
            clock=self.clock,
        )
        return Watchword(verifier=verifier, audit=_Ledger(self))


class _Clock:
    """The time of day, ``offset`` seconds wrong."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


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

    def refused(self, message: Message, verdict: Rejected | Unavailable) -> None:
        """See Audit."""
        super().refused(message, verdict)
        reason = str(verdict.reason) if isinstance(verdict, Rejected) else UNAVAILABLE
        name = (message.value or b"").decode(errors="replace")
        self._writer.write((name, place(message.position, message.reply_to), reason))


def _key(plan: Plan, principal: str) -> SigningKey:
    """Derive a key that every process of the run can derive: none has to be handed round."""
    secret = sha256(f"{plan.seed}/{plan.channel}/{principal}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(secret))
