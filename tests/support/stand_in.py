"""The native engine's interface on the Python reader: what is to be tested of runs can be so where no Rust is.

It has what ``engine.Native`` asks of a module, and lets go of the same messages as the native engine: that
is checked wherever that one is installed (``tests.support.beside``).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from watchword import Rejected, engine, packed
from watchword.algorithms import Algorithm
from watchword.cbor import MAP, head, of_int, of_text
from watchword.checks import HeaderCoverage, in_force, reference_time, the_envelope, unaltered
from watchword.encoding import SignedTree, encode_names, encode_pairs, metadata_digest, value_digest
from watchword.envelope import parse, read_into, unarmored
from watchword.hashing import MASK_64, PRIME
from watchword.labels import CHANNEL, ISSUED_AT, MESSAGE_ID, METADATA, VALUE
from watchword.merkle import root_of
from watchword.spi import Channel, Message, Position
from watchword.verification import Verification
from watchword_adapters.nats import headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from watchword_native import Entry

    from watchword.message import Header

__all__ = [
    "INTERFACE", "Bucket", "Entries", "Hasher", "Layout", "Run", "Tree", "__version__", "are_sound",
    "read_block", "read_envelope", "sha256", "sound_until", "verifies",
]  # fmt: skip

INTERFACE: Final = engine.INTERFACE
__version__: Final = "0.0 (stand-in)"

Tree: Final = SignedTree
Bucket: Final = packed.Bucket


class Hasher:
    """The secrets of ``Hashing``."""

    def __init__(self, a: bytes, b: bytes, c: bytes) -> None:
        self.a, self.b, self.c = (int.from_bytes(number, "little") for number in (a, b, c))


class Entries:
    """See ``engine.Entries``."""

    def __init__(self, rows: list[Entry]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def has_twins(self) -> bool:
        """See ``engine.Entries``."""
        return len({*self.keys()}) < len(self)

    def keys(self) -> list[int]:
        """See ``engine.Entries``."""
        return [key for _, key, _, _ in self._rows]

    def rows(self) -> list[Entry]:
        """See ``engine.Entries``."""
        return self._rows


class _Row(Verification):
    """One message of a run; ``position`` is the client's own, which a record has not."""

    reference: float
    sender: int
    position: Position | None
    good: bool


