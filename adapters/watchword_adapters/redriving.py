"""Verifies quarantined messages again: what the buses have in common.

A copy is only a pointer. The original is reread at its position and passes every check, including the replay check; if
it is gone, the copy is judged as a message that arrives now, without a position. Nothing is published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from watchword import MemoryKeys, Mode, Policy, Rejected, Unavailable, VerifiedMessage, Watchword
from watchword.agent import require
from watchword.message import verdict_of
from watchword.spi import Audit, MemoryReplayStore, ReaderBirth
from watchword.strict import to_base64
from watchword.wire_json import verdict_to_json

if TYPE_CHECKING:
    from collections.abc import Container

    from watchword.quarantine_copy import Kept
    from watchword.spi import Admission, Claim, Message

Verdict: TypeAlias = VerifiedMessage | Rejected | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An entry of a quarantine under ``id`` (``partition/offset``, or a stream's sequence).

    ``kept`` is None if it is not a copy; ``fault`` says why.
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
    """Selects copies by id, by reason and by channel (URI); None for any."""

    ids: Container[str] | None = None
    reasons: Container[str] | None = None
    channels: Container[str] | None = None

    def takes(self, stored: Stored) -> bool:
        """Return True if a stored entry is selected."""
        kept = stored.kept
        if kept is None or (self.ids is not None and stored.id not in self.ids):
            return False
        of_reason = self.reasons is None or kept.reason in self.reasons
        return of_reason and (self.channels is None or kept.channel.uri in self.channels)


ANY = Choice()


def onlooker(watchword: Watchword) -> Watchword:
    """Return an agent that knows no keys and drops nothing, for reading where nothing verifies, as in a quarantine.

    It remembers nothing either, so its window is the shortest: less of a log is read before the requested messages.
    """
    require(watchword)
    replay, policy = MemoryReplayStore(horizon=None), Policy(mode=Mode.OBSERVE, max_age=1, max_skew=0)
    audit = _OnlookersAudit(clock=watchword.clock)
    return Watchword(
        realm=watchword.realm, keys=MemoryKeys(), policy=policy, replay=replay, clock=watchword.clock, audit=audit
    )


class _OnlookersAudit(Audit):
    """Does not log that a message did not verify which is handed over all the same: without keys none does."""

    def refused(self, message: Message, verdict: Rejected | Unavailable, *, observed: bool = False) -> None:
        """See ``Audit``."""
        if not observed:
            super().refused(message, verdict)


def judge(watchword: Watchword) -> Watchword:
    """Return an agent that judges like ``watchword``, returns each verdict, and has its own replay memory.

    Its memory is that of an exclusive reader; a shared store has no entry of this reader.
    """
    require(watchword, reads=True)
    own = watchword.verifier
    policy = replace(own.policy, mode=Mode.OBSERVE, channels=())  # channels may enforce
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
    return Redriven(id=stored.id, read="copy", kept=kept, verdict=verdict_of(delivered))


class _OpenToAll:
    """A memory that acts as a shared store, so that messages need no signed partition; it admits any reader."""

    def __init__(self, memory: MemoryReplayStore) -> None:
        self._memory = memory

    async def claim(self, claim: Claim) -> Admission:
        """See ``ReplayStore.claim``."""
        return await self._memory.claim(claim)

    async def birth(self, reader: str) -> ReaderBirth | None:  # noqa: ARG002 - the same for every reader
        """See ``SharedReplayStore.birth``."""
        return ReaderBirth(floor=-inf)

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:  # noqa: ARG002 - it is known
        """See ``SharedReplayStore.admit_reader``."""
        return ReaderBirth(floor=-inf)
