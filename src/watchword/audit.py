"""The audit trail: every verdict counted, every drop logged, floods folded into counts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import structlog

from watchword.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchword.errors import Unavailable
    from watchword.message import Message

BURST: Final = 10
"""Lines of one kind that are written in one period; more are counted."""

PERIOD: Final = 10.0
"""Seconds that a burst may take."""

MAX_SHOWN: Final = 512
"""Characters of a field; a subject that an attacker chose may be as long as a server lets it be."""

DELIVERED: Final = "delivered"
UNAVAILABLE: Final = "unavailable"
UNDETERMINED: Final = "undetermined"
LEFT_OUT: Final = "left_out"


class Audit:
    """Counts verdicts and logs drops, under fixed event names and with no payload.

    ``counts`` has ``delivered``, ``unavailable`` (each try), ``undetermined`` (given up for quarantine), ``left_out``
    (gone without a copy, though there is a quarantine) and one entry a rejection reason: a bounded set of labels. In
    observe mode these are the verdicts that enforcing would have given.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.counts: Final[Counter[str]] = Counter()
        self._clock = clock
        self._log = structlog.get_logger("watchword")
        self._since = clock()
        self._written: Counter[str] = Counter()

    def delivered(self, count: int = 1) -> None:
        """Count messages that verified, and are on their way to a handler."""
        if count:
            self.counts[DELIVERED] += count

    def refused(self, message: Message, verdict: Rejected | Unavailable, *, observed: bool = False) -> None:
        """Count and log a message that did not verify, and is handed over all the same if it is only ``observed``."""
        position = message.position
        self._refused(
            verdict,
            channel=message.channel.uri,
            log=None if position is None else position.log,
            offset=None if position is None else position.offset,
            dropped=isinstance(verdict, Rejected) and not observed,
        )

    def refused_raw(
        self, verdict: Rejected, *, channel: str, log: str | None = None, offset: int | None = None
    ) -> None:
        """Count and log a message that could not even be read as one, and so is dropped in observe mode too."""
        self._refused(verdict, channel=channel, log=log, offset=offset, dropped=True)

    def _refused(
        self, verdict: Rejected | Unavailable, *, channel: str, log: str | None, offset: int | None, dropped: bool
    ) -> None:
        rejected = isinstance(verdict, Rejected)
        kind = str(verdict.reason) if isinstance(verdict, Rejected) else UNAVAILABLE
        self.counts[kind] += 1
        if not self._may_write(kind):
            return
        self._log.warning(
            "message.rejected" if rejected else "message.unavailable",
            reason=kind,
            detail=_shown(verdict.detail),
            channel=_shown(channel),
            log=_shown(log),
            offset=offset,
            claimed_principal=_shown(verdict.claimed_principal) if isinstance(verdict, Rejected) else None,
            dropped=dropped,
        )

    def warn(self, event: str, **fields: str | float | None) -> None:
        """Log a warning about the set-up; ``fields`` are the operator's own names and numbers."""
        self._log.warning(event, **fields)

    def note(self, event: str, **fields: str | float | None) -> None:
        """Log what goes on; ``fields`` as for ``warn``."""
        self._log.info(event, **fields)

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
            self._log.warning("message.refusals_folded", counts=folded)

    def _may_write(self, kind: str) -> bool:
        if not 0 <= self._clock() - self._since < PERIOD:
            self.flush()
        self._written[kind] += 1
        return self._written[kind] <= BURST


def escaped(text: str) -> str:
    """Return ``text`` with what is not printable (control and bidirectional characters, say) as in Python's source."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def _shown(text: str | None) -> str | None:
    """Cap and escape what others wrote: a log that is read on a terminal must not obey it."""
    return None if text is None else escaped(text[:MAX_SHOWN])