class Run:
    """See ``engine.Run``."""

    def __init__(
        self,
        messages: list[Message],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - as the native one has it
    ) -> None:
        self._now = now
        self._policy: Any = SimpleNamespace(max_age=max_age, max_skew=max_skew, window=max_age + 2 * max_skew)
        self._recalled = recalled
        self._coverage = HeaderCoverage()
        self._senders: dict[object, int] = {}
        self._first: list[int] = []
        self._keys: dict[int, tuple[int, Any]] = {}
        self._groups: list[list[int]] = []
        self._let_go: list[tuple[int, bool | None]] = []
        self._rows: list[_Row | None] = []
        for message in messages:
            self._rows.append(self._read(message, message.position) if _is_plain(message) else None)
        self._end = len(messages)

    @classmethod
    def of_records(  # noqa: PLR0917 - as above
        cls,
        records: Sequence[Any],
        place: tuple[str, int, str, str, bool],
        bounds: list[tuple[int, float, float]],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - as above
    ) -> Run:
        """See ``engine.Run``."""
        run = cls([], now, max_age, max_skew, recalled)
        for record in records:
            message = _message_of(record, place, bounds)
            run._rows.append(run._read(message, None) if message is not None and _is_plain(message) else None)
        run._end = len(records)
        return run

    @classmethod
    def of_deliveries(  # noqa: PLR0917 - as above
        cls,
        messages: list[Any],
        place: tuple[str, str, bool],
        deliveries: Sequence[tuple[Any, ...] | None],
        now: float,
        max_age: float,
        max_skew: float,
        recalled: bool,  # noqa: FBT001 - as above
    ) -> Run:
        """See ``engine.Run``."""
        run = cls([], now, max_age, max_skew, recalled)
        for one, delivery in zip(messages, deliveries, strict=True):
            message = _delivered(one, place, delivery)
            run._rows.append(run._read(message, None) if message is not None and _is_plain(message) else None)
        run._end = len(messages)
        return run

    def _read(self, message: Message, position: Position | None) -> _Row | None:
        """Make checks 1, 2 and 4."""
        row = _Row(message)
        try:
            read_into(row, unarmored(the_envelope(message)))
            row.reference = reference_time(row, self._now, self._policy, recalled=self._recalled)
        except Rejected:
            return None
        if row.ahead is not None or (row.common.algorithm == Algorithm.ED25519 and len(row.signature) != 64):
            return None
        found = (
            message.channel.uri, message.partition, message.reply_to, message.reader, message.exclusive,
            message.delivered_by, None if message.position is None else message.position.log,
        )  # fmt: skip
        row.sender = self._senders.setdefault((found, row.common), len(self._senders))
        if row.sender == len(self._first):
            self._first.append(len(self._rows))
        row.position, row.good, row.headers = position, True, ()
        return row

    def firsts(self) -> list[tuple[int, int]]:
        """See ``engine.Run``."""
        told = ((at, -1 if row is None else row.sender) for at, row in enumerate(self._rows))
        return [(at, sender) for at, sender in told if sender < 0 or self._first[sender] == at]

    def release(self, sender: int) -> list[int]:
        """See ``engine.Run``."""
        gone = [at for at, row in enumerate(self._rows) if row is not None and row.sender == sender]
        for at in gone:
            self._rows[at] = None
        return [at for at in gone if at > self._first[sender]]

    def cut(self, at: int) -> None:
        """See ``engine.Run``."""
        self._end = min(self._end, at)

    def key(
        self, sender: int, identity: int, not_before: float | None, not_after: float | None, revoked_at: float | None
    ) -> None:
        """See ``engine.Run``."""
        limits = SimpleNamespace(not_before=not_before, not_after=not_after, revoked_at=revoked_at)
        self._keys[sender] = identity, limits

    def jobs(self) -> list[tuple[int, bytes, int, bytes, bytes]]:
        """See ``engine.Run``."""
        groups: dict[object, list[int]] = {}
        for at, row in self._rows_up_to_end():
            try:
                identity, key = self._keys[row.sender]
                in_force(key, b"", row.reference, self._now)
            except (KeyError, Rejected):
                self._leave(at, signed=None)
            else:
                tree = identity, row.common.protected, row.size, row.signature
                groups.setdefault(tree, []).append(at)
        jobs = []
        for root, part in [part for group in groups.values() for part in self._by_root(group)]:
            if root is None:
                for at in part:
                    self._leave(at, signed=None)
                continue
            first = self._row(part[0])
            self._groups.append(part)
            jobs.append((first.sender, first.common.protected, first.size, first.signature, root))
        return jobs

    def _by_root(self, group: list[int]) -> list[tuple[bytes | None, list[int]]]:
        """Part a group by what its signature is to stand over; None for what is not for this engine to say."""
        root = self._root_of(group)
        if root is not None:
            return [(root, group)]
        roots = [self._root_of([at]) for at in group]
        places = Counter((root, self._row(at).index) for root, at in zip(roots, group, strict=True))
        parts: dict[bytes | None, list[int]] = {}
        for root, at in zip(roots, group, strict=True):
            parts.setdefault(None if places[root, self._row(at).index] > 1 else root, []).append(at)
        return [*parts.items()]

    def _root_of(self, group: list[int]) -> bytes | None:
        """Return what a signature stands over; None where these are not leaves of one tree, each another one."""
        rows = sorted(map(self._row, group), key=lambda row: row.index)
        if not rows[0].size:
            return rows[0].claims_bytes if len({row.claims_bytes for row in rows}) == 1 else None
        if len({row.index for row in rows}) < len(rows):
            return None
        roots = {root_of(row.leaf, row.index, row.size, row.path) for row in rows}
        return roots.pop() if len(roots) == 1 else None

    def settle(self, holds: Sequence[bool]) -> None:
        """See ``engine.Run``."""
        for group, holding in zip(self._groups, holds, strict=True):
            for at in group:
                row = self._row(at)
                try:
                    row.headers = unaltered(row, self._policy.max_skew, self._coverage) if holding else ()
                except Rejected:
                    self._leave(at, signed=True)
                if not holding:
                    self._leave(at, signed=False)
        self._groups = []

    def taken_back(self) -> list[tuple[int, bool | None]]:
        """See ``engine.Run``."""
        gone, self._let_go = sorted(self._let_go, key=lambda one: one[0]), []
        return gone

    def stretches(self) -> list[tuple[int, int, int]]:
        """See ``engine.Run``."""
        found: list[tuple[int, int, int]] = []
        for at, row in self._rows_up_to_end():
            if row.good and found and found[-1][1:] == (at, row.sender):
                found[-1] = found[-1][0], at + 1, row.sender
            elif row.good:
                found.append((at, at + 1, row.sender))
        return found

    def bounds(self, begin: int, end: int) -> tuple[int, int, float, int]:
        """See ``engine.Run``."""
        times = [row.issued_at for row in self._between(begin, end)]
        after = [_appended_after(row.message) for row in self._between(begin, end)]
        passed = [
            row.reference if earliest is None else earliest
            for row, earliest in zip(self._between(begin, end), after, strict=True)
        ]
        return min(times), max(times), max(passed), len(after) - after.count(None)

    def entries(self, begin: int, end: int, hasher: Any, principal: int, log: int) -> Entries:
        """See ``engine.Run``."""
        found: list[Entry] = []
        for row in self._between(begin, end):
            key = int.from_bytes(row.id) * hasher.a + row.issued_at * hasher.b + principal
            mark = int.from_bytes(row.leaf[:16]) * hasher.a
            offset, stamp = _offset_of(row), row.message.appended_at
            if offset is not None:
                mark += offset * hasher.b + (0 if stamp is None else 1 + hash(stamp)) * hasher.c + log
            found.append((row.issued_at, key % PRIME & MASK_64, mark % PRIME & MASK_64, offset))
        return Entries(found)

    def ids(self, begin: int, end: int) -> list[bytes]:
        """See ``engine.Run``."""
        return [row.id for row in self._between(begin, end)]

    def digests(self, begin: int, end: int) -> list[bytes]:
        """See ``engine.Run``."""
        return [row.leaf for row in self._between(begin, end)]

    def delivered(self, begin: int, end: int) -> Any:
        """See ``engine.Run``."""
        rows = [
            (
                row.id.hex(), row.message.value, row.message.key, row.headers, row.issued_at, row.position,
                _offset_of(row),
            )
            for row in self._between(begin, end)
        ]  # fmt: skip
        return tuple(map(list, zip(*rows, strict=True)))

    def found(self, at: int) -> tuple[bytes, int, bytes, float, tuple[Header, ...]]:
        """See ``engine.Run``."""
        row = self._row(at)
        return row.id, row.issued_at, row.leaf, row.reference, row.headers

    def _row(self, at: int) -> _Row:
        row = self._rows[at]
        assert row is not None, "no such message"
        return row

    def _rows_up_to_end(self) -> list[tuple[int, _Row]]:
        return [(at, row) for at, row in enumerate(self._rows[: self._end]) if row is not None]

    def _between(self, begin: int, end: int) -> list[_Row]:
        return [self._row(at) for at in range(begin, end)]

    def _leave(self, at: int, *, signed: bool | None) -> None:
        self._row(at).good = False
        self._let_go.append((at, signed))


