"""Quarantine: copies of messages that were not delivered, so that an operator can inspect and redrive them.

This is the port, and what every quarantine shares: caps, and one copy per message. A quarantine is never a way back in
(a copy verifies nowhere), never an amplifier (caps on number and bytes, no copies of copies), and never slows readers
down (adapters write in the background, with bounded memory, and a quarantine that failed is not tried for a while).
Writing to a bus is left to the adapters' subclasses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from watchword.errors import ConfigurationError, Reason, Rejected, Unavailable
from watchword.message import MAX_HEADERS
from watchword.plugged import answer
from watchword.policy import Rate
from watchword.quarantine_copy import UNDETERMINED, Copy, HeaderStyle, is_copy, make_copy

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.message import Channel, Message, Position

MAX_RATE: Final = 10_000
"""The highest count allowed in ``QuarantineLimits.rate``, copies per period."""

MAX_BYTES: Final = 64 * 1024 * 1024
MAX_SIZE: Final = 8 * 1024 * 1024
LEAST_SIZE: Final = 1024

COOL_DOWN: Final = 30.0
"""Seconds for which a quarantine that failed is not tried again: a missing topic must not slow every rejection down."""

MOST_WAITING: Final = 1000
MOST_BYTES_WAITING: Final = 8 * 1024 * 1024
"""The most messages, and bytes, that may be waiting to be written to a quarantine, per budget."""

TOLD_AGAIN: Final = 3600.0
"""Seconds after which there is another warning of a budget that is used up."""

REMEMBERED: Final = 65_536
_REJECTED: Final = "rejected"


class Quarantine(Protocol):
    """Port: a place for messages that were not delivered."""

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Store a copy with its verdict and return True; False if a cap left it out (which is counted).

        True also for a message that has a copy already. Unavailable (``quarantine``), within seconds, if the copy
        cannot be written; it raises nothing else.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineLimits:
    """How much may be copied; each of the three budgets has these limits for itself.

    ``bytes_per_second`` may be overdrawn by one copy. The copy of a message over ``max_size`` bytes (value, key and
    headers) has only its position and its envelope.
    """

    rate: Rate = Rate(100, 1.0)  # noqa: RUF009 - frozen
    bytes_per_second: int = 1024 * 1024
    max_size: int = 256 * 1024

    def __post_init__(self) -> None:
        if self.rate.count > MAX_RATE:
            raise ConfigurationError(f"quarantine rate of {self.rate.count}: at most {MAX_RATE} copies per period")
        for name, value, most in (
            ("bytes_per_second", self.bytes_per_second, MAX_BYTES),
            ("max_size", self.max_size, MAX_SIZE),
        ):
            if not LEAST_SIZE <= value <= most:
                raise ConfigurationError(f"quarantine {name} of {value}: choose {LEAST_SIZE} to {most}")


class CappedQuarantine(ABC):
    """A quarantine with caps; a subclass names its channel and writes the copies.

    ``counts`` has ``kept``, and the messages without a copy by cause and budget: ``capped_``, ``unavailable_`` and
    ``no_room_`` with ``rejected``, ``stale`` or ``undetermined``. The budgets are separate, so that a flood of
    forgeries leaves room for honest messages that came too late or could not be judged. ``clock`` returns seconds since
    the epoch; ``warn`` is called once per outage, and when a budget is used up.

    ``remedy`` says what an operator can do about an outage. ``room`` is for adapters that write in the background.
    """

    remedy: str = "check that the quarantine's topic or stream exists, has room, and that this process may write to it"

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        warn: Callable[..., None],
        limits: QuarantineLimits | None = None,
        style: HeaderStyle = HeaderStyle.WATCHWORD,
    ) -> None:
        self.counts: Final[Counter[str]] = Counter()
        self.room: Final = Room()
        self._clock = clock
        self._warn = warn
        self._limits = limits or QuarantineLimits()
        self._style = style
        self._budgets: dict[str, _Budget] = {}
        self._kept: OrderedDict[_Place, None] = OrderedDict()
        self._failed_at: float | None = None
        self._warned = False
        self._warned_at: dict[str, float] = {}

    @abstractmethod
    def owns(self, channel: Channel) -> bool:
        """Return True if this is the channel that copies are written to."""

    def spares(self, message: Message) -> bool:
        """Return True if a rejected message needs no copy: it is one itself, and two quarantines could loop."""
        return is_copy(message.headers)

    @abstractmethod
    async def write(self, copy: Copy) -> bool:
        """Write a copy, or ``copy.pointer()`` if it is too large for the bus; return False if neither fits.

        Unavailable if it cannot be written.
        """

    async def put(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """See ``Quarantine.put``."""
        place = _place(message)
        if place in self._kept or self.owns(message.channel):  # a message read from the quarantine is in it already
            return True
        if isinstance(verdict, Rejected) and self.spares(message):
            return True
        now, budget = self._clock(), budget_of(verdict)
        if self._failed_at is not None and 0 <= now - self._failed_at < COOL_DOWN:
            raise self._unavailable(budget, "waiting before the next try")
        if not self._budgets.setdefault(budget, _Budget(self._limits, now)).open(now):
            return self._capped(budget, now)
        copy = make_copy(message, verdict, now=now, style=self._style)
        if copy.size > self._limits.max_size:
            copy = copy.pointer()
        self._budgets[budget].spend(copy.size)
        try:
            written = await answer(self.write(copy))
        except Exception as error:  # whatever it is, the reader must be able to continue
            self._failed_at = self._clock()
            detail = error.detail if isinstance(error, Unavailable) else type(error).__name__
            self._warn_of_outage(str(error) if isinstance(error, ConfigurationError) else detail)
            raise self._unavailable(budget, detail) from error
        self._failed_at = None
        if not written:
            return self._capped(budget, now)
        self._warned = False
        self.counts["kept"] += 1
        if place is not None:
            self._kept[place] = None
            if len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)
        return True

    def no_room(self, verdict: Rejected | Unavailable) -> None:
        """Count a message for which there was no ``room``, and warn of it."""
        remedy = "find out where so many come from at once, and whether the quarantine is slow to answer"
        self._left_out("no_room", budget_of(verdict), self._clock(), remedy)

    def _capped(self, budget: str, now: float) -> bool:
        remedy = "find out where these messages come from; for more copies, raise rate or bytes_per_second"
        self._left_out("capped", budget, now, remedy)
        return False

    def _left_out(self, cause: str, budget: str, now: float, remedy: str) -> None:
        """Count a message without a copy, and warn of it at most once per ``TOLD_AGAIN`` seconds and budget."""
        what = f"{cause}_{budget}"
        self.counts[what] += 1
        if not 0 <= now - self._warned_at.get(what, -TOLD_AGAIN) < TOLD_AGAIN:
            self._warned_at[what] = now
            cost = "such messages are only counted, without a copy"
            self._warn(f"quarantine.{cause}", budget=budget, cost=cost, remedy=remedy)

    def _unavailable(self, budget: str, detail: str) -> Unavailable:
        self.counts[f"unavailable_{budget}"] += 1
        return Unavailable("quarantine", detail)

    def _warn_of_outage(self, detail: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(
                "quarantine.unavailable",
                detail=detail,
                cost="meanwhile rejected messages are only counted, without a copy",
                remedy=self.remedy,
            )


class Room:
    """Limits the messages that wait to be written to one quarantine, per budget.

    A caller takes room for each message and gives it back when the copy is written or left out. A single message is
    accepted whatever its size.
    """

    def __init__(self) -> None:
        self._messages: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def take(self, message: Message, verdict: Rejected | Unavailable) -> bool:
        """Take room for a message; return False if there is not enough left."""
        budget, size = budget_of(verdict), _size(message)
        waiting = self._messages[budget]
        if waiting >= MOST_WAITING or (waiting and self._bytes[budget] + size > MOST_BYTES_WAITING):
            return False
        self._messages[budget] += 1
        self._bytes[budget] += size
        return True

    def give_back(self, message: Message, verdict: Rejected | Unavailable) -> None:
        """Give back the room of a message."""
        budget = budget_of(verdict)
        self._messages[budget] -= 1
        self._bytes[budget] -= _size(message)


def _size(message: Message) -> int:
    """Return a message's size in bytes; with more than ``MAX_HEADERS`` headers it counts as all of the room."""
    if len(message.headers) > MAX_HEADERS:
        return MOST_BYTES_WAITING
    headers = sum(len(name) + len(value or b"") for name, value in message.headers)
    return len(message.value or b"") + len(message.key or b"") + headers


