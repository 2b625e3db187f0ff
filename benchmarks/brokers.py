"""The brokers to measure on: at an address that is given; in a checkout else what the tests run on."""

from __future__ import annotations

import os
import re
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from tests.brokers.broker import NotHereError
from tests.brokers.start import start
from watchword import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Bus: TypeAlias = Literal["kafka", "nats", "redis"]

EXAMPLES: Final[Mapping[Bus, str]] = {
    "kafka": "localhost:9092",
    "nats": "nats://localhost:4222",
    "redis": "redis://localhost:6379",
}


_REACH_SECONDS: Final = 5.0


class NoBrokerError(ConfigurationError):
    """There is no broker to measure on; the message says how to name one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A broker that runs: its address, and what it is, for the report."""

    address: str
    told: str


@contextmanager
def server(bus: Bus, given: str | None) -> Iterator[Server]:
    """Yield the broker at ``given``, or that of ``WATCHWORD_BENCH_KAFKA`` (``NATS``, ``REDIS``); else start one."""
    variable = f"WATCHWORD_BENCH_{bus.upper()}"
    if address := given or os.environ.get(variable):
        _reach(bus, address)
        yield Server(address, f"{bus} at {address}")
        return
    advice = f"name a broker with --{bus} {EXAMPLES[bus]}, or in {variable}"

    with TemporaryDirectory(prefix=f"watchword-bench-{bus}-") as directory:
        try:
            broker, _ = start(bus, Path(directory), required=False)
        except NotHereError as error:
            raise NoBrokerError(f"{error}; {advice}") from None
        try:
            yield Server(broker.address, str(broker))
        finally:
            broker.stop()


def _reach(bus: Bus, address: str) -> None:
    """Refuse an address at which nothing listens, before a client tries for long."""
    found = re.fullmatch(r"(?:\w+://)?(?:[^@/]*@)?\[?([^,/\[\]]+?)\]?:(\d+)(?:[,/].*)?", address)
    if found is None:
        raise ConfigurationError(f"no {bus} at {address!r}: write {EXAMPLES[bus]}")
    try:
        socket.create_connection((found[1], int(found[2])), timeout=_REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"no {bus} at {address!r}: write {EXAMPLES[bus]} ({error})") from None