def _appended_after(message: Message) -> float | None:
    between = message.appended_between
    return None if between is None or message.appended_at is not None else between[0]


def _offset_of(row: _Row) -> int | None:
    return None if row.message.position is None else row.message.position.offset


def _is_plain(message: Any) -> bool:
    """Return True if a message's parts are of exactly the declared types."""
    position, stamp, headers = message.position, message.appended_at, message.headers
    if message.fault is not None:
        return False
    texts = [message.channel.uri, message.reader, *(message.delivered_by or ())]
    texts += [text for text in (message.reply_to,) if text is not None]
    if position is not None:
        texts.append(position.log)
        if not 0 <= position.offset < 1 << 64:
            return False
    if type(headers) is not tuple or any(type(header) is not tuple or len(header) != 2 for header in headers):
        return False
    texts += [name for name, _ in headers]
    return (
        all(type(text) is str and _is_unicode(text) for text in texts)
        and all(type(part) in {bytes, type(None)} for part in (message.value, message.key))
        and all(type(value) in {bytes, type(None)} for _, value in headers)
        and type(message.exclusive) is bool
        and (message.partition is None or 0 <= message.partition < 1 << 63)
        and (message.delivered_by is None or type(message.delivered_by) is tuple)
        and (stamp is None or (isinstance(stamp, float) and hash(stamp) >= 0))
    )


def _is_unicode(text: str) -> bool:
    """Return True if it has no lone surrogate."""
    return text.encode(errors="ignore").decode() == text


def _message_of(
    record: Any, place: tuple[str, int, str, str, bool], bounds: list[tuple[int, float, float]]
) -> Message | None:
    """Return the message that a client's record is; None for one that the native engine does not read."""
    uri, partition, reader, log, exclusive = place
    known = [(low, high) for offset, low, high in bounds if offset <= record.offset]
    stamped = record.timestamp_type == 1
    seconds = None if record.timestamp is None else record.timestamp / 1000
    if record.timestamp_type is None or (seconds is None if stamped else not known):
        return None
    return Message(
        channel=Channel.parse(uri),
        value=record.value,
        key=record.key,
        headers=record.headers,
        partition=partition,
        position=Position(log, record.offset),
        appended_at=seconds if stamped else None,
        created_at=None if stamped else seconds,
        reader=reader,
        exclusive=exclusive,
        appended_between=None if stamped else known[-1],
    )


