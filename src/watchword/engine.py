"""Which engine does the work that each message costs: this package's own Python, or watchword-native beside it.

The Python engine is complete and always there. The native one reads, hashes and compares whole runs of messages, and it
only ever says yes: about whatever it doubts the Python engine judges from the beginning, and says what is wrong. So a
verdict, its reason and its words have one home, and both engines give the same.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, runtime_checkable

from watchword.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from watchword.message import Header, Message, Position

VARIABLE: Final = "WATCHWORD_ENGINE"
"""Environment variable that chooses: ``python`` or ``native``; without it the native one is used where installed."""

INTERFACE: Final = 3
"""Number of the interface below; a native engine that was built for another one is refused."""


Entry: TypeAlias = tuple[int, int, int, int | None]
"""What a guard keeps of a message: time of issue, key and mark of ``Hashing``, offset."""


class Entries(Protocol):
    """What a guard keeps of messages that stand together."""

    def __len__(self) -> int: ...
    @property
    def has_twins(self) -> bool:
        """Whether two have one key."""
        ...

    def keys(self) -> list[int]:
        """Return the key of each."""
        ...

    def rows(self) -> list[Entry]:
        """Return each by itself."""
        ...


class Bucket(Protocol):
    """See ``packed.Bucket``; entries go in at once."""

    lowest: float

    def find(self, key: int) -> int | None: ...  # noqa: D102 - as above
    def put(self, key: int, mark: int, owner: int) -> bool: ...  # noqa: D102 - as above
    def owners(self) -> dict[int, int]: ...  # noqa: D102 - as above
    def drop(self, owners: AbstractSet[int]) -> None: ...  # noqa: D102 - as above
    def seal(self) -> None: ...  # noqa: D102 - as above
    def holds_any(self, entries: Entries) -> bool:
        """Tell whether any of their keys is there."""
        ...

    def put_all(self, entries: Entries, owner: int) -> bool:
        """Add them; their keys are not there."""
        ...


class Hasher(Protocol):
    """The secrets of ``Hashing``, as the native engine keeps them."""


class Run(Protocol):
    """Messages on their way through checks 1, 2 and 4 to 7; ``sender`` numbers what messages of one run have in common.

    One sender is one issuer and key, one destination as signed, and one place where it was found. What the run knows
    nothing of, or lets go, is for the Python engine to judge.
    """

    def firsts(self) -> list[tuple[int, int]]:
        """Return (index, sender) of each sender's first message and (index, -1) of what is not the run's, in order."""
        ...

    def release(self, sender: int) -> list[int]:
        """Let the messages of a sender go, and return where those behind the first stand."""
        ...

    def cut(self, at: int) -> None:
        """Leave alone what stands at this index and behind it."""
        ...

    def key(
        self, sender: int, identity: int, not_before: float | None, not_after: float | None, revoked_at: float | None
    ) -> None:
        """Tell the key of a sender, by a number that is the same for the same key."""
        ...

    def jobs(self) -> list[tuple[int, bytes, int, bytes, bytes]]:
        """Make check 5; return what signatures are to be known: (sender, protected, size, signature, root)."""
        ...

    def settle(self, holds: Sequence[bool]) -> None:
        """Take the answers to the jobs, and make check 7."""
        ...

    def taken_back(self) -> list[tuple[int, bool | None]]:
        """Return what was let go since the last call: (index, whether the signature holds, if that is known)."""
        ...

    def stretches(self) -> list[tuple[int, int, int]]:
        """Return (begin, end, sender) of messages that passed checks 1 to 7 and stand together, in order."""
        ...

    def bounds(self, begin: int, end: int) -> tuple[int, int, float, int]:
        """Return least and greatest time of issue, the log time that passed, and how many the broker did not stamp."""
        ...

    def entries(self, begin: int, end: int, hasher: Hasher, principal: int, log: int) -> Entries:
        """Return what a guard keeps; two numbers of ``Hashing`` go in."""
        ...

    def ids(self, begin: int, end: int) -> list[bytes]:
        """Return the ids of messages."""
        ...

    def delivered(
        self, begin: int, end: int
    ) -> tuple[
        list[str],
        list[bytes | None],
        list[bytes | None],
        list[tuple[Header, ...]],
        list[int],
        list[Position | None],
        list[int | None],
    ]:
        """Return what is handed over: ids in hex, values, keys, headers, times of issue, positions, offsets."""
        ...

    def found(self, at: int) -> tuple[bytes, int, bytes, float, tuple[Header, ...]]:
        """Return what else is known of one: id, time of issue, digest of the claims, reference time, headers."""
        ...


class Layout(Protocol):
    """The claims of messages that go one way; what is alike in them was checked."""

    def each(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        times: list[int],
        ids: bytes,
        pairs: bytes,
    ) -> list[bytes]:
        """Return the claims of each message; ``pairs`` are the covered headers as digested, empty where none is."""
        ...

    def drafts(self, messages: list[Message], begin: int, ids: bytes, pairs: bytes, issued_at: int) -> list[bytes]:
        """Return the claims from ``begin`` on, up to a message that is not like the one before; 16 bytes an id."""
        ...


class Tree(Protocol):
    """Claims under one signature; see ``encoding.SignedTree``."""

    @property
    def data(self) -> bytes:
        """What is to be signed."""
        ...

    def values(self, signature: bytes) -> list[bytes]:
        """Return the header value of each, in order."""
        ...


class _Runs(Protocol):
    """Makes runs; times are in seconds, ``now`` since the epoch."""

    def __call__(
        self,
        messages: list[Message],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - by position
    ) -> Run:
        """Read messages."""
        ...

    def of_records(  # noqa: PLR0917 - one caller
        self,
        records: Sequence[object],
        place: tuple[str, int, str, str, bool],
        bounds: list[tuple[int, float, float]],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - by position
    ) -> Run:
        """Read records of one partition, found at (URI, partition, reader, log, exclusive), with bounds as of Looks."""
        ...

    def of_deliveries(  # noqa: PLR0917 - one caller
        self,
        messages: list[Any],
        place: tuple[str, str, bool],
        deliveries: Sequence[tuple[object, ...] | None],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - by position
    ) -> Run:
        """Read a NATS client's messages of one reader, found at (how URIs begin, reader, exclusive).

        Their ``headers`` have the block as it came for their ``raw``. Beside each is where a stream has it, as
        ((stream, consumer), sequence, stamp in nanoseconds, ...), or None.
        """
        ...


@runtime_checkable
class Runnable(Protocol):
    """Messages that a run can be made of before they are made themselves."""

    def run(self, native: Native, now: float, max_age: float, max_skew: float, *, recalled: bool) -> Run:
        """Return that run."""
        ...


class Native(Protocol):
    """What the module ``watchword_native`` has."""

    INTERFACE: int
    __version__: str

    Run: _Runs

    def Entries(self, rows: list[Entry]) -> Entries:  # noqa: N802 - a class there
        """Put rows together."""
        ...

    def Bucket(self) -> Bucket:  # noqa: N802 - a class there
        """Make an empty one."""
        ...

    def Layout(self, count: int, sender: bytes, channel: bytes, partition: bytes) -> Layout:  # noqa: N802 - as above
        """Take what ``encoding.Layout.parts`` has."""
        ...

    def Tree(self, claims: list[bytes], protected: bytes) -> Tree:  # noqa: N802 - as above
        """Take claims as ``encoding.SignedTree`` does."""
        ...

    def Hasher(self, a: bytes, b: bytes, c: bytes) -> Hasher:  # noqa: N802 - as above
        """Keep three numbers of 24 bytes, the lowest byte first."""
        ...

    def verifies(self, public: bytes, signature: bytes, data: bytes) -> bool:
        """Tell whether an Ed25519 signature holds; other threads run meanwhile."""
        ...

    def sound_until(self, raw: bytes, at: int, most: int, log_end: int) -> int:
        """Return where batches of a Kafka record set end that are sound from ``at`` on, some ``most`` bytes of them."""
        ...

    def are_sound(self, records: bytes, count: int, last_delta: int) -> bool:
        """Tell whether a Kafka client decodes so many records, at offsets that ascend up to ``last_delta``."""
        ...


@lru_cache(1)
def native() -> Native | None:
    """Return the native engine; None where the Python one does all of it. ConfigurationError for one that is no use."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted not in {"", "python", "native"}:
        raise ConfigurationError(f"{VARIABLE}={wanted}: write python or native, or leave it out")
    if wanted == "python":
        return None
    try:
        import watchword_native  # noqa: PLC0415 - it may not be installed
    except ImportError:
        if wanted:
            raise ConfigurationError(f"{VARIABLE}=native: type pip install watchword-native, or leave it out") from None
        return None
    if watchword_native.INTERFACE != INTERFACE:
        raise ConfigurationError("watchword-native and watchword do not fit: install both of one version")
    engine: Native = watchword_native
    return engine


def has_panicked(error: BaseException) -> bool:
    """Tell whether this is a fault of the native engine, which PyO3 makes a BaseException of its own."""
    return type(error).__name__ == "PanicException"


def name() -> str:
    """Return what operators are told: ``native`` with its version, or ``python``."""
    engine = native()
    return "python" if engine is None else f"native {engine.__version__}"
