"""A Kafka partition as the broker keeps it and as a client reads it; with clocks, transactions, retention, a group.

Nothing here shares a formula with the product. Every offset holds a record or a marker of a transaction.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final

from tests.properties.log_world import POLICY, STRANGER, WRITERS, Ident
from tests.unit.core.world import press
from watchword import SigningKey
from watchword.message import Header
from watchword.partition import Found
from watchword.spi import Channel, Message, Position

START: Final = 1_000_000
SKEW: Final = POLICY.max_skew
MAX_AGE: Final = POLICY.max_age
HORIZON: Final = MAX_AGE + SKEW
WINDOW: Final = HORIZON + SKEW


@dataclass(eq=False)
class Record:
    """One record, or the marker at the end of a transaction.

    ``stamp`` is the broker's time, if it stamps; ``created`` what the producer wrote. ``known`` tells whether it bears
    a key id that a key source may know, ``genuine`` whether it is as it was signed. ``producer`` is the transaction's.
    """

    offset: int
    stamp: float | None
    created: float
    appended: float
    ident: Ident
    issued_at: int
    headers: tuple[Header, ...]
    value: bytes = b"v"
    known: bool = True
    genuine: bool = True
    producer: int | None = None
    aborted: bool = False
    marker: bool = False
    delay: float = 0.0

    @property
    def time(self) -> float:
        """Its timestamp, set by broker or producer."""
        return self.created if self.stamp is None else self.stamp

    @property
    def place(self) -> tuple[int, float | None]:
        """Where the broker put it."""
        return self.offset, self.stamp


@dataclass
class Log:
    """One partition; true time, and how far the clocks of broker and signers are from it.

    Within the skew each is at most half of it off.
    """

    stamping: bool
    now: float = float(START)
    broker: float = 0.0
    signer: float = 0.0
    wild: bool = False
    """Whether the broker's clock ever was further off."""

    records: list[Record] = field(default_factory=list)
    first: int = 0
    open: dict[int, list[Record]] = field(default_factory=dict)
    committed: tuple[int, str] | None = None
    most_metadata: int = 4096

    @property
    def high(self) -> int:
        """The high watermark."""
        return len(self.records)

    @property
    def stable(self) -> int:
        """The last stable offset."""
        return min((records[0].offset for records in self.open.values()), default=self.high)

    # What producers do

    def write(
        self, principal: str, delay: float = 0.0, *, ahead: float = 0.0, known: bool = True, producer: int | None = None
    ) -> Record:
        """Write a new message that took ``delay`` from its signing to the log, dated ``ahead``; maybe by a stranger."""
        issued_at, number = floor(self.now - delay + self.signer + ahead), self.high
        headers = _signed(WRITERS[principal] if known else STRANGER, principal, number, issued_at)
        record = Record(
            0, None, issued_at, 0, (principal, number), issued_at, headers, known=known, producer=producer, delay=delay
        )
        return self._append(record)

    def copy(self, record: Record, shift: float = 0.0, *, producer: int | None = None) -> Record:
        """Write a captured record again; the attacker chooses the time, where the broker does not."""
        return self._append(replace(record, created=record.created + shift, aborted=False, producer=producer))

    def alter(self, record: Record) -> Record:
        """Write a captured record with another value."""
        return self._append(replace(record, value=b"forged", genuine=False, aborted=False, producer=None))

    def disown(self, record: Record) -> Record:
        """Write the claims of a captured record under a key that nobody knows."""
        headers = _signed(STRANGER, *record.ident, record.issued_at)
        return self._append(replace(record, headers=headers, known=False, aborted=False, producer=None))

    def garbage(self) -> Record:
        """Write what is no message of ours."""
        return self._append(Record(0, None, self.now, 0, ("", -1), 0, (), genuine=False, known=False))

    def end(self, producer: int, *, abort: bool) -> None:
        """End a transaction."""
        for record in self.open.pop(producer, []):
            record.aborted = abort
        self._append(Record(0, None, self.now + self.broker, 0, ("", -1), 0, (), marker=True))

    def _append(self, record: Record) -> Record:
        record.offset, record.appended = self.high, self.now
        record.stamp = self.now + self.broker if self.stamping else None
        self.records.append(record)
        if record.producer is not None:
            self.open.setdefault(record.producer, []).append(record)
        return record

    # What the broker answers

    def readable(self, since: int, *, committed_only: bool) -> Iterator[Record]:
        """Return what a client is given from an offset on."""
        end = self.stable if committed_only else self.high
        for record in self.records[max(since, self.first) : end]:
            if not record.marker and not (committed_only and record.aborted):
                yield record

    def look_up(self, time: float, *, committed_only: bool) -> Found | None:
        """Return the first record, or marker, at or after a time."""
        end = self.stable if committed_only else self.high
        found = (record for record in self.records[self.first : end] if record.time >= time - 0.001)
        return next((Found(record.offset, record.time) for record in found), None)

    def message(self, record: Record, between: tuple[float, float]) -> Message:
        """Return the record as an adapter hands it to the verifier."""
        return replace(
            _message(record.value),
            headers=record.headers,
            position=Position("tasks/0", record.offset),
            appended_at=record.stamp,
            appended_between=between if record.stamp is None else None,
            created_at=record.created if record.stamp is None else None,
        )


