"""OpenTelemetry: metrics of agents, and the verified principal of a message as a span attribute."""

from watchword.extras import told

try:
    from watchword_adapters.telemetry import Telemetry, annotate, consume_hook
except ModuleNotFoundError as error:
    raise told(error) from None

__all__ = ["Telemetry", "annotate", "consume_hook"]
