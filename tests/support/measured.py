"""Metrics, as OpenTelemetry's own reader collects them."""

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from watchword import Watchword
from watchword_adapters.telemetry import Telemetry

Labels = tuple[tuple[str, Any], ...]


class Measured:
    """A telemetry, and what its reader collects."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.telemetry = Telemetry(MeterProvider([self.reader]))

    def follow(self, agent: Watchword) -> Watchword:
        """Measure an agent, and return it."""
        self.telemetry.follow(agent)
        return agent

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return labels and data point of each series."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            (dict(point.attributes or {}), point)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str) -> Mapping[Labels, float]:
        """Return the values of a counter or gauge by label."""
        return {tuple(labels.items()): point.value for labels, point in self.points(name)}

    def value(self, name: str) -> float:
        """Return the value of a metric without labels."""
        return self.values(name)[()]

    def histogram(self, name: str) -> dict[Labels, HistogramDataPoint]:
        """Return the points of a histogram by label."""
        return {tuple(labels.items()): point for labels, point in self.points(name)}
