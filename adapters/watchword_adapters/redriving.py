"""Driving quarantined messages again: what the buses have in common.

A copy is only a pointer. The original is read again at its position, through every check and the guard against replays;
where it is gone the copy is judged as a message that comes in now, without a position. Nothing is published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from watchword import MemoryKeys, Mode, Policy, Rejected, Unavailable, VerifiedMessage, Watchword
from watchword.agent import require
from watchword.spi import MemoryReplayStore, ObservedMessage, ReaderBirth
from watchword.strict import to_base64
from watchword.wire_json import verdict_to_json

if TYPE_CHECKING:
    from collections.abc import Container

    from watchword.quarantine_copy import Kept
    from watchword.spi import Admission, Claim

Verdict: TypeAlias = VerifiedMessage | Rejected | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What stands in a quarantine under ``id`` (``partition/offset``, or a stream's sequence).

    ``kept`` is None where it is no copy; ``fault`` says why.
    """

    id: str
    kept: Kept | None
    fault: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Redriven:
    """The verdict on a quarantined message, and whether it was judged from its ``original`` or from the ``copy``."""

    id: str
    read: Literal["original", "copy"]
    kept: Kept
    verdict: Verdict

    def to_json(self) -> dict[str, object]:
        """Return the verdict's JSON members; only a verified message's value, key and headers are among them."""
        members = {"copy": self.id, "read": self.read, **verdict_to_json(self.verdict)}
        if isinstance(self.verdict, VerifiedMessage):
            found = self.verdict
            members["channel"] = found.channel.uri
            members["key"] = to_base64(found.key)
            members["value"] = to_base64(found.value)
            members["headers"] = [[name, to_base64(value)] for name, value in found.headers]
        return members


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which copies to drive again: by id, by reason and by channel (URI); None for any."""

    ids: Container[str] | None = None
    reasons: Container[str] | None = None
    channels: Container[str] | None = None

    def takes(self, stored: Stored) -> bool:
        """Tell whether this one is to be driven again."""
        kept = stored.kept
        if kept is None or (self.ids is not None and stored.id not in self.ids):
            return False
        of_reason = self.reasons is None or kept.reason in self.reasons
        return of_reason and (self.channels is None or kept.channel.uri in self.channels)


ANY = Choice()


def onlooker(watchword: Watchword) -> Watchword:
    """Return an agent that knows nobody and drops nothing: it reads along, or in a quarantine, where nothing verifies.

    It remembers nothing either, so the shortest window will do: less of a log is read before what it was asked for.
    """
    require(watchword)
    replay, policy = MemoryReplayStore(horizon=None), Policy(mode=Mode.OBSERVE, max_age=1, max_skew=0)
    return Watchword(realm=watchword.realm, keys=MemoryKeys(), policy=policy, replay=replay, clock=watchword.clock)


def judge(watchword: Watchword) -> Watchword:
    """Return an agent that judges as ``watchword`` does, tells each verdict, and has a replay memory of its own.

    Its memory is that of one who reads a log alone; a shared store has nothing on the reader that this one is.
    """
    require(watchword, reads=True)
    own = watchword.verifier
    policy = replace(own.policy, mode=Mode.OBSERVE, channels=())  # which may enforce
    memory = MemoryReplayStore(horizon=policy.horizon)
    judging = Watchword(
        realm=own.realm,
        principal=own.principal,
        keys=own.keys,
        policy=policy,
        replay=_OpenToAll(memory) if own.shared_replay else memory,
        trust=own.trust.onlooker(),
        clock=own.clock,
    )
    if own.control is not None:
        judging.verifier.obey(own.control, own.start)
    return judging


async def judged_copy(judging: Watchword, stored: Stored, kept: Kept) -> Redriven:
    """Judge a copy whose original is gone, at the present time and without a position."""
    delivered = await judging.admit(replace(kept.message, reader="redrive"))
    verdict = delivered.verdict if isinstance(delivered, ObservedMessage) else delivered
    return Redriven(id=stored.id, read="copy", kept=kept, verdict=verdict)


class _OpenToAll:
    """A memory that stands for a shared store, so that a message needs no signed partition; it admits any reader."""

    def __init__(self, memory: MemoryReplayStore) -> None:
        self._memory = memory

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        return await self._memory.claim(claim)

    async def birth(self, reader: str) -> ReaderBirth | None:  # noqa: ARG002 - whichever it is
        """See ``SharedReplayStore.birth``."""
        return ReaderBirth(floor=-inf)

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:  # noqa: ARG002 - it is known
        """See ``SharedReplayStore.admit_reader``."""
        return ReaderBirth(floor=-inf)
