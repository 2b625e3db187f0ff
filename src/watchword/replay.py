"""Replay defence: the port through which a store tells whether an id was used before, and where.

docs/replay.md has the model; ``watchword.guard`` is the store for logs that one process reads alone.
"""

# ruff: noqa: D102 - Claimed's properties are the fields that Claim describes

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

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

    ``scope`` (channel and reader) is where an id may be used once; ``log`` names the run of messages whose reference
    times pass in order. ``digest`` is one of the claims (32 bytes). Times are seconds since the epoch; an entry must
    live until ``keep_until``. ``unacked`` asks to keep the id until it is settled, however long that takes.
    ``solicited`` says that it answers a request of ours that is pending: no floor of a store's or reader's beginning is
    meant for it. ``appended_after`` is when the message was appended at the earliest, by the reader's own looks, where
    the broker stamps nothing: the log time that has passed for certain.
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


class Claimed(Protocol):
    """What a Claim says, whoever says it."""

    @property
    def log(self) -> str: ...
    @property
    def principal(self) -> str: ...
    @property
    def key_id(self) -> bytes: ...
    @property
    def id(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def place(self) -> Place | None: ...
    @property
    def issued_at(self) -> int: ...
    @property
    def reference(self) -> float: ...
    @property
    def keep_until(self) -> float: ...
    @property
    def unacked(self) -> bool: ...
    @property
    def solicited(self) -> bool: ...
    @property
    def appended_after(self) -> float | None: ...


class ReplayStore(Protocol):
    """Port: an atomic put-if-absent for ids."""

    async def claim(self, claim: Claim) -> Admission:
        """Remember the claim and answer FIRST; or say what is wrong with it, remembering nothing.

        REDELIVERED only for the same digest at the same place. Any exception makes the message ``Unavailable``.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderBirth:
    """Since when, and for what, a shared store answers for one reader.

    What was issued up to ``floor`` (seconds since the epoch; minus infinity for a reader that has never read) and is
    not known is too old; unless it stands in a log of ``accepted``, at or below that offset and append time.
    """

    floor: float
    accepted: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@runtime_checkable
class SharedReplayStore(ReplayStore, Protocol):
    """A replay store that several processes share, which knows since when it answers for each reader."""

    async def birth(self, reader: str) -> ReaderBirth | None:
        """Return what it has on a reader; None where it has never seen it."""
        ...

    async def admit_reader(self, reader: str, birth: ReaderBirth, *, replace: bool = False) -> ReaderBirth:
        """Keep a birth unless there is one, or ``replace`` it; return the one that is kept."""
        ...


@runtime_checkable
class BulkStore(Protocol):
    """A replay store that takes many claims for little more than the cost of one."""

    async def claim_many(self, claims: Sequence[Claim]) -> Sequence[Admission]:
        """Answer as ``claim`` does for each of them in order."""
        ...


@runtime_checkable
class OpenedStore(Protocol):
    """A replay store that is opened before it is used, and then tells whether it can be trusted."""

    async def start(self) -> None:
        """Open it; ConfigurationError says what must be set otherwise, any other exception that it is down."""
        ...
