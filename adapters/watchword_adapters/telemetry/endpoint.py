"""Serves metrics to Prometheus over HTTP, on an address of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry, start_http_server

from watchword import ConfigurationError

if TYPE_CHECKING:
    from watchword.settings import Address


class Endpoint:
    """Serves what its ``provider`` collects at ``http://HOST:PORT/metrics``, in a separate thread."""

    def __init__(self, address: Address) -> None:
        """Start to serve; ConfigurationError if that is impossible."""
        registry = CollectorRegistry()
        try:
            self._server, self._thread = start_http_server(address.port, address.host, registry)
        except OSError as error:
            remedy = "write an address of this machine and a free port"
            raise ConfigurationError(f'telemetry: prometheus = "{address}": {error.strerror}; {remedy}') from None
        self.port: Final = self._server.server_port
        self.provider: Final = MeterProvider([PrometheusMetricReader(registry=registry)])

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.provider.shutdown()