class Client:
    """A client's position in the partition, and what it has fetched, as aiokafka does it; at most ``most`` at once."""

    def __init__(self, log: Log, *, committed_only: bool, latest: bool, most: int) -> None:
        self.log = log
        self.committed_only = committed_only
        self.latest = latest
        self.most = most
        self.position: int | None = None
        self._to_end: bool | None = None
        self._fetched: list[Record] | None = None
        self._behind = 0

    @property
    def has_position(self) -> bool:
        """Whether it knows where to go on."""
        return self.position is not None

    def begin(self) -> None:
        """Begin an assignment."""
        self.position = self._to_end = self._fetched = None

    def find_position(self) -> None:
        """Go to the group's commit, or to one of the log's ends: the one that was asked for, or that of the policy."""
        committed, to_end = self.log.committed, self._to_end
        if to_end is None and committed is not None:
            self.seek(committed[0])
        else:
            self.seek(self.end(latest=self.latest if to_end is None else to_end))

    def end(self, *, latest: bool) -> int:
        """Return an end of the log, as the client's isolation sees it."""
        if not latest:
            return self.log.first
        return self.log.stable if self.committed_only else self.log.high

    def seek(self, offset: int) -> None:
        """Go elsewhere."""
        self.position = offset
        self._to_end = self._fetched = None

    def seek_to_end(self, *, latest: bool) -> None:
        """Go to one of the log's ends, which is found later."""
        self.position = self._fetched = None
        self._to_end = latest

    def fetch(self) -> int | None:
        """Ask for records, if none are there; return the high watermark, None after an error."""
        if self.position is None or self._fetched is not None:
            return None
        if not self.log.first <= self.position <= self.log.high:
            self.seek_to_end(latest=self.latest)
            return None
        self._behind = self.log.stable if self.committed_only else self.log.high
        if self.position < self._behind:
            self._fetched = [*self.log.readable(self.position, committed_only=self.committed_only)]
            if len(self._fetched) > self.most:
                self._behind = self._fetched[self.most].offset
                del self._fetched[self.most :]
        return self.log.high

    def take(self, most: int | None) -> list[Record]:
        """Return fetched records, and move the position behind them, and behind markers once nothing is left."""
        if self._fetched is None:
            return []
        taken = self._fetched[:most]
        del self._fetched[: len(taken)]
        if self._fetched or (taken and len(taken) == most):
            self.position = taken[-1].offset + 1
        else:
            self.position, self._fetched = self._behind, None
        return taken


def _signed(key: SigningKey, principal: str, number: int, issued_at: int) -> tuple[Header, ...]:
    message = _message(b"v")
    return press(message, key=key, principal=principal, c6=issued_at, c7=number.to_bytes(16)).headers


def _message(value: bytes) -> Message:
    return Message(channel=Channel("kafka", "prod", "tasks"), value=value, partition=0, reader="group", exclusive=True)
