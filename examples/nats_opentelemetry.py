"""OpenTelemetry on NATS: a trace goes from the sender to the handler, and verdicts are exported as metrics.

``traceparent`` travels as an ordinary header, and is not signed, since whatever passes a message on may change it. Who
wrote the message is put on the span from the signature. Keys are made here; a process of your own has
``watchword.load()``, and exporters in place of these, which keep all in memory.

    $ python examples/nats_opentelemetry.py nats://localhost:4222
    span 'handle' continues 'plan': True
    span 'handle' has watchword.principal = agent://acme/planner, watchword.verdict = delivered
    metric watchword.verdicts: 1 delivered, 1 unsigned
"""

import asyncio
import sys

import nats
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from watchword import SigningKey, Watchword
from watchword.nats import VerifiedMsg, connect
from watchword.telemetry import Telemetry, annotate

PLANNER, CONTROLLER = "agent://acme/planner", "agent://acme/controller"
KEY = SigningKey.generate()

SPANS, METRICS = InMemorySpanExporter(), InMemoryMetricReader()
TRACES = TracerProvider()
TRACES.add_span_processor(SimpleSpanProcessor(SPANS))
TRACER = TRACES.get_tracer(__name__)


def verdicts() -> dict[str, float]:
    """Return how often each verdict was counted, as an exporter would get it."""
    data = METRICS.get_metrics_data()
    metrics = (
        [one for of in data.resource_metrics for scope in of.scope_metrics for one in scope.metrics] if data else []
    )
    sums = [one.data for one in metrics if one.name == "watchword.verdicts" and isinstance(one.data, Sum)]
    return {
        str((point.attributes or {})["watchword.verdict"]): point.value for one in sums for point in one.data_points
    }


async def main(servers: str) -> None:
    """Send one traced message, and a forged one with a trace of its own."""
    handled = asyncio.Event()
    reading = Watchword(realm="demo", principal=CONTROLLER, keys=[KEY.verification_key(PLANNER)])
    Telemetry(MeterProvider([METRICS])).follow(reading)

    async def handle(msg: VerifiedMsg) -> None:
        with TRACER.start_as_current_span("handle", context=extract(msg.headers or {})):
            annotate(msg)
        handled.set()

    async with (
        await connect(servers, watchword=reading) as controller,
        await connect(servers, watchword=Watchword(realm="demo", principal=PLANNER, key=KEY)) as planner,
        await nats.connect(servers) as attacker,
    ):
        await controller.subscribe("traced.tasks", cb=handle)
        await controller.ready()  # until then what comes might be a copy of what an earlier run was given
        forged = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
        await attacker.publish("traced.tasks", b"scale to 1000", headers=forged)
        async with asyncio.timeout(30):
            while not reading.audit.counts["unsigned"]:  # noqa: ASYNC110 - no one is notified of drops
                await asyncio.sleep(0.01)
        with TRACER.start_as_current_span("plan") as plan:
            headers = dict[str, str]()
            inject(headers)
            await planner.publish("traced.tasks", b"scale to 3", headers=headers)
        async with asyncio.timeout(30):
            await handled.wait()

    (span,) = [span for span in SPANS.get_finished_spans() if span.name == "handle"]
    parent, attributes = span.parent, span.attributes or {}
    print(f"span 'handle' continues 'plan': {parent is not None and parent.span_id == plan.get_span_context().span_id}")
    told = [f"{name} = {attributes[name]!s}" for name in ("watchword.principal", "watchword.verdict")]
    print(f"span 'handle' has {', '.join(told)}")
    print(f"metric watchword.verdicts: {', '.join(f'{count} {name}' for name, count in sorted(verdicts().items()))}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "nats://localhost:4222"))
