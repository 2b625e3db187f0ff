"""Who wrote a message, on the span of its delivery."""

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, Tracer

from tests.unit.core.world import ALICE, World, nats, press
from watchword import Reason, Rejected, Unavailable, VerifiedMessage
from watchword_adapters.telemetry import annotate, consume_hook


class Delivered:
    """What a consumer hands over; ``verdict`` is there in observe mode only."""

    def __init__(self, verdict: VerifiedMessage | Rejected | Unavailable) -> None:
        self.verdict = verdict
        self.verified = verdict if isinstance(verdict, VerifiedMessage) else None


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Return where spans end up."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Tracer:
    """Return a tracer of the test's own."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("test")


def _only(exporter: InMemorySpanExporter) -> dict[str, Any]:
    span: ReadableSpan
    (span,) = exporter.get_finished_spans()
    return dict(span.attributes or {})


def test_the_current_span_says_who_wrote_a_message(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Promise: principal, key and id of what verified are on the span, and whether it came before."""
    verified = World().verify(press(nats()))
    with tracer.start_as_current_span("tasks receive"):
        annotate(Delivered(verified))
    assert _only(exporter) == {
        "watchword.verdict": "delivered",
        "watchword.principal": ALICE,
        "watchword.key_id": "alice-1",
        "watchword.message_id": verified.id,
        "watchword.redelivered": False,
    }


@pytest.mark.parametrize(
    ("verdict", "reason"), [(Rejected(Reason.ALTERED), "altered"), (Unavailable("keys"), "unavailable")]
)
def test_in_observe_mode_it_says_why_a_message_would_be_dropped(
    tracer: Tracer, exporter: InMemorySpanExporter, verdict: Rejected | Unavailable, reason: str
) -> None:
    """Promise: nothing that such a message claims of itself is on the span."""
    with tracer.start_as_current_span("tasks receive"):
        annotate(Delivered(verdict))
    assert _only(exporter) == {"watchword.verdict": reason, "error.type": reason}


async def test_the_hook_of_aiokafka_s_instrumentation(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Promise: it takes what that hook is given: span, record, and the call's arguments."""
    with tracer.start_span("tasks receive") as span:
        await consume_hook(span, Delivered(World().verify(press(nats()))), (), {})
    assert _only(exporter)["watchword.principal"] == ALICE


def test_without_a_span_nothing_happens() -> None:
    """Promise: a handler may annotate, traced or not."""
    annotate(Delivered(Rejected(Reason.ALTERED)), INVALID_SPAN)
    annotate(Delivered(Rejected(Reason.ALTERED)))
