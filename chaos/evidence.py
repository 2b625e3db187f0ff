"""What really happened, as every process wrote it down: tab-separated lines in files that only grow.

A position is ``<partition or stream>@<offset or sequence>``. Core NATS has none: there ``-`` stands for what a producer
sent, and the attacker's copies bear their number, in a reply subject that no handler sees. A record that claims an
offset which is not its own stands at ``<partition>@<first offset of its batch>+<its number in it>``: nobody can have
that position from a reader.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from watchword import Position

SENT: Final = "sent"
"""name: an honest sender is about to send it."""
ACKED: Final = "acked"
"""name, position: the bus said that it has it."""
UNSETTLED: Final = "unsettled"
"""name: sent in a transaction that its sender does not know to be committed."""
ABORTED: Final = "aborted"
"""name, position: sent there in a transaction that its sender aborted."""
DELIVERED: Final = "delivered-"
"""name, position, redelivered, late: a handler got it; one file for each life of a worker.

``late`` is how many milliseconds it took from the append (or the issue, where the bus stamps nothing) to the handler.
A line without a name says that the worker begins again in the log that stands in place of the position.
"""
REFUSED: Final = "refused-"
"""name, position, reason: the audit trail's verdict; one file for each life of a worker."""
ARRIVED: Final = "arrived-"
"""name, position: what the server handed to a worker of core NATS, before anybody judged it."""
WITNESSED: Final = "witnessed"
"""name, position: what a plain subscriber of core NATS saw."""
LOG: Final = "log"
"""name, position: what the bus holds in the end, oldest first."""
EVENTS: Final = "events"
"""deed, detail."""

ORIGINAL: Final = "-"
UNAVAILABLE: Final = "unavailable"
REPLAYED: Final = str(Reason.REPLAYED)


class Writer:
    """Appends lines that outlive the process: each call hands them to the operating system before it returns."""

    def __init__(self, directory: str | Path, name: str) -> None:
        self._file = os.open(Path(directory, f"{name}.tsv"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *rows: Iterable[str]) -> None:
        """Append rows."""
        if rows:
            os.write(self._file, "".join("\t".join(row) + "\n" for row in rows).encode())


class Delivery(NamedTuple):
    """A handler of ``worker`` got a message, ``late`` milliseconds after the bus did.

    ``turn`` counts how often the worker has begun again in this log until then; 0 where it did not say.
    """

    worker: str
    name: str
    position: str
    late: int
    turn: int

    @property
    def log(self) -> str:
        """The partition or stream."""
        return self.position.rpartition("@")[0]

    @property
    def offset(self) -> int:
        """The offset or sequence."""
        return int(self.position.rpartition("@")[2])


class Refusal(NamedTuple):
    """A worker's guard refused a message."""

    worker: str
    name: str
    position: str
    reason: str


class Arrival(NamedTuple):
    """A message reached a worker's client."""

    worker: str
    name: str
    position: str


@dataclass(kw_only=True)
class Evidence:
    """All that was written down in one run; ``log`` is None where the bus keeps none."""

    sent: frozenset[str]
    acked: dict[str, str]
    log: list[tuple[str, str]] | None
    deliveries: list[Delivery]
    refusals: list[Refusal]
    arrivals: list[Arrival] = field(default_factory=list)
    witnessed: list[tuple[str, str]] = field(default_factory=list)
    unsettled: frozenset[str] = frozenset()
    aborted: frozenset[tuple[str, str]] = frozenset()
    killed: frozenset[str] = frozenset()
    deeds: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, directory: str | Path) -> Evidence:
        """Read what the processes of a run wrote."""
        there = Path(directory)
        events = [(deed, detail) for deed, detail in _rows(there / f"{EVENTS}.tsv")]
        log = there / f"{LOG}.tsv"
        return cls(
            sent=frozenset(name for (name,) in _rows(there / f"{SENT}.tsv")),
            acked={row[0]: row[1] for row in _rows(there / f"{ACKED}.tsv")},
            log=[(name, position) for name, position in _rows(log)] if log.exists() else None,
            deliveries=list(_deliveries(there)),
            refusals=[Refusal(who, *row) for who, row in _of_workers(there, REFUSED)],
            arrivals=[Arrival(who, *row) for who, row in _of_workers(there, ARRIVED)],
            witnessed=[(name, position) for name, position in _rows(there / f"{WITNESSED}.tsv")],
            unsettled=frozenset(name for (name,) in _rows(there / f"{UNSETTLED}.tsv")),
            aborted=frozenset((name, position) for name, position in _rows(there / f"{ABORTED}.tsv")),
            killed=frozenset(detail for deed, detail in events if deed == "kill"),
            deeds=Counter(deed for deed, _ in events),
        )


class Tally:
    """Follows the files while they grow: how many were acknowledged, and which of them were delivered."""

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._read: Counter[Path] = Counter()
        self.acked = 0
        self.delivered: set[str] = set()
        self._given_up = 0

    @property
    def waiting(self) -> int:
        """How many acknowledged messages a handler may get yet."""
        return self.acked - len(self.delivered) - self._given_up

    def give_up(self) -> None:
        """Take what waits for lost: on core NATS nothing is offered twice."""
        self._given_up += self.waiting

    def update(self) -> None:
        """Read on."""
        self.acked += len(self._new(self._directory / f"{ACKED}.tsv"))
        for path in self._directory.glob(f"{DELIVERED}*.tsv"):
            self.delivered.update(line.split("\t", 1)[0] for line in self._new(path))
        self.delivered.discard("")

    def _new(self, path: Path) -> list[str]:
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read[path])
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return []
        self._read[path] += len(whole) + 1
        return whole.decode().split("\n")


def place(position: Position | None, mark: str | None) -> str:
    """Write a position; where there is none, the mark of an attacker's copy."""
    if position is None:
        return mark or ORIGINAL
    return f"{position.log.rpartition('/')[2]}@{position.offset}"


def _deliveries(directory: Path) -> Iterator[Delivery]:
    turns: Counter[tuple[str, str]] = Counter()
    for who, (name, position, _, late) in _of_workers(directory, DELIVERED):
        if not name:
            turns[who, position] += 1
        else:
            yield Delivery(who, name, position, int(late), turns[who, position.rpartition("@")[0]])


def _of_workers(directory: Path, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(directory.glob(f"{prefix}*.tsv")):
        for row in _rows(path):
            yield path.stem.removeprefix(prefix), row


def _rows(path: Path) -> Iterator[list[str]]:
    if path.exists():
        with path.open() as file:
            for line in file:
                yield line.rstrip("\n").split("\t")
