"""The native engine, as ``watchword.engine`` uses it; times are in seconds, ``now`` since the epoch."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeAlias, final

from watchword.message import Header, Message, Position

INTERFACE: Final[int]
__version__: Final[str]

Entry: TypeAlias = tuple[int, int, int, int | None]
"""What a guard stores of a message: issue time, key and mark (see ``Hashing``), offset."""

@final
class Entries:
    """The entries of consecutive messages."""

    def __new__(cls, rows: list[Entry]) -> Entries: ...
    def __len__(self) -> int: ...
    @property
    def has_twins(self) -> bool:
        """True if two entries have the same key."""

    def keys(self) -> list[int]:
        """Return the key of each entry."""

    def rows(self) -> list[Entry]:
        """Return the entries as tuples."""

@final
class Bucket:
    """See ``packed.Bucket``; ``put_all`` adds all entries in one call."""

    lowest: float

    def __new__(cls) -> Bucket: ...
    def find(self, key: int) -> int | None: ...
    def put(self, key: int, mark: int, owner: int) -> bool: ...
    def owners(self) -> dict[int, int]: ...
    def drop(self, owners: AbstractSet[int]) -> None: ...
    def seal(self) -> None: ...
    def holds_any(self, entries: Entries) -> bool:
        """Return True if any of the entries' keys is here."""

    def put_all(self, entries: Entries, owner: int) -> bool:
        """Add entries whose keys are new; return True if they are the only unpacked ones."""

@final
class Hasher:
    """The secrets of ``Hashing``: three numbers of 24 bytes, little-endian."""

    def __new__(cls, a: bytes, b: bytes, c: bytes) -> Hasher: ...

@final
class Run:
    """A run of messages, for checks 1, 2 and 4 to 7; ``sender`` is the number of a group of messages within it.

    All messages of a sender have one issuer, key and signed destination, and were found at one place. Messages that the
    run cannot read, or releases, are judged by the Python engine.
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
        """Read records of one partition; ``place`` is (URI, partition, reader, log, exclusive); bounds as in Looks."""

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
        """Read a NATS client's messages of one reader; ``place`` is (URI prefix, reader, exclusive).

        The ``raw`` of their ``headers`` is the block as received. ``deliveries`` has each one's place in its stream, as
        ((stream, consumer), sequence, stamp in nanoseconds, ...), or None.
        """

    def firsts(self) -> list[tuple[int, int]]:
        """Return, in order, (index, sender) of each sender's first message, (index, -1) of what Python must judge."""

    def release(self, sender: int) -> list[int]:
        """Release a sender's messages to the Python engine; return the indexes of all but the first."""

    def cut(self, at: int) -> None:
        """Ignore the messages from this index on."""

    def key(
        self, sender: int, identity: int, not_before: float | None, not_after: float | None, revoked_at: float | None
    ) -> None:
        """Set a sender's key and its validity; ``identity`` is a number that is the same for the same key."""

    def jobs(self) -> list[tuple[int, bytes, int, bytes, bytes]]:
        """Make check 5; return the signatures to check, as (sender, protected, size, signature, root)."""

    def settle(self, holds: Sequence[bool]) -> None:
        """Take the results of the jobs, and make check 7."""

    def taken_back(self) -> list[tuple[int, bool | None]]:
        """Return what was released since the last call: (index, whether the signature holds, None if not known)."""

    def stretches(self) -> list[tuple[int, int, int]]:
        """Return (begin, end, sender) of consecutive messages that passed checks 1 to 7, in order."""

    def bounds(self, begin: int, end: int) -> tuple[int, int, float, int]:
        """Return first and last issue time, the log time that passed, and how many messages have no broker's stamp."""

    def entries(self, begin: int, end: int, hasher: Hasher, principal: int, log: int) -> Entries:
        """Return the entries for a guard; ``principal`` and ``log`` are numbers from ``Hashing``."""

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
        """Return what is delivered: ids in hex, values, keys, headers, issue times, positions, offsets."""

    def found(self, at: int) -> tuple[bytes, int, bytes, float, tuple[Header, ...]]:
        """Return one message's id, issue time, digest of the claims, reference time and headers."""

@final
class Layout:
    """Builds the claims of messages to one destination; their common parts come from ``encoding.Layout.parts``."""

    def __new__(cls, count: int, sender: bytes, channel: bytes, partition: bytes) -> Layout: ...
    def each(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        times: list[int],
        ids: bytes,
        pairs: bytes,
    ) -> list[bytes]:
        """Return the claims of each message; ``pairs`` are the covered headers as digested, empty if there are none."""

    def drafts(self, messages: list[Message], begin: int, ids: bytes, pairs: bytes, issued_at: int) -> list[bytes]:
        """Return the claims from ``begin`` on, up to a message unlike the first; ``ids`` has 16 bytes for each."""

@final
class Tree:
    """Claims under one signature; see ``encoding.SignedTree``."""

    def __new__(cls, claims: list[bytes], protected: bytes) -> Tree: ...
    @property
    def data(self) -> bytes:
        """The bytes to sign."""

    def values(self, signature: bytes) -> list[bytes]:
        """Return the header values, in the order of the claims."""

def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    """Return True if an Ed25519 signature is valid; it releases the GIL."""

def sha256(data: bytes) -> bytes:
    """Return SHA-256 of data; it releases the GIL for long data."""

def read_envelope(header: bytes) -> tuple[Any, ...] | None:
    """Read one envelope; None if it is not valid, and the Python engine must say why.

    Returns what one sender's envelopes have in common (in bytes that differ from all others), id, issue time, digests
    of metadata and value, claims, their leaf, signature, size, index, path.
    """

def read_block(block: bytes) -> tuple[Header, ...] | None:
    """Read a NATS header block without a status line; None if it is invalid."""

def sound_until(raw: bytes, at: int, most: int, log_end: int) -> int:
    """Return where the valid batches of a Kafka record set from ``at`` on end; it stops after ``most`` bytes."""

def are_sound(records: bytes, count: int, last_delta: int) -> bool:
    """Return True if these are ``count`` valid Kafka records, at offsets that ascend up to ``last_delta``."""
