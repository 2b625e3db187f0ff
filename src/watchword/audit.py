"""The audit trail: every verdict counted, every drop logged, floods folded into counts."""

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
"""Lines of one kind that are written in one period; more are counted."""

PERIOD: Final = 10.0
"""Seconds that a burst may take."""

MAX_SHOWN: Final = 512
"""Characters of a field; a subject that an attacker chose may be as long as a server lets it be."""

QUIET: Final = 120.0
"""Seconds without a failure after which an outage is over; what is held is tried again sooner."""

DELIVERED: Final = "delivered"
UNAVAILABLE: Final = "unavailable"
UNDETERMINED: Final = "undetermined"
LEFT_OUT: Final = "left_out"
REPORTED: Final = "message.reported"

_LOGGER: Final = logging.getLogger("watchword")


class Meter:
    """Port: hears what the audit trail does not count; by itself it measures nothing.

    It is called for each batch, never for each message, and must neither raise nor wait. ``bus`` is ``kafka`` or
    ``nats``; durations are in seconds.
    """

    def now(self) -> float:
        """Return the time in seconds, by a clock that never steps back."""
        return 0.0

    def judged(self, bus: str, messages: int, seconds: float) -> None:
        """Note how long it took until a batch was judged, waiting for key sources and stores included."""

    def started(self, bus: str, seconds: float) -> None:
        """Note how long a client took to start."""

    def told(self, event: str, log: object) -> None:
        """Note an event of the audit trail, and the log that it is about, if it names one."""


_SILENT: Final = Meter()


class Audit:
    """Counts verdicts and logs drops, under fixed event names and with no payload.

    Events go to the standard library's logger ``watchword``. Where the application has configured structlog, its
    processors shape them; elsewhere a record's text is event and fields, and ``record.watchword`` has the fields.

    ``counts`` has ``delivered``, ``unavailable`` (each try), ``undetermined`` (given up for quarantine), ``left_out``
    (gone without a copy, though there is a quarantine) and one entry a rejection reason: a bounded set of labels. In
    observe mode these are the verdicts that enforcing would have given. ``tally`` has them by channel, and ``events``
    counts the other events by name. The ``meter`` hears the rest.
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

    def delivered(self, channels: Sequence[Channel]) -> None:
        """Count messages that verified, and are on their way to a handler, by where each was found."""
        if not channels:
            return
        self.counts[DELIVERED] += len(channels)
        self._failing.clear()
        for uri, count in Counter([channel.uri for channel in channels]).items():
            self.tally.add(uri, DELIVERED, count, verified=True)

    def outages(self) -> dict[str, float]:
        """Return for how many seconds each part has failed that judging needs: a key source (``keys``), a store.

        An outage is over once something was delivered, or nothing failed any more for a while: perhaps nothing came.
        """
        now = self._clock()
        return {part: now - since for part, (since, last) in dict(self._failing).items() if _is_recent(last, now)}

    def refused(self, message: Message, verdict: Rejected | Unavailable, *, observed: bool = False) -> None:
        """Count and log a message that did not verify, and is handed over all the same if it is only ``observed``."""
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
        """Count and log a message that could not even be read as one, and so is dropped in observe mode too."""
        claimed = None
        if isinstance(verdict, Rejected):
            kind, event, claimed = str(verdict.reason), "message.rejected", verdict.claimed_principal
        else:
            kind, event, now = UNAVAILABLE, "message.unavailable", self._clock()
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
            detail=_shown(verdict.detail),
            channel=_shown(channel),
            log=_shown(log),
            offset=offset,
            claimed_principal=_shown(claimed),
            dropped=dropped,
        )

    def reported(self, message: VerifiedMessage, weight: float, why: str, *, counts: bool) -> None:
        """Count and log a handler's report of a message, and whether it counts against its principal."""
        self.events[REPORTED] += 1
        if self._may_write(REPORTED):
            _write(
                "warning",
                REPORTED,
                principal=_shown(message.principal),
                id=message.id,
                channel=_shown(message.channel.uri),
                weight=weight,
                why=_shown(why),
                counts=counts,
            )

    def warn(self, event: str, **fields: str | float | None) -> None:
        """Log a warning about the set-up; ``fields`` are the operator's own names and numbers."""
        self._told("warning", event, fields)

    def note(self, event: str, **fields: str | float | None) -> None:
        """Log what goes on; ``fields`` as for ``warn``."""
        self._told("info", event, fields)

    def _told(self, level: str, event: str, fields: dict[str, str | float | None]) -> None:
        self.events[event] += 1
        self.meter.told(event, fields.get("log"))
        _write(level, event, **fields)

    def undetermined(self) -> None:
        """Count a message that went to quarantine without a verdict."""
        self.counts[UNDETERMINED] += 1

    def left_out(self) -> None:
        """Count a message of which the quarantine has no copy: no room, a cap, or it cannot be written."""
        self.counts[LEFT_OUT] += 1

    def flush(self) -> None:
        """Write what was folded so far."""
        folded = {kind: count - BURST for kind, count in self._written.items() if count > BURST}
        self._written.clear()
        self._since = self._clock()
        if folded:
            _write("warning", "message.refusals_folded", counts=folded)

    def _may_write(self, kind: str) -> bool:
        if not 0 <= self._clock() - self._since < PERIOD:
            self.flush()
        self._written[kind] += 1
        return self._written[kind] <= BURST


def _is_recent(last: float, now: float) -> bool:
    return 0 <= now - last < QUIET


def _write(method: str, event: str, **fields: object) -> None:
    # Made for each event: an application may configure structlog after it has made its Audit.
    processors = None if structlog.is_configured() else [_as_record]
    structlog.wrap_logger(_LOGGER, processors=processors, wrapper_class=_Shaped).write(method, event, fields)


class _Shaped(structlog.BoundLoggerBase):
    """Hands what the processors make of an event to the logger, whose level and handlers say what is shown."""

    def write(self, method: str, event: str, fields: dict[str, object]) -> None:
        with suppress(structlog.DropEvent):
            args, options = self._process_event(method, event, fields)
            # Renderers that are made for speed give bytes, of which a record would show Python's notation.
            getattr(self._logger, method)(
                *(text.decode() if isinstance(text, bytes) else text for text in args), **options
            )


def _as_record(_logger: object, _method: str, event: MutableMapping[str, Any]) -> tuple[tuple[str], Mapping[str, Any]]:
    """Shape an event for the standard library: a line to read, and the fields for a formatter that writes JSON."""
    name = event.pop("event")
    fields = "".join(f" {field}={value!r}" for field, value in event.items() if value is not None)
    return (f"{name}{fields}",), {"extra": {"watchword": {"event": name, **event}}}


def escaped(text: str) -> str:
    """Return ``text`` with what is not printable (control and bidirectional characters, say) as in Python's source."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _shown(text: str | None) -> str | None:
    """Cap and escape what others wrote: a log that is read on a terminal must not obey it."""
    return None if text is None else escaped(text[:MAX_SHOWN])
