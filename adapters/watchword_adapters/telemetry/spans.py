"""Adds the verified author, or the rejection, of a delivered message to a tracing span."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.trace import get_current_span

from watchword import Rejected, VerifiedMessage

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Delivered(Protocol):
    """A message delivered by a consumer or subscription."""

    @property
    def verified(self) -> VerifiedMessage | None:
        """The verified message."""
        ...


def annotate(delivered: Delivered, span: Span | None = None) -> None:
    """Set a message's author on a span, by default the current one; in observe mode, why it would be dropped."""
    span = get_current_span() if span is None else span
    if span.is_recording():
        span.set_attributes(_attributes(delivered))


async def consume_hook(span: Span, record: Any, *_: object) -> None:
    """Annotate a span of OpenTelemetry's instrumentation of aiokafka; pass it as ``async_consume_hook``."""
    annotate(record, span)


def _attributes(delivered: Delivered) -> dict[str, str | bool]:
    verified = delivered.verified
    if verified is not None:
        return {
            "watchword.verdict": "delivered",
            "watchword.principal": verified.principal,
            "watchword.key_id": verified.key_id,
            "watchword.message_id": verified.id,
            "watchword.redelivered": verified.redelivered,
        }
    verdict = getattr(delivered, "verdict", None)
    reason = str(verdict.reason) if isinstance(verdict, Rejected) else "unavailable"
    return {"watchword.verdict": reason, "error.type": reason}
