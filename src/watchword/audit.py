"""The audit trail: counts every verdict, logs every drop, and folds floods of log lines into counts.

It takes verdicts and events and writes to the standard library's logger ``watchword``. It never logs a payload.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import structlog

from watchword.errors import Rejected
from watchword.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from watchword.errors import Unavailable
    from watchword.message import Channel, Message, VerifiedMessage

BURST: Final = 10
"""Lines of one kind that are written per period; further ones are only counted."""

PERIOD: Final = 10.0
"""The length of a period in seconds."""

MAX_SHOWN: Final = 512
"""Characters of a field: an attacker may choose a subject as long as the server allows."""

QUIET: Final = 120.0
"""Seconds without a failure after which an outage is over; messages that are held are retried sooner."""

DELIVERED: Final = "delivered"
UNAVAILABLE: Final = "unavailable"
UNDETERMINED: Final = "undetermined"
LEFT_OUT: Final = "left_out"
REPORTED: Final = "message.reported"

_LOGGER: Final = logging.getLogger("watchword")


class Meter:
    """Port: receives measurements that the audit trail does not count; this default ignores them.

    It is called for each batch, never for each message, and must neither raise nor wait. ``bus`` is ``kafka`` or
    ``nats``; durations are in seconds.
    """

    def now(self) -> float:
        """Return the time in seconds, by a clock that never steps back."""
        return 0.0

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """Record how long it took to judge a batch, including the wait for key sources and stores."""

    def started(self, bus: str, seconds: float) -> None:
        """Record how long a client took to start."""

    def told(self, event: str, log: object) -> None:
        """Record an event of the audit trail, and the log that it is about, if it names one."""


_SILENT: Final = Meter()


class Audit:
    """Counts verdicts and logs drops, under fixed event names and without payloads.

    Events go to the standard library's logger ``watchword``. Where the application has configured structlog, its
    processors render them; otherwise a record's text is event and fields, and ``record.watchword`` has the fields.

    ``counts`` has ``delivered``, ``unavailable`` (each attempt), ``undetermined`` (given up to quarantine),
    ``left_out`` (dropped without a copy, although there is a quarantine) and one entry per rejection reason: a bounded
    set of labels. In observe mode these are the verdicts that enforcing would have given. ``tally`` has them by
    channel, and ``events`` counts the other events by name. ``meter`` receives durations and events. ``later`` makes a
    call after some seconds, or raises RuntimeError; clients set it, so that a flood's counts are logged when it stops.
    """

    def __init__(self, *, clock: Callable[[], float], meter: Meter = _SILENT) -> None:
        self.counts: Final[Counter[str]] = Counter()
        self.tally: Final = Tally()
        self.events: Final[Counter[str]] = Counter()
        self._failing: dict[str, tuple[float, float]] = {}
        self.meter = meter
        self._clock = clock
        self._since = clock()
        self._written: Counter[str] = Counter()
        self.later: Callable[[float, Callable[[], None]], object] = lambda _, __: None
        self._period: object = None
        """The period whose end was asked of ``later``, if it still runs."""

    def delivered(self, channels: Sequence[Channel]) -> None:
        """Count messages that verified and go to a handler, each under the channel where it was found."""
        if not channels:
            return
        self.counts[DELIVERED] += len(channels)
        self._failing.clear()
        for uri, count in Counter([channel.uri for channel in channels]).items():
            self.tally.add(uri, DELIVERED, count, verified=True)

    def outages(self) -> dict[str, float]:
        """Return the parts that have failed (``keys``, ``replay`` and so on), and for how many seconds.

        An outage is over once a message was delivered, or after ``QUIET`` seconds without a failure: perhaps no message
        came.
        """
        now = self._clock()
        return {part: now - since for part, (since, last) in dict(self._failing).items() if _is_recent(last, now)}

    def refused(self, message: Message, verdict: Rejected | Unavailable, *, observed: bool = False) -> None:
        """Count and log a message that did not verify; one that is ``observed`` is delivered nevertheless."""
        position = message.position
        self.refused_raw(
            verdict,
            channel=message.channel.uri,
            log=None if position is None else position.log,
            offset=None if position is None else position.offset,
            dropped=isinstance(verdict, Rejected) and not observed,
        )

    def refused_raw(
        self,
        verdict: Rejected | Unavailable,
        *,
        channel: str,
        log: str | None = None,
        offset: int | None = None,
        dropped: bool = True,
    ) -> None:
        """Count and log a message that could not even be parsed, and is therefore dropped in observe mode too."""
        claimed, part = None, {}
        if isinstance(verdict, Rejected):
            kind, event, claimed = str(verdict.reason), "message.rejected", verdict.claimed_principal
        else:
            kind, event, now = UNAVAILABLE, "message.unavailable", self._clock()
            part = {"part": verdict.what}
            since, last = self._failing.get(verdict.what, (now, now))
            self._failing[verdict.what] = since if _is_recent(last, now) else now, now
        self.counts[kind] += 1
        self.tally.add(channel, kind)
        if not self._may_write(kind):
            return
        _write(
            "warning",
            event,
            reason=kind,
            detail=_capped(verdict.detail),
            channel=_capped(channel),
            log=_capped(log),
            offset=offset,
            claimed_principal=_capped(claimed),
            dropped=dropped,
            **part,
        )

    def reported(self, message: VerifiedMessage, weight: float, why: str, *, counts: bool) -> None:
        """Count and log a handler's report of a message, and whether it counts against its principal."""
        self.events[REPORTED] += 1
        if self._may_write(REPORTED):
            _write(
                "warning",
                REPORTED,
                principal=_capped(message.principal),
                id=message.id,
                channel=_capped(message.channel.uri),
                weight=weight,
                why=_capped(why),
                counts=counts,
            )

    def warn(self, event: str, **fields: str | float | None) -> None:
        """Log a warning about the deployment; ``fields`` are the operator's own names and numbers."""
        self._log_event("warning", event, fields)

    def note(self, event: str, **fields: str | float | None) -> None:
        """Log an event for information; ``fields`` as for ``warn``."""
        self._log_event("info", event, fields)

    def _log_event(self, level: str, event: str, fields: dict[str, str | float | None]) -> None:
        self.events[event] += 1
        self.meter.told(event, fields.get("log"))
        _write(level, event, **fields)

    def undetermined(self) -> None:
        """Count a message that went to quarantine without a verdict."""
        self.counts[UNDETERMINED] += 1

    def left_out(self) -> None:
        """Count a message without a copy in the quarantine: no room, over a cap, or the write failed."""
        self.counts[LEFT_OUT] += 1

    def flush(self) -> None:
        """Log the counts folded so far; the period continues, so that readers that close allow no more lines."""
        folded = {kind: count - BURST for kind, count in self._written.items() if count > BURST}
        for kind in folded:
            self._written[kind] = BURST
        if folded:
            _write("warning", "message.refusals_folded", counts=folded)

    def _end_period(self) -> None:
        self.flush()
        self._written.clear()
        self._since, self._period = self._clock(), None

    def _may_write(self, kind: str) -> bool:
        if not 0 <= self._clock() - self._since < PERIOD:
            self._end_period()
        self._written[kind] += 1
        if self._written[kind] <= BURST:
            return True
        if self._period is None:
            period = self._period = object()
            with suppress(RuntimeError):  # no event loop runs here: the next event ends the period
                self.later(PERIOD, lambda: self._end_period() if self._period is period else None)
        return False


