"""A broker under test, whatever runs it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

Bus = Literal["kafka", "nats", "redis"]
Kind = Literal["address given", "container", "process", "embedded"]

READY_SECONDS = 90


class NotHereError(Exception):
    """This way of getting a broker does not work on this machine; the message says why."""


class Host(Protocol):
    """What runs a broker: a container or a child process."""

    def log(self) -> str:
        """Return all that the broker has printed so far, over all its starts."""
        ...

    def running(self) -> bool:
        """Return True if the broker lives (frozen counts)."""
        ...

    def pause(self) -> None:
        """Freeze the broker: connections stay open, nothing is answered."""
        ...

    def unpause(self) -> None:
        """Let a frozen broker run on."""
        ...

    def restart(self) -> None:
        """Stop the broker and start it again with its data and its address."""
        ...

    def stop(self) -> None:
        """End the broker; harmless when repeated."""
        ...


@dataclass(kw_only=True)
class Broker:
    """One broker: its `address` ("host:port", or a URL), and in `version` what it reported about itself."""

    bus: Bus
    kind: Kind
    address: str
    version: str = ""
    host: Host | None = None
    ready_line: str = ""
    lacks: frozenset[str] = frozenset()
    _starts: int = field(default=0, init=False)

    def pause(self) -> None:
        """Freeze the broker; `paused` cannot forget to let it go."""
        self._host.pause()

    def unpause(self) -> None:
        """Let a frozen broker run on."""
        self._host.unpause()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Freeze the broker for the length of a `with` block."""
        self.pause()
        try:
            yield
        finally:
            self.unpause()

    def restart(self) -> None:
        """Stop the broker, start it again with its data on the same address, and wait until it serves."""
        self._host.restart()
        self.await_start()

    def stop(self) -> None:
        """End the broker if this run started it."""
        if self.host is not None:
            self.host.stop()

    def started(self, tell: Callable[[], str]) -> Self:
        """Wait for the first start and ask for the version; a broker that fails in either is stopped again."""
        try:
            self.await_start()
            self.version = tell()
        except BaseException:
            self.stop()
            raise
        return self

    def await_start(self) -> None:
        """Wait until the broker has said once more that it serves."""
        self._starts += 1
        deadline = time.monotonic() + READY_SECONDS
        while self._host.log().count(self.ready_line) < self._starts:
            alive = self._host.running()
            if not alive or time.monotonic() > deadline:
                tail = "\n".join(self._host.log().splitlines()[-15:])
                raise NotHereError(f"the broker {'is not ready' if alive else 'ended'}; its last lines:\n{tail}")
            time.sleep(0.05)

    @property
    def _host(self) -> Host:
        if self.host is None:
            raise RuntimeError(f"this run did not start the {self.bus} broker; mark the test with what it needs")
        return self.host

    def __str__(self) -> str:
        return f"{self.version} ({self.kind})"
