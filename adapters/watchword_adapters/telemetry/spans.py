"""Attributes for the spans that tracing makes of what is delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.trace import get_current_span

from watchword import Rejected, VerifiedMessage

if TYPE_CHECKING:
    from opentelemetry.trace import Span


class Delivered(Protocol):
    """What a consumer or subscription hands over."""

    @property
    def verified(self) -> VerifiedMessage | None:
        """What verified."""
        ...


def annotate(delivered: Delivered, span: Span | None = None) -> None:
    """Say on a span, by default the current one, who wrote a message; or, in observe mode, why it would be dropped."""
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
