"""What really happened, as every process wrote it down: tab-separated lines in files that only grow.

A position is ``<partition or stream>@<offset or sequence>``. Core NATS has none: there ``-`` stands for what a producer
sent, and the attacker's copies bear their number, in a reply subject that no handler sees. A record that claims an
offset which is not its own stands at ``<partition>@<first offset of its batch>+<its number in it>``: nobody can have
that position from a reader. ``at`` is when a line was written, in seconds since the epoch. A ``hand`` is what handles
one message after another: part of a worker; empty where nobody says which.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from watchword import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from watchword.spi import Position

SENT: Final = "sent"
"""name, at: an honest sender is about to send it."""
ACKED: Final = "acked"
"""name, position, at: the bus said that it has it."""
UNSETTLED: Final = "unsettled"
"""name: sent in a transaction that its sender does not know to be committed."""
ABORTED: Final = "aborted"
"""name, position: sent there in a transaction that its sender aborted."""
DELIVERED: Final = "delivered-"
"""name, position, redelivered, late, hand, at: a handler got it; one file for each life of a worker.

``late`` is how many milliseconds it took from the append (or the issue, where the bus stamps nothing) to the handler.
A line without a name says that the worker begins again in the log that stands in place of the position.
"""
REFUSED: Final = "refused-"
"""name, position, reason, hand, at: the audit trail's verdict; one file for each life of a worker."""
ARRIVED: Final = "arrived-"
"""name, position: what the server handed to a worker of core NATS, before anyone judged it."""
WITNESSED: Final = "witnessed"
"""name, position: what a plain subscriber of core NATS saw."""
LOG: Final = "log"
"""name, position: what the bus holds in the end, oldest first."""
EVENTS: Final = "events"
"""deed, detail, at."""
PRESENT: Final = "present-"
"""HERE or the reason why not, at: whether a worker of core NATS is given messages; one file for each of its lives."""
RETAINED: Final = "retained"
"""first sequence, since, at: what the stream has lost from its front, at some time between."""
APART: Final = "apart"
"""A file that is there if each worker is a reader of its own, and is to get everything."""

ANSWERED: Final = "answered"
"""name, text: what a requester was given as the answer to that request."""

HERE: Final = "here"

ORIGINAL: Final = "-"
COPY: Final = "chaos-copy"
"""The header that marks a copy where its reply subject cannot."""
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

    def tell(self, *rows: Iterable[str]) -> None:
        """Append rows, each with the present time at its end."""
        now = f"{time.time():.3f}"
        self.write(*((*row, now) for row in rows))


class Delivery(NamedTuple):
    """A handler of ``worker`` got a message, ``late`` milliseconds after the bus did.

    ``turn`` counts how often the worker has begun again in this log until then; 0 where it did not say.
    """

    worker: str
    name: str
    position: str
    late: int
    turn: int
    hand: str = ""
    at: float = 0.0

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
    hand: str = ""
    at: float = 0.0


class Event(NamedTuple):
    """Something was done, to ``detail``."""

    deed: str
    detail: str
    at: float


class Presence(NamedTuple):
    """From now on the server gives a worker what comes, if ``what`` is HERE; else it says why not."""

    worker: str
    what: str
    at: float


class Arrival(NamedTuple):
    """A message reached a worker's client."""

    worker: str
    name: str
    position: str


