"""Telemetry through OpenTelemetry: metrics of agents, and attributes for the spans of delivered messages."""

from watchword_adapters.telemetry.metrics import Telemetry
from watchword_adapters.telemetry.spans import annotate, consume_hook

__all__ = ["Telemetry", "annotate", "consume_hook"]
