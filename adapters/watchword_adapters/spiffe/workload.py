"""The client of a SPIFFE Workload API, such as a SPIRE agent's: receives this process's SVIDs, and trust bundles.

It is a stream: a response arrives at once, and another one after each change. The stream is py-spiffe's, in a separate
thread; retries are ours, so that an agent's refusal is logged instead of being retried silently.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from spiffe import WorkloadApiClient
from spiffe.errors import PySpiffeError

from watchword import ConfigurationError, Unavailable
from watchword.endings import delay_after
from watchword_adapters.boot_clock import since_boot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cryptography.x509 import Certificate
    from spiffe import X509Svid
    from spiffe.workloadapi.workload_api_client import StreamCancelHandler
    from spiffe.workloadapi.x509_context import X509Context

    from watchword.spi import Warn

TIMEOUT: Final = 10.0
"""Seconds that a start waits for the first response."""

SHORTEST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0
"""Longest pause between two streams, in seconds; each is twice as long as the last, until a response arrives."""


class Given(NamedTuple):
    """A response: the SVIDs of this process, and the authorities of each trust domain by its name."""

    svids: Sequence[X509Svid]
    bundles: Mapping[str, Sequence[Certificate]]


class Workload:
    """The stream of one process, from the first ``wait`` until it is closed.

    ``socket`` is its address, such as ``unix:///run/spire/agent.sock``; None: SPIFFE_ENDPOINT_SOCKET. ``clock`` is in
    seconds and never steps back.
    """

    def __init__(self, socket: str | None, *, warn: Warn, clock: Callable[[], float] = since_boot) -> None:
        self._socket = socket
        self._warn = warn
        self._clock = clock
        self._listeners: list[Callable[[], None]] = []
        self._client: WorkloadApiClient | None = None
        self._stream: StreamCancelHandler | None = None
        self._again: threading.Timer | None = None
        self._came = threading.Event()
        self._given: Given | None = None
        self._broken_since: float | None = None
        self._told: str | None = None
        self._failures = 0
        self._pid = 0
        self._closed = False

    def listen(self, call: Callable[[], None]) -> None:
        """Register ``call``, to be called in another thread at each response; it must not raise or block."""
        self._listeners.append(call)

    def wait(self, timeout: float = TIMEOUT) -> Given:
        """Return the latest response; ConfigurationError if there is none after ``timeout`` seconds."""
        if self._client is None:
            self._begin()
        if not self._came.wait(timeout):
            why = self._told or "no answer"
            raise ConfigurationError(
                f"SPIFFE Workload API at {self._address}: {why}, for {timeout:g} s: is the agent running, and this"
                " workload registered?"
            )
        return self.given

    @property
    def given(self) -> Given:
        """The latest response; Unavailable if there is none, or in a forked process."""
        if self._pid != os.getpid():
            raise Unavailable("identity", "forked after the SPIFFE Workload API was asked: load the agent in the child")
        if self._given is None:
            raise Unavailable("identity", "no response from the SPIFFE Workload API")
        return self._given

    @property
    def broken_for(self) -> float:
        """Seconds since the stream broke; 0 while it lasts."""
        since = self._broken_since
        return 0.0 if since is None else self._clock() - since

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self._stream is not None:
            self._stream.cancel()
        if self._client is not None:
            self._client.close()

    @property
    def _address(self) -> str:
        return self._socket or os.environ.get("SPIFFE_ENDPOINT_SOCKET", "")

    def _begin(self) -> None:
        try:
            self._client = WorkloadApiClient(self._socket)
        except PySpiffeError as error:
            raise ConfigurationError(
                f'SPIFFE Workload API: {error}; write socket = "unix:///run/spire/agent.sock", or set'
                " SPIFFE_ENDPOINT_SOCKET"
            ) from None
        self._pid = os.getpid()
        self._broken_since = self._clock()
        self._connect()

    def _connect(self) -> None:
        if self._client is not None and not self._closed:
            self._stream = self._client.stream_x509_contexts(self._take, self._failed, retry_connect=False)

    def _take(self, context: X509Context) -> None:
        bundles = {
            bundle.trust_domain.name: tuple(bundle.x509_authorities) for bundle in context.x509_bundle_set.bundles
        }
        self._given = Given(context.x509_svids, bundles)
        self._broken_since = self._told = None
        self._failures = 0
        self._came.set()
        for call in self._listeners:
            call()

    def _failed(self, error: Exception) -> None:
        if self._closed:
            return
        if self._broken_since is None:
            self._broken_since = self._clock()
        told = str(error)
        if told != self._told:
            self._told = told
            self._warn(
                "spiffe.workload_api_lost",
                detail=told,
                remedy="its last response stays in use; is the agent running, and this workload registered?",
            )
        self._again = threading.Timer(delay_after(self._failures, SHORTEST_PAUSE, LONGEST_PAUSE), self._connect)
        self._again.daemon = True
        self._again.start()
        self._failures += 1
