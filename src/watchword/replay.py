"""Replay defence: the port through which a store tells whether an id was used before, and where.

docs/replay.md has the model; ``watchword.guard`` is the store for logs that one process reads alone.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from watchword.errors import WatchwordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from watchword.message import Position


class Admission(StrEnum):
    """What a replay store answers."""

    FIRST = "first"
    REDELIVERED = "redelivered"
    REPLAYED = "replayed"
    TOO_OLD = "too_old"
    OVER_QUOTA = "over_quota"


Place: TypeAlias = "tuple[Position, float | None]"
"""A position and the broker's stamp with it, since offsets can be reused after a log is recreated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One use of an id, offered to a replay store after every check of authenticity.

    ``scope`` (channel as signed, and reader) is where an id may be used once; ``reader`` names who reads; ``log`` is
    the run of messages whose reference times pass in order. ``digest`` is one of the claims (32 bytes). Times are
    seconds since the epoch; an entry must live until ``keep_until``. ``unacked`` asks to keep the id until it is
    settled, however long that takes. ``solicited`` says that it answers a request of ours that is pending: no floor of
    a store's or reader's beginning is meant for it. ``appended_after`` is when the message was appended at the
    earliest, by the reader's own looks, where the broker stamps nothing: the log time that has passed for certain.
    ``arrival`` names the copy that is claimed, if it has no place: it may be claimed again if the answer was lost.
    """

    scope: str
    log: str
    principal: str
    key_id: bytes
    id: bytes
    digest: bytes
    place: Place | None
    issued_at: int
    reference: float
    keep_until: float
    unacked: bool = False
    solicited: bool = False
    appended_after: float | None = None
    reader: str = ""
    arrival: bytes | None = None


class ReplayStore(Protocol):
    """Port: an atomic put-if-absent for ids."""

    async def claim(self, claim: Claim) -> Admission:
        """Remember the claim and answer FIRST; or say what is wrong with it, remembering nothing.

        REDELIVERED only for the same digest at the same place, or of the same arrival: that was claimed before, and the
        answer was lost. Any exception makes the message ``Unavailable``.
        """
        ...


@runtime_checkable
class BulkStore(Protocol):
    """A replay store that takes many claims for little more than the cost of one."""

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
        """Answer as ``claim`` does for each of them in order; what ``claim`` would raise stands in the answer's place.

        An exception that it raises itself is the answer to all of them.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderBirth:
    """Since when, and for what, a shared store answers for one reader.

    What was issued up to ``floor`` (seconds since the epoch, the skew included) and is not known may have been handed
    over before the store knew the reader: it is TOO_OLD. Minus infinity is for a reader that has never read before.
    ``accepted`` has for each log (``Position.log``) the highest offset and the latest append time of a backlog that
    the operator accepted: what stands at or below both is free of the floor.
    """

    floor: float
    accepted: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@runtime_checkable
class SharedReplayStore(ReplayStore, Protocol):
    """A replay store that several processes share, and that keeps a birth for each reader beside the ids.

    A claim is judged in the same atomic step in which the birth of its reader is read. What happens to the ids
    happens to the births: a store that may have forgotten ids knows no reader any more.
    """

    async def birth(self, reader: str) -> ReaderBirth | None:
        """Return the birth of ``reader``; None if this store has never seen it, or has forgotten it."""
        ...

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """Put a birth if there is none, atomically, and return the one that holds.

        With ``replace``, the operator's word, it holds whatever was there.
        """
        ...


class StoreError(WatchwordError):
    """A shared store does not answer as it should; the verifier makes ``Unavailable`` of it, with this text."""


class ReaderForgottenError(StoreError):
    """The store lost what it knew of ``reader``, so it cannot judge what stood in the log by then."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        super().__init__(
            f"the replay store knows nothing of reader {reader}, so it cannot judge its backlog: {how_to_admit(reader)}"
        )


def how_to_admit(reader: str) -> str:
    """Return what an operator must type so that a store answers for ``reader``."""
    choice = " --accept-backlog, or --nothing-handled-before" if reader.startswith(("js:", "kafka:")) else ""
    return f"type: watchword store init {shlex.quote(reader)}{choice}"


@runtime_checkable
class OpenedStore(Protocol):
    """A replay store that is opened before it is used, and then tells whether it can be trusted."""

    async def start(self) -> None:
        """Open it; ConfigurationError says what must be set otherwise, any other exception that it is down."""
        ...


def told_of(error: BaseException) -> str:
    """Return what the operator may be told of a store's error.

    Our own say what to do. What others wrote into theirs, a URL with its password say, is not shown.
    """
    return str(error) if isinstance(error, WatchwordError) else type(error).__name__