def _delivered(raw: Any, place: tuple[str, str, bool], delivery: tuple[Any, ...] | None) -> Message | None:
    """Return the message that a NATS client has; None for one that the native engine does not read."""
    prefix, reader, exclusive = place
    unread = getattr(raw.headers, "raw", None)
    block = headers.read_block(unread) if type(unread) is bytes else None
    if block is None or block.fault is not None or block.status is not None:
        return None
    where = None if delivery is None else Position(delivery[0][0], delivery[1])
    return Message(
        channel=Channel.parse(prefix + raw.subject),
        value=raw.data,
        headers=block.pairs,
        reply_to=raw.reply if where is None and raw.reply else None,
        position=where,
        appended_at=None if delivery is None else delivery[2] / 1e9,
        reader=reader,
        delivered_by=None if delivery is None else delivery[0],
        exclusive=exclusive,
    )


class Layout:
    """See ``encoding.Layout``, of which it takes the parts."""

    def __init__(self, count: int, sender: bytes, channel: bytes, partition: bytes) -> None:
        self._count, self._sender, self._channel, self._partition = count, sender, channel, partition

    def each(
        self,
        values: list[bytes | None],
        keys: list[bytes | None],
        times: list[int],
        ids: bytes,
        pairs: bytes,
    ) -> list[bytes]:
        """See ``engine.Layout``."""
        if any(one is not None and not isinstance(one, bytes) for one in (*values, *keys)):
            raise TypeError("give bytes, or None")
        names = [ids[at : at + 16] for at in range(0, len(ids), 16)]
        return [self._claims(*parts, pairs) for parts in zip(names, values, keys, times, strict=True)]

    def _claims(self, message_id: bytes, value: bytes | None, key: bytes | None, issued_at: int, pairs: bytes) -> bytes:
        digested = key is not None or pairs
        metadata = METADATA + metadata_digest(key, pairs or encode_pairs([])) if digested else b""
        digest = value_digest(value)
        payload = b"" if digest is None else VALUE + digest
        count = self._count + bool(metadata) + bool(payload)
        dated = ISSUED_AT + of_int(issued_at) + MESSAGE_ID + message_id
        return head(MAP, count) + self._sender + dated + self._channel + metadata + self._partition + payload

    def drafts(self, messages: list[Message], begin: int, ids: bytes, pairs: bytes, issued_at: int) -> list[bytes]:
        """See ``engine.Layout``."""
        found: list[bytes] = []
        like = messages[begin - 1]
        for message, at in zip(messages[begin:], range(0, len(ids), 16), strict=True):
            if not _is_alike(message, like):
                break
            found.append(self._claims(ids[at : at + 16], message.value, message.key, issued_at, pairs))
        return found


def _is_alike(message: Message, like: Message) -> bool:
    """Return True if nothing is to be checked of a message that was checked of the other."""
    alike = [(getattr(message, name), getattr(like, name)) for name in ("channel", "partition")]
    return (
        all(type(one) is type(other) and one == other for one, other in alike)
        and message.reply_to is None
        and (message.headers is like.headers or (type(message.headers) is tuple and message.headers == like.headers))
        and all(type(part) in {bytes, type(None)} for part in (message.value, message.key))
    )


def verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    """See ``engine.Native``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def sha256(data: bytes) -> bytes:
    """See ``engine.Native``."""
    return hashlib.sha256(data).digest()


def read_block(block: bytes) -> tuple[Header, ...] | None:
    """See ``engine.Native``."""
    pairs, fault = headers.read_lines(block)
    return pairs if fault is None else None


def read_envelope(header: bytes) -> tuple[Any, ...] | None:
    """See ``engine.Native``."""
    try:
        one = parse(header)
    except Rejected:
        return None
    common, time = one.common, ISSUED_AT + of_int(one.issued_at) + MESSAGE_ID + one.id
    first, behind = one.claims_bytes[1:].split(time)
    names = len(CHANNEL + of_text(common.channel) + encode_names(common.covered))
    metadata = 0 if one.metadata_digest is None else len(METADATA + one.metadata_digest)
    value = 0 if one.value_digest is None else len(VALUE + one.value_digest)
    parts = first, behind[:names], behind[names + metadata : len(behind) - value], common.protected
    return (
        b"".join(len(part).to_bytes(8, "little") + part for part in parts), one.id, one.issued_at, one.metadata_digest,
        one.value_digest, one.claims_bytes, one.leaf, one.signature, one.size, one.index, one.path,
    )  # fmt: skip


def sound_until(_raw: bytes, at: int, _most: int, _log_end: int) -> int:
    """See ``engine.Native``; it says nothing of any batch."""
    return at


def are_sound(_records: bytes, _count: int, _last_delta: int) -> bool:
    """See ``engine.Native``; it says yes to none."""
    return False
