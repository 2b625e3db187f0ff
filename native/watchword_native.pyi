"""What Watchword asks of its native engine; times are in seconds, ``now`` since the epoch."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias, final

from watchword.message import Header, Message, Position

INTERFACE: Final[int]
__version__: Final[str]

Entry: TypeAlias = tuple[int, int, int, int | None]
"""What a guard keeps of a message: time of issue, key and mark of ``Hashing``, offset."""

@final
class Entries:
    """What a guard keeps of messages that stand together."""

    def __new__(cls, rows: list[Entry]) -> Entries: ...
    def __len__(self) -> int: ...
    @property
    def has_twins(self) -> bool:
        """Whether two have one key."""

    def keys(self) -> list[int]:
        """Return the key of each."""

    def rows(self) -> list[Entry]:
        """Return each by itself."""

@final
class Bucket:
    """See ``packed.Bucket``; entries go in at once."""

    lowest: float

    def __new__(cls) -> Bucket: ...
    def find(self, key: int) -> int | None: ...
    def put(self, key: int, mark: int, owner: int) -> bool: ...
    def owners(self) -> dict[int, int]: ...
    def drop(self, owners: AbstractSet[int]) -> None: ...
    def seal(self) -> None: ...
    def holds_any(self, entries: Entries) -> bool:
        """Tell whether any of their keys is there."""

    def put_all(self, entries: Entries, owner: int) -> bool:
        """Add them; their keys are not there."""

@final
class Hasher:
    """The secrets of ``Hashing``, three numbers of 24 bytes, the lowest byte first."""

    def __new__(cls, a: bytes, b: bytes, c: bytes) -> Hasher: ...

@final
class Run:
    """Messages on their way through checks 1, 2 and 4 to 7; ``sender`` numbers what messages of one run have in common.

    One sender is one issuer and key, one destination as signed, and one place where it was found. What the run knows
    nothing of, or lets go, is for the Python engine to judge.
    """

    def __new__(
        cls,
        messages: list[Message],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,
    ) -> Run: ...
    @staticmethod
    def of_records(
        records: Sequence[object],
        place: tuple[str, int, str, str, bool],
        bounds: list[tuple[int, float, float]],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,
    ) -> Run:
        """Read records of one partition, found at (URI, partition, reader, log, exclusive), with bounds as of Looks."""

    @staticmethod
    def of_deliveries(
        messages: list[Any],
        place: tuple[str, str, bool],
        deliveries: Sequence[tuple[object, ...] | None],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,
    ) -> Run:
        """Read a NATS client's messages of one reader, found at (how URIs begin, reader, exclusive).

        Their ``headers`` have the block as it came for their ``raw``. Beside each is where a stream has it, as
        ((stream, consumer), sequence, stamp in nanoseconds, ...), or None.
        """

    def firsts(self) -> list[tuple[int, int]]:
        """Return (index, sender) of each sender's first message and (index, -1) of what is not the run's, in order."""

    def release(self, sender: int) -> list[int]:
        """Let the messages of a sender go, and return where those behind the first stand."""

    def cut(self, at: int) -> None:
        """Leave alone what stands at this index and behind it."""

    def key(
        self, sender: int, identity: int, not_before: float | None, not_after: float | None, revoked_at: float | None
    ) -> None:
        """Tell the key of a sender, by a number that is the same for the same key."""

    def jobs(self) -> list[tuple[int, bytes, int, bytes, bytes]]:
        """Make check 5; return what signatures are to be known: (sender, protected, size, signature, root)."""

    def settle(self, holds: Sequence[bool]) -> None:
        """Take the answers to the jobs, and make check 7."""

    def taken_back(self) -> list[tuple[int, bool | None]]:
        """Return what was let go since the last call: (index, whether the signature holds, if that is known)."""

    def stretches(self) -> list[tuple[int, int, int]]:
        """Return (begin, end, sender) of messages that passed checks 1 to 7 and stand together, in order."""

    def bounds(self, begin: int, end: int) -> tuple[int, int, float, int]:
        """Return least and greatest time of issue, the log time that passed, and how many the broker did not stamp."""

    def entries(self, begin: int, end: int, hasher: Hasher, principal: int, log: int) -> Entries:
        """Return what a guard keeps; two numbers of ``Hashing`` go in."""

    def ids(self, begin: int, end: int) -> list[bytes]:
        """Return the ids of messages."""

    def digests(self, begin: int, end: int) -> list[bytes]:
        """Return the digests of the claims of messages."""

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

    def found(self, at: int) -> tuple[bytes, int, bytes, float, tuple[Header, ...]]:
        """Return what else is known of one: id, time of issue, digest of the claims, reference time, headers."""

@final
class Layout:
    """The claims of messages that go one way; ``encoding.Layout.parts`` has what is alike in them, as checked."""

    def __new__(cls, count: int, sender: bytes, channel: bytes, partition: bytes) -> Layout: ...
    def each(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        times: list[int],
        ids: bytes,
        pairs: bytes,
    ) -> list[bytes]:
        """Return the claims of each message; ``pairs`` are the covered headers as digested, empty where none is."""

    def drafts(self, messages: list[Message], begin: int, ids: bytes, pairs: bytes, issued_at: int) -> list[bytes]:
        """Return the claims from ``begin`` on, up to a message that is not like the one before; 16 bytes an id."""

@final
class Tree:
    """Claims under one signature; see ``encoding.SignedTree``."""

    def __new__(cls, claims: list[bytes], protected: bytes) -> Tree: ...
    @property
    def data(self) -> bytes:
        """What is to be signed."""

    def values(self, signature: bytes) -> list[bytes]:
        """Return the header value of each, in order."""

def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    """Tell whether an Ed25519 signature holds; other threads run meanwhile."""

def sha256(data: bytes) -> bytes:
    """Return SHA-256 of data; other threads run meanwhile where it takes long."""

def read_envelope(header: bytes) -> tuple[Any, ...] | None:
    """Read one envelope; None for what the Python engine may have more to say of.

    What one sender's envelopes have in common (in bytes that are the same for no others), id, time of issue, digests of
    metadata and value, claims, their leaf, signature, size, index, path.
    """

def read_block(block: bytes) -> tuple[Header, ...] | None:
    """Read a NATS header block that has no status line; None for what is none."""

def sound_until(raw: bytes, at: int, most: int, log_end: int) -> int:
    """Return where batches of a Kafka record set end that are sound from ``at`` on, some ``most`` bytes of them."""

def are_sound(records: bytes, count: int, last_delta: int) -> bool:
    """Tell whether a Kafka client decodes so many records, at offsets that ascend up to ``last_delta``."""