def _is_recent(last: float, now: float) -> bool:
    return 0 <= now - last < QUIET


def _write(method: str, event: str, **fields: object) -> None:
    # Made for each event, because an application may configure structlog after it has made its Audit.
    processors = None if structlog.is_configured() else [_as_record]
    structlog.wrap_logger(_LOGGER, processors=processors, wrapper_class=_Shaped).write(method, event, fields)


class _Shaped(structlog.BoundLoggerBase):
    """Passes an event, as rendered by the processors, to the logger, whose level and handlers decide what is shown."""

    def write(self, method: str, event: str, fields: dict[str, object]) -> None:
        with suppress(structlog.DropEvent):
            args, options = self._process_event(method, event, fields)
            # Fast renderers return bytes, which a record would show in Python's notation.
            getattr(self._logger, method)(
                *(text.decode() if isinstance(text, bytes) else text for text in args), **options
            )


def _as_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], Mapping[str, Any]]:
    """Shape an event for the standard library: a line to read, and the fields for a formatter that writes JSON."""
    name = event.pop("event")
    fields = "".join(f" {field}={value!r}" for field, value in event.items() if value is not None)
    return (f"{name}{fields}",), {"extra": {"watchword": {"event": name, **event}}}


def escaped(text: str) -> str:
    """Return ``text`` with unprintable characters (control, bidirectional and so on) as Python escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _capped(text: str | None) -> str | None:
    """Cap and escape text from others, so that it cannot control a terminal that shows the log."""
    return None if text is None else escaped(text[:MAX_SHOWN])
