"""One broker for all processes of a run: the first that needs it starts it, and stops it when no other one uses it.

Kafka costs 3 seconds of CPU to start, and 8 % of a processor while nobody uses it.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.brokers.broker import Broker

Started = tuple[Broker, list[str]]
"""A broker, and the reasons why better ways to get one were passed over."""


@contextmanager
def shared(directory: Path, start: Callable[[], Started]) -> Iterator[Started]:
    """Yield the broker that is recorded in a directory, and keep it until the block ends; ``start`` the first one.

    A broker that another process has started can be neither paused nor restarted here.
    """
    known = directory / "broker.json"
    with _opened(directory / "users") as users:
        with _alone(directory):
            starts = not known.exists()
            if starts:
                broker, passed_over = start()
                known.write_text(json.dumps([_fields(broker), passed_over]))
            else:
                fields, passed_over = json.loads(known.read_text())
                broker = Broker(**fields | {"lacks": frozenset(fields["lacks"])})
            fcntl.flock(users, fcntl.LOCK_SH)  # a process that is killed lets go of it
        try:
            yield broker, passed_over
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            while starts:
                with _alone(directory), suppress(BlockingIOError):
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    known.unlink()
                    broker.stop()
                    break
                time.sleep(0.1)


def _fields(broker: Broker) -> dict[str, object]:
    return {
        "bus": broker.bus,
        "kind": broker.kind,
        "address": broker.address,
        "version": broker.version,
        "lacks": sorted({*broker.lacks, "pause", "restart"}),
    }


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    number = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time look for the broker, start it or stop it."""
    with _opened(directory / "guard") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