def budget_of(verdict: Rejected | Unavailable) -> str:
    """Return the name of the budget that a copy counts against."""
    if isinstance(verdict, Unavailable):
        return UNDETERMINED
    return str(Reason.STALE) if verdict.reason is Reason.STALE else _REJECTED


_Place: TypeAlias = "tuple[str, Position, float | None]"


def _place(message: Message) -> _Place | None:
    """Return what identifies a message: its position, and its append time, because offsets can be reused."""
    position = message.position
    return None if position is None else (message.channel.uri, position, message.appended_at)


class _Budget:
    """Two token buckets, of copies and of bytes, that refill by the clock."""

    def __init__(self, limits: QuarantineLimits, now: float) -> None:
        self._limits = limits
        self._copies = float(limits.rate.count)
        self._bytes = float(limits.bytes_per_second)
        self._last = now

    def open(self, now: float) -> bool:
        """Refill, and return True if a copy may be made; a clock that steps back refills nothing."""
        passed, self._last = max(0.0, now - self._last), now
        rate = self._limits.rate
        self._copies = min(float(rate.count), self._copies + passed * rate.count / rate.seconds)
        self._bytes = min(float(self._limits.bytes_per_second), self._bytes + passed * self._limits.bytes_per_second)
        return self._copies >= 1.0 and self._bytes > 0.0

    def spend(self, size: int) -> None:
        """Count one copy of ``size`` bytes."""
        self._copies -= 1.0
        self._bytes -= size