@dataclass(kw_only=True)
class Evidence:
    """All that was written down in one run; ``log`` is None where the bus keeps none.

    ``sent`` has when each message was about to be sent, ``acked_at`` when the bus had said that it has it.
    """

    sent: dict[str, float]
    acked: dict[str, str]
    log: list[tuple[str, str]] | None
    deliveries: list[Delivery]
    refusals: list[Refusal]
    arrivals: list[Arrival] = field(default_factory=list)
    witnessed: list[tuple[str, str]] = field(default_factory=list)
    unsettled: frozenset[str] = frozenset()
    aborted: frozenset[tuple[str, str]] = frozenset()
    acked_at: dict[str, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    presence: list[Presence] = field(default_factory=list)
    retained: list[tuple[int, float, float]] = field(default_factory=list)
    answers: list[tuple[str, str]] = field(default_factory=list)
    is_apart: bool = False

    @property
    def killed(self) -> frozenset[str]:
        """The lives of workers that were killed."""
        return frozenset(event.detail for event in self.events if event.deed == "kill")

    @property
    def readers(self) -> list[Evidence]:
        """What each reader did: all workers together, or each apart from the others."""
        if not self.is_apart:
            return [self]
        numbers = {number_of(one.worker) for one in self.deliveries}
        numbers |= {number_of(one.worker) for one in self.refusals}
        numbers |= {number_of(one.worker) for one in self.presence}
        return [
            replace(
                self,
                deliveries=[one for one in self.deliveries if number_of(one.worker) == number],
                refusals=[one for one in self.refusals if number_of(one.worker) == number],
                arrivals=[one for one in self.arrivals if number_of(one.worker) == number],
                presence=[one for one in self.presence if number_of(one.worker) == number],
            )
            for number in sorted(numbers)
        ]

    @classmethod
    def read(cls, directory: str | Path) -> Evidence:
        """Read what the processes of a run wrote."""
        there = Path(directory)
        log = there / f"{LOG}.tsv"
        return cls(
            sent={name: float(at) for name, at in _rows(there / f"{SENT}.tsv")},
            acked={name: position for name, position, _ in _rows(there / f"{ACKED}.tsv")},
            acked_at={name: float(at) for name, _, at in _rows(there / f"{ACKED}.tsv")},
            log=[(name, position) for name, position in _rows(log)] if log.exists() else None,
            deliveries=list(_deliveries(there)),
            refusals=[
                Refusal(who, name, position, reason, hand, float(at))
                for who, (name, position, reason, hand, at) in _of_workers(there, REFUSED)
            ],
            arrivals=[Arrival(who, *row) for who, row in _of_workers(there, ARRIVED)],
            witnessed=[(name, position) for name, position in _rows(there / f"{WITNESSED}.tsv")],
            unsettled=frozenset(name for (name,) in _rows(there / f"{UNSETTLED}.tsv")),
            aborted=frozenset((name, position) for name, position in _rows(there / f"{ABORTED}.tsv")),
            events=[Event(deed, detail, float(at)) for deed, detail, at in _rows(there / f"{EVENTS}.tsv")],
            presence=[Presence(who, what, float(at)) for who, (what, at) in _of_workers(there, PRESENT)],
            retained=[(int(first), float(since), float(at)) for first, since, at in _rows(there / f"{RETAINED}.tsv")],
            answers=[(name, text) for name, text in _rows(there / f"{ANSWERED}.tsv")],
            is_apart=(there / f"{APART}.tsv").exists(),
        )


class Tally:
    """Follows the files while they grow: how many were acknowledged, and which of them were delivered.

    ``handled`` counts deliveries and refusals, to every reader and again.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._read: Counter[Path] = Counter()
        self.acked = 0
        self.delivered: set[str] = set()
        self.handled = 0
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
            new = self._new(path)
            self.handled += len(new)
            self.delivered.update(line.split("\t", 1)[0] for line in new)
        self.delivered.discard("")
        for path in self._directory.glob(f"{REFUSED}*.tsv"):
            self.handled += len(self._new(path))

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


def number_of(life: str) -> str:
    """Return the number of the worker that lives it."""
    return life.partition(".")[0]


def place(position: Position | None, mark: str | None) -> str:
    """Write a position; where there is none, the mark of an attacker's copy."""
    if position is None:
        return mark or ORIGINAL
    return f"{position.log.rpartition('/')[2]}@{position.offset}"


def _deliveries(directory: Path) -> Iterator[Delivery]:
    turns: Counter[tuple[str, str]] = Counter()
    for who, (name, position, _, late, hand, at) in _of_workers(directory, DELIVERED):
        if not name:
            turns[who, position] += 1
        else:
            turn = turns[who, position.rpartition("@")[0]]
            yield Delivery(who, name, position, int(late), turn, hand, float(at))


def _of_workers(directory: Path, prefix: str) -> Iterator[tuple[str, list[str]]]:
    for path in sorted(directory.glob(f"{prefix}*.tsv")):
        for row in _rows(path):
            yield path.stem.removeprefix(prefix), row


def _rows(path: Path) -> Iterator[list[str]]:
    if path.exists():
        with path.open() as file:
            for line in file:
                yield line.rstrip("\n").split("\t")
