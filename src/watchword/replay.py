"""Replay defence: the ports of stores that know whether an id was used before, and where.

docs/replay.md has the model. ``watchword.guard`` is the store for logs that one process reads alone; shared stores are
plug-ins. This module has no store of its own.
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
    """A replay store's answer to a claim."""

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

    An id may be used once in its ``scope`` (channel as signed, and reader). ``reader`` names the reader, and ``log``
    the sequence of messages whose reference times rise in order. ``digest`` is that of the claims (32 bytes). Times are
    in seconds since the epoch; an entry must be kept until ``keep_until``, and with ``unacked`` until it is
    acknowledged, however long that takes. ``solicited`` marks an answer to a pending request of ours: the floor with
    which a store or reader begins does not apply to it. Where the broker does not stamp messages, ``appended_after`` is
    the earliest time at which the message can have been appended, by the reader's own observations; log time has
    certainly passed it. ``arrival`` identifies the copy that is claimed if it has no place: the same copy may be
    claimed again after an answer was lost.
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
        """Remember the claim and return FIRST; or return what is wrong with it, and remember nothing.

        REDELIVERED is only for the same digest at the same place, or of the same arrival: it was claimed before, and
        the answer was lost. Any exception makes the message ``Unavailable``.
        """
        ...


@runtime_checkable
class BulkStore(Protocol):
    """A replay store that takes many claims for little more than the cost of one."""

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission | BaseException]:
        """Return what ``claim`` would return for each claim in order; an exception of one takes its answer's place.

        An exception that this method raises is the answer to all of them.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderBirth:
    """From when on, and for which messages, a shared store answers for one reader.

    An unknown message issued up to ``floor`` (seconds since the epoch, with the skew) may have been delivered before
    the store knew the reader: it is TOO_OLD. Minus infinity is for a reader that has never read before. ``accepted``
    has for each log (``Position.log``) the highest offset and the latest append time of a backlog that the operator
    accepted: the floor does not apply to messages at or below both.
    """

    floor: float
    accepted: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@runtime_checkable
class SharedReplayStore(ReplayStore, Protocol):
    """A replay store that several processes share, and that stores a birth for each reader besides the ids.

    It must judge a claim in the same atomic step in which it reads the birth of the claim's reader. Births must share
    the fate of the ids: a store that may have lost ids must have lost the births too.
    """

    async def birth(self, reader: str) -> ReaderBirth | None:
        """Return the birth of ``reader``; None if this store has never seen it or has forgotten it."""
        ...

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """Store a birth if there is none, atomically, and return the one in force.

        With ``replace``, which only an operator asks for, it overwrites an existing one.
        """
        ...


class StoreError(WatchwordError):
    """A shared store does not work as it should; the verifier turns this into ``Unavailable``, with the same text."""


class ReaderForgottenError(StoreError):
    """The store has lost the state of ``reader``, so it cannot judge messages that were in the log before that."""

    def __init__(self, reader: str) -> None:
        self.reader = reader
        super().__init__(
            f"the replay store knows nothing of reader {reader}, so it cannot judge its backlog: {how_to_admit(reader)}"
        )


def how_to_admit(reader: str) -> str:
    """Return the command that an operator must run for a store to answer for ``reader``."""
    choice = " --accept-backlog, or --nothing-handled-before" if reader.startswith(("js:", "kafka:")) else ""
    return f"type: watchword store init {shlex.quote(reader)}{choice}"


@runtime_checkable
class OpenedStore(Protocol):
    """A replay store that must be opened before use, and checks then whether it can be trusted."""

    async def start(self) -> None:
        """Open it; ConfigurationError says which setting is wrong, any other exception means that it is down."""
        ...


def told_of(error: BaseException) -> str:
    """Return the text of a store's error that may be shown to an operator.

    Our own errors say what to do. The text of others, which may hold a URL with a password, is not shown.
    """
    return str(error) if isinstance(error, WatchwordError) else type(error).__name__
