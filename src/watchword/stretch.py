"""Consecutive messages of one sender in a native run that all passed checks 1 to 7, so that they are handled as one.

It builds their replay entries and their VerifiedMessages in bulk; a ``Verification`` for each is made only when one of
them must be treated separately. It needs a run of the native engine.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING, Final

from watchword.message import Position, seal_many
from watchword.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from watchword_native import Entries, Run

    from watchword.hashing import Hashing
    from watchword.message import Channel, Message, VerifiedMessage

_make_verified = seal_many()

_FIRST_SIGHT: Final = False  # the value of ``redelivered``

NO_SENDER: Final = -1
"""The sender number of a message that is not in a run."""


class Stretch:
    """Messages ``begin`` to ``end`` (exclusive) of a run, all of one sender, which passed checks 1 to 7.

    ``representative`` is one of the sender's messages, which passed checks 1 to 5 and has the common claims; an id must
    be remembered for ``keep`` seconds from its issue. If their results may differ, ``cases`` separates them. ``first``
    is True once the guard has answered that it knew none of them. Issue times range from ``least`` to ``most``.
    ``speaks`` is True if the broker stamped none of them, False if it stamped all, and None otherwise.
    """

    __slots__ = (
        "_messages", "_representative", "begin", "claim", "common", "end", "first", "keep", "key", "least", "message",
        "most", "passed", "request", "run", "speaks",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - one caller
        self, run: Run, begin: int, end: int, messages: Sequence[Message], representative: Verification, keep: float
    ) -> None:
        self._messages: Final = messages
        self._representative: Final = representative
        self.keep = keep
        self.run: Final = run
        self.begin: Final = begin
        self.end: Final = end
        self.message: Final = messages[begin]
        self.common: Final = representative.common
        self.key: Final = representative.key
        self.request: Final = representative.request
        self.claim = representative.claim
        self.first = False
        self.least, self.most, self.passed, unstamped = run.bounds(begin, end)
        self.speaks = None if 0 < unstamped < end - begin else unstamped > 0

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def channel(self) -> Channel:
        """The channel whose rules apply: for answers, that of the request."""
        return self.message.channel if self.request is None else self.request.channel

    def entries(self, hashing: Hashing) -> Entries:
        """Return the guard's entry for each."""
        principal, log = hashing.number(self.key.principal), self.message.position
        return self.run.entries(
            self.begin, self.end, hashing.native, principal, 0 if log is None else hashing.number(log.log)
        )

    def ids(self) -> list[bytes]:
        """Return the id of each."""
        return self.run.ids(self.begin, self.end)

    def digests(self) -> list[bytes]:
        """Return the digest of the claims of each."""
        return self.run.digests(self.begin, self.end)

    def halves(self) -> list[Stretch]:
        """Return two stretches with half of the messages each."""
        middle = (self.begin + self.end) // 2
        bounds = (self.begin, middle), (middle, self.end)
        return [Stretch(self.run, begin, end, self._messages, self._representative, self.keep) for begin, end in bounds]

    def case(self, at: int) -> Verification:
        """Return the verification of the message at this index."""
        case = Verification(self._messages[at])
        case.common, case.request, case.key, case.first = self.common, self.request, self.key, self.first
        case.read = case.keyed = case.signed = True
        case.id, case.issued_at, case.leaf, reference, case.headers = self.run.found(at)
        case.open(reference, case.issued_at + self.keep)
        return case

    def cases(self) -> list[Verification]:
        """Return a verification for each message."""
        return [self.case(at) for at in range(self.begin, self.end)]

    def accept(self) -> list[VerifiedMessage]:
        """Return the VerifiedMessage of each; every check must have passed, at first sight."""
        common, key, channel = self.common, self.key, self.message.channel
        principal, key_id = key.principal, key.key_id.decode()
        request = None if common.request_id is None else common.request_id.hex()
        recipient, reply_to = common.recipient, common.reply_to
        log = "" if self.message.position is None else self.message.position.log
        ids, values, keys, headers, times, places, offsets = self.run.delivered(self.begin, self.end)
        positions = [
            Position(log, offset) if place is None and offset is not None else place
            for place, offset in zip(places, offsets, strict=True)
        ]
        return _make_verified(
            repeat(principal), repeat(key_id), ids, repeat(channel), values, keys, headers, times, repeat(_FIRST_SIGHT),
            repeat(recipient), repeat(reply_to), repeat(request), positions,
        )  # fmt: skip


def is_representative(case: Verification) -> bool:
    """Return True if nothing is wrong with a sender's first message, so that the others may stay in the run."""
    return case.verdict is None and case.ahead is None and case.common.algorithm == case.key.algorithm


def cut(run: Run | None, at: int) -> None:
    """Exclude the messages from this index on from a run, if there is one."""
    if run is not None:
        run.cut(at)


def in_order(
    run: Run,
    messages: Sequence[Message],
    cases: dict[int, Verification],
    representatives: dict[int, Verification],
    keep: float,
) -> list[Verification | Stretch]:
    """Return the cases and the run's stretches, in the order of the messages."""
    units: dict[int, Verification | Stretch] = {**cases}
    for begin, end, sender in run.stretches():
        units[begin] = Stretch(run, begin, end, messages, representatives[sender], keep)
    return [units[at] for at in sorted(units)]


def parted(units: Iterable[Verification | Stretch]) -> list[Verification]:
    """Return a verification for each message."""
    return [case for unit in units for case in unit.cases()]
